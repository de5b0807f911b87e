"""ONNX programs written: for every size, for one size alone, and with whole numbers in and out.

Sizes are numbers in a program for one size, so that torch's exporter computes what depends on them, and
`nas.bundles.onnx_plain` replaces the operators that small runtimes do not know.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper, shape_inference
from torch import nn
from torch.export import ExportedProgram

from nas.bundles.onnx_model import INPUT, OUTPUTS
from nas.bundles.onnx_plain import drop_unused, plainer
from nas.types import Task

if TYPE_CHECKING:
    from nas.bundles.formats import Exportable

OPSET, IR_VERSION = 20, 9
"""The versions of operators and of files. GELU is an operator since opset 20, which came with these files. ONNX Runtime
runs both since `nas.bundles.formats.LOWEST_RUNTIME`."""

PROBABILITIES = "probabilities"
"""The second output of a program with whole numbers, in place of the logits."""


def write_onnx(made: Exportable, file: Path) -> None:
    """Writes the program for every batch, height and width: `INPUT` to `OUTPUTS`."""
    model = _copied(made.model)
    image = model.graph.input[0], model.graph.output[0]
    for value in image:
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for value in model.graph.output[1:]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _save(model, made.said, file)


def write_fixed(made: Exportable, height: int, width: int, file: Path) -> None:
    """Writes a program for one image of `height` and `width`, without Pad, Shape and Mod."""
    _save(fixed_model(made.network, made.task, height, width), made.said, file)


def fixed_model(network: nn.Module, task: Task, height: int, width: int, batch: int = 1) -> onnx.ModelProto:
    """Returns the program of a network, on the CPU in evaluation mode, for `batch` images of `height` and `width`."""
    example = torch.zeros(batch, task.channels, height, width)
    program = torch.export.export(network, (example,))
    return plainer(shape_inference.infer_shapes(converted(program, task), data_prop=True))


@contextlib.contextmanager
def exporters_quiet() -> Iterator[None]:
    """Suppresses prints and warnings of torch's exporters, which are about their own internals."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def write_integers(made: Exportable, top: int, file: Path) -> None:
    """Writes the program with whole numbers from 0 to `top` in and out, and with probabilities instead of logits."""
    model = _copied(made.model)
    graph = model.graph
    kind = onnx.TensorProto.UINT8 if top < 2**8 else onnx.TensorProto.UINT16
    inner = {name: f"skipnas_{name}" for name in (INPUT, *OUTPUTS)}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    before = [
        helper.make_node("Cast", [INPUT], ["skipnas_pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["skipnas_pixels", "skipnas_white"], [inner[INPUT]]),
    ]
    after = [
        helper.make_node("Clip", [inner[OUTPUTS[0]], "skipnas_zero", "skipnas_one"], ["skipnas_clipped"]),
        helper.make_node("Mul", ["skipnas_clipped", "skipnas_white"], ["skipnas_scaled"]),
        helper.make_node("Round", ["skipnas_scaled"], ["skipnas_rounded"]),
        helper.make_node("Cast", ["skipnas_rounded"], [OUTPUTS[0]], to=kind),
    ]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("skipnas_white", top), ("skipnas_zero", 0), ("skipnas_one", 1))
    )
    shape: list[str | int | None] = ["batch", made.task.channels, "height", "width"]
    outputs = [helper.make_tensor_value_info(OUTPUTS[0], kind, shape)]
    if made.task.classifies:
        after.append(helper.make_node("Softmax", [inner[OUTPUTS[1]]], [PROBABILITIES], axis=1))
        outputs.append(
            helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, ["batch", made.task.classes])
        )
    nodes = [*before, *graph.node, *after]
    for field, values in (
        (graph.input, [helper.make_tensor_value_info(INPUT, kind, shape)]),
        (graph.output, outputs),
        (graph.node, nodes),
    ):
        del field[:]
        field.extend(values)
    whole = f"{'uint8' if kind == onnx.TensorProto.UINT8 else 'uint16'} from 0 to {top}"
    said = {
        **made.said,
        INPUT: f"noisy images (N, C, H, W), {made.said['colours']}, {whole}",
        OUTPUTS[0]: f"restored images of the same shape, {whole}",
        PROBABILITIES: "(N, K): the probability of each class, in the order of `classes`",
    }
    _save(model, {name: text for name, text in said.items() if name != OUTPUTS[1]}, file)


def converted(program: ExportedProgram, task: Task) -> onnx.ModelProto:
    """Converts a program of torch.export, without notes about its origin and without an output of no classes."""
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=list(OUTPUTS), verbose=False
    )
    assert exported is not None  # only the old exporter returns None
    model: onnx.ModelProto = exported.model_proto
    model.ir_version = IR_VERSION
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
    # Shapes inside the graph have symbols that only torch knows; runtimes infer them again.
    graph.ClearField("value_info")
    if not task.classifies:
        del graph.output[1:]
        drop_unused(graph)
    return model


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _save(model: onnx.ModelProto, said: Mapping[str, str], file: Path) -> None:
    """Writes a program that says what it is: its metadata, and a sentence for each input and output."""
    model.producer_name, model.producer_version = "skipnas", said["skipnas"]
    model.doc_string = said["title"]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = said[value.name]
    helper.set_model_props(model, dict(said))
    model.graph.ClearField("value_info")
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))
