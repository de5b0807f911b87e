"""What a training imports. What the steps of optimisers do is in tests/search_spaces/test_unet_optimizers.py."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_samples import ROOT

TRAIN = """
import dataclasses, sys, torch
from nas.data.splits import load
from nas.training.batches import DeviceData, evaluation_batches
from nas.training.evaluation import judge
from nas.training.loop import Training
from nas.training.precision import step_seconds
from nas.data.noise import parse_noise
from search_spaces.unet.references import reference_network
from search_spaces.unet.space import UNetSpace

data, space, cpu = load("digits", subset=64), UNetSpace(), torch.device("cpu")
task = data.task("gaussian:50")
for optimizer in ("adamw", "sgd"):
    candidate = reference_network("nddr", task, epochs=1)
    recipe = dataclasses.replace(candidate.recipe, optimizer=optimizer)
    network = space.build(dataclasses.replace(candidate.spec, width=4), task)
    run = Training(network, task, recipe, DeviceData.of(data, task, cpu), seed=0)
    run.run_epoch()
    run.load_state(run.state())
    judge(network.eval(), evaluation_batches(data, "validation", parse_noise(task.noise), cpu))
    step_seconds(network, task, recipe, DeviceData.of(data, task, cpu), "fp32", steps=1)
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_a_training_needs_no_compiler() -> None:
    """It would cost each worker 1.2 seconds and 79 MB (findings/optimizers-import-the-compiler.sh)."""
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout == "False\n", done.stderr
