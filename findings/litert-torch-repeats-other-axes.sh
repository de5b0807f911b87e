#!/usr/bin/env bash
# litert-torch repeats another axis than the channels of images.
#
# Seen with: litert-torch 0.10.0, ai-edge-litert 2.3.0, torch 2.14.1 (on a CPU), Python 3.11, Linux x86-64, on 2026-11-29.
# Behaviour: litert-torch turns images to channels-last. A network in which the output of a pooling is repeated along the
#   channels becomes a program that repeats another axis: its output has another shape. There is no error and
#   no warning. With torch.cat in the place of repeat the program is right.
# Output seen:
#   litert-torch 0.10.0, ai-edge-litert 2.3.0, torch 2.14.1
#   repeated: shape (1, 3, 8, 4), where PyTorch has (1, 6, 4, 4)
#   joined: at most 6e-08 from PyTorch
#   repeat is wrong, as before
# Fails (exit 1) when that changes; the Haar encoder (search_spaces/unet/blocks.py) could then repeat again.
#
# Usage: findings/litert-torch-repeats-other-axes.sh [VERSION OF LITERT-TORCH]
# It installs litert-torch into a temporary virtual environment (some gigabytes with torch) and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "litert-torch==${1:-0.10.0}" "torch==2.14.1"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/said" || { tail -n 3 "$folder/said"; exit 1; }
import contextlib
import io
import sys
from importlib.metadata import version

import litert_torch
import torch
from torch.nn import functional as F

print(*(f"{name} {version(name)}" for name in ("litert-torch", "ai-edge-litert", "torch")), sep=", ")


class Repeated(torch.nn.Module):
    def forward(self, images):
        return F.avg_pool2d(images, 2).repeat(1, 2, 1, 1)


class Joined(torch.nn.Module):
    def forward(self, images):
        return torch.cat([F.avg_pool2d(images, 2)] * 2, 1)


def differs(network):
    """Whether the program of a network computes something else, in words for its answer."""
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = network(images)
    with contextlib.redirect_stdout(io.StringIO()):  # it says a page about each step
        found = torch.as_tensor(litert_torch.convert(network.eval(), (images,))(images))
    name = type(network).__name__.lower()
    if found.shape != wanted.shape:
        print(f"{name}: shape {tuple(found.shape)}, where PyTorch has {tuple(wanted.shape)}")
        return True
    off = (found - wanted).abs().max().item()
    print(f"{name}: at most {off:.2g} from PyTorch")
    return off > 1e-4


wrong, right = differs(Repeated()), differs(Joined())
as_before = wrong and not right
print("repeat is wrong, as before" if as_before else "this has changed")
sys.exit(not as_before)
PYTHON
