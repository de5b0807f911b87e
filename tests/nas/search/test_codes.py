"""Codes of candidates: what the distance of two candidates counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search.codes import COST_BITS, OCTAVES, Codes, distances
from nas.types import Cost

SPACE: dict[str, BaseDistribution] = {
    "fusion": CategoricalDistribution(["add", "concat", "none"]),
    "width": CategoricalDistribution([4, 8, 16, 64]),
    "levels": IntDistribution(1, 3),
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "shortcut": CategoricalDistribution([True, False]),
}
PLAIN: dict[str, Any] = {"fusion": "add", "width": 4, "levels": 1, "rate": 1e-4, "shortcut": True}
COST = Cost(params=1024, macs=1024)


@pytest.mark.parametrize(
    ("change", "distance"),
    [
        ({}, 0.0),
        ({"fusion": "none"}, 1.0),
        ({"fusion": "concat"}, 1.0),
        ({"shortcut": False}, 1.0),
        ({"width": 8}, 1 / 3),
        ({"width": 64}, 1.0),
        ({"levels": 2}, 0.5),
        ({"levels": 3}, 1.0),
        ({"rate": 1e-1}, 1.0),
        ({"fusion": "none", "levels": 2}, 1.5),
    ],
)
def test_a_choice_counts_once_and_a_number_by_its_steps(change: dict[str, Any], distance: float) -> None:
    codes = Codes(SPACE)
    both = codes.codes([(PLAIN, COST), ({**PLAIN, **change}, COST)])
    found = distances(both, both, codes.weights({}, 1.0))
    assert found == pytest.approx(np.array([[0.0, distance], [distance, 0.0]]))


def test_costs_count_by_their_ratio() -> None:
    codes = Codes(SPACE)
    both = codes.codes([(PLAIN, COST), (PLAIN, Cost(params=1024 * 2**5, macs=1024))])
    found = distances(both[:1], both[1:], codes.weights({"params": 1.0}, 0.0))
    assert found.item() == pytest.approx(5 / OCTAVES)
    far = codes.codes([(PLAIN, Cost(params=1, macs=1)), (PLAIN, Cost(params=2**50, macs=1))])
    assert distances(far[:1], far[1:], codes.weights({"params": 1.0}, 0.0)).item() == pytest.approx(
        len(COST_BITS) / 2 / OCTAVES
    )


def test_relevance_weighs_a_hyperparameter() -> None:
    codes = Codes(SPACE)
    both = codes.codes([(PLAIN, COST), ({**PLAIN, "fusion": "none", "width": 64}, COST)])
    weights = codes.weights({"fusion": 0.25, "width": 2.0}, 0.0)
    assert distances(both[:1], both[1:], weights).item() == pytest.approx(2.25)


def test_hyperparameters_of_a_larger_space_and_missing_ones_do_no_harm() -> None:
    codes = Codes(SPACE)
    small = {"fusion": "add", "elsewhere": 3}
    first, second, unknown, none = codes.codes(
        [(small, COST), ({"fusion": "add"}, COST), ({"fusion": "dense"}, COST), ({}, COST)]
    )
    assert (first == second).all()
    assert (unknown == none).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.1, 0.9)])
def test_steps_of_a_float_are_told_apart(low: float, high: float) -> None:
    codes = Codes({"x": FloatDistribution(low, high, step=0.1)})
    count = round((high - low) / 0.1) + 1
    values = [round(low + 0.1 * step, 10) for step in range(count)]
    found = codes.codes([({"x": value}, COST) for value in values])
    near = distances(found[:-1], found[1:], codes.weights({}, 1.0)).diagonal()
    assert near == pytest.approx(np.full(count - 1, 1 / (count - 1)))


def test_what_is_no_number_among_numbers_is_none() -> None:
    codes = Codes({"width": CategoricalDistribution([4, 8])})
    found = codes.codes([({"width": value}, COST) for value in ("wide", None, 4)])
    assert (found[0] == found[1]).all()
