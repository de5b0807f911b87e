"""Pareto work against brute force, known volumes and the laws that definitions imply."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.search.pareto import contributions, fronts, hypervolume, knee, net_gaps, non_dominated

# A coarse grid makes ties and repeated points common.
points = st.integers(1, 4).flatmap(
    lambda d: arrays(np.float64, st.tuples(st.integers(0, 12), st.just(d)), elements=st.integers(0, 5).map(float))
)


def brute_force_front(values: np.ndarray) -> list[bool]:
    return [not any((q >= p).all() and (q > p).any() for q in values) for p in values]


def brute_force_volume(values: np.ndarray) -> float:
    """Counts unit cells of the grid [0, 5]^d that some point dominates."""
    d = values.shape[1]
    cells = itertools.product(range(5), repeat=d)
    return float(sum(any((p >= np.array(cell) + 1).all() for p in values) for cell in cells))


@given(points)
def test_front_is_what_no_point_dominates(values: np.ndarray) -> None:
    assert non_dominated(values, [True] * values.shape[1]).tolist() == brute_force_front(values)


@given(points)
def test_direction_is_a_sign(values: np.ndarray) -> None:
    d = values.shape[1]
    assert np.array_equal(non_dominated(values, [True] * d), non_dominated(-values, [False] * d))
    assert hypervolume(values, [0] * d, [True] * d) == hypervolume(-values, [0] * d, [False] * d)


@given(points)
def test_fronts_peel_the_points(values: np.ndarray) -> None:
    up = [True] * values.shape[1]
    rest = np.arange(len(values))
    for front in fronts(values, up):
        assert front.tolist() == rest[brute_force_front(values[rest])].tolist()
        rest = np.setdiff1d(rest, front)
    assert not rest.size


@given(points)
def test_hypervolume_counts_dominated_cells(values: np.ndarray) -> None:
    d = values.shape[1]
    assert hypervolume(values, [0] * d, [True] * d) == pytest.approx(brute_force_volume(values))


@given(points)
def test_contribution_is_the_volume_lost(values: np.ndarray) -> None:
    d = values.shape[1]
    up, reference = [True] * d, [0.0] * d
    total = hypervolume(values, reference, up)
    without = [hypervolume(np.delete(values, i, axis=0), reference, up) for i in range(len(values))]
    assert contributions(values, reference, up) == pytest.approx(total - np.array(without))


def test_mixed_directions_by_hand() -> None:
    # PSNR up from 10 dB, parameters down from 100: boxes 5x50 and 2x80, overlapping in 2x50.
    values = np.array([[15.0, 50.0], [12.0, 20.0]])
    assert hypervolume(values, [10, 100], [True, False]) == pytest.approx(5 * 50 + 2 * 80 - 2 * 50)


def test_points_that_do_not_better_the_reference_add_nothing() -> None:
    assert hypervolume(np.array([[1.0, 5.0]]), [1.0, 0.0], [True, True]) == 0.0
    assert hypervolume(np.empty((0, 2)), [0.0, 0.0], [True, True]) == 0.0


def test_knee_is_nearest_to_the_ideal() -> None:
    front = np.array([[0.0, 1.0], [0.8, 0.8], [1.0, 0.0]])
    assert knee(front, [True, True]) == 1


def test_knee_follows_weights_and_ignores_scale() -> None:
    front = np.array([[0.0, 1000.0], [0.5, 500.0], [1.0, 0.0]])
    assert knee(front, [True, True], [100.0, 1.0]) == 2
    assert knee(front, [True, True], [1.0, 100.0]) == 0
    assert knee(front, [True, True]) == knee(front * [1.0, 1e-3], [True, True]) == 1


def test_knee_of_one_and_of_an_objective_without_spread() -> None:
    assert knee(np.array([[3.0, 4.0]]), [True, False]) == 0
    assert knee(np.array([[3.0, 4.0], [3.0, 5.0]]), [True, True]) == 1
    with pytest.raises(ValueError, match="empty front"):
        knee(np.empty((0, 2)), [True, True])


def test_an_epsilon_net_takes_what_is_farthest_from_all_taken() -> None:
    # Along a line 0, 8, 16, 6, 0: the ends, then the middle, then the larger of the halves left.
    line = np.array([[0.0, 0.0], [8.0, -8.0], [16.0, -16.0], [6.0, -6.0], [0.0, 0.0]])
    gaps = net_gaps(line, [True, True]) / np.sqrt(2)
    assert gaps.tolist() == pytest.approx([1.0, 0.5, np.inf, 0.125, 1.0])
    assert net_gaps(np.empty((0, 2)), [True, True]).tolist() == []


@given(points, st.integers(-3, 3))
def test_an_epsilon_net_knows_no_direction_or_scale(values: np.ndarray, power: int) -> None:
    d = values.shape[1]
    scaled = -values * 2.0**power
    assert np.array_equal(net_gaps(values, [True] * d), net_gaps(scaled, [False] * d))


@given(points)
def test_an_epsilon_net_covers_the_points(values: np.ndarray) -> None:
    """Every point is as near to one of the k first as the gap of the next: that is what a net is."""
    d = values.shape[1]
    gaps = net_gaps(values, [True] * d)
    span = np.ptp(values, axis=0) if len(values) else np.ones(d)
    scaled = values / np.where(span > 0, span, 1.0)
    order = np.argsort(-gaps, kind="stable")
    for k in range(1, len(order)):
        to_net = np.linalg.norm(scaled[:, None] - scaled[order[:k]][None], axis=2).min(axis=1)
        assert to_net.max() <= gaps[order[k]] + 1e-12 or gaps[order[k]] == gaps[order[k - 1]]
