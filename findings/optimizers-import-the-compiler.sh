#!/usr/bin/env bash
# torch's optimisers import torch's compiler, in programs that compile nothing.
#
# Seen with: torch 2.14.1 (its CUDA build, on a CPU), Python 3.11, Linux x86-64, on 2026-11-29.
# Behaviour: the first torch.optim.AdamW of a process imports torch._dynamo and about 900 other modules, sympy among
#   them: a second or more of a core, and about 80 MB of memory of its own in every process that trains. The functions
#   beside the classes (torch.optim.adamw.adamw) make the same step and import nothing.
# Output seen:
#   torch 2.14.1
#   a step by torch.optim.adamw.adamw: 0 modules and 0 MB more, torch._dynamo: False
#   the first torch.optim.AdamW: 892 modules and 79 MB more, torch._dynamo: True
#   the class imports the compiler, as before
# Fails (exit 1) when that changes; nas/training/optimizers.py would then do without its own bookkeeping.
#
# Usage: findings/optimizers-import-the-compiler.sh [VERSION OF TORCH]
# It installs torch into a temporary virtual environment (some gigabytes with its CUDA packages) and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "torch==${1:-2.14.1}" numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.optim.adamw import adamw

print("torch", torch.__version__.partition("+")[0])
weight = torch.nn.Parameter(torch.ones(4))
weight.grad = torch.ones(4)
state = [torch.zeros(4)], [torch.zeros(4)], [], [torch.zeros(())]


def own():
    """Megabytes of memory that belong to this process alone."""
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


def told(what, work):
    modules, memory = len(sys.modules), own()
    work()
    more, compiler = len(sys.modules) - modules, "torch._dynamo" in sys.modules
    print(f"{what}: {more} modules and {own() - memory:.0f} MB more, torch._dynamo: {compiler}")
    return more


def step():
    with torch.no_grad():
        adamw([weight], [weight.grad], *state, fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=0.1,
              weight_decay=0.0, eps=1e-8, maximize=False)  # fmt: skip


few = told("a step by torch.optim.adamw.adamw", step)
many = told("the first torch.optim.AdamW", lambda: torch.optim.AdamW([weight], lr=0.1))
as_before = few < 10 and many > 100
print("the class imports the compiler, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
