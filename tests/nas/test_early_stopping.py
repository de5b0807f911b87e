"""Who passes a rung: by rank, then by contribution, whatever direction and scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.early_stopping import goes_on
from nas.pareto import WITHIN_RANK, best_first, contributions, ranks
from nas.types import Objective

PSNR = Objective(name="psnr", direction="maximize", unit="dB", reference=14.0)
PARAMS = Objective(name="params", direction="minimize", unit="", reference=1000.0)


def passing(
    reached: dict[int, tuple[float, ...]], objectives: tuple[Objective, ...], within: str = "hypervolume"
) -> list[int]:
    return [number for number in reached if goes_on(number, reached, objectives, within)]


def test_the_first_to_reach_a_rung_goes_on() -> None:
    assert passing({7: (15.0,)}, (PSNR,)) == [7]


def test_a_third_goes_on_at_least_one() -> None:
    values = {n: (14.0 + n,) for n in range(1, 10)}
    assert passing(values, (PSNR,)) == [7, 8, 9]
    assert passing(dict(list(values.items())[:2]), (PSNR,)) == [2]
    assert passing(dict(list(values.items())[:4]), (PSNR,)) == [3, 4]


def test_rank_comes_before_contribution() -> None:
    reached = {
        0: (19.9, 990.0),  # front, the smaller contribution: 1.9 dB * 10 parameters
        1: (18.0, 500.0),  # front
        2: (17.9, 510.0),  # dominated, though it dominates far more volume than 0
    }
    assert passing(reached, (PSNR, PARAMS)) == [1]
    assert passing({n: reached[n] for n in (0, 2)}, (PSNR, PARAMS)) == [2]
    assert passing(reached | {3: (13.0, 2000.0)}, (PSNR, PARAMS)) == [0, 1]


def test_within_a_rank_the_larger_contribution_goes_on() -> None:
    reached = {0: (20.0, 500.0), 1: (16.0, 100.0), 2: (18.0, 499.9)}
    gains = contributions(np.array(list(reached.values())), [14.0, 1000.0], [True, False])
    assert passing(reached, (PSNR, PARAMS)) == [int(np.argmax(gains))]


def test_within_a_rank_an_epsilon_net_keeps_what_is_far_apart() -> None:
    # The ends of this front add little volume, being near the reference; two others are dominated.
    reached = {0: (20.0, 990.0), 1: (18.0, 400.0), 2: (16.0, 300.0), 3: (14.1, 100.0)}
    reached |= {4: (13.0, 2000.0), 5: (13.0, 2000.0)}
    assert passing(reached, (PSNR, PARAMS), "hypervolume") == [1, 2]
    assert passing(reached, (PSNR, PARAMS), "epsilon-net") == [0, 3]


def test_equal_candidates_go_on_together() -> None:
    assert passing({0: (15.0,), 1: (15.0,), 2: (15.0,)}, (PSNR,)) == [0, 1, 2]
    assert passing({0: (15.0,), 1: (15.0,), 2: (14.5,)}, (PSNR,)) == [0, 1]
    assert passing({0: (15.0,), 1: (15.0,), 2: (14.5,)}, (PSNR,), "epsilon-net") == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_direction_and_scale_do_not_matter(points: list[tuple[int, int]]) -> None:
    up = (Objective(name="a", direction="maximize", unit="", reference=-1.0),) * 2
    mixed = (up[0], Objective(name="b", direction="minimize", unit="", reference=1000.0))
    plain = {i: (float(a), float(b)) for i, (a, b) in enumerate(points)}
    scaled = {i: (float(a), -1000.0 * b) for i, (a, b) in enumerate(points)}
    for within in WITHIN_RANK:
        assert passing(plain, up, within) == passing(scaled, mixed, within)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_whoever_goes_on_is_no_worse_than_whoever_stops(points: list[tuple[int, int]]) -> None:
    objectives = (Objective(name="a", direction="maximize", unit="", reference=-1.0),) * 2
    reached = {i: (float(a), float(b)) for i, (a, b) in enumerate(points)}
    by_rank = ranks(np.array(points, dtype=float), [True, True])
    for within in WITHIN_RANK:
        on = passing(reached, objectives, within)
        assert len(on) >= math.ceil(len(points) / 3)
        off = set(reached) - set(on)
        assert max(by_rank[on]) <= min((by_rank[i] for i in off), default=math.inf)


def test_best_first_orders_by_rank_then_contribution() -> None:
    values = np.random.default_rng(0).random((40, 3))
    reference, up = [0.0] * 3, [True] * 3
    order, keys = best_first(values, 40, reference, up)
    assert sorted(order) == list(range(40))
    by_rank = ranks(values, up)
    assert keys[:, 0].tolist() == by_rank[order].tolist() == sorted(by_rank)
    front = np.flatnonzero(by_rank == 0)
    gains = contributions(values[front], reference, up)
    assert order[: len(front)].tolist() == front[np.argsort(-gains, kind="stable")].tolist()
    few, _ = best_first(values, 5, reference, up)
    assert few.tolist() == order[:5].tolist()
    assert best_first(np.empty((0, 3)), 4, reference, up)[0].tolist() == []


@pytest.mark.parametrize("count", [1, 3, 27])
def test_an_excellent_start_is_no_place_on_later_rungs(count: int) -> None:
    """What a candidate was at a lower rung does not enter: only values at this rung do."""
    reached = {n: (15.0 + n / 100,) for n in range(count)} | {99: (14.1,)}
    assert not goes_on(99, reached, (PSNR,))
