"""The ONNX program of a bundle: opened with suspicion, run by ONNX Runtime, and converted to int8."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.export import ExportedProgram

from nas.errors import BundleError

A = TypeVar("A")
T = TypeVar("T")
INPUT = "noisy"
OUTPUTS = ("denoised", "logits")
MAX_ONNX = 2**30
"""The limit in bytes of an ONNX file: more than 200 million parameters and their graph."""

CALIBRATION_BATCH = 16


def open_onnx(file: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Opens a file as a function from noisy images (N, C, H, W), float32, to denoised ones and logits, on the CPU.

    The file may come from a stranger. It is refused unless it contains all of itself (no tensors in other files), uses
    the operators of ONNX alone, and has the inputs and outputs of bundles' programs.

    Raises:
        BundleError: the file is missing, damaged, or no program of a bundle.
    """
    if not file.is_file():
        raise BundleError(f"{file}: is missing; give a folder that `skipnas export` wrote")
    if not 0 < (size := file.stat().st_size) <= MAX_ONNX:
        raise BundleError(f"{file}: has {size} bytes, must have 1 to {MAX_ONNX}; export the bundle again")
    try:
        content = file.read_bytes()
        model = _foreign(onnx.load_model_from_string, content)
        _check(model)
        session = _foreign(_session, content)
    except (OSError, BundleError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{file}: {reason[:200]}; export the bundle again") from None

    def run(noisy: Tensor) -> tuple[Tensor, Tensor]:
        denoised, logits = session.run(OUTPUTS, {INPUT: noisy.contiguous().numpy()})
        return torch.from_numpy(denoised), torch.from_numpy(logits)

    return run


def write_onnx(program: ExportedProgram, file: Path) -> None:
    """Writes a program of torch.export as ONNX: `INPUT` to `OUTPUTS`, without notes about its origin."""
    exported = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS), verbose=False)
    assert exported is not None  # only the old exporter returns None
    model: onnx.ModelProto = exported.model_proto
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
    # Shapes inside the graph have symbols that only torch knows; runtimes infer them again.
    graph.ClearField("value_info")
    for image in (graph.input[0], graph.output[0]):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            image.type.tensor_type.shape.dim[axis].dim_param = name
    graph.output[1].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def _foreign(call: Callable[[A], T], given: A) -> T:
    """Calls a library with a stranger's file. protobuf, ONNX and its runtime refuse one with many kinds of errors."""
    try:
        return call(given)
    except MemoryError:
        raise
    except Exception as error:
        raise BundleError(str(error) or type(error).__name__) from error


def quantize(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    """Converts a program to int8: weights per channel, activations by their range over `images`.

    Args:
        model: a program with input `INPUT` and outputs `OUTPUTS`.
        images: noisy training images (N, C, H, W), float32, that show the activations' ranges.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(images.cpu().contiguous().split(CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory(prefix="skipnas-int8-") as folder, _quantizer_quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model.SerializeToString())
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result: onnx.ModelProto = onnx.load_model_from_string(target.read_bytes())
    result.ClearField("metadata_props")
    result.graph.ClearField("value_info")
    onnx.checker.check_model(result)
    return result


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # Memory is freed after each run, because the arena would keep the most that any image size has ever needed.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _check(model: onnx.ModelProto) -> None:
    """Raises BundleError for anything that no program of a bundle has."""
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise BundleError(f"operator {node.op_type!r} is of {node.domain!r}, not of ONNX")
        for tensor in _tensors(graph):
            if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise BundleError(f"tensor {tensor.name!r} lies in another file")
    if model.functions:
        raise BundleError(f"function {model.functions[0].name!r} is not of ONNX")
    _foreign(onnx.checker.check_model, model)
    names = [i.name for i in model.graph.input], [o.name for o in model.graph.output]
    if names != ([INPUT], list(OUTPUTS)):
        raise BundleError(f"goes from {names[0]} to {names[1]}, must go from {[INPUT]} to {list(OUTPUTS)}")
    for value, rank in ((model.graph.input[0], 4), (model.graph.output[0], 4), (model.graph.output[1], 2)):
        kind = value.type.tensor_type
        if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != rank:
            raise BundleError(f"{value.name} must be float32 of {rank} dimensions")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


@contextlib.contextmanager
def _quantizer_quiet() -> Iterator[None]:
    """Suppresses the quantizer's advice, which is about its own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
