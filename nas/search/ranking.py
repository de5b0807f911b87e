"""Points that arrive one after the other, kept sorted into non-domination ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import Array, exclusive, losses_of, net_gaps


class Front:
    """The points of one rank. None of them dominates another.

    Args:
        numbers: numbers of the points, shape (n,).
        losses: their objectives, all minimised, shape (n, objectives).
        reference: the reference point, as losses.
    """

    def __init__(self, numbers: NDArray[np.int64], losses: Array, reference: Array) -> None:
        self.numbers, self._losses, self._reference = numbers, losses, reference
        self._contributions, self._bounds = _unknown(losses)

    def __len__(self) -> int:
        return len(self.numbers)

    def dominates(self, point: Array) -> bool:
        """Tells whether a point of the front dominates this one, given as losses."""
        no_worse = (self._losses <= point).all(axis=1)
        return bool((no_worse & (self._losses < point).any(axis=1)).any())

    def take(self, numbers: NDArray[np.int64], losses: Array) -> tuple[NDArray[np.int64], Array]:
        """Takes points that no point of the front dominates; returns numbers and losses of those that they dominate."""
        beaten = np.zeros(len(self), dtype=bool)
        for point in losses:
            beaten |= (point <= self._losses).all(axis=1) & (point < self._losses).any(axis=1)
            # A contribution changes only where the new point cuts into what its point alone dominates. What a beaten
            # point cut off is cut off by the point that beats it.
            cut = (np.maximum(point, self._losses) < self._bounds).all(axis=1)
            self._contributions[cut] = np.nan
        gone = self.numbers[beaten], self._losses[beaten]
        contributions, bounds = _unknown(losses)
        self.numbers = np.append(self.numbers[~beaten], numbers)
        self._losses = np.vstack([self._losses[~beaten], losses])
        self._contributions = np.append(self._contributions[~beaten], contributions)
        self._bounds = np.vstack([self._bounds[~beaten], bounds])
        return gone

    def contributions(self) -> Array:
        """Returns the hypervolume that would be lost without each point, shape (n,); only what changed is computed."""
        for row in np.flatnonzero(np.isnan(self._contributions)).tolist():
            self._contributions[row], self._bounds[row] = exclusive(self._losses, row, self._reference)
        return self._contributions

    def gaps(self) -> Array:
        """Returns how far each point is from what an epsilon-net takes before it, shape (n,); see `net_gaps`."""
        return net_gaps(self._losses, [False] * self._losses.shape[1])


def _unknown(losses: Array) -> tuple[Array, Array]:
    """Returns contributions and bounds of points of which neither is known yet."""
    return np.full(len(losses), np.nan), np.full(losses.shape, np.inf)


class Ranking:
    """Non-domination ranks of points, and the hypervolume contributions within ranks.

    A point that arrives is compared with a few fronts, and moves few points (Li et al. 2017, efficient non-domination
    level update), so that it costs hardly more among many points than among few.

    Args:
        reference_point: reference point of the hypervolume.
        maximize: whether each objective is maximised.

    Attributes:
        fronts: the fronts, the best first.
    """

    def __init__(self, reference_point: Sequence[float], maximize: Sequence[bool]) -> None:
        self._maximize = maximize
        self._reference = losses_of(np.asarray(reference_point, dtype=np.float64), maximize)[0]
        self.fronts: list[Front] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, number: int, values: Sequence[float]) -> None:
        """Adds a point. What it dominates moves to a worse rank, and what that dominates then too."""
        losses = losses_of(np.asarray(values, dtype=np.float64), self._maximize)
        rank, numbers = self._rank(losses[0]), np.array([number], dtype=np.int64)
        self._size += 1
        while len(numbers):
            if rank == len(self.fronts):
                self.fronts.append(Front(numbers, losses, self._reference))
                return
            numbers, losses = self.fronts[rank].take(numbers, losses)
            rank += 1

    def rank(self, values: Sequence[float]) -> int:
        """Returns the rank of a point with these values, 0 for the best front."""
        return self._rank(losses_of(np.asarray(values, dtype=np.float64), self._maximize)[0])

    def _rank(self, point: Array) -> int:
        # What dominates a point of one front dominates what that point dominates: the fronts that dominate a point are
        # the first ones.
        low, high = 0, len(self.fronts)
        while low < high:
            middle = (low + high) // 2
            if self.fronts[middle].dominates(point):
                low = middle + 1
            else:
                high = middle
        return low
