"""A tree-structured Parzen estimator on grids, which also learns from stopped trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search.pareto import Array, best_subset
from nas.search.past import Acceptable, Judged, Past
from nas.types import Objective

KNOWN = 250
"""The largest number of trials that TPE looks at: the 25 best and a random choice of the others. It bounds the cost."""

STARTUP_TRIALS = 10
"""The number of trained trials from which TPE takes over from random draws."""

CANDIDATES = 256
"""The number of candidates that TPE draws from the good trials' density; it proposes the best acceptable one of
them."""

CELLS = 1000
"""The number of cells into which a hyperparameter without a step is cut."""


def ranked_tpe(
    number: int,
    past: Past,
    *,
    seed: int,
    space: Mapping[str, BaseDistribution],
    objectives: Sequence[Objective],
    acceptable: Acceptable,
) -> dict[str, Any]:
    """Proposes by a tree-structured Parzen estimator over trials ranked by rung, then by non-domination.

    With several objectives Optuna's own TPE puts stopped trials into the good set when few are complete, and it needs
    their values where a study must not have any. Here the good set is the best tenth of all trained trials: trials that
    were judged at the highest epoch come first, and `best_subset` orders trials within an epoch. Trials under way count
    as bad, which keeps parallel proposals apart.

    The estimator of one hyperparameter is that of Optuna's univariate TPE (Bergstra 2011, Watanabe 2023): a kernel at
    each observation and a prior, with more weight for later observations. Hyperparameters lie on grids, so both
    densities are tabulated for every value once for each proposal. Optuna takes the best of 24 draws for each
    hyperparameter, which proposes the same few candidates again and again. Here whole candidates are drawn, and the
    acceptable one with the highest ratio of the densities is proposed.

    Args:
        number: number of the trial that is proposed, which is left out of the past.
        past: the study.
        seed: seed of the draws.
        space: every hyperparameter, in the order of `Past.drawn`.
        objectives: objectives of the judged values.
        acceptable: tells whether a proposal may be trained.

    Returns:
        The best acceptable candidate of some draws; nothing when there is none, or too few trials are trained.
    """
    rng = np.random.default_rng(seed)
    tables = _tables(number, past, rng, space, objectives)
    if not tables:
        return {}
    uniform = rng.random((CANDIDATES, len(tables)))
    cells = np.column_stack([table.cells(column) for table, column in zip(tables.values(), uniform.T, strict=True)])
    cells = np.unique(cells, axis=0)
    merit = sum(table.merit[column] for table, column in zip(tables.values(), cells.T, strict=True))
    for row in cells[np.argsort(-merit, kind="stable")]:
        params = {
            name: space[name].to_external_repr(table.value(cell, rng))
            for (name, table), cell in zip(tables.items(), row.tolist(), strict=True)
        }
        if acceptable(params):
            return params
    return {}


def _tables(
    number: int,
    past: Past,
    rng: np.random.Generator,
    space: Mapping[str, BaseDistribution],
    objectives: Sequence[Objective],
) -> dict[str, Table]:
    """Returns the tables for a proposal; none while too few trials are trained."""
    judged = past.judged()
    if len(judged) < STARTUP_TRIALS:
        return {}
    trials = sorted({*judged, *past.under_way(reread=False)} - {number})
    # Optuna's default for one objective takes the same share as its good set.
    good = sorted(best_judged(judged, math.ceil(0.1 * min(len(trials), KNOWN)), objectives))
    if not good:  # all diverged, or the objectives are known only at an end that none reached
        return {}
    others = sorted(set(trials) - set(good))
    if len(others) > KNOWN - len(good):
        others = sorted(rng.choice(others, KNOWN - len(good), replace=False).tolist())
    # The order is that of the numbers, because the estimator gives later observations more weight.
    observed = past.drawn(good), past.drawn(others)
    return {
        name: Table(distribution, *(rows[:, column] for rows in observed))
        for column, (name, distribution) in enumerate(space.items())
    }


class Table:
    """The densities of one hyperparameter among good trials and among others.

    Args:
        distribution: its values.
        good, others: observed values as Optuna stores them, oldest first; NaN for none.

    Attributes:
        merit: logarithm of the ratio of the two densities in each cell.
    """

    def __init__(self, distribution: BaseDistribution, good: Array, others: Array) -> None:
        if isinstance(distribution, CategoricalDistribution):
            self._low, self._step, self._log = 0.0, 1.0, False
            count = len(distribution.choices)
            densities = [_categorical(values, count) for values in (good, others)]
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            edges = self._grid(distribution)
            densities = [_numerical(np.log(values) if self._log else values, edges) for values in (good, others)]
        self._cumulative = np.cumsum(densities[0])
        self.merit = np.log(densities[0]) - np.log(densities[1])

    def cells(self, uniform: Array) -> NDArray[np.int64]:
        """Draws cells from the good trials' density, by uniform numbers in [0, 1). The result has the shape of
        `uniform`."""
        found = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        return np.asarray(np.minimum(found, len(self._cumulative) - 1))

    def value(self, cell: int, generator: np.random.Generator) -> float:
        """Returns a value of a cell, as Optuna stores it."""
        if self._step:
            return float(self._low + cell * self._step)
        value = self._low + (cell + generator.random()) * self._width
        return float(np.clip(np.exp(value) if self._log else value, *self._range))

    def _grid(self, distribution: IntDistribution | FloatDistribution) -> Array:
        """Sets the attributes that turn cells into values.

        Returns:
            The edges of the cells, as logarithms if the distribution is logarithmic.
        """
        low, high, step = distribution.low, distribution.high, distribution.step
        self._log, self._range = distribution.log, (low, high)
        if step:
            self._low, self._step = float(low), float(step)
            edges = np.arange(round((high - low) / step) + 2) * step + (low - step / 2)
            return np.asarray(np.log(edges) if self._log else edges)
        ends = np.log((low, high)) if self._log else np.array((low, high))
        self._low, self._step, self._width = float(ends[0]), 0.0, float(ends[1] - ends[0]) / CELLS
        return np.linspace(ends[0], ends[1], CELLS + 1)


def _categorical(values: Array, count: int) -> Array:
    """Returns the probability of each choice: an observation counts for its own choice, and with a small weight for
    any."""
    values = values[~np.isnan(values)]
    weights, prior = _weights(len(values))
    smooth = 1.0 / (len(values) + 1)
    seen = np.bincount(values.astype(np.int64), weights=weights, minlength=count)
    return np.asarray((seen + smooth * weights.sum()) / (1.0 + count * smooth) + prior / count)


def _numerical(values: Array, edges: Array) -> Array:
    """Returns the probability of each cell.

    Each observation has a normal density, as wide as the distance to its neighbours, and a prior covers the whole
    range. Every density is cut off at the range's ends.
    """
    from scipy.special import ndtr

    values = values[~np.isnan(values)]
    low, high = edges[0], edges[-1]
    weights, prior = _weights(len(values))
    order = np.argsort(values, kind="stable")
    around = np.concatenate([[low], values[order], [high]])
    gaps = np.diff(around)
    widths = np.maximum(gaps[:-1], gaps[1:])
    if len(values) > 1:  # the ends of the range are no neighbours
        widths[0], widths[-1] = gaps[1], gaps[-2]
    widths = np.clip(widths, (high - low) / min(100.0, len(values) + 2.0), high - low)
    centres = np.append(around[1:-1], (low + high) / 2)
    reached = ndtr((edges - centres[:, None]) / np.append(widths, high - low)[:, None])
    mass = np.diff(reached, axis=1) / (reached[:, -1:] - reached[:, :1])
    return np.asarray(np.append(weights[order], prior) @ mass)


def _weights(count: int) -> tuple[Array, float]:
    """Returns the weights of observations, oldest first, and of the prior; the latest 25 count in full. They sum to
    1."""
    weights = np.concatenate([np.linspace(1.0 / max(1, count), 1.0, max(0, count - 25)), np.ones(min(count, 25))])
    total = float(weights.sum()) + 1.0
    return weights / total, 1.0 / total


def best_judged(judged: Judged, count: int, objectives: Sequence[Objective]) -> list[int]:
    """Returns the numbers of the `count` best trials, by epoch and within an epoch by `nas.search.pareto.best_subset`.

    It compares trials by the objectives that all trials of an epoch have. Trials without values are never chosen.
    """
    epochs = sorted({epoch for epoch, values in judged.values() if values}, reverse=True)
    chosen: list[int] = []
    for epoch in epochs:
        numbers = [number for number, (at, values) in judged.items() if values and at == epoch]
        values = np.array([judged[number][1] for number in numbers])
        known = ~np.isnan(values).any(axis=0)
        if not known.any():
            continue
        maximize = [o.direction == "maximize" for o, there in zip(objectives, known, strict=True) if there]
        rows = best_subset(values[:, known], count - len(chosen), maximize)
        chosen += [numbers[row] for row in rows]
        if len(chosen) >= count:
            break
    return chosen
