#!/usr/bin/env bash
# ONNX Runtime rounds what a linear layer is given to 8 bits, where only its weights are int8 in the program.
#
# Seen with: onnxruntime 1.32.0 from PyPI on 2026-11-29, Python 3.11, Linux x86-64.
# Behaviour: a program multiplies float32 numbers by weights that DequantizeLinear makes of int8. On a CPU its default
#   optimisation replaces both by MatMulNBits, which by default computes at accuracy level 4: it rounds the float32
#   numbers to 8 bits, too. Nothing in the program asks for that. The values differ by a hundredth of the largest one,
#   without a warning. They are right without the extended optimisations, or with the session's configuration entry
#   session.qdq_matmulnbits_accuracy_level = 1.
# Output seen:
#   onnxruntime 1.32.0
#   as it comes: differs by 7e-03
#   with basic optimisations: differs by 1e-07
#   with session.qdq_matmulnbits_accuracy_level = 1: differs by 9e-08
#   it rounds, as before
# Fails (exit 1) when that changes; nas/bundles/short_weights.py (CHANNELS) could then take linear layers as well.
#
# Usage: findings/onnxruntime-rounds-beside-int8-weights.sh [VERSION OF ONNXRUNTIME]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "onnxruntime==${1:-1.32.0}" onnx==1.23.2
cd "$folder"
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = rng.integers(-127, 128, (64, 32)).astype(np.int8)
scale = rng.uniform(0.001, 0.01, 32).astype(np.float32)
x = rng.standard_normal((1, 64)).astype(np.float32)
nodes = [
    helper.make_node("DequantizeLinear", ["weights", "scale"], ["w"], axis=1),
    helper.make_node("MatMul", ["x", "w"], ["y"]),
]
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 64]), ("y", [1, 32]))]
tensors = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(scale, "scale")]
graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
right = x.astype(np.float64) @ (weights * scale.astype(np.float64))


def difference(**changes):
    """The largest difference of the runtime's result, as a share of the largest value."""
    options = onnxruntime.SessionOptions()
    if "level" in changes:
        options.graph_optimization_level = changes["level"]
    if "accuracy" in changes:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", changes["accuracy"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return float(np.abs(found - right).max() / np.abs(right).max())


print("onnxruntime", onnxruntime.__version__)
found = {
    "as it comes": difference(),
    "with basic optimisations": difference(level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC),
    "with session.qdq_matmulnbits_accuracy_level = 1": difference(accuracy="1"),
}
for name, share in found.items():
    print(f"{name}: differs by {share:.0e}")
as_before = [share > 1e-4 for share in found.values()] == [True, False, False]
print("it rounds, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
