"""Which precision trains faster on a device, by timed steps."""

from __future__ import annotations

import copy
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from nas.training.batches import TrainingData
from nas.training.loop import Training
from nas.types import Recipe, Task

Precision = Literal["fp32", "bf16"]
BETTER = 0.95
"""bf16 is taken on a CPU when a step needs at most this share of its time in fp32."""

log = logging.getLogger(__name__)


def faster_precision(network: nn.Module, task: Task, recipe: Recipe, data: TrainingData, steps: int = 3) -> Precision:
    """bf16 where it is the faster way to train: on GPUs that have it, and on CPUs where timed steps show it."""
    return faster_for([(network, recipe)], task, data, steps)


def faster_for(
    networks: Sequence[tuple[nn.Module, Recipe]], task: Task, data: TrainingData, steps: int = 3
) -> Precision:
    """As `faster_precision`, for several networks and one precision for all.

    Of each a step's forward and backward pass is counted; the optimiser's part is the same in both precisions.
    """
    if data.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds: dict[Precision, float] = {"fp32": 0.0, "bf16": 0.0}
    with torch.random.fork_rng(devices=[]):
        for network, recipe in networks:
            trials = {
                precision: Training(copy.deepcopy(network), task, recipe, data, seed=0, precision=precision)
                for precision in seconds
            }
            times: dict[Precision, list[float]] = {precision: [] for precision in seconds}
            # In turns, and in CPU time: other programs may be running, now more and now fewer.
            for _, (precision, trial) in itertools.product(range(steps + 1), trials.items()):
                started = time.process_time()
                trial._backward(data.order(trial.generator)[: recipe.batch_size])
                times[precision].append(time.process_time() - started)
            for precision, found in times.items():
                seconds[precision] += min(found[1:])
    log.info(
        "a step takes %.0f ms of CPU time in fp32 and %.0f ms in bf16", 1000 * seconds["fp32"], 1000 * seconds["bf16"]
    )
    return "bf16" if seconds["bf16"] < BETTER * seconds["fp32"] else "fp32"
