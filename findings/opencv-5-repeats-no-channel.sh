#!/usr/bin/env bash
# OpenCV 5 gives the product of an image of one channel and one of several a wrong shape.
#
# Seen with: opencv-python-headless 5.0.0.93 from PyPI on 2026-11-28, Python 3.11, Linux x86-64. 4.10.0.84 is right.
# Behaviour: in an ONNX program both operands of Mul are outputs of convolutions, one with 1 channel and one with 4.
#   ONNX repeats the one channel. The new engine of OpenCV keeps such images in blocks of 8 channels, and returns an
#   array of 5 axes without an error. Where a convolution follows, an assertion in convInferShape fails, which names
#   neither of them. With an Expand of the one channel before the product the result is right.
# Output seen:
#   OpenCV 5.0.0
#   product: shape (1, 1, 4, 4, 8), should be (1, 4, 4, 4)
#   product after Expand: shape (1, 4, 4, 4), should be (1, 4, 4, 4)
#   the product has a wrong shape, as before
# Fails (exit 1) when that changes; nas/bundles/onnx_plain.py (_widen) could then go.
#
# Usage: findings/opencv-5-repeats-no-channel.sh [VERSION OF opencv-python-headless]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "opencv-python-headless==${1:-5.0.0.93}" onnx==1.23.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4, 4, 4)


def shape_of(expanded):
    """The shape that OpenCV gives the product."""
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    constants = {"w": np.ones((4, 4, 1, 1), np.float32), "one": np.ones((1, 4, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["four"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["four", "one"], ["single"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["wide" if expanded else "single", "four"], ["y"]),
    ]
    if expanded:
        constants["shape"] = np.array(SHAPE)
        nodes.insert(2, helper.make_node("Expand", ["single", "shape"], ["wide"]))
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", images[:1], images[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    network.setInput(np.ones(SHAPE, np.float32))
    return network.forward().shape


print("OpenCV", cv2.__version__)
found = {"product": shape_of(False), "product after Expand": shape_of(True)}
for name, shape in found.items():
    print(f"{name}: shape {shape}, should be {SHAPE}")
as_before = found["product"] != SHAPE and found["product after Expand"] == SHAPE
print("the product has a wrong shape, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
