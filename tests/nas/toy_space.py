"""A search space of tiny networks for tests of the engine; one of its hyperparameters plants a fault."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import Tensor, nn

from nas.types import Candidate, Constraint, Cost, Recipe, Spec, Task


@dataclass(frozen=True, kw_only=True)
class ToySpec:
    width: int
    fault: str = "none"

    def to_dict(self) -> dict[str, Any]:
        return {"width": self.width, "fault": self.fault}


class ToyNet(nn.Module):
    """One convolution, a gate and a linear head."""

    def __init__(self, spec: ToySpec, task: Task, scratch: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(task.channels, spec.width, 3, padding=1)
        self.out = nn.Conv2d(spec.width, task.channels, 1)
        self.head = nn.Linear(spec.width, max(1, task.classes))
        self.gate = nn.Parameter(torch.ones(1))
        self.register_buffer("epoch", torch.zeros(()))
        self.fault, self.scratch = spec.fault, scratch

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self._fault()
        features = torch.relu(self.conv(noisy)) * self.gate
        scale = float("nan") if self.fault == "nan" else 1.0
        return self.out(features) * scale, self.head(features.mean((2, 3)))

    def _kill_late(self) -> None:
        """Notes each epoch as it begins, and dies in the fifth, once. 128 images are one step an epoch."""
        self.epoch += 1
        with (Path(self.scratch) / "epochs").open("a") as file:
            file.write(f"{int(self.epoch)} ")
        once = Path(self.scratch) / "killed"
        if self.epoch == 5 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def gates(self) -> list[Tensor]:
        return [self.gate.detach()]

    def _fault(self) -> None:
        if self.fault == "exception" and not (Path(self.scratch) / "mended").exists():
            raise RuntimeError("planted exception")
        if self.fault == "memory":
            raise torch.OutOfMemoryError("planted: out of memory")
        once = Path(self.scratch) / f"killed-{self.out.in_channels}"
        if self.fault == "kill" or (self.fault == "kill_once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "full" and not (Path(self.scratch) / "room").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "kill_late":
            self._kill_late()
        if self.fault == "slow" and not (Path(self.scratch) / "fast").exists():
            time.sleep(0.2)
        if self.fault == "meet":
            # Trains on when four processes have met here, which they only can when they run together.
            (Path(self.scratch) / f"alive-{os.getpid()}").touch()
            for _ in range(600):
                if len(list(Path(self.scratch).glob("alive-*"))) >= 4:
                    break
                time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class ToySpace:
    """Attributes: faults: choices of the planted fault; widths: number of widths; scratch: a folder."""

    faults: tuple[str, ...] = ("none",)
    widths: int = 64
    scratch: str = ""
    name: str = "toy"
    version: int = 1

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        return {"width": IntDistribution(1, self.widths), "fault": CategoricalDistribution(self.faults)}

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        recipe = Recipe(epochs=epochs, batch_size=128, learning_rate=3e-3, weight_decay=0.0, classification_weight=0.3)
        return Candidate(spec=self.spec(params), recipe=recipe)

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        return candidate.spec.to_dict()

    def spec(self, value: Mapping[str, Any]) -> ToySpec:
        return ToySpec(**value)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        return (Constraint(name="params", upper=100_000), Constraint(name="macs", upper=10_000_000))

    def cost(self, spec: Spec, task: Task) -> Cost:
        width = spec.to_dict()["width"]
        conv = 9 * task.channels * width + task.channels * width
        head = width * task.classes
        biases = width + task.channels + task.classes + 1
        return Cost(params=conv + head + biases, macs=conv * task.height * task.width + head)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        assert isinstance(spec, ToySpec)
        return ToyNet(spec, task, self.scratch)
