"""Who passes a rung: by rank, then by contribution, whatever direction and scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search.early_stopping import FEWEST_GAINS, HOPE, RULES, Rungs, successive_halving
from nas.search.pareto import contributions, fronts, net_gaps
from nas.search.ranking import Front
from nas.types import Objective

PSNR = Objective(name="psnr", direction="maximize", unit="dB", reference=14.0)
PARAMS = Objective(name="params", direction="minimize", unit="", reference=1000.0)


def passing(
    reached: dict[int, tuple[float, ...]], objectives: tuple[Objective, ...], within: str = "hypervolume"
) -> list[int]:
    rungs = rungs_of(reached, objectives)
    return [number for number in reached if RULES[within](rungs, number, 9)]


def rungs_of(reached: dict[int, tuple[float, ...]], objectives: tuple[Objective, ...], epoch: int = 9) -> Rungs:
    return Rungs(objectives, 27, lambda each: reached if each == epoch else {})


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
    assert passing(reached, (PSNR, PARAMS)) == [0, 1]
    ahead = {3: (21.0, 400.0)}  # beats them all
    assert passing(reached | ahead, (PSNR, PARAMS)) == [1, 3]
    assert passing(reached | ahead | {4: (13.0, 2000.0), 5: (13.0, 2000.0), 6: (13.0, 2000.0)}, (PSNR, PARAMS)) == [
        0,
        1,
        3,
    ]


def test_the_best_that_is_known_is_never_stopped() -> None:
    """Few good candidates come first, and each is better than the others in something."""
    good = {n: (18.0 + n, 900.0 - 100.0 * (3 - n)) for n in range(4)}
    assert passing(good, (PSNR, PARAMS)) == [0, 1, 2, 3]
    for within in RULES:
        assert passing(good | dict.fromkeys(range(4, 30), (17.0, 950.0)), (PSNR, PARAMS), within)[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_may_end_best_is_spared(sign: float) -> None:
    """Others gained 2, 2.5, 2.5 and 1 dB: 2.25 in the median, with a deviation of 0.6124 dB. The best has 24.5 dB."""
    objective = PSNR if sign > 0 else Objective(name="loss", direction="minimize", unit="", reference=0.0)
    at_the_rung, at_the_end = (20.0, 21.0, 22.0, 23.0), (22.0, 23.5, 24.5, 24.0)
    needed = 24.5 - 2.25 - HOPE * 0.6124

    def goes_on(own: float, known: int = 4) -> bool:
        there = {n: (sign * value,) for n, value in enumerate((*at_the_rung, own))}
        ends = {n: (sign * value,) for n, value in enumerate(at_the_end[:known])}
        values = {9: there, 27: ends}
        return RULES["hypervolume"](Rungs((objective,), 27, values.__getitem__), 4, 9)

    assert goes_on(needed + 0.01)
    assert not goes_on(needed - 0.01), "two of five are better, which is more than a third"
    assert not goes_on(needed + 0.01, known=FEWEST_GAINS - 1), "two gains tell nothing"


def test_within_a_rank_the_larger_contribution_goes_on() -> None:
    reached = {0: (20.0, 500.0), 1: (16.0, 100.0), 2: (18.0, 499.9)}
    gains = contributions(np.array(list(reached.values())), [14.0, 1000.0], [True, False])
    ahead = {9: (21.0, 50.0)}  # beats them all
    assert passing(reached | ahead, (PSNR, PARAMS)) == [int(np.argmax(gains)), 9]


def test_within_a_rank_an_epsilon_net_keeps_what_is_far_apart() -> None:
    # The ends of this front add little volume, being near the reference; others are dominated.
    reached = {0: (20.0, 990.0), 1: (18.0, 400.0), 2: (16.0, 300.0), 3: (14.1, 100.0)}
    reached |= {4: (13.0, 2000.0), 5: (13.0, 2000.0), 9: (21.0, 50.0)}  # the last beats them all
    assert passing(reached, (PSNR, PARAMS), "hypervolume") == [1, 2, 9]
    assert passing(reached, (PSNR, PARAMS), "epsilon-net") == [0, 3, 9]


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
    for within in RULES:
        assert passing(plain, up, within) == passing(scaled, mixed, within)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_whoever_goes_on_is_no_worse_than_whoever_stops(points: list[tuple[int, int]]) -> None:
    objectives = (Objective(name="a", direction="maximize", unit="", reference=-1.0),) * 2
    reached = {i: (float(a), float(b)) for i, (a, b) in enumerate(points)}
    by_rank = np.empty(len(points))
    for rank, front in enumerate(fronts(np.array(points, dtype=float), [True, True])):
        by_rank[front] = rank
    for within in RULES:
        on = passing(reached, objectives, within)
        assert len(on) >= math.ceil(len(points) / 3)
        off = set(reached) - set(on)
        assert max(by_rank[on]) <= min((by_rank[i] for i in off), default=math.inf)


@pytest.mark.parametrize("within", RULES)
@pytest.mark.parametrize("shape", [(30, 1), (40, 2), (27, 3), (25, 4)])
@pytest.mark.parametrize("ties", [True, False])
def test_as_if_all_were_ordered_by_rank_and_merit(within: str, shape: tuple[int, int], ties: bool) -> None:
    """The definition, without a shortcut: the keys of all, sorted, and who is not behind the last place.

    Candidates come one after the other, and what is kept sorted decides as all of them at once do.
    """
    random = np.random.default_rng(0)
    values = random.integers(0, 5, shape).astype(float) if ties else random.random(shape)
    objectives = tuple(
        Objective(name=str(i), direction="minimize" if i % 2 else "maximize", unit="", reference=9.0 * (i % 2) - 1)
        for i in range(shape[1])
    )
    maximize = [o.direction == "maximize" for o in objectives]
    reference = [o.reference for o in objectives]
    reached: dict[int, tuple[float, ...]] = {}
    rungs = rungs_of(reached, objectives)
    for size in range(1, len(values) + 1):
        keys: dict[int, tuple[int, float]] = {}
        for rank, front in enumerate(fronts(values[:size], maximize)):
            if within == "hypervolume":
                merits = contributions(values[front], reference, maximize)
            else:
                merits = net_gaps(values[front], maximize)
            keys |= {int(row): (rank, -round(float(found), 9)) for row, found in zip(front, merits, strict=True)}
        last = sorted(keys.values())[math.ceil(size / 3) - 1]
        reached[size - 1] = tuple(values[size - 1])
        assert [row for row in reached if RULES[within](rungs, row, 9)] == [
            row for row in range(size) if keys[row] <= last or keys[row][0] == 0
        ]


def test_merits_are_known_of_the_rank_that_is_divided_alone() -> None:
    asked: list[int] = []

    def merits(front: Front) -> np.ndarray:
        asked.append(len(front))
        return -front.numbers.astype(float)

    # Fronts of 2, 3 and 4: of nine, three go on.
    rows = [(9, 8), (8, 9), (6, 4), (5, 5), (4, 6), (3, 0), (2, 1), (1, 2), (0, 3)]
    reached = {n: (float(a), float(b)) for n, (a, b) in enumerate(rows)}
    rungs = rungs_of(reached, (PSNR, Objective(name="b", direction="maximize", unit="", reference=0.0)))
    assert [n for n in reached if successive_halving(rungs, n, 9, merits)] == [0, 1, 2]
    assert asked == [3, 3, 3], "once for each of the second front"


@pytest.mark.parametrize("count", [1, 3, 27])
def test_an_excellent_start_is_no_place_on_later_rungs(count: int) -> None:
    """What a candidate was at a lower rung does not enter: only values at this rung do."""
    reached = {n: (15.0 + n / 100,) for n in range(count)} | {99: (14.1,)}
    assert 99 not in passing(reached, (PSNR,))


def test_nobody_is_stopped_before_a_tenth_of_the_run() -> None:
    """At epoch 1 of 27 not even the worst is, and at epoch 3 it is."""
    reached: dict[int, tuple[float, ...]] = {n: (14.0 + n,) for n in range(9)}
    for rule in RULES.values():
        assert rule(rungs_of(reached, (PSNR,), epoch=1), 0, 1)
        assert not rule(rungs_of(reached, (PSNR,), epoch=3), 0, 3)
