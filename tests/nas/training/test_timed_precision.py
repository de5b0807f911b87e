"""The precision in which a network trains faster is timed on every device, a GPU too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.data.splits import load
from nas.training import precision
from nas.training.batches import DeviceData
from nas.training.precision import GPU_STEPS, clock, faster_for, faster_precision
from nas.types import Recipe, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.01, weight_decay=0.0, classification_weight=0.3)
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 10)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        denoised = self.conv(noisy)
        return denoised, self.head(denoised.flatten(1))


def test_timing_says_one_of_both_and_leaves_the_network_alone() -> None:
    data, network = DeviceData.of(load("digits", subset=40), TASK, CPU), Small()
    before = [parameter.clone() for parameter in network.parameters()]
    state = torch.get_rng_state()
    assert faster_precision(network, TASK, RECIPE, data) in ("fp32", "bf16")
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


class Pace:
    """Steps that take as many seconds of a clock of their own as their precision says; `steps` counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = {"fp32": 1.0, "bf16": 1.0}
        self.steps: Counter[str] = Counter()
        self.now, self.device = 0.0, CPU
        pace = self

        class Timed:
            def __init__(self, *_: Any, seed: int, precision: str) -> None:
                self.precision, self.generator = precision, None

            def _batches(self, rows: object) -> object:
                return rows

            def _learn(self, rows: object) -> None:
                assert pace.device == GPU
                self._work()

            def _backward(self, batches: object) -> None:
                assert pace.device == CPU
                self._work()

            def _work(self) -> None:
                warms_up = not pace.steps[self.precision]
                pace.steps[self.precision] += 1
                pace.now += 100.0 if warms_up else pace.seconds[self.precision]

        @contextmanager
        def fork_rng(devices: list[torch.device]) -> Iterator[None]:
            self.forked = devices
            yield

        monkeypatch.setattr(precision, "Training", Timed)
        monkeypatch.setattr(precision, "clock", lambda device: lambda: self.now)
        monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)

    def choice(self, device: torch.device) -> str:
        self.device = device
        data: Any = SimpleNamespace(device=device, order=lambda generator: range(100))
        return faster_for([(Small(), RECIPE)], TASK, data, steps=3)


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Pace:
    return Pace(monkeypatch)


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(("bf16", "chosen"), [(0.9, "bf16"), (0.96, "fp32"), (1.1, "fp32")])
def test_bf16_is_taken_where_its_steps_are_clearly_faster(
    device: torch.device, bf16: float, chosen: str, pace: Pace
) -> None:
    pace.seconds["bf16"] = bf16
    assert pace.choice(device) == chosen
    assert pace.forked == ([GPU] if device == GPU else [])
    timed = 1 + (GPU_STEPS if device == GPU else 3)
    assert pace.steps == {"fp32": timed, "bf16": timed}


def test_bf16_that_a_gpu_would_emulate_is_not_timed(pace: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    pace.seconds["bf16"] = 0.1
    assert pace.choice(GPU) == "fp32"
    assert not pace.steps


def test_a_gpu_s_clock_is_read_when_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", happened.append)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: happened.append("read") or 7.0)
    assert clock(GPU)() == 7.0
    assert happened == [GPU, "read"]
    monkeypatch.setattr(precision.time, "process_time", lambda: 3.0)
    assert clock(CPU)() == 3.0
