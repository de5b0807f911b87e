"""Programs for one size: operators that small runtimes know, with the values of those that they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nas.bundles.onnx_plain import IR_VERSION, OPSET, plainer


def program(nodes: Sequence[NodeProto], given: list[int], result: list[int], **constants: object) -> onnx.ModelProto:
    """A program from ``x`` to ``y``."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", given), ("y", result))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "made up", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def check(model: onnx.ModelProto, given: Sequence[int]) -> set[str]:
    """The operators of the rewritten program, which computes the same."""
    images = np.random.default_rng(0).random(given, dtype=np.float32)
    wanted = run(model, images)
    plain = plainer(model)
    onnx.checker.check_model(plain, full_check=True)
    np.testing.assert_array_equal(run(plain, images), wanted)
    return {node.op_type for node in plain.graph.node}


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


NEGATE = helper.make_node("Neg", ["x"], ["n"])


@pytest.mark.parametrize(
    ("sizes", "mode", "result", "left"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], "edge", [1, 2, 3, 5], {"Neg"}),
        ([0, 0, 0, 0, 0, 0, 2, 0], "edge", [1, 2, 5, 5], {"Neg", "Slice", "Concat"}),
        ([0, 0, 1, 2, 0, 0, 2, 3], "edge", [1, 2, 6, 10], {"Neg", "Slice", "Concat"}),
        ([0, 0, 0, 0, 0, 0, -1, -2], "constant", [1, 2, 2, 3], {"Neg", "Slice"}),
        ([0, 0, -1, 0, 0, 0, 0, -2], "constant", [1, 2, 2, 3], {"Neg", "Slice"}),
        ([0, 0, 0, 0, 0, 0, 1, 1], "constant", [1, 2, 4, 6], {"Neg", "Pad"}),
        ([0, 0, 1, 1, 0, 0, 1, 1], "reflect", [1, 2, 5, 7], {"Neg", "Pad"}),
    ],
)
def test_padding(sizes: list[int], mode: str, result: list[int], left: set[str]) -> None:
    pad = helper.make_node("Pad", ["n", "sizes"], ["y"], mode=mode)
    model = program([NEGATE, pad], [1, 2, 3, 5], result, sizes=np.array(sizes, np.int64))
    assert check(model, [1, 2, 3, 5]) == left


def test_a_copy_of_channels_is_joined_and_a_copy_of_nothing_dropped() -> None:
    tile = helper.make_node("Tile", ["n", "times"], ["t"])
    expand = helper.make_node("Expand", ["t", "shape"], ["y"])
    shape, times = np.array([1, 6, 3, 4]), np.array([1, 3, 1, 1])
    model = program([NEGATE, tile, expand], [1, 2, 3, 4], [1, 6, 3, 4], times=times, shape=shape)
    assert check(model, [1, 2, 3, 4]) == {"Neg", "Concat"}


@pytest.mark.parametrize("axis", [1, -3])
def test_a_split_gives_sizes_and_one_into_one_part_is_dropped(axis: int) -> None:
    parts = helper.make_node("Split", ["n"], ["a", "b"], axis=axis, num_outputs=2)
    whole = helper.make_node("Split", ["b"], ["c"], axis=axis, num_outputs=1)
    joined = helper.make_node("Concat", ["c", "a"], ["y"], axis=1)
    model = program([NEGATE, parts, whole, joined], [1, 5, 3, 4], [1, 5, 3, 4])
    assert check(model, [1, 5, 3, 4]) == {"Neg", "Split", "Concat"}
    assert plainer(model).opset_import[0].version == OPSET


def test_one_slice_cuts_all_axes() -> None:
    pad = helper.make_node("Pad", ["n", "sizes"], ["y"])
    model = program([NEGATE, pad], [1, 2, 5, 6], [1, 2, 3, 4], sizes=np.array([0, 0, -1, 0, 0, 0, -1, -2]))
    assert [node.op_type for node in plainer(model).graph.node] == ["Neg", "Slice"]


@pytest.mark.parametrize(
    ("node", "result", "constants", "left"),
    [
        (helper.make_node("Gelu", ["x"], ["y"]), [1, 2, 3, 4], {}, {"Div", "Erf", "Add", "Mul"}),
        (helper.make_node("ReduceMean", ["x", "axes"], ["y"]), [1, 2, 1, 1], {"axes": [2, 3]}, {"ReduceMean"}),
        (helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0), [1, 3, 4], {"axes": [-3]}, {"ReduceMax"}),
        (helper.make_node("ReduceMin", ["x"], ["y"]), [1, 1, 1, 1], {}, {"ReduceMin"}),
        (helper.make_node("Reshape", ["x", "to"], ["y"], allowzero=1), [1, 24], {"to": [1, 24]}, {"Reshape"}),
        (
            helper.make_node("Resize", ["x", "", "by"], ["y"], keep_aspect_ratio_policy="stretch", antialias=0),
            [1, 2, 6, 8],
            {"by": np.array([1, 1, 2, 2], np.float32)},
            {"Resize"},
        ),
    ],
)
def test_newer_operators_become_older_ones(
    node: NodeProto, result: list[int], constants: dict[str, object], left: set[str]
) -> None:
    model = program([node], [1, 2, 3, 4], result, **constants)
    images = np.random.default_rng(0).standard_normal((1, 2, 3, 4), dtype=np.float32)
    wanted = run(model, images)
    older = plainer(model)
    assert (older.opset_import[0].version, older.ir_version) == (OPSET, IR_VERSION)
    onnx.checker.check_model(older, full_check=True)
    np.testing.assert_allclose(run(older, images), wanted, rtol=0, atol=1e-6)
    assert {each.op_type for each in older.graph.node} == left


@pytest.mark.parametrize(
    ("node", "result"),
    [
        (helper.make_node("Gelu", ["n"], ["y"], approximate="tanh"), [1, 2, 3, 4]),
        (helper.make_node("Resize", ["n", "", "", "to"], ["y"], mode="linear", antialias=1), [1, 2, 3, 2]),
        (helper.make_node("Mish", ["n"], ["y"]), [1, 2, 3, 4]),
    ],
)
def test_a_program_that_needs_a_newer_operator_keeps_its_version(node: NodeProto, result: list[int]) -> None:
    nodes = [NEGATE, helper.make_node("ReduceMean", ["n", "axes"], ["m"]), node]
    model = program(nodes, [1, 2, 3, 4], result, axes=np.array([3]), to=np.array(result))
    kept = plainer(model)
    assert kept.opset_import[0].version == 20
    assert kept.graph.node[-1] == node


@pytest.mark.parametrize("operands", [["a", "x"], ["x", "a"]])
def test_one_channel_is_repeated_before_it_meets_several(operands: list[str]) -> None:
    first = helper.make_node("Conv", ["x", "weight"], ["a"], kernel_shape=[1, 1])
    model = program(
        [first, helper.make_node("Mul", operands, ["y"])],
        [1, 8, 4, 4],
        [1, 8, 4, 4],
        weight=np.ones((1, 8, 1, 1), np.float32),
    )
    assert check(model, [1, 8, 4, 4]) == {"Conv", "Expand", "Mul"}


def test_one_number_for_each_channel_stays_as_it_is() -> None:
    pooled = helper.make_node("GlobalAveragePool", ["x"], ["a"])
    model = program([pooled, helper.make_node("Mul", ["a", "x"], ["y"])], [1, 8, 4, 4], [1, 8, 4, 4])
    assert check(model, [1, 8, 4, 4]) == {"GlobalAveragePool", "Mul"}


def test_what_no_output_needs_is_dropped() -> None:
    unused = helper.make_node("Add", ["x", "one"], ["z"])
    model = program(
        [NEGATE, unused, helper.make_node("Abs", ["n"], ["y"])], [1, 1, 2, 2], [1, 1, 2, 2], one=np.float32(1)
    )
    plain = plainer(model)
    assert [node.op_type for node in plain.graph.node] == ["Neg", "Abs"]
    assert not plain.graph.initializer


def test_a_program_that_only_copies_its_input_keeps_a_node() -> None:
    model = program([helper.make_node("Identity", ["x"], ["y"])], [1, 1, 2, 2], [1, 1, 2, 2])
    assert check(model, [1, 1, 2, 2]) == {"Identity"}
