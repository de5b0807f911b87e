#!/usr/bin/env bash
# Ray Tune runs no trial in the worker processes that Ray has started ahead for it.
#
# Seen with: ray 2.60.0 from PyPI on 2026-11-29, Python 3.11, Linux x86-64.
# Behaviour: ray.init() starts an idle worker for each CPU, so that work begins at once. Tune asks for its trials with an
#   environment variable (PL_DISABLE_FORK, for PyTorch Lightning), by which their processes are of another kind: each
#   trial waits for a new process, and the idle ones stay idle. Without the variable (DEFAULT_ENV_VARS of
#   ray.tune.execution.class_cache) trials take the idle processes, provided that the setting num_workers_soft_limit
#   keeps Ray from ending these when Tune reserves their CPUs.
# Output seen:
#   ray 2.60.0
#   trials in processes that were started ahead: 0 of 2
#   without the variable, and with a soft limit: 2 of 2
# Fails (exit 1) when that changes; nas/engine/executor.py takes the variable away, nas/engine/session.py sets the limit.
#
# Usage: findings/tune-leaves-started-workers-idle.sh [VERSION OF RAY]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray[tune]==${1:-2.60.0}"
cat >"$folder/trials.py" <<'PYTHON'
import os
import sys
import time
from pathlib import Path

import ray
import ray._private.worker as worker
from ray import tune
from ray.tune.execution import class_cache

mended = sys.argv[1] == "mended"
if mended:
    class_cache.DEFAULT_ENV_VARS.clear()


class Trial(tune.Trainable):
    def step(self):
        time.sleep(2)  # so that both are there at a time
        return {"process": os.getpid(), "done": True}


ray.init(
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=40,
    _system_config={"num_workers_soft_limit": 2} if mended else None,
)
[raylet] = worker._global_node.all_processes["raylet"]
children = Path(f"/proc/{raylet.process.pid}/task/{raylet.process.pid}/children")


def idle():
    return {int(pid) for pid in children.read_text().split() if Path(f"/proc/{pid}/cmdline").read_text()[:9] == "ray::IDLE"}


until = time.monotonic() + 60
while len(started := idle()) < 2 and time.monotonic() < until:
    time.sleep(0.2)
time.sleep(2)
found = tune.Tuner(
    Trial, tune_config=tune.TuneConfig(num_samples=2), run_config=tune.RunConfig(storage_path=sys.argv[2], verbose=0)
).fit()
print(sum(result.metrics["process"] in started for result in found))
PYTHON
"$folder/venv/bin/python" -c "import ray; print('ray', ray.__version__)"
export RAY_USAGE_STATS_ENABLED=0 RAY_AIR_NEW_OUTPUT=0 HOME="$folder"
before=$("$folder/venv/bin/python" "$folder/trials.py" plain "$folder/tune" 2>/dev/null | tail -n 1)
after=$("$folder/venv/bin/python" "$folder/trials.py" mended "$folder/tune" 2>/dev/null | tail -n 1)
echo "trials in processes that were started ahead: $before of 2"
echo "without the variable, and with a soft limit: $after of 2"
[ "$before" = 0 ] && [ "$after" = 2 ]
