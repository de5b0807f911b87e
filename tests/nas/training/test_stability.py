"""The stability score: its formula, and what it must and must not reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.training.stability import lasting, running_median, spiking, stability, task_stability
from nas.types import ProbeCurve

SMOOTH = np.exp(-1.5 * (1 - np.exp(-np.arange(200) / 40)))
"""A run that learns without a hitch: 1.5 nats below trivial."""


def noisy(scale: float, seed: int = 0) -> np.ndarray:
    return SMOOTH * np.exp(scale * np.random.default_rng(seed).standard_normal(200))


def test_only_what_is_never_lost_again_counts() -> None:
    assert lasting([1.2, 0.5, 0.8, 0.2, 0.4]) == pytest.approx([0.0, 0.2, 0.2, 0.6, 0.6])
    assert task_stability([1.2, 0.5, 0.8, 0.2, 0.4]) == pytest.approx(1.6 / 5)


def test_a_run_that_only_falls_scores_the_mean_share_that_it_removed() -> None:
    assert task_stability(SMOOTH.tolist()) == pytest.approx(float(1 - SMOOTH.mean()))


def test_learning_nothing_scores_zero() -> None:
    assert task_stability([1.0] * 200) == 0.0
    assert task_stability(np.linspace(1.0, 2.0, 200).tolist()) == 0.0


def test_ending_where_it_began_scores_zero_whatever_came_between() -> None:
    assert task_stability([*SMOOTH.tolist(), 1.0]) == 0.0
    assert task_stability([*SMOOTH.tolist(), math.inf]) == task_stability([*SMOOTH.tolist(), math.nan]) == 0.0


def test_learning_early_is_worth_more_than_learning_late() -> None:
    late = np.concatenate([np.ones(100), SMOOTH[:100]])
    assert task_stability(late.tolist()) < 0.5 * task_stability(SMOOTH.tolist())


@given(st.integers(1, 198), st.floats(1.01, 5.0))
def test_a_spike_takes_what_was_removed_before_it(at: int, height: float) -> None:
    spiked = SMOOTH.copy()
    spiked[at] *= height
    kept = np.minimum(1 - SMOOTH[:at], max(0.0, 1 - spiked[at]))
    expected = (kept.sum() + max(0.0, 1 - spiked[at]) + (1 - SMOOTH[at + 1 :]).sum()) / 200
    assert task_stability(spiked.tolist()) == pytest.approx(expected)


def test_rougher_is_less_stable() -> None:
    scores = [task_stability(noisy(scale).tolist()) for scale in (0.0, 0.02, 0.1, 0.4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.7 * scores[0]


@given(st.integers(0, 1000), st.floats(0.0, 0.5))
def test_bounds(seed: int, scale: float) -> None:
    losses = noisy(scale, seed).tolist()
    assert 0.0 <= task_stability(losses) <= max(0.0, 1.0 - losses[-1])


def test_nothing_to_judge_scores_zero() -> None:
    assert task_stability([]) == task_stability([1.0, 0.5]) == task_stability([math.nan] * 9) == 0.0
    assert stability(ProbeCurve()) == 0.0


def test_tasks_join_by_the_geometric_mean() -> None:
    rough = noisy(0.1).tolist()
    curve = ProbeCurve(steps=tuple(range(200)), denoise=tuple(SMOOTH), classify=tuple(rough))
    expected = math.sqrt(task_stability(SMOOTH.tolist()) * task_stability(rough))
    assert stability(curve) == pytest.approx(expected)
    assert stability(ProbeCurve(denoise=tuple(SMOOTH))) == task_stability(SMOOTH.tolist())


def test_running_median_passes_over_one_spike_which_stands_out_above_it() -> None:
    y = np.zeros(50)
    y[20] = 9.0
    assert not running_median(y).any()
    assert np.flatnonzero(spiking(y)).tolist() == [20]
