"""Two checkouts are compared by ratios within a round, and the same candidates are timed in both."""

from __future__ import annotations

import pytest

from benchmarks import steps


def test_the_ratio_is_the_median_of_those_within_a_round() -> None:
    before = {"unet": (0.004, 0.5), "random 0": (0.01, 0.5), "random 1": (0.03, 0.5)}
    after = {"unet": (0.002, 0.5), "random 0": (0.01, 0.5), "random 1": (0.01, 0.55)}
    busy = {name: (3 * seconds, loss) for name, (seconds, loss) in before.items()}
    rounds = [(before, after), (before, after), (busy, after)]
    assert steps.table(8, rounds).splitlines()[2:] == [
        "| unet | 4.00 | 2.00 | 2.00 | 0e+00 |",
        "| 2 random candidates | | | 2.00 (1.00 to 3.00) | 1e-01 at most |",
    ]


def test_references_are_timed_with_the_code_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "REFERENCES", ("addunet",))
    monkeypatch.setattr(steps, "STEPS", {8: 1, 28: 1})
    monkeypatch.setattr(steps, "WIDTH", 4)
    found = steps.timed(8, random=0)
    assert list(found) == ["addunet"]
    assert found["addunet"][0] > 0
