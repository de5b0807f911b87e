"""The virtual clock of searches without training adds up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.lib import tabular, virtual
from benchmarks.lib.tabular import EPOCHS
from benchmarks.lib.virtual import Values, run
from nas.types import Candidate


class Fixed:
    """Every epoch of a candidate takes as long as it is wide; values are of no interest."""

    def values(self, candidate: Candidate, epoch: int) -> Values | None:
        return (20.0, 90.0, 0.5)

    def seconds(self, candidate: Candidate) -> float:
        return float(candidate.spec.to_dict()["width"])


class InOrder:
    """Trains the first candidates in order; who is named in `stopped` ends at epoch 1."""

    looks = (1,)

    def __init__(self, stopped: Mapping[str, bool]) -> None:
        self.waiting, self.stopped = tabular.candidates()[:3], stopped
        self.ended: list[tuple[str, int]] = []

    def ask(self, name: str) -> Candidate | None:
        return self.waiting.pop(0) if self.waiting else None

    def after(self, name: str, epoch: int, values: Values) -> bool:
        return name not in self.stopped

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        self.ended.append((name, epoch))


def test_the_virtual_clock_adds_up() -> None:
    method = InOrder({"1": True})
    trace = run(method, Fixed(), workers=2, epochs=EPOCHS)
    width = tabular.candidates()[0].spec.to_dict()["width"]
    assert method.ended == [("1", 1), ("0", 27), ("2", 27)]
    assert trace.clock == 28 * width, "the third candidate begins when the second is stopped"
    assert trace.epochs == 27 + 1 + 27
    assert [epochs for epochs, _ in trace.finished] == [27 + 1 + 26, 27 + 1 + 27]
    assert trace.waited == 0.0


def test_a_driver_that_takes_time_makes_workers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr(virtual.time, "perf_counter", lambda: next(clock))
    trace = run(InOrder({}), Fixed(), workers=3, epochs=1, trials=3, deciding_takes_time=True)
    assert [question for question, _ in trace.took] == 3 * ["ask"] + 3 * ["end"]
    assert sum(seconds for _, seconds in trace.took) == pytest.approx(3.0)
    assert trace.waited == pytest.approx(0.5 + 1.0 + 1.5), "three ask at once and are answered one after the other"
