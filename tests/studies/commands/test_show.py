"""Distributions as people see them, and what they hold."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.draws import allows, choices


@pytest.mark.parametrize(
    ("distribution", "listed"),
    [
        (FloatDistribution(0.1, 0.5, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (FloatDistribution(-0.3, 0.3, step=0.3), [-0.3, 0.0, 0.3]),
        (IntDistribution(2, 8, step=3), [2, 5, 8]),
        (CategoricalDistribution(["a", None, 3]), ["a", None, 3]),
    ],
)
def test_every_value_is_listed_as_it_is_written_and_held(distribution: BaseDistribution, listed: list[Any]) -> None:
    assert choices(distribution) == listed
    assert all(allows(distribution, value) for value in listed)
    assert not allows(distribution, "b")


def test_what_sums_of_steps_miss_is_held() -> None:
    assert allows(FloatDistribution(0.1, 0.5, step=0.1), 0.1 + 0.1 + 0.1)
    assert allows(FloatDistribution(1e-4, 1e-2, log=True), 3.3e-4)
    for value in (0.35, 0.6, None):
        assert not allows(FloatDistribution(0.1, 0.5, step=0.1), value)
