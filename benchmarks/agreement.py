"""How well a score from one run agrees with what other runs show. Pure functions.

The unit is the architecture: intervals resample architectures, and constants are fitted on one half of them
and judged on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

from nas.stability import WEIGHTS, Weights, task_stability, traits

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Score = Callable[["Curve"], float]

GOAL = 0.6
RESAMPLES = 2000
SPLITS = 10
"""Random halvings of the architectures for fitted constants."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The probe curve of one run: losses over the trivial ones of both tasks, and the share of the run done."""

    denoise: tuple[float, ...]
    classify: tuple[float, ...]
    done: float

    @classmethod
    def of(cls, record: Mapping[str, object]) -> Curve:
        return cls(tuple(record["denoise"]), tuple(record["classify"]), record["done"])  # type: ignore[arg-type]

    def score(self, weights: Weights = WEIGHTS) -> float:
        """The stability score, as `nas.stability.stability` gives it."""
        return math.sqrt(math.prod(task_stability(task, self.done, weights) for task in (self.denoise, self.classify)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the runs of one architecture show.

    Attributes:
        curves: of the runs at the base rate, by seed.
        quality: (seeds, 2) PSNR in dB and accuracy in percent of those runs; of a diverged one those of doing nothing.
        final: (seeds, 2) their final validation losses in nats, denoising and classification.
        sensitivity: nats lost on average over learning rates against the best of them.
    """

    curves: tuple[Curve, ...]
    quality: Array
    final: Array
    sensitivity: float

    @classmethod
    def of(cls, records: Sequence[Mapping[str, object]]) -> Observed:
        """From the records of all of its runs (`benchmarks.stability.perform`)."""
        base = sorted((r for r in records if r["factor"] == 1.0), key=lambda r: r["seed"])  # type: ignore[arg-type, return-value]
        rates = sorted({float(r["factor"]) for r in records})  # type: ignore[arg-type]
        by_rate = np.array([np.mean([_nats(r) for r in records if r["factor"] == rate], axis=0) for rate in rates])
        lost = np.minimum(by_rate, 0.0) - by_rate.min(axis=0)
        return cls(
            curves=tuple(Curve.of(record) for record in base),
            quality=np.array([[r.get("psnr", 0.0), r.get("accuracy", 0.0)] for r in base], dtype=np.float64),
            final=np.array([_nats(record) for record in base]),
            sensitivity=float(lost.mean()),
        )

    def spread(self, without: int) -> float:
        """Standard deviation of the final losses over seeds but one, in nats, mean over the tasks; NaN for two."""
        return (
            math.nan
            if len(self.final) < 3
            else float(np.delete(self.final, without, axis=0).std(axis=0, ddof=1).mean())
        )


def _nats(record: Mapping[str, object]) -> Array:
    """Final losses in nats over the trivial ones; a run that diverged has done nothing."""
    final: list[float] = record.get("final", [1.0, 1.0])  # type: ignore[assignment]
    return np.log(np.maximum(final, 1e-12))


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant."""
    return _correlation(rankdata(a), rankdata(b))


def partial_spearman(a: Array, b: Array, given: Array) -> float:
    """Spearman's correlation of what the ranks of `given` (n, k) do not explain linearly in those of `a` and `b`."""
    known = np.column_stack([np.ones(len(a)), *(rankdata(column) for column in given.T)])

    def rest(values: Array) -> Array:
        ranks = rankdata(values)
        return np.asarray(ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0])

    return _correlation(rest(a), rest(b))


def icc(values: Array) -> float:
    """Intraclass correlation ICC(1, 1) of (architectures, seeds): how much of a single score is the architecture's
    (Shrout and Fleiss 1979)."""
    k = values.shape[1]
    between = k * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    return float((between - within) / (between + (k - 1) * within))


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 1e-12 else 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Architectures as arrays: targets and quality (architectures, seeds[, 2])."""

    spread: Array
    sensitivity: Array
    quality: Array

    @classmethod
    def of(cls, found: Sequence[Observed]) -> Sample:
        seeds = range(len(found[0].curves))
        return cls(
            spread=np.array([[one.spread(without=seed) for seed in seeds] for one in found]),
            sensitivity=np.array([[one.sensitivity] * len(seeds) for one in found]),
            quality=np.array([one.quality for one in found]),
        )

    def agreement(self, scores: Array, rows: Rows | slice = slice(None)) -> tuple[float, float]:
        """How well scores (architectures, seeds) foretell calm: minus Spearman's correlation with spread and with
        sensitivity, each the mean over the seed whose run is scored."""
        pairs = [(scores[rows][:, s], target[rows][:, s]) for target in self._targets for s in self._seeds]
        found = [-spearman(a, b) for a, b in pairs]
        return float(np.mean(found[: len(found) // 2])), float(np.mean(found[len(found) // 2 :]))

    def partial(self, scores: Array, rows: Rows | slice = slice(None)) -> tuple[float, float]:
        """The same given PSNR and accuracy of the run that is scored."""
        found = [
            -partial_spearman(scores[rows][:, s], target[rows][:, s], self.quality[rows][:, s])
            for target in self._targets
            for s in self._seeds
        ]
        return float(np.mean(found[: len(found) // 2])), float(np.mean(found[len(found) // 2 :]))

    @property
    def _targets(self) -> tuple[Array, Array]:
        return self.spread, self.sensitivity

    @property
    def _seeds(self) -> range:
        return range(self.spread.shape[1])


def fitted(parts: Array, sample: Sample, rows: Rows) -> Weights:
    """The constants with the best mean agreement over the architectures `rows`, by Nelder-Mead in logarithms.

    Args:
        parts: (architectures, seeds, tasks, 6), see `trait_table`.
    """

    def loss(logs: Array) -> float:
        return -float(np.mean(sample.agreement(scores_of(parts, Weights(*np.exp(logs))), rows)))

    start = np.log(astuple(WEIGHTS))
    starts = [start, start - 1.5, start + np.array([1.5, -1.5, 0, 0, 1.5])]
    tried = [minimize(loss, one, method="Nelder-Mead", options={"maxfev": 250}) for one in starts]
    best = min(tried, key=lambda result: float(result.fun))
    return Weights(*(float(value) for value in np.exp(best.x)))


def trait_table(found: Sequence[Observed]) -> Array:
    """(architectures, seeds, tasks, 6): D, p, E, F, N and A of each curve; D is 0 where it has no traits."""

    def row(losses: Sequence[float], done: float) -> tuple[float, ...]:
        one = traits(losses)
        return (0.0, 0.0, 0.0, 0.0, 0.0, done) if one is None else (*astuple(one), done)

    return np.array([[[row(c.denoise, c.done), row(c.classify, c.done)] for c in one.curves] for one in found])


def scores_of(parts: Array, weights: Weights = WEIGHTS) -> Array:
    """Stability scores (architectures, seeds) from `trait_table`."""
    gained, *others, done = np.moveaxis(parts, -1, 0)
    gain, *factors = astuple(weights)
    penalty = sum(factor * other for factor, other in zip(factors, others, strict=True))
    return np.asarray(np.prod(done**2 * (1 - np.exp(-gained / gain)) * np.exp(-penalty), axis=-1) ** 0.5)


def simpler(parts: Array) -> dict[str, Array]:
    """Scores with fewer parts (architectures, seeds), by name."""
    only = {
        "spikes alone": replace(WEIGHTS, regress=0.0, last_regress=0.0, roughness=0.0),
        "regress alone": replace(WEIGHTS, spikes=0.0, last_regress=0.0, roughness=0.0),
        "last regress alone": replace(WEIGHTS, spikes=0.0, regress=0.0, roughness=0.0),
        "roughness alone": replace(WEIGHTS, spikes=0.0, regress=0.0, last_regress=0.0),
        "no last regress, no roughness": replace(WEIGHTS, last_regress=0.0, roughness=0.0),
    }
    found = {name: scores_of(parts, weights) for name, weights in only.items()}
    return {**found, "nats gained, D": parts[..., 0].mean(axis=-1)}


def tables(found: Mapping[str, Observed], controls: Mapping[str, Sequence[float]]) -> str:
    """The report, in Markdown. Agreement is told where there are three seeds and other learning rates."""
    if len(found) < 4:
        return f"{len(found)} architectures have all of their runs; at least 4 are needed"
    observed = list(found.values())
    sample, parts = Sample.of(observed), trait_table(observed)
    scores = scores_of(parts)
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
    for name, values in (
        ("the score", scores),
        ("PSNR", sample.quality[..., 0]),
        ("accuracy", sample.quality[..., 1]),
    ):
        lines.append(f"| {name} | {_told(lambda rows, v=values: icc(v[rows]), len(found))} |")  # type: ignore[misc]
    if scores.shape[1] > 2 and sample.sensitivity.any():
        lines += ["", *_agreements(sample, parts, scores), "", *_halves(sample, parts)]
    lines += ["", "| control, must not score high | scores |", "|---|---|"]
    lines += [f"| {name} | {', '.join(f'{score:.3f}' for score in scores)} |" for name, scores in controls.items()]
    return "\n".join(lines)


def _agreements(sample: Sample, parts: Array, scores: Array) -> list[str]:
    n = len(scores)
    lines = [
        f"| agreement with calm (to be: {GOAL}) | spread over seeds | sensitivity to the rate |",
        "|---|---|---|",
        _line("the score", lambda rows: sample.agreement(scores, rows), n),
        _line("the score, given PSNR and accuracy", lambda rows: sample.partial(scores, rows), n),
    ]
    others = simpler(parts)
    others |= {"PSNR of the run itself": sample.quality[..., 0], "accuracy of the run itself": sample.quality[..., 1]}
    for name, values in others.items():
        lines.append(_line(name, lambda rows, v=values: sample.agreement(v, rows), n))  # type: ignore[misc]
    return lines


def _halves(sample: Sample, parts: Array) -> list[str]:
    """Constants fitted on one half of the architectures, judged on the other, both ways, over random halvings."""
    rng = np.random.default_rng(0)
    judged: dict[str, list[tuple[float, float]]] = {"constants as they are": [], "fitted on the other half": []}
    weights = []
    for _ in range(SPLITS):
        order = rng.permutation(len(parts))
        for half, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            weights.append(fitted(parts, sample, other))
            judged["constants as they are"].append(sample.agreement(scores_of(parts), half))
            judged["fitted on the other half"].append(sample.agreement(scores_of(parts, weights[-1]), half))
    middle = ", ".join(f"{value:.2g}" for value in np.median([astuple(one) for one in weights], axis=0))
    return [
        f"Halves, mean of {2 * SPLITS} (constants fitted: gain, spikes, regress, last regress, roughness; "
        f"medians {middle}):",
        "",
        "| on the half that nothing was fitted on | spread over seeds | sensitivity to the rate |",
        "|---|---|---|",
        *(f"| {name} | {np.mean(a, axis=0)[0]:.2f} | {np.mean(a, axis=0)[1]:.2f} |" for name, a in judged.items()),
    ]


def _line(name: str, both: Callable[[Rows], tuple[float, float]], n: int) -> str:
    found = _bootstrap(lambda rows: np.array(both(rows)), n)
    cells = " | ".join(f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in found.T)
    return f"| {name} | {cells} |"


def _told(one: Callable[[Rows], float], n: int) -> str:
    ((value, low, high),) = _bootstrap(lambda rows: np.array([one(rows)]), n).T
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _bootstrap(statistic: Callable[[Rows], Array], n: int) -> Array:
    """(3, k): the statistic over all n architectures, and its 95 % percentile interval over resampled ones."""
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(0, n, size=n)) for _ in range(RESAMPLES)])
    return np.vstack([statistic(np.arange(n)), *np.nanquantile(drawn, (0.025, 0.975), axis=0)])
