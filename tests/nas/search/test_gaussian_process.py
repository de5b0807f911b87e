"""The Gaussian process against its formula, and what it takes from other tasks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.search.codes import distances
from nas.search.gaussian_process import OFFSET, OWN, GaussianProcess, Observations
from nas.search.pareto import Array

WEIGHTS = np.full(12, 0.2)


def codes(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 2, (count, 12)).astype(float)


def observed(points: Array, values: Array, task: NDArray[np.int64], noise: float = 0.01) -> Observations:
    return Observations(codes=points, values=values, noise=np.full(len(points), noise), task=task)


def test_mean_and_deviation_are_those_of_the_formula() -> None:
    points, queries = codes(9), codes(4, seed=1)
    task = np.array([OWN] * 5 + [0] * 4)
    values = np.random.default_rng(2).normal(size=9)
    mean, sd = GaussianProcess(observed(points, values, task), WEIGHTS, 0.6, variance=2.0)(queries)

    own = task == OWN
    centred = values - np.where(own, values[own].mean(), values[~own].mean())
    factor = np.where(task[:, None] == task[None, :], 1.0, 0.6)
    known = 2.0 * np.exp(-distances(points, points, WEIGHTS)) * factor + 2.0 * OFFSET * np.outer(own, own)
    known += np.eye(9) * (0.01 + 1e-6)
    across = 2.0 * np.exp(-distances(queries, points, WEIGHTS)) * np.where(own, 1.0, 0.6) + 2.0 * OFFSET * own
    assert mean == pytest.approx(across @ np.linalg.solve(known, centred) + values[own].mean())
    variance = 2.0 + 2.0 * OFFSET - np.sum(across * np.linalg.solve(known, across.T).T, axis=1)
    assert sd == pytest.approx(np.sqrt(variance))


def test_what_is_known_is_returned_and_what_is_far_is_uncertain() -> None:
    points = codes(20)
    values = points @ np.linspace(-1, 1, 12)
    process = GaussianProcess(observed(points, values, np.full(20, OWN), noise=1e-6), WEIGHTS, 0.0)
    mean, sd = process(points)
    assert mean == pytest.approx(values, abs=1e-3)
    assert sd.max() < 0.01
    assert process(1 - points[:1])[1] > 0.3


def test_without_own_trials_other_tasks_tell_the_order_and_the_level() -> None:
    points = codes(60)
    values = points @ np.linspace(-1, 1, 12) - 5.0
    process = GaussianProcess(observed(points, values, np.zeros(60, dtype=np.int64)), WEIGHTS, 0.9)
    queries = codes(30, seed=3)
    mean, _ = process(queries)
    assert np.corrcoef(mean, queries @ np.linspace(-1, 1, 12))[0, 1] > 0.9
    assert abs(mean.mean() - values.mean()) < 1.0


def test_own_trials_outweigh_a_task_that_says_the_opposite() -> None:
    others, own, queries = codes(60), codes(40, seed=1), codes(30, seed=2)
    slope = np.linspace(-1, 1, 12)
    points = np.concatenate([own, others])
    values = np.concatenate([own @ slope, -(others @ slope)])
    task = np.array([OWN] * 40 + [0] * 60)

    def agreement(count: int) -> float:
        kept = np.r_[0:count, 40:100]
        process = GaussianProcess(observed(points[kept], values[kept], task[kept]), WEIGHTS, 0.5)
        return float(np.corrcoef(process(queries)[0], queries @ slope)[0, 1])

    assert agreement(0) < -0.5
    assert agreement(40) > 0.5
    assert agreement(4) < agreement(12) < agreement(40)


def test_levels_of_tasks_do_not_matter() -> None:
    points, queries = codes(30), codes(5, seed=1)
    values = points @ np.linspace(-1, 1, 12)
    task = np.array([OWN] * 10 + [0] * 10 + [1] * 10)
    plain = GaussianProcess(observed(points, values, task), WEIGHTS, 0.5)(queries)
    moved = GaussianProcess(observed(points, values + 7.0 * task, task), WEIGHTS, 0.5)(queries)
    assert moved[0] == pytest.approx(plain[0] - 7.0)
    assert moved[1] == pytest.approx(plain[1])
