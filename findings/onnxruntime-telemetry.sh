#!/usr/bin/env bash
# ONNX Runtime's wheel for Linux counts its uses, and leaves files in the user's folders.
#
# Seen with: onnxruntime 1.32.0 from PyPI on 2026-11-28, Python 3.11, Linux x86-64. 1.22 left nothing.
# Behaviour: loading a model writes an identifier of the device and a database of events below the cache folder
#   (XDG_CACHE_HOME, or .cache in HOME), and the file `.ses` below TMPDIR. Nothing is printed, and the documentation of
#   InferenceSession does not say it. With ORT_DISABLE_TELEMETRY=1 before the import no file is made.
# Output seen:
#   onnxruntime 1.32.0
#   as it comes:
#   cache/Microsoft/DeveloperTools/.onnxruntime/deviceid
#   cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db
#   tmp/.ses
#   with ORT_DISABLE_TELEMETRY=1:
#   nothing
# Fails (exit 1) when that changes; nas/bundles/__init__.py sets the variable.
#
# Usage: findings/onnxruntime-telemetry.sh [VERSION OF ONNXRUNTIME]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "onnxruntime==${1:-1.32.0}" onnx==1.23.2
cat >"$folder/use.py" <<'PYTHON'
import time

import numpy
import onnxruntime
from onnx import TensorProto, helper

shape = [1, 1, 4, 4]
graph = helper.make_graph(
    [helper.make_node("Relu", ["x"], ["y"])],
    "relu",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
session.run(None, {"x": numpy.zeros(shape, numpy.float32)})
time.sleep(3)
PYTHON
files() {  # the files that one use leaves behind
    rm -rf "$folder"/{home,cache,tmp}
    mkdir "$folder"/{home,cache,tmp}
    env "$@" HOME="$folder/home" XDG_CACHE_HOME="$folder/cache" TMPDIR="$folder/tmp" \
        "$folder/venv/bin/python" "$folder/use.py"
    (cd "$folder" && find home cache tmp -type f | sort)
}
"$folder/venv/bin/python" -m pip list 2>/dev/null | awk '$1 == "onnxruntime" { print $1, $2 }'
plain=$(files -u ORT_DISABLE_TELEMETRY)
off=$(files ORT_DISABLE_TELEMETRY=1)
printf 'as it comes:\n%s\nwith ORT_DISABLE_TELEMETRY=1:\n%s\n' "${plain:-nothing}" "${off:-nothing}"
[[ $plain == *deviceid* && -z $off ]] || { echo "this has changed"; exit 1; }
