"""The project's TPE against Optuna's estimator, and what it does with what a study holds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe import parzen_estimator
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from nas.pareto import Array
from nas.sampler import CELLS, KNOWN, STARTUP_TRIALS, Judged, RankedTPE, Table
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
    np.testing.assert_allclose(table._merit, expected, atol=1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_a_hyperparameter_without_steps_is_drawn_where_the_good_ones_are(log: bool) -> None:
    distribution = FloatDistribution(1e-4, 1e-1, log=log)
    generator = np.random.default_rng(0)
    spread = np.geomspace(1e-4, 1e-1, 100) if log else np.linspace(1e-4, 1e-1, 100)
    table = Table(distribution, np.full(10, spread[70]), spread)
    drawn = np.array([table.draw(generator) for _ in range(200)])
    assert ((drawn >= 1e-4) & (drawn <= 1e-1)).all()
    assert np.mean((drawn > spread[60]) & (drawn < spread[80])) > 0.9
    assert len(set(drawn)) > 190  # within a cell too
    cells = np.diff(table._cumulative, prepend=0.0)
    assert (len(cells), cells.sum()) == (CELLS, pytest.approx(1.0))


def test_a_draw_takes_the_value_of_most_merit_among_the_likely() -> None:
    table = Table(CategoricalDistribution(["a", "b", "c"]), np.array([1.0] * 8 + [2.0] * 8), np.array([2.0] * 40))
    drawn = [table.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert drawn.count(1.0) == 50


class Past:
    """A study of one hyperparameter, width 0..9, whose trial n has width n modulo 10; wide is good."""

    def __init__(self, trials: int, running: Sequence[int] = ()) -> None:
        self.trials, self.running = trials, list(running)
        self.asked: list[list[int]] = []

    def judged(self) -> Judged:
        return {n: (27, (float(n % 10),)) for n in range(self.trials) if n not in self.running}

    def under_way(self) -> list[int]:
        return self.running

    def drawn(self, numbers: Sequence[int]) -> Array:
        self.asked.append(list(numbers))
        return np.array([[float(n % 10)] for n in numbers]).reshape(-1, 1)


WIDTH: dict[str, BaseDistribution] = {"width": IntDistribution(0, 9)}


def proposals(past: Past, count: int = 60, number: int = 10**6) -> list[int]:
    study = optuna.create_study()
    objective = Objective(name="width", direction="maximize", unit="", reference=0.0)
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
    trial.number = number
    samplers = [RankedTPE(seed, past, [objective], WIDTH) for seed in range(count)]
    return [sampler.sample_independent(study, trial, "width", WIDTH["width"]) for sampler in samplers]


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
