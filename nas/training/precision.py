"""Timed training steps: the faster precision on a device, and the seconds of a step."""

from __future__ import annotations

import copy
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from nas.training.batches import TrainingData
from nas.training.loop import Training
from nas.types import Recipe, Task

Precision = Literal["fp32", "bf16"]
BETTER = 0.95
"""bf16 is chosen when a step takes at most this share of its time in fp32."""
GPU_STEPS = 20
"""The smallest number of steps timed on a GPU. They take milliseconds each, and vary more than on a CPU."""

log = logging.getLogger(__name__)


def faster_precision(network: nn.Module, task: Task, recipe: Recipe, data: TrainingData, steps: int = 3) -> Precision:
    """Returns bf16 where timed steps on the data's device show that it trains faster, else fp32."""
    return faster_for([(network, recipe)], task, data, steps)


def faster_for(
    networks: Sequence[tuple[nn.Module, Recipe]], task: Task, data: TrainingData, steps: int = 3
) -> Precision:
    """Does the same as `faster_precision` for several networks, with one precision for all.

    On the CPU only the forward and backward pass of a step is timed, because the optimiser works in the same precision
    in both cases. On a GPU it is the whole step, which runs as a training's does: as one graph where it can be captured
    (`nas.training.captured`). A GPU without bf16, which would emulate it, is not timed. A GPU with bf16 is timed,
    because bf16 is not always faster there: with small networks most of the time goes into starting kernels, and
    autocast starts more of them.
    """
    device = data.device
    gpu = device.type == "cuda"
    if gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp32"
    now = clock(device)
    seconds: dict[Precision, float] = {"fp32": 0.0, "bf16": 0.0}
    with torch.random.fork_rng(devices=[device] if gpu else []):
        for network, recipe in networks:
            trials = {
                precision: Training(copy.deepcopy(network), task, recipe, data, seed=0, precision=precision)
                for precision in seconds
            }
            times: dict[Precision, list[float]] = {precision: [] for precision in seconds}
            # The precisions take turns, because other programs may be running, now more and now fewer.
            for _, (precision, trial) in itertools.product(
                range(1 + (max(steps, GPU_STEPS) if gpu else steps)), trials.items()
            ):
                started = now()
                rows = data.order(trial.generator)[: recipe.batch_size]
                if gpu:
                    trial._learn(rows)
                else:
                    trial._backward(trial._batches(rows))
                times[precision].append(now() - started)
            for precision, found in times.items():
                seconds[precision] += min(found[1:])
    log.info("a step takes %.1f ms in fp32 and %.1f ms in bf16", 1000 * seconds["fp32"], 1000 * seconds["bf16"])
    return "bf16" if seconds["bf16"] < BETTER * seconds["fp32"] else "fp32"


def step_seconds(
    network: nn.Module, task: Task, recipe: Recipe, data: TrainingData, precision: str, steps: int = 3
) -> float:
    """Returns the median seconds of a training step on all images of `data` together, as a person waits for it."""
    gpu = data.device.type == "cuda"
    now = clock(data.device, wall=True)
    times = []
    with torch.random.fork_rng(devices=[data.device] if gpu else []):
        training = Training(network, task, recipe, data, seed=0, precision=precision)
        rows = data.order(training.generator)
        for _ in range(1 + (max(steps, GPU_STEPS) if gpu else steps)):  # the first one is slower
            started = now()
            training._learn(rows)
            times.append(now() - started)
    return statistics.median(times[1:])


def clock(device: torch.device, *, wall: bool = False) -> Callable[[], float]:
    """Returns a clock in seconds for work on a device.

    On the CPU it counts the CPU time of this process, whatever else the machine does, or with `wall` the time that
    passes. A GPU works on while the program continues. Its clock is the wall clock, read when all work that was started
    has ended.
    """
    if device.type != "cuda":
        return time.perf_counter if wall else time.process_time

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read
