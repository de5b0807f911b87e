"""ONNX programs for one size in operators that small runtimes know, with the same values.

Runtimes that do not know an operator in one form, or compute it wrongly, are named beside what replaces it. They were
seen with `benchmarks/clients.py`. Where it can be, the result is in operators of `OPSET`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, shape_inference

OPSET, IR_VERSION = 17, 8
"""The version of operators that the result has, and the one of files that came with it. onnx2torch knows no newer
operators, and layer norm is an operator since then."""


def plainer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrites a program whose inputs have known sizes, and drops what has no use in it."""
    model = shape_inference.infer_shapes(model, data_prop=True)
    _rewrite(model.graph, REWRITES)
    return _older(model)


def _rewrite(graph: onnx.GraphProto, rewrites: Mapping[str, Rewrite]) -> None:
    known = _Known(graph)
    nodes: list[NodeProto] = []
    for node in list(graph.node):
        rewrite = rewrites.get(node.op_type)
        nodes += [node] if rewrite is None else rewrite(known, node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_identities(graph)
    drop_unused(graph)


def _older(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a program in operators of `OPSET`; as it is when it has newer ones, or others than those of ONNX."""
    versions = [each.version for each in model.opset_import]
    if len(versions) > 1 or any(
        onnx.defs.get_schema(node.op_type, *versions).since_version > OPSET and node.op_type not in OLDER
        for node in model.graph.node
    ):
        return model
    older = onnx.ModelProto()
    older.CopyFrom(model)
    older.opset_import[0].version, older.ir_version = OPSET, IR_VERSION
    _rewrite(older.graph, OLDER)
    try:
        onnx.checker.check_model(older)
    except onnx.checker.ValidationError:  # it uses what is new in one of them
        return model
    return older


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
        name = f"skipnas_{'_'.join(map(str, values))}"
        if name not in self.whole:
            self.whole[name] = list(values)
            self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def number(self, value: float) -> str:
        """Returns the name of a constant number, which is made where the graph has none yet."""
        name = f"skipnas_number_{value}"
        if name not in self.shapes:
            self.shapes[name] = []
            self._graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def piece(self, source: str, target: str, ends: Mapping[int, tuple[int, int]]) -> NodeProto:
        """Returns a node that cuts `target` out of `source`, from the first to before the second of `ends` by axis. It
        is an Identity where this is all."""
        shape = self.shapes.get(source)
        ends = {axis: pair for axis, pair in ends.items() if shape is None or pair != (0, shape[axis])}
        if not ends:
            return helper.make_node("Identity", [source], [target])
        starts, stops = zip(*ends.values(), strict=True)
        names = [self.constant(*each) for each in (starts, stops, tuple(ends))]
        return helper.make_node("Slice", [source, *names], [target])


Rewrite = Callable[[_Known, NodeProto], Iterator[NodeProto]]
"""Yields the nodes that take a node's place."""


def _pad(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Cuts by Slice, repeats the edge by Concat, and drops what pads nothing. OpenCV 4 does not repeat edges. One Slice
    cuts all axes, because onnx2tf cuts other axes by a second one (findings/onnx2tf-takes-other-axes.sh)."""
    mode = next((helper.get_attribute_value(a).decode() for a in node.attribute if a.name == "mode"), "constant")
    sizes = known.whole.get(node.input[1])
    if sizes is None or len(node.input) > 3 or not (max(sizes) <= 0 or (mode == "edge" and min(sizes) >= 0)):
        yield node
        return
    (source, target), rank = (node.input[0], node.output[0]), len(sizes) // 2
    shape = known.shapes[source]
    pairs = list(zip(sizes[:rank], sizes[rank:], strict=True))
    if max(sizes) <= 0:
        ends = {axis: (-before, shape[axis] + after) for axis, (before, after) in enumerate(pairs)}
        yield known.piece(source, target, ends)
        return
    for axis, (before, after) in enumerate(pairs):
        if not (before or after):
            continue
        result = f"skipnas_{target}_axis_{axis}"
        parts = [source]
        if before:
            yield known.piece(source, f"{result}_first", {axis: (0, 1)})
            parts = [f"{result}_first"] * before + parts
        if after:
            yield known.piece(source, f"{result}_last", {axis: (shape[axis] - 1, shape[axis])})
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


REWRITES: Mapping[str, Rewrite] = {
    "Pad": _pad,
    "Tile": _tile,
    "Expand": _expand,
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _widen),
}
"""Operator -> the nodes that take a node's place."""


def _same(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Keeps a node whose operator has got no more than other types of numbers."""
    yield node


def _without(**usual: object) -> Rewrite:
    """Drops attributes that an operator has got, where they are what it does without them."""

    def rewrite(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
        kept = [a for a in node.attribute if usual.get(a.name) != helper.get_attribute_value(a)]
        del node.attribute[:]
        node.attribute.extend(kept)
        yield node

    return rewrite


def _gelu(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Computes GELU by the error function, in the order that ONNX Runtime and OpenCV know for one."""
    if any(a.name == "approximate" and a.s != b"none" for a in node.attribute):
        yield node
        return
    (source,), (target,) = node.input, node.output
    names = [f"skipnas_{target}_{step}" for step in ("scaled", "error", "shifted", "product")]
    yield helper.make_node("Div", [source, known.number(math.sqrt(2))], names[:1])
    yield helper.make_node("Erf", names[:1], names[1:2])
    yield helper.make_node("Add", [names[1], known.number(1)], names[2:3])
    yield helper.make_node("Mul", [source, names[2]], names[3:])
    yield helper.make_node("Mul", [names[3], known.number(0.5)], [target])


def _reduce(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Gives the axes of a reduction as an attribute."""
    axes = known.whole.get(node.input[1]) if len(node.input) > 1 else None
    if axes:
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        node = helper.make_node(node.op_type, node.input[:1], list(node.output), axes=axes, keepdims=keep)
    yield node


def _reshape(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Drops what zeros in a shape mean where there are none; onnx2torch knows no `allowzero`."""
    if 0 not in known.whole.get(node.input[1], [0]):
        node = helper.make_node("Reshape", list(node.input), list(node.output))
    yield node


def _split(known: _Known, node: NodeProto) -> Iterator[NodeProto]:
    """Gives the sizes of the parts instead of their number. One part is all."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    sizes = [known.shapes[part][axis] for part in node.output]
    if len(sizes) == 1:
        yield helper.make_node("Identity", node.input[:1], list(node.output))
    else:
        yield helper.make_node("Split", [node.input[0], known.constant(*sizes)], list(node.output), axis=axis)


OLDER: Mapping[str, Rewrite] = {
    "AveragePool": _same,
    "Cast": _same,
    "Constant": _same,
    "Gelu": _gelu,
    "Identity": _same,
    "Reshape": _reshape,
    "Resize": _without(antialias=0, keep_aspect_ratio_policy=b"stretch"),
    "Split": _split,
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin"), _reduce),
}
"""Operator that is newer than `OPSET` -> the nodes of `OPSET` that take a node's place."""


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
