"""ONNX programs for one size in operators that small runtimes know, with the same values.

Runtimes that do not know an operator in one form, or compute it wrongly, are named beside what replaces it. They were
seen with `benchmarks/clients.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, shape_inference


def plainer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrites a program whose inputs have known sizes, and drops what has no use in it."""
    model = shape_inference.infer_shapes(model, data_prop=True)
    known = _Known(model.graph)
    nodes: list[NodeProto] = []
    for node in list(model.graph.node):
        rewrite = REWRITES.get(node.op_type)
        nodes += [node] if rewrite is None else rewrite(known, node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_identities(model.graph)
    drop_unused(model.graph)
    return model


def drop_unused(graph: onnx.GraphProto) -> None:
    """Drops the nodes and constants that no output of the graph depends on."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, constants)):
        del field[:]
        field.extend(values)


class _Known:
    """What is known of a graph's values: the shape of each, and the numbers of small constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._made: dict[tuple[int, ...], str] = {}
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self.shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self.whole = {
            tensor.name: [int(number) for number in numpy_helper.to_array(tensor).reshape(-1)]
            for tensor in graph.initializer
            if tensor.data_type == onnx.TensorProto.INT64
        }

    def constant(self, *values: int) -> str:
        """Returns the name of a constant of whole numbers, which is made where the graph has none yet."""
        if values not in self._made:
            self._made[values] = f"skipnas_{'_'.join(map(str, values))}"
            self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), self._made[values]))
        return self._made[values]

    def piece(self, source: str, target: str, axis: int, start: int, stop: int) -> NodeProto:
        """Returns a node that cuts `target` out of `source`."""
        ends = (self.constant(number) for number in (start, stop, axis))
        return helper.make_node("Slice", [source, *ends], [target])


def _pad(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Cuts by Slice, repeats the edge by Concat, and drops what pads nothing. OpenCV 4 does not repeat edges."""
    mode = next((helper.get_attribute_value(a).decode() for a in node.attribute if a.name == "mode"), "constant")
    sizes = known.whole.get(node.input[1])
    if sizes is None or len(node.input) > 3 or not (max(sizes) <= 0 or (mode == "edge" and min(sizes) >= 0)):
        yield node
        return
    (source, target), rank = (node.input[0], node.output[0]), len(sizes) // 2
    shape = known.shapes[source]
    for axis, (before, after) in enumerate(zip(sizes[:rank], sizes[rank:], strict=True)):
        if not (before or after):
            continue
        result = f"skipnas_{target}_axis_{axis}"
        if max(before, after) <= 0:
            yield known.piece(source, result, axis, -before, shape[axis] + after)
        else:
            parts = [source]
            if before:
                yield known.piece(source, f"{result}_first", axis, 0, 1)
                parts = [f"{result}_first"] * before + parts
            if after:
                yield known.piece(source, f"{result}_last", axis, shape[axis] - 1, shape[axis])
                parts += [f"{result}_last"] * after
            yield helper.make_node("Concat", parts, [result], axis=axis)
        source = result
    yield helper.make_node("Identity", [source], [target])


def _tile(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Repeats along one axis by Concat; pnnx makes of Tile a layer that ncnn does not have."""
    sizes = known.whole.get(node.input[1], [])
    axes = [axis for axis, copies in enumerate(sizes) if copies != 1]
    if len(axes) != 1:
        yield node
        return
    yield helper.make_node("Concat", [node.input[0]] * sizes[axes[0]], list(node.output), axis=axes[0])


def _expand(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Drops an Expand that changes nothing."""
    same = known.shapes.get(node.input[0]) == known.shapes.get(node.output[0])
    yield helper.make_node("Identity", [node.input[0]], list(node.output)) if same else node


def _widen(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Repeats an image of one channel before it meets one of several; OpenCV 5 gives their product a wrong shape."""
    wanted = known.shapes[node.output[0]]
    for place, name in enumerate(node.input):
        if (
            (shape := known.shapes[name]) != wanted
            and len(shape) == 4
            and [*shape[:1], *shape[2:]]
            == [
                *wanted[:1],
                *wanted[2:],
            ]
        ):
            wide = f"skipnas_{node.output[0]}_wide_{place}"
            yield helper.make_node("Expand", [name, known.constant(*wanted)], [wide])
            node.input[place] = wide
    yield node


REWRITES: Mapping[str, Callable[[_Known, NodeProto], Iterator[NodeProto]]] = {
    "Pad": _pad,
    "Tile": _tile,
    "Expand": _expand,
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _widen),
}
"""Operator -> the nodes that take a node's place."""


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Lets the readers of an Identity read its input, and the node before an output write the output itself."""
    outputs, made = {value.name for value in graph.output}, {name for node in graph.node for name in node.output}
    names: dict[str, str] = {}
    kept = []
    for node in graph.node:
        source = names.get(node.input[0], node.input[0]) if node.op_type == "Identity" else ""
        if node.op_type != "Identity":
            kept.append(node)
        elif node.output[0] not in outputs:
            names[node.output[0]] = source
        elif source in made and source not in outputs:
            names = {name: node.output[0] if old == source else old for name, old in names.items()}
            names[source] = node.output[0]
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.node[:]
    graph.node.extend(kept)
