"""The candidates that a proposal chooses from: moves, crossings, earlier candidates and random draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

if TYPE_CHECKING:
    from nas.search.past import Sketch
    from nas.search.sampler import Question

MOST_CHANGES = 3
"""The largest number of hyperparameters that one move changes."""

GRID = 64
"""The number of values of a hyperparameter with more of them, or without a step, that a pool draws from."""


class Pool:
    """Candidates from which one is chosen: distinct, valid, and within the limits."""

    def __init__(self, question: Question, rng: np.random.Generator, relevance: Mapping[str, float]) -> None:
        self._question, self._rng = question, rng
        self._values = {name: grid(distribution) for name, distribution in question.space.items()}
        self._names = [name for name, values in self._values.items() if len(values) > 1]
        chances = np.array([relevance[name] for name in self._names]) + 0.01
        self._chances = chances / chances.sum()
        self._seen: set[str] = set()
        self.sketches: list[Sketch] = []

    def add(self, candidates: Iterable[Mapping[str, Any]]) -> None:
        """Adds candidates that are valid, within the limits, and not in the pool."""
        for params in candidates:
            if not all(name in params and allows(each, params[name]) for name, each in self._question.space.items()):
                continue  # an earlier trial of a larger space
            sketch = self._question.sketch({name: params[name] for name in self._values})
            if sketch is not None and sketch.fits and sketch.digest not in self._seen:
                self._seen.add(sketch.digest)
                self.sketches.append(sketch)

    def add_moves(self, parents: Sequence[Mapping[str, Any]], count: int) -> None:
        """Adds parents with one to three hyperparameters changed, those that matter most often."""
        self.add(self._move(parents[int(self._rng.integers(len(parents)))]) for _ in range(count if parents else 0))

    def add_crossings(
        self, first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], count: int
    ) -> None:
        """Adds candidates that have a random part of their hyperparameters from each of two parents."""
        if first and second:
            self.add(
                self._cross(first[int(self._rng.integers(len(first)))], second[int(self._rng.integers(len(second)))])
                for _ in range(count)
            )

    def add_random(self, count: int) -> None:
        """Adds random draws."""
        self.add({name: self._any(name) for name in self._values} for _ in range(count))

    def _move(self, parent: Mapping[str, Any]) -> dict[str, Any]:
        count = min(len(self._names), int(self._rng.integers(1, MOST_CHANGES + 1)))
        changed = (
            self._rng.choice(len(self._names), count, replace=False, p=self._chances) if count else np.array([], int)
        )
        return {**parent, **{self._names[i]: self._near(self._names[i], parent) for i in changed.tolist()}}

    def _near(self, name: str, parent: Mapping[str, Any]) -> Any:
        """Returns another value of a hyperparameter, the next smaller or larger one half of the time."""
        values = self._values[name]
        if self._rng.random() < 0.5 and parent.get(name) in values:
            at = values.index(parent[name]) + (1 if self._rng.random() < 0.5 else -1)
            return values[min(max(at, 0), len(values) - 1)]
        return self._any(name)

    def _any(self, name: str) -> Any:
        values = self._values[name]
        return values[int(self._rng.integers(len(values)))]

    def _cross(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
        share = self._rng.random()
        return {
            name: first[name] if name not in second or self._rng.random() < share else second[name]
            for name in self._values
        }


def grid(distribution: BaseDistribution) -> list[Any]:
    """Returns the values of a hyperparameter that a pool draws from, in order."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step  # type: ignore[attr-defined]
    if step and not distribution.log:  # type: ignore[attr-defined]
        count = round((high - low) / step) + 1
        steps = np.unique(np.linspace(0, count - 1, min(count, GRID)).round()).astype(int).tolist()
        return [min(high, type(low)(round(low + i * step, 10))) for i in steps]
    spaced = np.geomspace(low, high, GRID) if distribution.log else np.linspace(low, high, GRID)  # type: ignore[attr-defined]
    return list(dict.fromkeys(round(value) if isinstance(low, int) else value for value in spaced.tolist()))


def allows(distribution: BaseDistribution, value: Any) -> bool:
    """Tells whether a hyperparameter may have a value."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution.low <= value <= distribution.high)  # type: ignore[attr-defined]
