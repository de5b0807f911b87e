"""The verdict on a found network and each of its rivals, from runs under the same seeds. All functions are pure.

Differences are those of the found network less the rival, seed by seed. All differences of a found network, in PSNR and
in accuracy, are tested together by Holm's procedure at 5 %, and each interval has the level at which its difference is
tested. So "better" and "worse" are told about as many rivals as there are with one error in twenty cells.

A found network has to be better than a rival in one of the two, and must not be worse in the other. Such a loss need
not stand up to the correction: that the plain 95 % interval lies below 0 is enough, because a correction for many
comparisons would hide losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.lib.records import Record
from benchmarks.lib.stats import Interval, holm_levels, mean_interval, p_other

Verdict = Literal["better", "mixed", "undecided", "worse"]
VERDICTS: tuple[Verdict, ...] = ("better", "mixed", "undecided", "worse")
METRICS = ("psnr", "accuracy")
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A found network less a rival in one metric.

    Attributes:
        shown: the interval at the level of Holm's procedure.
        plain: the 95 % interval, uncorrected.
    """

    shown: Interval
    plain: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A found network beside a rival: both as rows of a record, and the differences by metric."""

    rival: Record
    differences: Mapping[str, Difference]

    @property
    def verdict(self) -> Verdict:
        """Whether the found network is better, worse, better in one metric and worse in the other, or none of these."""
        shown = {side(each.shown) for each in self.differences.values()}
        plain = {side(each.plain) for each in self.differences.values()} | shown
        if shown == {0}:
            return "undecided"
        if {1, -1} <= plain:
            return "mixed"
        return "better" if 1 in shown else "worse"


def side(found: Interval) -> int:
    """Returns 1 for an interval above 0, -1 for one below 0, and 0 for any other."""
    return int(found.low > 0) - int(found.high < 0)


def paired(found: Record, rival: Record, metric: str) -> list[float]:
    """Returns the differences under the seeds under which both were trained to an end."""
    both = zip(found[metric], rival[metric], strict=True)
    return [one - other for one, other in both if one is not None and other is not None]


def compare(found: Record, rivals: Sequence[Record]) -> list[Comparison]:
    """Compares a found network with its rivals, in their order."""
    values = [paired(found, rival, metric) for rival in rivals for metric in METRICS]
    levels = holm_levels([p_other(each) for each in values], LEVEL)
    all_of = [
        Difference(shown=mean_interval(each, level), plain=mean_interval(each, LEVEL))
        for each, level in zip(values, levels, strict=True)
    ]
    return [
        Comparison(rival=rival, differences=dict(zip(METRICS, all_of[2 * place : 2 * place + 2], strict=True)))
        for place, rival in enumerate(rivals)
    ]


def wins(found: Record, compared: Sequence[Comparison]) -> bool:
    """Tells whether a found network is better than each of some rivals, and was trained to an end under every seed."""
    return None not in found["psnr"] and all(each.verdict == "better" for each in compared)
