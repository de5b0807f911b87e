"""Bayesian optimisation with moves: what a candidate may add to the front, for the time that it takes.

A Gaussian process for each objective (`nas.search.gaussian_process`) learns from all trials of the study and from
earlier trials of other tasks, if the space has a prior (`nas.search.prior`). Proposals are the best of a pool: moves of
one to three hyperparameters from the best known candidates, crossings of two of them, the candidates that the prior
knows, and random draws. The best is the one with the largest expected hypervolume improvement for its time.

Values are compared with a front of posterior means and not of observed values, so that a lucky run is no reason to
search beside it, and what differs by less than seeds differ counts for little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from threadpoolctl import ThreadpoolController

from nas.search.codes import Codes
from nas.search.gaussian_process import OWN, GaussianProcess, Observations, likeness_of
from nas.search.improvement import expected_improvement
from nas.search.objectives import metric_of
from nas.search.pareto import Array, Mask, best_subset
from nas.search.pool import Pool
from nas.search.prior import Belief, Prior
from nas.types import Objective

if TYPE_CHECKING:
    from nas.search.past import Sketch
    from nas.search.sampler import Question

STARTUP_TRIALS = 8
"""The number of trained trials from which proposals are made without a prior; before it draws are random."""

TRUST = (1.0, 0.5, 0.0)
"""Shares of the prior's coupling of tasks that are tried."""

UNITS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Multiples of the usual unit of scores that are tried."""

LEAST_OWN = 4
"""The number of values of the study from which trust and unit are chosen."""

KNOWN = 100
"""The largest number of the study's trials that are learned from: the best quarter, and a random choice of others."""

PENDING = 100
"""The largest number of trials under way that are learned from, a random choice where there are more.

With a thousand workers a proposal would otherwise take ten times as long, for points of which nothing is known yet."""

PARENTS = 10
"""The number of best known candidates from which moves are made."""

MOVES, CROSSINGS, EARLIER, RANDOM = 130, 30, 50, 30
"""The sizes of the parts of the pool."""

REFINED, REFINEMENTS = 4, 40
"""The number of the pool's best candidates from which further moves are made, and the number of these moves."""

DIVERGED = 0.5
"""How far a trial that diverged is below the worst score that is known."""

NO_BELIEF = Belief(unit=0.0, noise=0.1, variance=1.0, coupling=0.0, relevance={})
DEFAULT_RELEVANCE = 0.15
"""The relevance of a hyperparameter that no prior tells of. Candidates that differ in one choice correlate at 0.86."""

EFFORT = "effort"
"""The name under which earlier trials tell how much longer a training takes than `effort` says, as a logarithm."""

PACE = 0.75
"""The exponent of the time by which an expected improvement is divided: 0 ignores time, 1 compares per second.

It was chosen so that the default search takes about as long as the one with `tpe` and the papers' networks did
(benchmarks/RESULTS.md, "The default search under ten study seeds")."""

LEAST = 0.1
"""The least time of a training, as a share of that of the largest network that the limits allow.

On large images small networks are hundreds of times faster than large ones. Divided by such times, the improvement
that a large one brings is never the largest, and a search goes through all sizes before it comes to the right ones
(benchmarks/RESULTS.md, "A search on photographs"). On images as small as digits the time that every step takes is more
than this share and bounds times by itself; the share does not count there."""

USUAL_BATCH = 16
"""The batch size for which the time that every step takes is compared with `LEAST`."""


def score(shortfall: Array, unit: float) -> Array:
    """Returns ``-log(1 + shortfall / unit)``: near the best it is linear, and far from it differences count little.

    Args:
        shortfall: differences from the best known value, at least 0.
        unit: a typical shortfall.
    """
    return np.asarray(-np.log1p(np.maximum(shortfall, 0.0) / unit))


def effort(sketch: Sketch, step_macs: float) -> float:
    """Returns the time of a training in units of MACs for an image, from its MACs and its batch size alone.

    It is no measurement, so that proposals do not depend on the machine.
    """
    return sketch.cost.macs + step_macs / sketch.batch_size


def bayes_draws(question: Question) -> Iterator[dict[str, Any]]:
    """Yields the pool's candidates for one trial, the best first; nothing while there is nothing to learn from."""
    # The matrices are small, and the workers need the other cores.
    with _blas().limit(limits=1, user_api="blas"):
        found = _ordered_pool(question)
    for sketch in found:
        yield dict(sketch.params)


def merits_before(
    space: Mapping[str, BaseDistribution],
    objectives: Sequence[Objective],
    prior: Prior,
    max_macs: int,
    sketches: Sequence[Sketch],
) -> Array:
    """Returns the merit that candidates have while a study has no trial, (n,): larger is better."""
    with _blas().limit(limits=1, user_api="blas"):
        return _Model(space, objectives, prior, max_macs, _Known.nothing(len(objectives))).merits(sketches)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _ordered_pool(question: Question) -> list[Sketch]:
    """Returns the pool of one trial, the best candidate first."""
    known = _Known.of(question)
    if not question.prior.trials and known.trained < STARTUP_TRIALS:
        return []
    rng = np.random.default_rng(question.seed)
    model = _Model(question.space, question.objectives, question.prior, question.max_macs, known)
    pool = Pool(question, rng, model.relevance)
    parents = known.best(model, PARENTS)
    earlier = [trial.hyperparameters for trial in question.prior.trials]
    pool.add_moves(parents or earlier, MOVES)
    pool.add_crossings(parents, [*(each.params for each in known.sketches), *earlier], CROSSINGS)
    pool.add(earlier[index] for index in rng.permutation(len(earlier))[:EARLIER].tolist())
    pool.add_random(RANDOM)
    merits = model.merits(pool.sketches)
    best = [pool.sketches[row].params for row in np.argsort(-merits, kind="stable")[:REFINED]]
    pool.add_moves(best, REFINEMENTS)
    merits = np.append(merits, model.merits(pool.sketches[len(merits) :]))
    return [pool.sketches[row] for row in np.argsort(-merits, kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The study's trials as the model learns from them.

    Attributes:
        trained: number of all trained trials.
        numbers: numbers of the trials that are learned from, in ascending order.
        sketches: candidates of these trials, and then of those under way.
        values: (numbers, objectives) values at the end of a training, NaN where unknown.
        spread: the same shape, variances of the values that were extrapolated from a rung, in squared units.
        diverged: (numbers,) whether a trial diverged or ran out of memory.
    """

    trained: int
    numbers: Sequence[int]
    sketches: Sequence[Sketch]
    values: Array
    spread: Array
    diverged: Mask

    @classmethod
    def nothing(cls, objectives: int) -> _Known:
        """Returns what is known of an empty study."""
        empty, none = np.empty((0, objectives)), np.zeros(0, dtype=bool)
        return cls(trained=0, numbers=(), sketches=(), values=empty, spread=empty, diverged=none)

    @classmethod
    def of(cls, question: Question) -> _Known:
        """Reads a study."""
        final = _AtTheEnd.of(question)
        kept = cls._kept(question, final)
        under_way = cls._pending(question)
        sketches = _sketches(question, [*final.numbers[kept].tolist(), *under_way])
        kept = [row for row in kept if final.numbers[row] in sketches]
        numbers = final.numbers[kept].tolist()
        return cls(
            trained=len(final.numbers),
            numbers=numbers,
            sketches=[sketches[number] for number in (*numbers, *under_way) if number in sketches],
            values=final.values[kept],
            spread=final.spread[kept],
            diverged=final.diverged[kept],
        )

    @staticmethod
    def _pending(question: Question) -> list[int]:
        """Returns the numbers of at most `PENDING` trials under way, in ascending order."""
        numbers = [number for number in question.past.under_way(reread=False) if number != question.number]
        if len(numbers) <= PENDING:
            return numbers
        return sorted(np.random.default_rng(question.seed).choice(numbers, PENDING, replace=False).tolist())

    @staticmethod
    def _kept(question: Question, final: _AtTheEnd) -> list[int]:
        """Returns the rows of at most `KNOWN` trials, in ascending order of their numbers."""
        rows = np.argsort(final.numbers)
        if len(rows) <= KNOWN:
            return list(rows.tolist())
        there = rows[~np.isnan(final.values[rows]).any(axis=1)]
        maximize = [o.direction == "maximize" for o in question.objectives]
        best = there[best_subset(final.values[there], KNOWN // 4, maximize)] if len(there) else there
        others = rows[~np.isin(rows, best)]
        rng = np.random.default_rng(question.seed)
        kept = np.append(best, rng.choice(others, KNOWN - len(best), replace=False))
        return list(kept[np.argsort(final.numbers[kept])].tolist())

    def best(self, model: _Model, count: int) -> list[Mapping[str, Any]]:
        """Returns the hyperparameters of the best complete trials, by the model's means."""
        if not len(model.front_rows):
            return []
        means = model.known_means[model.complete]
        rows = np.flatnonzero(model.complete)[best_subset(means, count, [True] * means.shape[1])]
        return [self.sketches[row].params for row in rows]


def _sketches(question: Question, numbers: Sequence[int]) -> dict[int, Sketch]:
    """Returns the candidates of trials by number, without those that no longer decode or are not drawn yet."""
    found = {}
    for number, row in zip(numbers, question.past.drawn(numbers), strict=True):
        if not np.isnan(row).any():
            stored = zip(question.space.items(), row, strict=True)
            sketch = question.sketch({name: each.to_external_repr(value) for (name, each), value in stored})
            if sketch is not None:
                found[number] = sketch
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _AtTheEnd:
    """What a whole training gives, or would give, of each trained trial.

    A trial that was stopped at a rung gets the values that it has there plus the median gain, from this rung to the
    end, of the trials that were trained to the end. Values are NaN for a trial that diverged, for one that was stopped
    while fewer than three trials tell the gain, and for objectives that are not known at rungs.

    Attributes:
        numbers: numbers of the trials, (n,).
        values: their values, (n, objectives).
        spread: the same shape, variances of the values that are extrapolated.
        diverged: (n,) whether a trial diverged or ran out of memory.
    """

    numbers: NDArray[np.int64]
    values: Array
    spread: Array
    diverged: Mask

    @classmethod
    def of(cls, question: Question) -> _AtTheEnd:
        """Reads a study, without the trial that is asked for."""
        past = question.past
        judged = [(number, *found) for number, found in past.judged().items() if number != question.number]
        columns, blank = len(question.objectives), (math.nan,) * len(question.objectives)
        numbers = np.array([number for number, _, _ in judged], dtype=np.int64)
        epochs = np.array([epoch for _, epoch, _ in judged], dtype=np.int64)
        values = np.array([found or blank for _, _, found in judged], dtype=np.float64).reshape(-1, columns)
        diverged = np.array([not found for _, _, found in judged], dtype=bool)
        spread = np.zeros_like(values)
        last = epochs.max(initial=0)
        ends = np.flatnonzero(~diverged & (epochs == last))
        for rung in np.unique(epochs[~diverged & (epochs != last)]).tolist():
            there = past.rung(rung)
            stopped = np.flatnonzero(~diverged & (epochs == rung))
            known = np.array([number in there for number in numbers[stopped].tolist()])
            both = [row for row, number in zip(ends.tolist(), numbers[ends].tolist(), strict=True) if number in there]
            if len(both) < 3:
                known[:] = False
            values[stopped[~known]] = math.nan
            if known.any():
                at_rung = _in_order(question, [there[number] for number in numbers[both].tolist()])
                gains = values[both] - at_rung
                now = _in_order(question, [there[number] for number in numbers[stopped[known]].tolist()])
                values[stopped[known]] = now + np.median(gains, axis=0)
                spread[stopped[known]] = np.nan_to_num(np.var(gains, axis=0))
        return cls(numbers=numbers, values=values, spread=spread, diverged=diverged)


def _in_order(question: Question, at_rung: Sequence[Sequence[float]]) -> Array:
    """Returns values at a rung in the order of the study's objectives, NaN for those that are not known there."""
    names = [o.name for o in question.past.rung_objectives()]
    found = np.full((len(at_rung), len(question.objectives)), math.nan)
    for column, objective in enumerate(question.objectives):
        if objective.name in names:
            place = names.index(objective.name)
            found[:, column] = [values[place] for values in at_rung]
    return found


class _Model:
    """Posterior means and gains of candidates, from a Gaussian process for each objective that is measured.

    Attributes:
        relevance: how much each hyperparameter matters for any objective.
        complete: (trials,) which of the study's kept trials have all values.
        known_means: (trials, objectives) posterior means of the study's kept trials, as scores.
        front_rows: rows of the complete trials.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        objectives: Sequence[Objective],
        prior: Prior,
        max_macs: int,
        known: _Known,
    ) -> None:
        self._codes, self._step_macs = Codes(space), prior.step_macs
        least = LEAST * max_macs
        self._least = least if least > prior.step_macs / USUAL_BATCH else 1.0
        beliefs = [prior.beliefs.get(metric_of(o.name).stands_for or o.name, NO_BELIEF) for o in objectives]
        self.relevance = {
            name: max((b.relevance.get(name, DEFAULT_RELEVANCE) for b in beliefs), default=DEFAULT_RELEVANCE)
            for name in space
        }
        own = self._codes.codes((each.params, each.cost) for each in known.sketches)
        earlier = self._codes.codes((trial.hyperparameters, trial.cost) for trial in prior.trials)
        count = len(known.numbers)
        self.complete = ~np.isnan(known.values).any(axis=1)
        self.front_rows = np.flatnonzero(self.complete)
        self._columns: list[_Column] = []
        means = []
        for k, (objective, belief) in enumerate(zip(objectives, beliefs, strict=True)):
            if metric_of(objective.name).basis == "cost":
                column: _Column = _CostColumn(objective)
            else:
                column = _MeasuredColumn(
                    objective,
                    belief,
                    self._codes,
                    own,
                    known.values[:, k],
                    known.spread[:, k],
                    known.diverged,
                    earlier,
                    prior,
                )
            self._columns.append(column)
            means.append(column.predict(known.sketches, own)[0][:count])
        self.known_means = np.array(means).T.reshape(count, len(self._columns))
        self._front = self.known_means[self.complete]
        self._reference = np.array([column.reference for column in self._columns])
        self._slowness = _slowness(prior, self._codes, earlier)

    def merits(self, sketches: Sequence[Sketch]) -> Array:
        """Returns the expected hypervolume improvement of candidates for their time, (n,)."""
        if not sketches:
            return np.empty(0)
        codes = self._codes.codes((each.params, each.cost) for each in sketches)
        found = [column.predict(sketches, codes) for column in self._columns]
        gains = expected_improvement(
            np.array([mean for mean, _ in found]).T.reshape(len(sketches), -1),
            np.array([sd for _, sd in found]).T.reshape(len(sketches), -1),
            self._front,
            self._reference,
        )
        efforts = np.array([effort(each, self._step_macs) for each in sketches])
        if self._slowness is not None:
            efforts *= np.exp(self._slowness(codes)[0])
        return np.asarray(gains / np.maximum(efforts, self._least) ** PACE)


def _slowness(prior: Prior, codes: Codes, earlier: Array) -> GaussianProcess | None:
    """Returns the process that tells how much longer trainings take than `effort` says; None if the prior does not.

    Two columns, small layers and surgery take time that no count of MACs shows.
    """
    belief = prior.beliefs.get(EFFORT)
    if belief is None or not prior.trials:
        return None
    observed = Observations(
        codes=earlier,
        values=np.array([trial.scores[EFFORT] for trial in prior.trials]),
        noise=np.full(len(earlier), belief.noise),
        task=np.array([trial.task for trial in prior.trials], dtype=np.int64),
    )
    return GaussianProcess(observed, codes.weights(belief.relevance, 0.0), belief.coupling, belief.variance)


class _CostColumn:
    """An objective that is known before training: the costs of candidates as shares of its reference, negated."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.reference = -1.0

    def predict(self, sketches: Sequence[Sketch], codes: Array) -> tuple[Array, Array]:
        costs = np.array([float(getattr(each.cost, self._objective.name)) for each in sketches])
        return -costs / self._objective.reference, np.zeros(len(costs))


class _MeasuredColumn:
    """An objective that is measured, as scores (see `score`) with their Gaussian process.

    The unit of the scores and the weight of earlier tasks are those that make all values most likely (a warped Gaussian
    process, Snelson et al. 2004). So a prior that is wrong for the study is dropped, and the scale of the study's own
    values is found.
    """

    UNKNOWN_REFERENCE = -3.0
    """The score of the reference point while the study has no values."""

    def __init__(
        self,
        objective: Objective,
        belief: Belief,
        codes: Codes,
        own: Array,
        values: Array,
        spread: Array,
        diverged: Mask,
        earlier: Array,
        prior: Prior,
    ) -> None:
        sign = 1.0 if objective.direction == "maximize" else -1.0
        pending = own[len(values) :]
        # A value that is merely unknown says nothing, but one of a trial that diverged is bad.
        used = ~np.isnan(values) | diverged
        own, values, spread = own[: len(values)][used], values[used], spread[used]
        self._there = there = ~np.isnan(values)
        best = float((sign * values[there]).max()) if there.any() else 0.0
        self._shortfall = np.where(there, best - sign * values, 0.0)
        unit = belief.unit or (float(np.median(self._shortfall[there])) if there.any() else 0.0) or 1.0
        name, count = metric_of(objective.name).stands_for or objective.name, len(values)
        rows = [row for row, trial in enumerate(prior.trials) if name in trial.scores]
        self._earlier = np.array([prior.trials[row].scores[name] for row in rows])
        own_noise = belief.noise + spread / (unit + self._shortfall) ** 2
        observed = Observations(
            codes=np.concatenate([own, earlier[rows]]),
            values=self._scores(unit),
            noise=np.concatenate([own_noise, np.full(len(rows), belief.noise)]),
            task=np.array([*[OWN] * count, *(prior.trials[row].task for row in rows)], dtype=np.int64),
        )
        weights = codes.weights(belief.relevance, DEFAULT_RELEVANCE)
        enough = np.count_nonzero(there) >= LEAST_OWN
        likeness = likeness_of(observed.codes, weights)
        best_found = -math.inf
        for trust in TRUST if enough and rows else (1.0,):
            process = GaussianProcess(observed, weights, trust * belief.coupling, belief.variance, likeness)
            for factor in UNITS if enough else (1.0,):
                process.tell(self._scores(factor * unit))
                # The second term is the density of the values themselves, of which the scores are a function.
                likelihood = process.likelihood - float(np.log(factor * unit + self._shortfall[there]).sum())
                if likelihood > best_found:
                    best_found, self._process, self._unit = likelihood, process, factor * unit
        self._process.tell(self._scores(self._unit))
        self.reference = self.UNKNOWN_REFERENCE
        if there.any():
            self.reference = float(score(np.array(best - sign * objective.reference), self._unit))
        if len(pending):  # trials under way count as if they ended as is expected
            mean, _ = self._process(pending)
            observed = Observations(
                codes=np.concatenate([pending, observed.codes]),
                values=np.concatenate([mean, self._scores(self._unit)]),
                noise=np.concatenate([np.full(len(pending), belief.noise), observed.noise]),
                task=np.concatenate([np.full(len(pending), OWN), observed.task]),
            )
            self._process = GaussianProcess(observed, weights, self._process.coupling, belief.variance)

    def _scores(self, unit: float) -> Array:
        """Returns the scores of the study's trials, and then those of earlier trials."""
        scores = score(self._shortfall, unit)
        worst = float(scores[self._there].min()) if self._there.any() else 0.0
        return np.concatenate([np.where(self._there, scores, worst - DIVERGED), self._earlier])

    def predict(self, sketches: Sequence[Sketch], codes: Array) -> tuple[Array, Array]:
        return self._process(codes)


_Column = _CostColumn | _MeasuredColumn
