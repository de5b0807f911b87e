"""The ONNX program of a bundle, opened with suspicion and run by ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.bundles.files import MAX_FILE
from nas.errors import BundleError, in_short, is_out_of_memory
from nas.types import MAX_PARAMS

A = TypeVar("A")
T = TypeVar("T")
INPUT = "noisy"
OUTPUTS = ("denoised", "logits")
"""The outputs; a network without classes has the first alone."""

MAX_NODES = 20_000
"""The limit of the nodes of a program; the largest U-Net of the project has a few thousand."""

MAX_WHOLE = 2**16
"""The limit of an embedded whole number, which may become the side of a tensor, but for the ends of slices."""

OPERATORS = frozenset(
    name
    for line in (
        "Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose",
        "DepthToSpace DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool",
        "GlobalMaxPool Greater GroupNormalization Identity InstanceNormalization LayerNormalization LeakyRelu Less",
        "Log MatMul Max MaxPool Min Mod Mul Neg Not Pad Pow QuantizeLinear Reciprocal ReduceMax ReduceMean",
        "ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub",
        "Sum Tanh Tile Transpose Unsqueeze Where",
    )
    for name in line.split()
)
"""The operators that a stranger's program may have: what the networks of the project's spaces need, in every form in
which torch's exporters write it. None of them repeats a part of the program or opens a file."""


def open_onnx(
    file: Path, *, classes: int | None = None, trusted: bool = False
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Opens a file as a function from noisy images (N, C, H, W), float32, to denoised ones and logits, on the CPU.

    The file may come from a stranger. It is refused unless it contains all of itself (no tensors in other files), has
    only `OPERATORS` and sizes within limits, and has the inputs and outputs of bundles' programs.

    Args:
        file: the program.
        classes: number of logits that it must return; None where this is not known.
        trusted: whether the file was written here a moment ago, from a network that may be of anybody's space. Any
            operator of ONNX may be in it then.

    Raises:
        BundleError: the file is missing, damaged, or no program of a bundle. The function raises it when the program
            fails, or returns something else than such a program does.
    """
    if not file.is_file():
        raise BundleError(f"{file}: is missing; give a folder that `skipnas export` wrote")
    if not 0 < (size := file.stat().st_size) <= MAX_FILE:
        raise BundleError(f"{file}: has {size} bytes, must have 1 to {MAX_FILE}; export the bundle again")
    try:
        content = file.read_bytes()
        model = _foreign(onnx.load_model_from_string, content)
        _check(model, OPERATORS if not trusted else None)
        session = _foreign(_session, content)
    except (OSError, BundleError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{file}: {reason[:200]}; export the bundle again") from None

    def run(noisy: Tensor) -> tuple[Tensor, Tensor]:
        given = noisy.contiguous().numpy()
        try:
            denoised, *others = _foreign(lambda images: session.run(None, {INPUT: images}), given)
        except BundleError as error:
            if error.__cause__ is not None and is_out_of_memory(error.__cause__):  # which is no fault of the file
                raise MemoryError(in_short(error)) from error
            raise BundleError(f"{file}: it fails ({in_short(error)}); export the bundle again") from None
        logits = others[0] if others else np.zeros((len(given), 0), np.float32)
        wanted = (len(given), logits.shape[1] if classes is None and logits.ndim == 2 else classes)
        if denoised.shape != given.shape or logits.shape != wanted:
            raise BundleError(
                f"{file}: for images {given.shape} it returns images {denoised.shape} and logits {logits.shape}, not "
                f"{given.shape} and {wanted}; export the bundle again"
            )
        return torch.from_numpy(denoised), torch.from_numpy(logits)

    return run


def _foreign(call: Callable[[A], T], given: A) -> T:
    """Calls a library with a stranger's file. protobuf, ONNX and its runtime refuse one with many kinds of errors."""
    try:
        return call(given)
    except MemoryError:
        raise
    except Exception as error:
        raise BundleError(str(error) or type(error).__name__) from error


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """Opens a program that was written here a moment ago, whatever its inputs and outputs are."""
    return _session(file.read_bytes())


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # Memory is freed after each run, because the arena would keep the most that any image size has ever needed.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _check(model: onnx.ModelProto, operators: Container[str] | None) -> None:
    """Raises BundleError for anything that no program of a bundle has. Without `operators`, any of ONNX is allowed."""
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise BundleError(f"operator {node.op_type!r} is of {node.domain!r}, not of ONNX")
            if operators is not None and node.op_type not in operators:
                raise BundleError(f"operator {node.op_type!r} is in no program that skipnas writes")
        for tensor in _tensors(graph):
            if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise BundleError(f"tensor {tensor.name!r} lies in another file")
    if operators is not None:
        _check_sizes(model.graph)
    if model.functions:
        raise BundleError(f"function {model.functions[0].name!r} is not of ONNX")
    _foreign(onnx.checker.check_model, model)
    names = [i.name for i in model.graph.input], [o.name for o in model.graph.output]
    if names[0] != [INPUT] or names[1] not in (list(OUTPUTS), list(OUTPUTS[:1])):
        raise BundleError(f"goes from {names[0]} to {names[1]}, must go from {[INPUT]} to {list(OUTPUTS)}")
    for value, rank in zip((*model.graph.input, *model.graph.output), (4, 4, 2), strict=False):
        kind = value.type.tensor_type
        if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != rank:
            raise BundleError(f"{value.name} must be float32 of {rank} dimensions")


def _check_sizes(graph: onnx.GraphProto) -> None:
    """Raises BundleError for sizes that no program of a bundle has, and that a run would need endless memory for."""
    if len(graph.node) > MAX_NODES:
        raise BundleError(f"has {len(graph.node)} nodes, may have {MAX_NODES}")
    weights = 0
    # Biases of an int8 program are whole numbers of any size, which become floats and no sizes of anything.
    dequantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input}
    dequantized -= {name for node in graph.node if node.op_type != "DequantizeLinear" for name in node.input}
    for tensor in _tensors(graph):
        weights += math.prod(tensor.dims)
        if weights > MAX_PARAMS or min(tensor.dims, default=0) < 0:
            raise BundleError(f"tensor {tensor.name!r} is larger than a network's")
    # A slice ends with its images, however far its end lies.
    slices = [node for node in graph.node if node.op_type == "Slice"]
    ends = {name for node in slices for name in node.input[1:3]}
    ends -= {name for node in graph.node if node.op_type != "Slice" for name in node.input}
    ends -= {name for node in slices for name in (node.input[0], *node.input[3:])}
    for name, numbers in _whole_numbers(graph):
        harmless = name in ends or (name in dequantized and numbers.dtype == np.int32)
        if not harmless and (np.abs(numbers.astype(np.float64)) > MAX_WHOLE).any():
            raise BundleError(f"tensor {name!r} has whole numbers above {MAX_WHOLE}")


def _whole_numbers(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.int64] | NDArray[np.int32]]]:
    """Yields the embedded whole numbers of the types that sizes have, with the name by which nodes take them."""
    for name, tensor in _named_tensors(graph):
        if tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            yield name, _foreign(onnx.numpy_helper.to_array, tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value_int", "value_ints"):
                yield "".join(node.output[:1]), np.array([attribute.i, *attribute.ints], np.int64)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for _, tensor in _named_tensors(graph):
        yield tensor


def _named_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yields the embedded tensors of a graph with their names, which are those of its output in a constant."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for sparse in graph.sparse_initializer:
        for tensor in (sparse.values, sparse.indices):
            yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield "".join(node.output[:1]) if node.op_type == "Constant" else tensor.name, tensor
