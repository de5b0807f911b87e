"""The best that a study knows at each size, of the networks that it found and of the networks of the papers.

A size is a number of multiply-accumulates. Figures are of the search's one run each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.search.objectives import Metric, followed

if TYPE_CHECKING:
    from studies.reading.history import History
    from studies.reading.study import StudyReader

HALVINGS = 4
"""The number of sizes that tables show: the largest one that is known, half of it, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A complete trial with its size.

    Attributes:
        number: its number.
        reference: name of the network of the papers that it is; empty for a network that the search found.
        macs: multiply-accumulates for an image.
        values: every measured value.
    """

    number: int
    reference: str
    macs: float
    values: Mapping[str, float]

    @property
    def label(self) -> str:
        """Returns ``trial 7``, or the name of the reference network."""
        return self.reference or f"trial {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSize:
    """The best trials up to a size.

    Attributes:
        macs: the size.
        found: name of a metric -> the best of the networks that the search found; empty where it found none.
        references: the same of the networks of the papers.
    """

    macs: float
    found: Mapping[str, Sized]
    references: Mapping[str, Sized]


def sized_trials(study: StudyReader) -> list[Sized]:
    """Returns the complete trials of a study, by number."""
    references = study.references()
    return [
        Sized(number=r.number, reference=references.get(r.number, ""), macs=r.values["macs"], values=r.values)
        for r in study.results()
        if "macs" in r.values
    ]


def sized_of(history: History) -> list[Sized]:
    """Returns the same trials from a study that has been read."""
    return [
        Sized(number=t.number, reference=t.reference, macs=t.macs, values=t.values)
        for t in history.complete
        if t.macs is not None
    ]


def measured(trials: Iterable[Sized], objectives: Iterable[str] = ()) -> list[Metric]:
    """Returns the usual metrics on images, and those of `objectives`, that all trials have; none without trials."""
    trials = list(trials)
    return [metric for metric in followed(objectives) if trials and all(metric.name in t.values for t in trials)]


def staircase(trials: Iterable[Sized], metric: Metric) -> list[Sized]:
    """Returns the trials that are better in a metric than every smaller one, from small to large.

    Of trials of one size only the best can be among them.
    """
    sign = 1 if metric.direction == "maximize" else -1
    stairs: list[Sized] = []
    for trial in sorted(trials, key=lambda t: (t.macs, -sign * t.values[metric.name], t.number)):
        if not stairs or sign * (trial.values[metric.name] - stairs[-1].values[metric.name]) > 0:
            stairs.append(trial)
    return stairs


def best_at_sizes(trials: Sequence[Sized], objectives: Iterable[str] = ()) -> list[AtSize]:
    """Returns the best trials up to each of `HALVINGS` sizes, from small to large, without sizes that have no trial.

    They are the best in each of the `measured` metrics.
    """
    metrics = measured(trials, objectives)
    if not metrics:
        return []
    stairs = {
        kind: {m.name: staircase([t for t in trials if bool(t.reference) == kind], m) for m in metrics}
        for kind in (False, True)
    }

    def best(kind: bool, macs: float) -> dict[str, Sized]:
        reached = {name: [t for t in steps if t.macs <= macs] for name, steps in stairs[kind].items()}
        return {name: steps[-1] for name, steps in reached.items() if steps}

    largest = max(t.macs for t in trials)
    sizes = [largest / 2**halving for halving in reversed(range(HALVINGS))]
    rows = [AtSize(macs=macs, found=best(False, macs), references=best(True, macs)) for macs in sizes]
    return [row for row in rows if row.found or row.references]
