"""The verdict on a found network and its rivals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.lib.stats import Interval
from benchmarks.proof.verdicts import Comparison, Difference, compare, side, wins


def network(psnr: list[float | None], accuracy: list[float | None]) -> dict[str, Any]:
    return {"psnr": psnr, "accuracy": accuracy}


def less(psnr: tuple[float, float], accuracy: tuple[float, float]) -> dict[str, Any]:
    """A rival of a network at 20 dB and 90 % that has so much less."""
    return network([20.0 - each for each in psnr], [90.0 - each for each in accuracy])


FOUND = network([20.0, 20.0], [90.0, 90.0])


def test_differences_are_tested_together() -> None:
    """With two seeds t = mean / (half the range), and p = 2 / pi * atan(1 / t)."""
    first = less((0.99, 1.01), (0.0, 0.2))  # t 100, p 0.0064; t 1, p 0.5
    second = less((1.97, 2.03), (-0.9, -1.1))  # t 67, p 0.0095; t -10, p 0.063
    compared = compare(FOUND, [first, second])
    # The two smallest are below 0.05 / 4 and 0.05 / 3; the next one is not below 0.05 / 2, where the rest stay too.
    t = {level: 1 / math.tan(math.pi / 2 * level) for level in (0.05 / 4, 0.05 / 3, 0.05 / 2, 0.05)}
    shown = [each.differences[metric].shown for each in compared for metric in ("psnr", "accuracy")]
    halves = [0.01 * t[0.05 / 4], 0.1 * t[0.05 / 2], 0.03 * t[0.05 / 3], 0.1 * t[0.05 / 2]]
    assert [each.high - each.mean for each in shown] == pytest.approx(halves)
    assert [each.mean for each in shown] == pytest.approx([1.0, 0.1, 2.0, -1.0])
    assert compared[1].differences["accuracy"].plain.high == pytest.approx(-1.0 + 0.1 * t[0.05])
    assert [each.verdict for each in compared] == ["better", "better"]
    assert wins(FOUND, compared)


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        ((-0.98, -1.02), "mixed"),  # t -50, p 0.013: a loss that is shown
        ((-0.95, -1.05), "mixed"),  # t -20, p 0.032: a loss by the plain interval alone
        ((-0.90, -1.10), "better"),  # t -10, p 0.063: no loss
    ],
)
def test_a_loss_need_not_stand_up_to_the_correction(accuracy: tuple[float, float], verdict: str) -> None:
    compared = compare(FOUND, [less((0.99, 1.01), (0.0, 0.2)), less((1.97, 2.03), accuracy)])
    assert compared[1].verdict == verdict
    assert wins(FOUND, compared) == (verdict == "better")


def test_verdicts() -> None:
    up, down, open_ = (Interval(x, x - 1, x + 1, 5) for x in (2.0, -2.0, 0.5))

    def verdict(psnr: tuple[Interval, Interval], accuracy: tuple[Interval, Interval]) -> str:
        found = {name: Difference(shown=a, plain=b) for name, (a, b) in {"psnr": psnr, "accuracy": accuracy}.items()}
        return Comparison(rival={}, differences=found).verdict

    assert [side(each) for each in (up, down, open_, Interval(1.0, math.nan, math.nan, 1))] == [1, -1, 0, 0]
    assert verdict((up, up), (open_, open_)) == "better"
    assert verdict((open_, open_), (up, up)) == "better"
    assert verdict((up, up), (up, up)) == "better"
    assert verdict((down, down), (open_, open_)) == "worse"
    assert verdict((down, down), (open_, down)) == "worse"
    assert verdict((up, up), (down, down)) == "mixed"
    assert verdict((down, down), (open_, up)) == "mixed"
    assert verdict((open_, up), (open_, up)) == "undecided", "gains have to stand up to the correction"
    assert verdict((open_, down), (open_, open_)) == "undecided"


def test_runs_that_diverged_make_no_pair() -> None:
    rival = network([19.0, None, 19.1, 18.9], [80.0, None, 81.0, 80.5])
    found = network([20.0, 20.1, 20.1, 19.9], [90.0, 90.0, 91.0, 90.5])
    one = compare(found, [rival])[0]
    assert one.differences["psnr"].shown.n == 3
    assert one.verdict == "better"
    alone = compare(found, [network([None, None, None, 19.0], [None, None, None, 80.0])])[0]
    assert alone.verdict == "undecided"
    broken = network([20.0, None, 20.1, 19.9], [90.0, None, 91.0, 90.5])
    assert not wins(broken, compare(broken, [rival])), "a found network that diverged proves nothing"
