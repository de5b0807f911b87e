"""What more time would probably bring."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.search.growth import LEAST_TRIALS, gain_of_second_half, pace


def test_even_growth_over_the_logarithm_of_time_is_foretold() -> None:
    times = list(range(1, 65))
    volumes = [400 + 20 * math.log2(time) for time in times]
    assert gain_of_second_half(times, volumes) == pytest.approx(20)
    # The next unit of time adds 20 * log2(65 / 64), the slope 20 / ln(2) / 64.
    assert pace(times, volumes) == pytest.approx(20 * np.log2(65 / 64) / volumes[-1], rel=0.01)


def test_times_may_be_of_any_length_and_trials_end_together() -> None:
    times = [0.5] * 20 + [8.0] * 4
    volumes = [100.0] * 20 + [130.0] * 4
    assert gain_of_second_half(times, volumes) == 30
    assert gain_of_second_half([10 * time for time in times], volumes) == 30


def test_a_search_that_stands_still_is_flat() -> None:
    times = list(range(1, LEAST_TRIALS + 1))
    assert pace(times, [300.0] * LEAST_TRIALS) == 0
    assert pace(times, [0.0] * LEAST_TRIALS) is None, "nothing is better than the reference point yet"


def test_what_a_study_had_before_is_no_gain() -> None:
    times = [5.0] * LEAST_TRIALS  # all end together, in the second half
    assert gain_of_second_half(times, [500.0] * LEAST_TRIALS, begun=500.0) == 0
    assert pace(times, [500.0] * LEAST_TRIALS, begun=500.0) == 0


def test_few_trials_foretell_nothing() -> None:
    few = list(range(1, LEAST_TRIALS))
    assert gain_of_second_half(few, few) is None
    assert pace(few, few) is None
    assert pace([], []) is None
