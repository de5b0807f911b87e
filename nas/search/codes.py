"""Candidates as vectors of zeros and ones, between which a weighted count of differing bits is a distance."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search.pareto import Array
from nas.types import Cost

CELLS = 32
"""The number of cells into which a hyperparameter without a step is cut."""

OCTAVES = 10.0
"""The ratio of costs, as a power of two, at which their distance is 1."""
COST_BITS = np.arange(8.0, 40.0, 0.5)
"""The logarithms of costs, to base 2, at which a bit changes."""


class Codes:
    """The code of candidates of one space.

    A choice has a bit of its own, so two different choices differ in two bits. Numbers have a bit for each step between
    their least and their largest value, which is set from there on, so that numbers differ in as many bits as they are
    steps apart (a thermometer code). Categories that are all numbers are numbers. The logarithms of both costs are
    coded in the same way, because networks of one size have much in common.

    Args:
        space: every hyperparameter.

    Attributes:
        names: name of each part of the code: the hyperparameters, then the costs.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._parts: dict[str, _Part] = {name: _part(distribution) for name, distribution in space.items()}
        self.names = (*self._parts, *(name for name in COSTS))
        sizes = [*(part.size for part in self._parts.values()), *(len(COST_BITS) for _ in COSTS)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def codes(self, candidates: Iterable[tuple[Mapping[str, Any], Cost]]) -> Array:
        """Returns the bits of candidates as numbers, shape (candidates, bits)."""
        given = list(candidates)
        found = np.empty((len(given), self._starts[-1]))
        for (name, part), start in zip(self._parts.items(), self._starts, strict=False):
            rows = [part.row(params[name]) if name in params else part.nothing for params, _ in given]
            found[:, start : start + part.size] = part.bits[rows]
        for name, start in zip(COSTS, self._starts[len(self._parts) :], strict=False):
            logs = np.log2([max(1, getattr(cost, name)) for _, cost in given])
            found[:, start : start + len(COST_BITS)] = logs[:, None] >= COST_BITS
        return found

    def weights(self, relevance: Mapping[str, float], default: float) -> Array:
        """Returns the weight of each bit, shape (bits,).

        With it two candidates whose choices of one hyperparameter differ are apart by its relevance, and two numbers at
        the ends of their range too.

        Args:
            relevance: a number from 0 on by name.
            default: the relevance of names that it lacks.
        """
        found = np.empty(self._starts[-1])
        for name, start, end in zip(self.names, self._starts[:-1], self._starts[1:], strict=True):
            unit = self._parts[name].unit if name in self._parts else (COST_BITS[1] - COST_BITS[0]) / OCTAVES
            found[start:end] = relevance.get(name, default) * unit
        return found


COSTS = ("params", "macs")


class _Part:
    """The bits of one hyperparameter.

    Attributes:
        size: number of bits.
        unit: weight of a bit for a relevance of 1.
        bits: (values and one more, size) the bits of each value, and in the last row those of no value, all zero.
        nothing: the number of this row.
    """

    def __init__(self, values: Sequence[Any], ordered: bool) -> None:
        self._ordered = ordered
        self._values = sorted(values) if ordered else list(values)
        self._rows = {_key(value): row for row, value in enumerate(self._values)}
        self.nothing = len(values)
        self.size = len(values) - 1 if ordered else len(values)
        self.unit = 1.0 / max(1, self.size) if ordered else 0.5
        steps = np.arange(len(values))[:, None]
        known = steps > np.arange(self.size) if ordered else steps == np.arange(self.size)
        self.bits = np.vstack([known, np.zeros((1, self.size))]).astype(np.float64)

    def row(self, value: Any) -> int:
        """Returns the row of a value; a number that is no choice is as the nearest one, another value is none."""
        if (row := self._rows.get(_key(value))) is not None:
            return row
        if not self._ordered or not isinstance(value, int | float):
            return self.nothing
        return min(range(len(self._values)), key=lambda row: abs(self._values[row] - value))


def _key(value: Any) -> Hashable:
    """Returns what is equal for equal choices, also where the database made lists of tuples; 1 and True differ."""
    return value if type(value) in (str, int, float) else json.dumps(value, default=str)


def _part(distribution: BaseDistribution) -> _Part:
    if isinstance(distribution, CategoricalDistribution):
        ordered = all(isinstance(each, int | float) and not isinstance(each, bool) for each in distribution.choices)
        return _Part(distribution.choices, ordered)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    count = CELLS if not step else min(CELLS, round((high - low) / step) + 1)
    if distribution.log:
        return _Part(np.geomspace(low, high, count).tolist(), ordered=True)
    return _Part(np.linspace(low, high, count).tolist(), ordered=True)


def distances(first: Array, second: Array, weights: Array) -> Array:
    """Returns the weighted count of bits in which codes differ, shape (n, m), for codes (n, bits) and (m, bits)."""
    weighted = first * weights
    found = weighted.sum(1)[:, None] + (second * weights).sum(1) - 2.0 * weighted @ second.T
    return np.asarray(np.maximum(found, 0.0))
