"""The project's TPE against Optuna's estimator, and what it does with what a study holds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe import parzen_estimator
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from nas.search.pareto import Array
from nas.search.past import Judged
from nas.search.sampler import proposer
from nas.search.tpe import CELLS, KNOWN, STARTUP_TRIALS, Table, best_judged
from nas.types import Objective

PARAMETERS = _ParzenEstimatorParameters(
    prior_weight=1.0, consider_magic_clip=True, consider_endpoints=False, weights=default_weights, multivariate=False
)
GRIDS: list[BaseDistribution] = [
    CategoricalDistribution(["a", "b", "c"]),
    IntDistribution(2, 9),
    IntDistribution(1, 64, log=True),
    IntDistribution(0, 30, step=3),
    FloatDistribution(0.0, 1.0, step=0.25),
]


def values_of(distribution: BaseDistribution) -> list[float]:
    """Every value, as Optuna stores it."""
    if isinstance(distribution, CategoricalDistribution):
        return list(range(len(distribution.choices)))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + i * distribution.step for i in range(count)]


class StableNumpy:
    """NumPy whose `argsort` keeps the order of equal values, which Optuna leaves to the CPU."""

    argsort = staticmethod(functools.partial(np.argsort, kind="stable"))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def optunas(distribution: BaseDistribution, observed: Sequence[float], at: Sequence[float]) -> Array:
    """Log density of Optuna's estimator."""
    with mock.patch.object(parzen_estimator, "np", StableNumpy()):
        estimator = _ParzenEstimator({"x": np.array(observed, dtype=float)}, {"x": distribution}, PARAMETERS)
    return np.asarray(estimator.log_pdf({"x": np.array(at, dtype=float)}))


@pytest.mark.parametrize("distribution", GRIDS, ids=lambda d: f"{type(d).__name__}-{d!s:.40}")
@given(seed=st.integers(0, 10**6), good=st.integers(0, 40), others=st.integers(0, 80))
def test_densities_are_those_of_optuna(distribution: BaseDistribution, seed: int, good: int, others: int) -> None:
    grid = values_of(distribution)
    generator = np.random.default_rng(seed)
    first, second = (generator.choice(grid, count) for count in (good, others))
    table = Table(distribution, first, second)
    density = np.diff(table._cumulative, prepend=0.0)
    np.testing.assert_allclose(np.log(density), optunas(distribution, first, grid), atol=1e-6)
    expected = optunas(distribution, first, grid) - optunas(distribution, second, grid)
    np.testing.assert_allclose(table.merit, expected, atol=1e-6)


class Past:
    """A study of one hyperparameter, width 0..9, whose trial n has width n modulo 10; wide is good."""

    def __init__(self, trials: int, running: Sequence[int] = ()) -> None:
        self.trials, self.running = trials, list(running)
        self.asked: list[list[int]] = []

    def judged(self) -> Judged:
        return {n: (27, (float(n % 10),)) for n in range(self.trials) if n not in self.running}

    def under_way(self, *, reread: bool = True) -> list[int]:
        return self.running

    def drawn(self, numbers: Sequence[int]) -> Array:
        self.asked.append(list(numbers))
        return np.array([[float(n % 10)] for n in numbers]).reshape(-1, 1)


WIDTH: dict[str, BaseDistribution] = {"width": IntDistribution(0, 9)}


def proposals(past: Any, count: int = 60, number: int = 10**6, **options: Any) -> list[Any]:
    """What samplers of `count` seeds propose."""
    space: dict[str, BaseDistribution] = options.get("space", WIDTH)
    objectives = options.get("objectives", [Objective(name="width", direction="maximize", unit="", reference=0.0)])
    acceptable = options.get("acceptable", lambda params: True)
    found = [proposer("tpe", seed, space, objectives, acceptable)(number, past) for seed in range(count)]
    return [params["width"] for params in found] if space is WIDTH else found


class Near:
    """100 trials of one hyperparameter without steps, those near the 70th the best."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def judged(self) -> Judged:
        return {n: (27, (-abs(n - 70.0),)) for n in range(100)}

    def under_way(self, *, reread: bool = True) -> list[int]:
        return []

    def drawn(self, numbers: Sequence[int]) -> Array:
        return self.values[list(numbers), None]


@pytest.mark.parametrize("log", [False, True])
def test_a_hyperparameter_without_steps_is_drawn_where_the_good_ones_are(log: bool) -> None:
    distribution = FloatDistribution(1e-4, 1e-1, log=log)
    spread = np.geomspace(1e-4, 1e-1, 100) if log else np.linspace(1e-4, 1e-1, 100)
    drawn = np.array([found["x"] for found in proposals(Near(spread), 60, space={"x": distribution})])
    assert ((drawn >= 1e-4) & (drawn <= 1e-1)).all()
    assert np.mean((drawn > spread[60]) & (drawn < spread[80])) > 0.9
    assert len(set(drawn)) == 60  # within a cell too
    table = Table(distribution, np.full(10, spread[70]), spread)
    cells = np.diff(table._cumulative, prepend=0.0)
    assert (len(cells), cells.sum()) == (CELLS, pytest.approx(1.0))


def test_it_learns_after_the_first_trials_and_not_before() -> None:
    assert len(set(proposals(Past(STARTUP_TRIALS - 1)))) == 10
    assert np.mean(proposals(Past(100))) > 8


def test_a_large_study_costs_no_more_than_some_trials() -> None:
    past = Past(2000)
    assert np.mean(proposals(past, 1)) > 8
    good, others = past.asked
    assert len(good) + len(others) == KNOWN
    assert not set(good) & set(others)
    assert {n % 10 for n in good} == {9}
    assert others == sorted(others)


def test_trials_under_way_are_others_and_the_trial_itself_is_not() -> None:
    past = Past(40, running=[39])
    proposals(past, 1)
    assert 39 in past.asked[1]
    past = Past(40, running=[39])
    proposals(past, 1, number=39)
    assert 39 not in {*past.asked[0], *past.asked[1]}


def test_one_seed_proposes_the_same() -> None:
    assert proposals(Past(500), 5) == proposals(Past(500), 5)


class Pairs:
    """100 trials of two hyperparameters, a and b in 0..9; both large is good, and best where a is 9."""

    ROWS = np.array([[n % 10, n // 10] for n in range(100)], dtype=float)

    def judged(self) -> Judged:
        return {n: (27, (float(2 * a + b),)) for n, (a, b) in enumerate(self.ROWS)}

    def under_way(self, *, reread: bool = True) -> list[int]:
        return []

    def drawn(self, numbers: Sequence[int]) -> Array:
        return self.ROWS[list(numbers)]


SQUARE: dict[str, BaseDistribution] = {"a": IntDistribution(0, 9), "b": IntDistribution(0, 9)}


def test_when_the_best_may_not_be_trained_the_next_best_is_proposed() -> None:
    """And not a random one: limits and repeats must not turn a search into a random one."""
    for bound in (19, 14, 10):
        found = proposals(Pairs(), 20, space=SQUARE, acceptable=lambda p, most=bound: p["a"] + p["b"] <= most)
        sums = [p["a"] + p["b"] for p in found]
        assert max(sums) <= bound
        assert np.mean(sums) > bound - 4  # of a random one: 4.5 less, or more
        assert np.mean([p["a"] for p in found]) > 6


def test_proposals_go_on_being_new() -> None:
    """One study, in which nothing may be proposed twice."""
    seen: set[tuple[int, int]] = set()

    def new(params: Mapping[str, Any]) -> bool:
        return (params["a"], params["b"]) not in seen

    sums = []
    for number in range(40):
        (found,) = proposals(Pairs(), 1, 1000 + number, space=SQUARE, acceptable=new)
        seen.add((found["a"], found["b"]))
        sums.append(found["a"] + found["b"])
    assert len(seen) == 40
    assert np.mean(sums) > 11  # random: 9


def test_an_objective_that_is_known_at_the_end_alone_ranks_what_has_ended() -> None:
    objectives = [
        Objective(name="psnr", direction="maximize", unit="dB", reference=0.0),
        Objective(name="latency", direction="minimize", unit="ms", reference=9.0),
    ]
    stopped: Judged = {n: (3, (float(n), np.nan)) for n in range(20)}
    assert best_judged(stopped, 3, objectives) == [19, 18, 17]
    ended: Judged = {n: (27, (1.0, float(n))) for n in range(30, 40)}
    assert best_judged({**stopped, **ended}, 2, objectives) == [30, 31]
    assert best_judged({**stopped, **ended}, 12, objectives)[-2:] == [19, 18]
    assert best_judged(dict.fromkeys(range(20), (3, (np.nan,))), 3, objectives[1:]) == []
