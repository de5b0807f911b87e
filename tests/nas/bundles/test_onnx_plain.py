"""Programs for one size: operators that small runtimes know, with the values of those that they do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nas.bundles.onnx_plain import plainer


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
