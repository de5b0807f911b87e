#!/usr/bin/env bash
# onnx2tf cuts and joins images along other axes than an ONNX program does, and says nothing.
#
# Seen with: onnx2tf 2.6.9 with ai-edge-litert 2.1.2 from PyPI on 2026-11-29, Python 3.12, Linux x86-64.
# Behaviour: the converter moves channels to the last axis, and guesses by shapes which images have been moved. It ends
#   with 0 and without a warning in both cases:
#   - after a convolution with 3 channels one Slice cuts the rows and a second one the columns. The second cuts the rows
#     as if they were channels. One Slice for both axes is right.
#   - 16 channels of 8x8 are split into two times 8, scaled and joined again by Concat. Values are wrong. At 16x16 they
#     are right, where no axis of a part is as long as its channels.
# Output seen:
#   onnx2tf 2.6.9
#   two slices: shape (1, 3, 5, 3), should be (1, 3, 5, 6)
#   one slice: right
#   parts of 8 channels and 8x8 joined: differs by 1
#   parts of 8 channels and 16x16 joined: right
#   it takes other axes, as before
# Fails (exit 1) when that changes; nas/bundles/onnx_plain.py (_pad) could then cut one axis after the other, and
#   docs/bundles.md has a line less.
#
# Usage: [PYTHON=python3.12] findings/onnx2tf-takes-other-axes.sh [VERSION OF onnx2tf]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "onnx2tf==${1:-2.6.9}"
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def compared(nodes, constants, given, wanted):
    """What LiteRT makes of a program from x to y, beside ONNX's own evaluator."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", given), ("y", wanted))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "axes", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    command = [sys.executable, "-m", "onnx2tf", "-i", "model.onnx", "-o", "converted", "-n"]
    subprocess.run(command, check=True, capture_output=True)
    network = Interpreter("converted/model_float32.tflite")
    network.allocate_tensors()
    x = np.linspace(-1, 1, np.prod(given), dtype=np.float32).reshape(given)
    network.set_tensor(network.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
    network.invoke()
    found = network.get_tensor(network.get_output_details()[0]["index"])
    (right,) = ReferenceEvaluator(model).run(None, {"x": x})
    # The channels of the result are where they are in the program, or last.
    same = [each for each in (right, right.transpose(0, 2, 3, 1)) if each.shape == found.shape]
    if not same:
        return f"shape {found.shape}, should be {right.shape}"
    difference = min(float(np.abs(found - each).max()) for each in same)
    return "right" if difference < 1e-5 else f"differs by {difference:.1g}"


def cut(*slices):
    """Cuts the first rows (axis 2) and columns (axis 3) out of an image of 3 channels."""
    constants = {"weight": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}
    nodes = [helper.make_node("Conv", ["x", "weight"], ["cut 0"], kernel_shape=[1, 1])]
    for place, ends in enumerate(slices, 1):
        parts = {"starts": [0] * len(ends), "ends": list(ends.values()), "axes": list(ends)}
        constants |= {f"{part} {place}": numbers for part, numbers in parts.items()}
        result = "y" if place == len(slices) else f"cut {place}"
        nodes.append(helper.make_node("Slice", [f"cut {place - 1}", *(f"{part} {place}" for part in parts)], [result]))
    return compared(nodes, constants, (1, 3, 8, 8), (1, 3, 5, 6))


def joined(side):
    """Splits 16 channels into two parts, and joins two sums of them again."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 16, 1, 1)).astype(np.float32) / 4
    constants = {"weight": weight, "sizes": [8, 8], "a": np.float32(0.25), "b": np.float32(0.75)}
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Split", ["r", "sizes"], ["p", "q"], axis=1),
        *(helper.make_node("Mul", [by, part], [by + part]) for by in "ab" for part in "pq"),
        helper.make_node("Add", ["ap", "bq"], ["s"]),
        helper.make_node("Add", ["bp", "aq"], ["t"]),
        helper.make_node("Concat", ["s", "t"], ["k"], axis=1),
        helper.make_node("Conv", ["k", "weight"], ["y"], kernel_shape=[1, 1]),
    ]
    return compared(nodes, constants, (1, 16, side, side), (1, 16, side, side))


print("onnx2tf", version("onnx2tf"))
found = {
    "two slices": cut({2: 5}, {3: 6}),
    "one slice": cut({2: 5, 3: 6}),
    "parts of 8 channels and 8x8 joined": joined(8),
    "parts of 8 channels and 16x16 joined": joined(16),
}
for name, said in found.items():
    print(f"{name}: {said}")
as_before = [said == "right" for said in found.values()] == [False, True, False, True]
print("it takes other axes, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
