"""The statistics of a confirmation: members, seeds, means and intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas.outcome import Outcome
from nas.search.pareto import contributions, knee, non_dominated
from nas.types import Candidate, Objective, TrialResult, candidate_seed

LEAST_RUNS = 2
"""The smallest number of finished runs for an interval."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A candidate that is confirmed.

    Attributes:
        candidate: the candidate.
        number: number of the trial on the front; None for a reference network that is not on it.
        reference: name of the reference network; None for other trials.
    """

    candidate: Candidate
    number: int | None = None
    reference: str | None = None

    @property
    def label(self) -> str:
        return " = ".join(
            ([] if self.number is None else [f"trial {self.number}"]) + ([self.reference] if self.reference else [])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRun:
    """One member trained to an end under one seed.

    Attributes:
        digest: digest of the candidate.
        repeat: place of the seed among the confirmation's, from 0.
        seed: seed of weights, data order and training noise.
        number, reference: see `Member`.
        spec, recipe: spec and recipe of the candidate.
        outcome: complete, diverged or out of memory.
        detail: further details of the outcome.
        values: as in `nas.types.Measurement`, and ``test_psnr`` and so on, one for each metric on images that is finite
            on the test split; empty unless complete.
        gates: learned skip gates by level, shallow first: mean, minimum and maximum of each.
        seconds: wall time of the run.
        training_version: version of the training code that trained it (`nas.training.version`).
    """

    digest: str
    repeat: int
    seed: int
    number: int | None
    reference: str | None
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    outcome: Outcome
    training_version: int
    detail: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    gates: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean of independent runs with its 95 % interval (Student's t)."""

    mean: float
    sd: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return self.high - self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The summary of a candidate's runs.

    Attributes:
        runs: number of runs that ended, complete or not.
        failed: number of runs that diverged or ran out of memory; they take no part in `values`.
        values: mean and interval of every value that all complete runs have.
        gates: mean and interval of each learned skip gate, shallow first; empty without any.
    """

    digest: str
    number: int | None
    reference: str | None
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    runs: int
    failed: int
    values: Mapping[str, Interval]
    gates: tuple[Interval, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every run was complete, and there were enough runs for an interval."""
        return not self.failed and bool(self.values)


def interval(values: Sequence[float]) -> Interval:
    """Returns mean, sample standard deviation and 95 % interval ``mean +- t(0.975, n - 1) * sd / sqrt(n)``.

    Raises:
        ValueError: there are fewer than two values.
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    n = len(values)
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return Interval(mean=mean, sd=sd, low=mean - half, high=mean + half, n=n)


def confirmation_seed(study_seed: int, repeat: int) -> int:
    """Returns a seed that is the same for every member, so that they see the same order of data and the same noise.

    It differs from the search's own seeds, which come from digests of candidates.
    """
    return candidate_seed(study_seed, f"confirmation {repeat}")


def pick_members(results: Sequence[TrialResult], objectives: Sequence[Objective], top: int) -> list[TrialResult]:
    """Returns the knee of the front, then the `top` members with the largest hypervolume contributions.

    Args:
        results: complete trials of a study, at least one.
        objectives: objectives in the study's order.
        top: number of members beside the knee; 0 for the knee alone.
    """
    maximize = [o.direction == "maximize" for o in objectives]
    values = np.array([[r.values[o.name] for o in objectives] for r in results])
    mask = non_dominated(values, maximize)
    front, values = [r for r, on in zip(results, mask, strict=True) if on], values[mask]
    gains = contributions(values, [o.reference for o in objectives], maximize)
    best = knee(values, maximize)
    others = [int(i) for i in np.argsort(-gains, kind="stable") if i != best]
    return [front[i] for i in (best, *others[:top])]


def comparable(runs: Iterable[ConfirmedRun]) -> list[ConfirmedRun]:
    """Returns, for each candidate, the runs of the newest version of the training code that trained it.

    Figures of different versions make no mean.
    """
    runs = list(runs)
    newest: dict[str, int] = {}
    for run in runs:
        newest[run.digest] = max(run.training_version, newest.get(run.digest, 0))
    return [run for run in runs if run.training_version == newest[run.digest]]


def summarize(runs: Iterable[ConfirmedRun]) -> list[Confirmed]:
    """Summarises runs by candidate, in the order in which candidates first appear.

    A candidate with fewer than `LEAST_RUNS` complete runs has no values.
    """
    groups: dict[str, list[ConfirmedRun]] = {}
    for run in comparable(runs):
        groups.setdefault(run.digest, []).append(run)
    result = []
    for digest, group in groups.items():
        complete = [run for run in group if run.outcome is Outcome.COMPLETE]
        enough = len(complete) >= LEAST_RUNS
        names = [name for name in complete[0].values if all(name in run.values for run in complete)] if enough else ()
        gates = zip(*(run.gates for run in complete), strict=True) if enough else ()
        result.append(
            Confirmed(
                digest=digest,
                number=next((run.number for run in group if run.number is not None), None),
                reference=next((run.reference for run in group if run.reference is not None), None),
                spec=group[0].spec,
                recipe=group[0].recipe,
                runs=len(group),
                failed=len(group) - len(complete),
                values={name: interval([run.values[name] for run in complete]) for name in names},
                gates=tuple(interval([gate["mean"] for gate in level]) for level in gates),
            )
        )
    return result
