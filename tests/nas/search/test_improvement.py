"""The expected hypervolume improvement against the hypervolume itself."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search.improvement import MOST, expected_improvement
from nas.search.pareto import hypervolume


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5])
def test_without_uncertainty_it_is_the_gain_of_the_hypervolume(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    front, points = generator.random((5, dimensions)), generator.random((40, dimensions))
    reference = np.full(dimensions, 0.1)
    maximize = [True] * dimensions
    before = hypervolume(front, reference.tolist(), maximize)
    gains = [hypervolume(np.vstack([front, point]), reference.tolist(), maximize) - before for point in points]
    found = expected_improvement(points, np.zeros_like(points), front, reference)
    assert found == pytest.approx(np.array(gains), abs=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_with_uncertainty_it_is_the_mean_gain(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    front, mean = generator.random((4, dimensions)), generator.random((3, dimensions))
    reference, maximize = np.zeros(dimensions), [True] * dimensions
    sd = np.full_like(mean, 0.2)
    before = hypervolume(front, reference.tolist(), maximize)
    found = expected_improvement(mean, sd, front, reference)
    for row in range(3):
        draws = mean[row] + sd[row] * generator.standard_normal((4000, dimensions))
        gains = [hypervolume(np.vstack([front, draw]), reference.tolist(), maximize) - before for draw in draws]
        error = np.std(gains) / np.sqrt(len(gains))
        assert abs(found[row] - np.mean(gains)) < 4 * error


def test_an_empty_front_is_improved_by_the_whole_box() -> None:
    found = expected_improvement(np.array([[2.0, 3.0, 4.0]]), np.zeros((1, 3)), np.empty((0, 3)), np.ones(3))
    assert found == pytest.approx([1 * 2 * 3])


def test_a_point_below_the_reference_point_gains_nothing() -> None:
    found = expected_improvement(np.array([[0.5, 9.0]]), np.zeros((1, 2)), np.array([[2.0, 2.0]]), np.ones(2))
    assert found == pytest.approx([0.0])


def test_of_a_large_front_a_spread_choice_is_taken() -> None:
    angles = np.linspace(0.01, np.pi / 2 - 0.01, 3 * MOST[3])
    front = np.column_stack([np.cos(angles), np.sin(angles), np.full(len(angles), 0.5)])
    points = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    found = expected_improvement(points, np.zeros_like(points), front, np.zeros(3))
    before = hypervolume(front, [0.0] * 3, [True] * 3)
    gain = hypervolume(np.vstack([front, points[:1]]), [0.0] * 3, [True] * 3) - before
    assert found[0] == pytest.approx(gain, rel=0.03)
    assert found[1] == pytest.approx(0.0)
