"""How well a score from one run agrees with what other runs show. All functions are pure.

The unit is the architecture: intervals resample architectures, and constants are fitted on one half of them and judged
on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

from benchmarks.lib.penalties import WEIGHTS, Weights, traits
from benchmarks.lib.records import Record
from nas.training.stability import task_stability

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Score = Callable[["Curve"], float]

GOAL = 0.6
RESAMPLES = 2000
EVALUATIONS = 250
"""Evaluations of the agreement from each start of a fit."""
LEAST_GAIN = 0.02
"""The least gain in nats below trivial that is used as a unit."""
SPLITS = 10
"""The number of random halvings of the architectures for fitted constants."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The probe curve of one run: the losses over the trivial losses of both tasks, and the share of the run that was
    done."""

    denoise: tuple[float, ...]
    classify: tuple[float, ...]
    done: float

    @classmethod
    def of(cls, record: Record) -> Curve:
        """Reads the record of a run (`benchmarks.stability.perform`)."""
        return cls(tuple(record["denoise"]), tuple(record["classify"]), record["done"])

    def score(self, of_task: Callable[[Sequence[float]], float] = task_stability) -> float:
        """Returns the stability score of `nas.training.stability`, or another one; 0 for a run that diverged."""
        return 0.0 if self.done < 1 else math.sqrt(of_task(self.denoise) * of_task(self.classify))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the runs of one architecture show.

    Attributes:
        curves: probe curves of the runs at the base rate, by seed.
        quality: (seeds, 2) PSNR in dB and accuracy in percent of those runs; 0 for a run that diverged.
        final: (seeds, 2) their final validation losses in nats, of denoising and of classification.
        sensitivity: the nats lost against the best learning rate, on average over the rates.
    """

    curves: tuple[Curve, ...]
    quality: Array
    final: Array
    sensitivity: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> Observed:
        """Reads the records of all runs of an architecture (`benchmarks.stability.perform`)."""
        base = sorted((r for r in records if r["factor"] == 1.0), key=lambda r: int(r["seed"]))
        rates = sorted({float(r["factor"]) for r in records})
        by_rate = np.array([np.mean([_nats(r) for r in records if r["factor"] == rate], axis=0) for rate in rates])
        lost = np.minimum(by_rate, 0.0) - by_rate.min(axis=0)
        return cls(
            curves=tuple(Curve.of(record) for record in base),
            quality=np.array([[r.get("psnr", 0.0), r.get("accuracy", 0.0)] for r in base], dtype=np.float64),
            final=np.array([_nats(record) for record in base]),
            sensitivity=float(lost.mean()),
        )

    def spread(self, seeds: Sequence[int]) -> float:
        """Returns the standard deviation of the final losses over some seeds, in nats, averaged over the tasks."""
        return float(self.final[list(seeds)].std(axis=0, ddof=1).mean())

    def share_spread(self, seeds: Sequence[int]) -> float:
        """Returns the spread in units of the nats gained.

        A network that gains next to nothing cannot spread in nats.
        """
        final = self.final[list(seeds)]
        gained = np.maximum(-final.mean(axis=0), LEAST_GAIN)
        return float((final.std(axis=0, ddof=1) / gained).mean())


def _nats(record: Record) -> Array:
    """Returns final losses in nats over the trivial ones; a run that diverged has the trivial loss."""
    return np.asarray(np.log(np.maximum(record.get("final", [1.0, 1.0]), 1e-12)))


def spearman(a: Array, b: Array) -> float:
    """Returns Spearman's rank correlation; 0 where one of the two is constant."""
    return _correlation(rankdata(a), rankdata(b))


def partial_spearman(a: Array, b: Array, given: Array) -> float:
    """Returns Spearman's correlation of `a` and `b` given other quantities.

    From the ranks of both, the part is removed that the ranks of `given` (n, k) explain linearly.
    """
    known = np.column_stack([np.ones(len(a)), *(rankdata(column) for column in given.T)])

    def rest(values: Array) -> Array:
        ranks = rankdata(values)
        return np.asarray(ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0])

    return _correlation(rest(a), rest(b))


def icc(values: Array) -> float:
    """Returns the intraclass correlation ICC(1, 1) of (architectures, seeds) (Shrout and Fleiss 1979).

    It is the share of a single score's variance that is the architecture's; 0 where all scores are the same.
    """
    k = values.shape[1]
    between = k * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    total = between + (k - 1) * within
    return float((between - within) / total) if total > 0 else 0.0


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 1e-12 else 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Architectures as arrays.

    Attributes:
        targets: by name, (architectures, seeds): quantities that are small for a calm network, each from all seeds but
            the one of the column.
        quality: (architectures, seeds, 2) PSNR and accuracy.
    """

    targets: Mapping[str, Array]
    quality: Array

    @classmethod
    def of(cls, found: Sequence[Observed]) -> Sample:
        """Collects what the runs of some architectures show."""
        seeds = range(len(found[0].curves))
        others = [[other for other in seeds if other != seed] for seed in seeds]
        return cls(
            targets={
                "spread over seeds": np.array([[one.spread(rest) for rest in others] for one in found]),
                "spread in units of the gain": np.array([[one.share_spread(rest) for rest in others] for one in found]),
                "sensitivity to the rate": np.array([[one.sensitivity for _ in seeds] for one in found]),
            },
            quality=np.array([one.quality for one in found]),
        )

    def agreement(self, scores: Array, rows: Rows | slice = slice(None)) -> Array:
        """Returns how well scores (architectures, seeds) predict calm, for each target.

        It is minus Spearman's correlation with the target, averaged over the seed whose run is scored.
        """
        scores = scores[rows]
        return np.array(
            [
                np.mean([-spearman(scores[:, seed], target[rows][:, seed]) for seed in range(scores.shape[1])])
                for target in self.targets.values()
            ]
        )

    def partial(self, scores: Array, rows: Rows | slice = slice(None)) -> Array:
        """Returns the agreement given PSNR and accuracy of the run that is scored."""
        scores, known = scores[rows], self.quality[rows]
        return np.array(
            [
                np.mean(
                    [
                        -partial_spearman(scores[:, seed], target[rows][:, seed], known[:, seed])
                        for seed in range(scores.shape[1])
                    ]
                )
                for target in self.targets.values()
            ]
        )


def highest_possible(found: Sequence[Observed]) -> Array:
    """Returns the most that a faultless score could agree with each spread, since few seeds tell a spread poorly.

    It is the square root of the spread's reliability: the rank correlation of two halves of the seeds, stretched to all
    seeds but one (Spearman and Brown); 0 when the halves do not agree at all.
    """
    seeds = range(len(found[0].curves))
    reached = []
    for spread in (Observed.spread, Observed.share_spread):
        halves = [
            spearman(np.array([spread(one, half) for one in found]), np.array([spread(one, other) for one in found]))
            for half in combinations(seeds, 2)
            for other in combinations(sorted({*seeds} - {*half}), 2)
        ]
        longer = (len(seeds) - 1) / 2
        agreed = max(0.0, float(np.mean(halves)))
        reached.append(math.sqrt(longer * agreed / (1 + (longer - 1) * agreed)))
    return np.array(reached)


def fitted(parts: Array, sample: Sample, rows: Rows) -> Weights:
    """Fits the constants of the score with penalties to architectures `rows`.

    They have the best agreement there, on average over the targets, by Nelder-Mead in logarithms.

    Args:
        parts: (architectures, seeds, tasks, 6), see `trait_table`.
        sample: the architectures.
        rows: indices of the architectures to fit to.
    """

    def loss(logs: Array) -> float:
        return -float(np.mean(sample.agreement(penalised_scores(parts, Weights(*np.exp(logs))), rows)))

    start = np.log(astuple(WEIGHTS))
    starts = [start, start - 1.5, start + np.array([1.5, -1.5, 0, 0, 1.5])]
    tried = [minimize(loss, one, method="Nelder-Mead", options={"maxfev": EVALUATIONS}) for one in starts]
    best = min(tried, key=lambda result: float(result.fun))
    return Weights(*(float(value) for value in np.exp(best.x)))


def trait_table(found: Sequence[Observed]) -> Array:
    """Returns D, p, E, F, N and A of each curve, (architectures, seeds, tasks, 6); D is 0 for a curve without
    traits."""

    def row(losses: Sequence[float], done: float) -> tuple[float, ...]:
        one = traits(losses)
        return (0.0, 0.0, 0.0, 0.0, 0.0, done) if one is None else (*astuple(one), done)

    return np.array([[[row(c.denoise, c.done), row(c.classify, c.done)] for c in one.curves] for one in found])


def penalised_scores(parts: Array, weights: Weights = WEIGHTS) -> Array:
    """Returns scores with penalties (architectures, seeds) from `trait_table`."""
    gained, *others, done = np.moveaxis(parts, -1, 0)
    gain, *factors = astuple(weights)
    penalty = sum(factor * other for factor, other in zip(factors, others, strict=True))
    return np.asarray(np.prod(done**2 * (1 - np.exp(-gained / gain)) * np.exp(-penalty), axis=-1) ** 0.5)


def scores_by(found: Sequence[Observed], of_task: Callable[[Sequence[float]], float] = task_stability) -> Array:
    """Returns scores (architectures, seeds)."""
    return np.array([[curve.score(of_task) for curve in one.curves] for one in found])


def removed(losses: Sequence[float]) -> float:
    """Returns the share of the trivial loss that is removed, for good or not, averaged over the run."""
    return float(np.maximum(0.0, 1.0 - np.asarray(losses)).mean())


def others(parts: Array, found: Sequence[Observed]) -> dict[str, Array]:
    """Returns other scores (architectures, seeds), by name."""
    none = Weights(gain=WEIGHTS.gain, spikes=0.0, regress=0.0, last_regress=0.0, roughness=0.0)
    only = {
        "spikes alone": replace(none, spikes=WEIGHTS.spikes),
        "regress alone": replace(none, regress=WEIGHTS.regress),
        "regress at the end alone": replace(none, last_regress=WEIGHTS.last_regress),
        "roughness alone": replace(none, roughness=WEIGHTS.roughness),
    }
    return {
        "share removed, whether for good or not": scores_by(found, removed),
        "nats gained, D": parts[..., 0].mean(axis=-1),
        "with penalties": penalised_scores(parts),
        **{f"with penalties: {name}": penalised_scores(parts, weights) for name, weights in only.items()},
    }


def tables(found: Mapping[str, Observed], controls: Mapping[str, Sequence[float]]) -> str:
    """Writes the report in Markdown.

    Agreement is in it where there are five seeds and runs at other learning rates.
    """
    if len(found) < 4:
        return f"{len(found)} architectures have all of their runs; at least 4 are needed"
    observed = list(found.values())
    scores = scores_by(observed)
    quality = np.array([one.quality for one in observed])
    diverged = sum(curve.done < 1 for one in observed for curve in one.curves)
    lines = [
        f"{len(found)} architectures, {scores.shape[1]} seeds, {diverged} runs diverged at the base rate; scores from "
        f"{scores.min():.3f} to {scores.max():.3f}, quartiles "
        + ", ".join(f"{value:.3f}" for value in np.quantile(scores, (0.25, 0.5, 0.75)))
        + ".",
        "",
        "| retest reliability over seeds | ICC(1, 1) |",
        "|---|---|",
    ]
    reliable = {"the score": scores, "PSNR": quality[..., 0], "accuracy": quality[..., 1]}
    reliable["the score with penalties"] = penalised_scores(trait_table(observed))
    lines += [f"| {name} | {_reliability(values)} |" for name, values in reliable.items()]
    if scores.shape[1] > 4 and any(one.sensitivity for one in observed):
        sample, parts = Sample.of(observed), trait_table(observed)
        lines += ["", *_agreements(sample, parts, observed), "", *_halves(sample, parts, scores)]
    lines += ["", "| control, must not score high | scores |", "|---|---|"]
    lines += [f"| {name} | {', '.join(f'{score:.3f}' for score in scores)} |" for name, scores in controls.items()]
    return "\n".join(lines)


def _agreements(sample: Sample, parts: Array, found: Sequence[Observed]) -> list[str]:
    scores, n = scores_by(found), len(found)
    highest = " | ".join([*(f"{value:.2f}" for value in highest_possible(found)), ""])
    lines = [
        f"| agreement with calm (goal: {GOAL}) | {' | '.join(sample.targets)} |",
        "|---" * (1 + len(sample.targets)) + "|",
        _line("the score", partial(sample.agreement, scores), n),
        _line("the score, given PSNR and accuracy", partial(sample.partial, scores), n),
        f"| a faultless score, as few seeds tell spread | {highest}|",
    ]
    compared = others(parts, found)
    compared |= {"PSNR of the run itself": sample.quality[..., 0], "accuracy of the run itself": sample.quality[..., 1]}
    for name, values in compared.items():
        lines.append(_line(name, partial(sample.agreement, values), n))
    return lines


def _halves(sample: Sample, parts: Array, scores: Array) -> list[str]:
    """Compares the score with the one with penalties, on halves of the architectures.

    The latter has its own constants, and constants that were fitted on the other half.
    """
    rng = np.random.default_rng(0)
    judged: dict[str, list[Array]] = {"the score": [], "with penalties": [], "with penalties, fitted": []}
    weights = []
    for _ in range(SPLITS):
        order = rng.permutation(len(parts))
        for half, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            weights.append(fitted(parts, sample, other))
            compared = (scores, penalised_scores(parts), penalised_scores(parts, weights[-1]))
            for name, values in zip(judged, compared, strict=True):
                judged[name].append(sample.agreement(values, half))
    middle = ", ".join(f"{value:.2g}" for value in np.median([astuple(one) for one in weights], axis=0))
    return [
        f"Halves, mean of {2 * SPLITS} (constants fitted: gain, spikes, regress, last regress, roughness; "
        f"medians {middle}):",
        "",
        f"| on the half that nothing was fitted on | {' | '.join(sample.targets)} |",
        "|---" * (1 + len(sample.targets)) + "|",
        *(f"| {n} | {' | '.join(f'{x:.2f}' for x in np.mean(a, axis=0))} |" for n, a in judged.items()),
    ]


def _line(name: str, agreement: Callable[[Rows], Array], n: int) -> str:
    found = _bootstrap(agreement, n)
    cells = " | ".join(f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in found.T)
    return f"| {name} | {cells} |"


def _reliability(values: Array) -> str:
    """Writes the intraclass correlation of (architectures, seeds) with its interval."""
    ((value, low, high),) = _bootstrap(lambda rows: np.array([icc(values[rows])]), len(values)).T
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _bootstrap(statistic: Callable[[Rows], Array], n: int) -> Array:
    """Returns (3, k): the statistic over all n architectures, and its 95 % percentile interval over resampled ones."""
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(0, n, size=n)) for _ in range(RESAMPLES)])
    return np.vstack([statistic(np.arange(n)), *np.nanquantile(drawn, (0.025, 0.975), axis=0)])
