"""Programs whose weights have fewer bits, which compute with as float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.bundles.short_weights import LEAST, float16_weights, int8_weights

RNG = np.random.default_rng(0)
WEIGHTS = {
    "first": RNG.standard_normal((8, 2, 3, 3)).astype(np.float32),
    "up": RNG.standard_normal((8, 4, 2, 2)).astype(np.float32),
    "head": RNG.standard_normal((20, 4)).astype(np.float32),
    "turned": RNG.standard_normal((20, 20)).astype(np.float32),
    "bias": RNG.standard_normal(8).astype(np.float32),
    "shift": RNG.standard_normal((1, 4, 8, 8)).astype(np.float32),
}
WEIGHTS["first"][3] = 0  # a channel that was switched off has no scale


@pytest.fixture
def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["b", "shift"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "head"], ["f"], transB=1),
        helper.make_node("Gemm", ["f", "turned"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 4, 4]), ("y", [1, 20]))]
    tensors = [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()]
    graph = helper.make_graph(nodes, "made up", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: onnx.ModelProto) -> np.ndarray:
    image = np.linspace(0, 1, 32, dtype=np.float32).reshape(1, 2, 4, 4)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0]


def with_weights(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The program with these weights as float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights.get(tensor.name, WEIGHTS[tensor.name]), tensor.name))
    return result


def test_float16_weights_are_those_that_are_nearest(model: onnx.ModelProto) -> None:
    nearest = {name: w.astype(np.float16).astype(np.float32) for name, w in WEIGHTS.items() if w.size >= LEAST}
    short = float16_weights(model)
    assert nearest.keys() == WEIGHTS.keys() - {"bias"}
    np.testing.assert_array_equal(run(short), run(with_weights(model, nearest)))
    assert short.ByteSize() < 0.8 * model.ByteSize()


def test_int8_weights_are_steps_of_each_channel_that_a_convolution_writes(model: onnx.ModelProto) -> None:
    nearest = {}
    for name, axis in (("first", 0), ("up", 1)):
        rows = np.moveaxis(WEIGHTS[name], axis, 0)
        rounded = [row if not row.any() else np.round(row / (s := np.abs(row).max() / 127)) * s for row in rows]
        nearest[name] = np.moveaxis(np.array(rounded, np.float32), 0, axis)
        assert np.abs(nearest[name] - WEIGHTS[name]).max() <= np.abs(WEIGHTS[name]).max() / 254 * 1.001
    np.testing.assert_allclose(run(int8_weights(model)), run(with_weights(model, nearest)), rtol=1e-5, atol=1e-5)
    short = {t.name for t in int8_weights(model).graph.initializer if t.data_type == TensorProto.INT8}
    assert short == {"skipnas_first_0", "skipnas_up_0"}


def test_weights_that_float16_does_not_hold_stay(model: onnx.ModelProto) -> None:
    large = {"turned": WEIGHTS["turned"] * np.float32(1e5)}
    found = run(float16_weights(with_weights(model, large)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, run(with_weights(model, large)), rtol=0.01)
