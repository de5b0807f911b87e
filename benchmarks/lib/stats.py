"""Intervals, paired one-sided tests, Holm's correction and the rule from tests to a verdict. All functions are pure.

A claim has parts, and a part has cells: one comparison (a rival, a quantity) in one setting (data, noise). Every cell
asks whether a true mean lies above a claimed bound, and whether it lies below a bound at which the claim would be
worthless. Both questions are one-sided paired tests over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.stats

Outcome = Literal["for", "against", "open"]
Verdict = Literal["holds", "does not hold", "undecided"]

LEVEL = 0.025
"""The level of each one-sided test after Holm's correction; without correction it is the edge of a 95 % interval."""

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval (Student's t), of 95 % by default; low and high are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], level: float = 0.05) -> Interval:
    """Returns the mean and the t interval of independent values, which misses the true mean at a rate of `level`."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(scipy.stats.t.ppf(1 - level / 2, n - 1)) * _standard_error(values)
    return Interval(mean, mean - half, mean + half, n)


def p_above(values: Sequence[float], bound: float) -> float:
    """Returns the one-sided p of the t test that the true mean lies above `bound`; 1 for fewer than two values."""
    if len(values) < 2:
        return 1.0
    excess = float(np.mean(values)) - bound
    error = _standard_error(values)
    if error == 0.0:
        return 0.0 if excess > 0 else 1.0
    return float(scipy.stats.t.sf(excess / error, len(values) - 1))


def p_below(values: Sequence[float], bound: float) -> float:
    """Returns the one-sided p of the t test that the true mean lies below `bound`; 1 for fewer than two values."""
    return p_above([-value for value in values], -bound)


def p_other(values: Sequence[float]) -> float:
    """Returns the two-sided p of the t test that the true mean is not 0; 1 for fewer than two values."""
    return min(1.0, 2 * min(p_above(values, 0.0), p_below(values, 0.0)))


def p_wilcoxon(differences: Sequence[float]) -> float:
    """Returns the two-sided p of Wilcoxon's signed-rank test; 1 when nothing differs.

    With n pairs it is at least 2^(1-n).
    """
    nonzero = [d for d in differences if d != 0]
    if not nonzero:
        return 1.0
    return float(scipy.stats.wilcoxon(nonzero).pvalue)


@dataclass(frozen=True, slots=True)
class Spread:
    """A comparison of standard deviations over seeds.

    Attributes:
        log_ratio: ``ln(sd of ours / sd of theirs)``, negative when ours is steadier, with its 95 % interval from a
            bootstrap over pairs.
        p_smaller: one-sided p of Brown and Forsythe's test that our spread is the smaller one.
        p_larger: one-sided p of the same test that it is the larger one.
    """

    log_ratio: Interval
    p_smaller: float
    p_larger: float


def compare_spread(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Compares the spread of two paired samples of one length.

    The test is Brown and Forsythe's (Levene's around the median), which is robust against heavy tails. It does not use
    the
    pairing. For two groups its F is the square of a t, so it can be split into one-sided tests.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    n = len(a)
    if n < 3 or a.std() == 0.0 or b.std() == 0.0:
        return Spread(Interval(math.nan, math.nan, math.nan, n), 1.0, 1.0)
    two_sided = float(scipy.stats.levene(a, b, center="median").pvalue)
    larger = np.abs(a - np.median(a)).mean() > np.abs(b - np.median(b)).mean()
    p_larger = two_sided / 2 if larger else 1 - two_sided / 2
    rows = np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))
    deviations = np.stack([a[rows].std(axis=1, ddof=1), b[rows].std(axis=1, ddof=1)])
    usable = (deviations > 0).all(axis=0)
    low, high = np.quantile(np.log(deviations[0, usable] / deviations[1, usable]), (0.025, 0.975))
    ratio = math.log(float(a.std(ddof=1) / b.std(ddof=1)))
    return Spread(Interval(ratio, float(low), float(high), n), 1 - p_larger, p_larger)


def holm(values: Sequence[float], most_true: int | None = None) -> list[float]:
    """Returns Holm's step-down adjusted p values (1979), in the order given, each to be compared with the level.

    Args:
        values: raw p values.
        most_true: the largest number of null hypotheses that can be true at once, when that is fewer than all of them;
            no factor need exceed it (Shaffer 1986).
    """
    adjusted = [0.0] * len(values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        factor = min(len(values) - rank, len(values) if most_true is None else most_true)
        running = max(running, min(1.0, factor * values[index]))
        adjusted[index] = running
    return adjusted


def holm_levels(values: Sequence[float], level: float = 0.05) -> list[float]:
    """Returns the level at which Holm's procedure tests each p value, in the order given.

    The smallest of m p values is tested at ``level / m``, the next one at ``level / (m - 1)``, and so on until one is
    not below its level; all that follow keep the level of that one. So a difference is shown exactly where its p value
    is below its level, and where its interval of that level leaves out 0.
    """
    levels = [level] * len(values)
    failed: float | None = None
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        levels[index] = level / (len(values) - rank) if failed is None else failed
        if failed is None and values[index] >= levels[index]:
            failed = levels[index]
    return levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One comparison in one setting.

    Attributes:
        part: the part of the claim that it decides.
        label: the comparison in words.
        setting: data and noise.
        unit: the unit of the difference.
        difference: mean and 95 % interval, uncorrected.
        p_for: p of the test that the true value lies above the claimed bound; adjusted by `corrected`.
        p_against: p of the test that it lies below the bound under which the claim is worthless; adjusted likewise.
        wilcoxon: two-sided signed-rank p, uncorrected, for reading only; NaN where it does not apply.
    """

    part: str
    label: str
    setting: str
    unit: str
    difference: Interval
    p_for: float
    p_against: float
    wilcoxon: float = math.nan

    @property
    def outcome(self) -> Outcome:
        """The side for which the cell speaks.

        ``against`` wins where both are shown, by an advantage that is real but so small that it is worthless.
        """
        if self.p_against < LEVEL:
            return "against"
        return "for" if self.p_for < LEVEL else "open"


def superiority(differences: Sequence[float], *, margin: float, part: str, label: str, setting: str, unit: str) -> Cell:
    """Tests a claim of being better: a mean above 0 speaks for it, and a mean below `margin` against it."""
    return _cell(differences, 0.0, margin, part, label, setting, unit)


def non_inferiority(
    differences: Sequence[float], *, margin: float, part: str, label: str, setting: str, unit: str
) -> Cell:
    """Tests a claim of losing at most `margin`: a mean above ``-margin`` speaks for it, one below against it."""
    return _cell(differences, -margin, -margin, part, label, setting, unit)


def corrected(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the cells of one claim with their p values adjusted together.

    A mean cannot be below one bound and above a higher one, so at most one of a cell's two null hypotheses is true. Of
    twice as many tests as cells, at most as many as cells can be true at once.
    """
    adjusted = holm([p for cell in cells for p in (cell.p_for, cell.p_against)], most_true=len(cells))
    return [replace(cell, p_for=adjusted[2 * i], p_against=adjusted[2 * i + 1]) for i, cell in enumerate(cells)]


def part_verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """Decides a part of a claim.

    It holds when more than half of its cells speak for it and none against it. It does not hold when at least half
    speak
    against it. Otherwise, and without cells, it is undecided.
    """
    if not outcomes:
        return "undecided"
    against = outcomes.count("against")
    if 2 * against >= len(outcomes):
        return "does not hold"
    return "holds" if 2 * outcomes.count("for") > len(outcomes) and not against else "undecided"


def claim_verdict(parts: Sequence[Verdict]) -> Verdict:
    """Decides a claim: it holds when all of its parts do, and does not hold as soon as one of them does not."""
    if "does not hold" in parts:
        return "does not hold"
    return "holds" if parts and all(part == "holds" for part in parts) else "undecided"


def _cell(
    differences: Sequence[float], low: float, high: float, part: str, label: str, setting: str, unit: str
) -> Cell:
    return Cell(
        part=part,
        label=label,
        setting=setting,
        unit=unit,
        difference=mean_interval(differences),
        p_for=p_above(differences, low),
        p_against=p_below(differences, high),
        wilcoxon=p_wilcoxon(differences),
    )


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
