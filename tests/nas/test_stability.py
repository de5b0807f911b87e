"""The stability score: its formula term by term, and what it must and must not reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.stability import running_median, stability, task_stability
from nas.types import ProbeCurve

SMOOTH = np.exp(-1.5 * (1 - np.exp(-np.arange(200) / 40)))
"""A run that learns without a hitch: 1.5 nats below trivial."""


def noisy(scale: float, seed: int = 0) -> np.ndarray:
    return SMOOTH * np.exp(scale * np.random.default_rng(seed).standard_normal(200))


def test_running_median_passes_over_one_spike() -> None:
    y = np.zeros(50)
    y[20] = 9.0
    assert not running_median(y).any()


def test_a_smooth_run_scores_one() -> None:
    assert task_stability(SMOOTH.tolist()) > 0.999


def test_learning_nothing_scores_zero() -> None:
    assert task_stability([1.0] * 200) == 0.0
    assert task_stability(np.linspace(1.0, 2.0, 200).tolist()) == 0.0


def test_gain_enters_as_its_formula() -> None:
    gained = 0.05
    slight = np.exp(-np.linspace(0, gained, 201))
    # The running median lags at the very end by nothing: its window shrinks to the last probe.
    assert task_stability(slight.tolist()) == pytest.approx(1 - math.exp(-gained / 0.1), rel=1e-6)


def test_each_spike_costs_its_share() -> None:
    spiked = SMOOTH.copy()
    spiked[[50, 90, 130, 170]] *= 3.0
    regress = 4 * math.log(3.0) / 200 / 1.5
    # Four spikes in 200 probes, and the regress that they are; the median stays where it was.
    expected = math.exp(-(20 * 4 / 200 + 4 * regress))
    assert task_stability(spiked.tolist()) == pytest.approx(expected, rel=0.03)


def test_a_regress_at_the_end_costs_more_than_the_same_before() -> None:
    early, late = SMOOTH.copy(), SMOOTH.copy()
    early[100:110] *= 1.2
    late[-10:] *= 1.2
    assert task_stability(late.tolist()) < task_stability(early.tolist()) < task_stability(SMOOTH.tolist())


def test_rougher_is_less_stable() -> None:
    scores = [task_stability(noisy(scale).tolist()) for scale in (0.0, 0.02, 0.1, 0.4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5 * scores[0]


def test_a_diverged_run_scores_the_square_of_its_share() -> None:
    half = SMOOTH[:100].tolist()
    assert task_stability(half, 0.5) == pytest.approx(0.25 * task_stability(half))


@given(st.integers(0, 1000), st.floats(0.0, 0.5))
def test_bounds(seed: int, scale: float) -> None:
    assert 0.0 <= task_stability(noisy(scale, seed).tolist()) <= 1.0


def test_nothing_to_judge_scores_zero() -> None:
    assert task_stability([]) == task_stability([1.0, 0.5]) == task_stability([math.nan] * 9) == 0.0
    assert stability(ProbeCurve()) == 0.0


def test_tasks_join_by_the_geometric_mean() -> None:
    rough = noisy(0.1).tolist()
    curve = ProbeCurve(steps=tuple(range(200)), denoise=tuple(SMOOTH), classify=tuple(rough))
    expected = math.sqrt(task_stability(SMOOTH.tolist()) * task_stability(rough))
    assert stability(curve) == pytest.approx(expected)
    assert stability(ProbeCurve(denoise=tuple(SMOOTH))) == task_stability(SMOOTH.tolist())
