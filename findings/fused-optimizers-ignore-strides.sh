#!/usr/bin/env bash
# torch's fused optimisers on the CPU ignore strides.
#
# Seen with: torch 2.14.1 and 2.15.0, the newest on 2026-11-28 (on a CPU), Python 3.11, Linux x86-64.
# Behaviour: Adam, AdamW and SGD with fused=True read a parameter's gradient and state in the order in which they lie in
#   memory. A weight of a convolution that is channels-last, with a gradient of the same shape and values that is
#   row-major, is therefore moved by the gradient's elements of other weights. There is no error and no warning.
#   With foreach=True and with a plain loop the same step is right, and so is the fused one when the gradient has the
#   strides of its weight. `Tensor.backward` makes such gradients; a gradient that is assigned to `.grad`, as TorchJD's
#   jac_to_grad does it, need not have them.
# Output seen:
#   torch 2.14.1
#   Adam : largest difference from the plain step: row-major gradient 0.2, gradient laid out as the weight 6e-08
#   AdamW: largest difference from the plain step: row-major gradient 0.2, gradient laid out as the weight 6e-08
#   SGD  : largest difference from the plain step: row-major gradient 0.501, gradient laid out as the weight 0
#   the fused optimisers ignore strides, as before
# Fails (exit 1) when that changes; nas/training/optimizers.py would then take gradients and states as they lie.
#
# Usage: findings/fused-optimizers-ignore-strides.sh [VERSION OF TORCH]
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

print("torch", torch.__version__.partition("+")[0])


def step(make, layout, **how):
    """The weight after one step of an optimiser, from the same values each time."""
    generator = torch.Generator().manual_seed(0)
    start, slope = (torch.randn(8, 4, 3, 3, generator=generator) for _ in range(2))
    weight = torch.nn.Parameter(start.contiguous(memory_format=torch.channels_last))
    weight.grad = slope.contiguous(memory_format=layout)
    make([weight], lr=0.1, **how).step()
    return weight.detach()


as_before = True
for make in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
    plain = step(make, torch.contiguous_format, fused=False, foreach=False)
    apart = [
        (step(make, layout, fused=True) - plain).abs().max().item()
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    each = (step(make, torch.contiguous_format, foreach=True) - plain).abs().max().item()
    print(
        f"{make.__name__:<5}: largest difference from the plain step: row-major gradient {apart[0]:.3g}, "
        f"gradient laid out as the weight {apart[1]:.0g}"
    )
    as_before &= apart[0] > 0.1 and apart[1] < 1e-6 and each < 1e-6
print("the fused optimisers ignore strides, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
