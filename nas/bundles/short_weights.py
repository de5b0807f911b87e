"""The ONNX program of a bundle with weights of fewer bits, which it computes with as float32.

The file is smaller. It needs no images to be made, and no instructions for small numbers to be run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LEAST = 64
"""The numbers that a tensor has at least to be shortened. Its further node would take the bytes that fewer save."""

Short = tuple[str, Mapping[str, Any], list[NDArray[Any]]]
"""An operator, its attributes, and the tensors of which it makes one of float32."""


def float16_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a program whose weights are float16. Runtimes make float32 of them once, when they open it."""

    def short(name: str, values: NDArray[np.float32]) -> Short | None:
        if np.abs(values).max() > np.finfo(np.float16).max:
            return None
        return "Cast", {"to": TensorProto.FLOAT}, [values.astype(np.float16)]

    return _shortened(model, short)


CHANNELS = {"Conv": 0, "ConvTranspose": 1}
"""Operator -> the axis of its weights along which the channels are that it writes. Linear layers are not here: ONNX
Runtime would round what they are given to 8 bits as well (findings/onnxruntime-rounds-beside-int8-weights.sh)."""


def int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a program whose weights of convolutions are int8, with a scale for each channel that they write. Some
    runtimes make float32 of them in every run."""
    axes = {node.input[1]: CHANNELS[node.op_type] for node in model.graph.node if node.op_type in CHANNELS}

    def short(name: str, values: NDArray[np.float32]) -> Short | None:
        if name not in axes:
            return None
        others = tuple(axis for axis in range(values.ndim) if axis != axes[name])
        scale = np.abs(values).max(others) / np.float32(127)
        scale[scale == 0] = 1
        steps = np.round(values / np.expand_dims(scale, others)).astype(np.int8)
        return "DequantizeLinear", {"axis": axes[name]}, [steps, scale]

    return _shortened(model, short)


def _shortened(model: onnx.ModelProto, short: Callable[[str, NDArray[np.float32]], Short | None]) -> onnx.ModelProto:
    """Returns a program in which nodes make the tensors that `short` shortens."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    tensors, nodes = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        found = short(tensor.name, values) if values.dtype == np.float32 and values.size >= LEAST else None
        if found is None:
            tensors.append(tensor)
            continue
        operator, attributes, parts = found
        names = [f"skipnas_{tensor.name}_{place}" for place in range(len(parts))]
        tensors += [numpy_helper.from_array(part, name) for part, name in zip(parts, names, strict=True)]
        nodes.append(helper.make_node(operator, names, [tensor.name], **attributes))
    nodes += graph.node
    for field, written in ((graph.initializer, tensors), (graph.node, nodes)):
        del field[:]
        field.extend(written)
    onnx.checker.check_model(result)
    return result
