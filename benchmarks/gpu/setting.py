"""Where the checks run and how much they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

CPU = torch.device("cpu")
NOISE = "gaussian:50"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        references: how many of the papers' networks are compared with the CPU.
        networks: how many of those of `benchmarks.lib.loops` are timed.
        sides: sides of images in pixels: those that are timed first, and those that are timed if time is left.
        steps: optimiser steps of a timed or profiled epoch.
        trainings: how many trainings one process has, one after the other.
        epochs: of the trial that is interrupted, and of the search that is compared with the CPU.
        subset: training images of both; None for all.
        trials: of that search; seeds: under which each of its candidates is trained on the CPU.
        at_a_time: numbers of trials that share the GPU; window: seconds for which each number is watched.
        search: options of the search on a whole data set.
    """

    references: int
    networks: int
    sides: tuple[tuple[int, ...], tuple[int, ...]]
    steps: int
    trainings: int
    epochs: int
    subset: int | None
    trials: int
    seeds: int
    at_a_time: tuple[int, ...]
    window: float
    search: tuple[str, ...]


CARD = Scale(
    references=15,
    networks=6,
    sides=((28, 8), (32, 64)),
    steps=20,
    trainings=20,
    epochs=9,
    subset=None,
    trials=8,
    seeds=3,
    at_a_time=(4, 16, 1, 8, 2),
    window=12.0,
    search=("--epochs", "3", "--trials", "24", "--gpus-per-trial", "0.125"),
)
"""For a GPU such as an H100 and eight minutes."""

TINY = Scale(
    references=2,
    networks=1,
    sides=((8,), (8,)),
    steps=2,
    trainings=3,
    epochs=3,
    subset=64,
    trials=2,
    seeds=2,
    at_a_time=(2, 1),
    window=1.0,
    search=("--epochs", "1", "--trials", "1", "--subset", "64", "--max-params", "20000", "--precision", "fp32"),
)
"""For a CPU, to see that the code runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where the checks run, and how much they do. `data_root` is the folder of data sets' files."""

    device: torch.device
    scale: Scale
    data_root: Path

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"


def wait(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, until the device has done all of it."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started
