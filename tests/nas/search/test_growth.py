"""What more time would probably bring."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.search.growth import LEAST_TRIALS, Growth


def test_even_growth_over_the_logarithm_of_time_is_foretold() -> None:
    growth = Growth()
    for time in range(1, 65):
        growth.add(time, 400 + 20 * math.log2(time))
    assert growth.promise() == pytest.approx(20)
    # The next unit of time adds 20 * log2(65 / 64), the slope 20 / ln(2) / 64.
    assert growth.pace() == pytest.approx(20 * np.log2(65 / 64) / growth.volumes[-1], rel=0.01)


def test_times_may_be_of_any_length_and_trials_end_together() -> None:
    times = [0.5] * 20 + [8.0] * 4
    volumes = [100.0] * 20 + [130.0] * 4
    assert Growth(times=times, volumes=volumes).promise() == 30
    assert Growth(times=[10 * time for time in times], volumes=volumes).promise() == 30


def test_a_search_that_stands_still_is_flat() -> None:
    times = [float(time) for time in range(1, LEAST_TRIALS + 1)]
    assert Growth(times=times, volumes=[300.0] * LEAST_TRIALS).pace() == 0
    nothing = Growth(times=times, volumes=[0.0] * LEAST_TRIALS).pace()
    assert nothing is None, "nothing is better than the reference point yet"


def test_what_a_study_had_before_is_no_gain() -> None:
    # All end together, in the second half.
    growth = Growth(begun=500.0, times=[5.0] * LEAST_TRIALS, volumes=[500.0] * LEAST_TRIALS)
    assert (growth.promise(), growth.pace()) == (0, 0)


def test_few_trials_foretell_nothing() -> None:
    few = [float(time) for time in range(1, LEAST_TRIALS)]
    growth = Growth(times=few, volumes=few)
    assert (growth.promise(), growth.pace()) == (None, None)
    assert (Growth().promise(), Growth().pace()) == (None, None)
