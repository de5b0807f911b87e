"""A Gaussian process over candidates of several tasks, which learns from trials of this study and of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from nas.search.codes import distances
from nas.search.pareto import Array

OWN = -1
OFFSET = 25.0
"""Variance of the unknown level of this study's values, as a multiple of their variance among candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Values of one objective. The level of each task is taken off.

    Attributes:
        codes: (n, bits) codes of the candidates (`nas.search.codes`).
        values: (n,) values.
        noise: (n,) variances of the values over seeds.
        task: (n,) a number for the task that a value is of; the study's own is `OWN`.
    """

    codes: Array
    values: Array
    noise: Array
    task: NDArray[np.int64]


class GaussianProcess:
    """The posterior of one objective (Rasmussen and Williams 2006, algorithm 2.1).

    The covariance of two candidates is ``variance * exp(-distance)`` with the weighted distance of their codes, which
    is a product of one factor for each hyperparameter. Between two tasks it is multiplied by `coupling` (an intrinsic
    coregionalisation model, Bonilla et al. 2008), so that trials of other tasks count less, and ever less as the
    study's own come in. The level of the study's values is unknown.

    Args:
        observed: what is known.
        weights: (bits,) weights of the distance.
        coupling: covariance of two tasks, 0 to 1.
        variance: variance of the values among all candidates.
        likeness: ``exp(-distance)`` of what is known, (n, n), if it has been computed before.
    """

    def __init__(
        self,
        observed: Observations,
        weights: Array,
        coupling: float,
        variance: float = 1.0,
        likeness: Array | None = None,
    ) -> None:
        self._codes, self._task = observed.codes, observed.task
        self._weights, self.coupling = weights, coupling
        own = observed.task == OWN
        self._offset = OFFSET * variance if own.any() else 0.0
        self._variance = variance
        same = observed.task[:, None] == observed.task[None, :]
        if likeness is None:
            likeness = likeness_of(self._codes, weights)
        covariance = variance * likeness * np.where(same, 1.0, coupling)
        covariance += self._offset * np.outer(own, own)
        covariance[np.diag_indices_from(covariance)] += observed.noise + 1e-6
        self._factor = cholesky(covariance, lower=True, check_finite=False) if len(covariance) else covariance
        self.tell(observed.values)

    def tell(self, values: Array) -> None:
        """Replaces the values, (n,). It costs little, because the covariance stays."""
        if not len(values):  # nothing is known, so every candidate is like any other
            self._level, self._values, self._alpha = 0.0, values, values
            return
        _, row = np.unique(self._task, return_inverse=True)
        levels = np.bincount(row, values) / np.bincount(row)
        # The level of this study is its own, or that of other tasks while it has no values.
        self._level = float(levels[0] if OWN in self._task else levels.mean())
        self._values = values - levels[row]
        self._alpha = cho_solve((self._factor, True), self._values, check_finite=False)

    def __call__(self, codes: Array) -> tuple[Array, Array]:
        """Returns mean and standard deviation of the study's values without noise, (n,) each, for codes (n, bits)."""
        if not len(self._codes):
            return np.zeros(len(codes)), np.full(len(codes), np.sqrt(self._variance))
        own = self._task == OWN
        covariance = np.exp(-distances(codes, self._codes, self._weights)) * np.where(own, 1.0, self.coupling)
        covariance *= self._variance
        covariance += self._offset * own
        mean = covariance @ self._alpha + self._level
        reduced = solve_triangular(self._factor, covariance.T, lower=True, check_finite=False)
        variance = self._variance + self._offset - np.einsum("ij,ij->j", reduced, reduced)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    @property
    def likelihood(self) -> float:
        """The logarithm of the marginal likelihood, without its constant."""
        return float(-0.5 * self._values @ self._alpha - np.log(np.diag(self._factor)).sum())


def likeness_of(codes: Array, weights: Array) -> Array:
    """Returns ``exp(-distance)`` of all pairs of codes, (n, n) for codes (n, bits)."""
    return np.asarray(np.exp(-distances(codes, codes, weights)))
