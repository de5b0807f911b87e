"""A recipe holds its own rules, whoever made it; an epoch is one flat row outside of Python."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nas.errors import SpecError
from nas.types import EpochRow, Recipe, flat, from_flat

VALUES: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.01,
    "weight_decay": 0,
    "classification_weight": 0.3,
    "sharing_rate": 1.0,
}


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [2.0, 2.5, True, None, "3", [3], {}, math.inf, math.nan, 10**400])
def test_a_count_is_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"^recipe: {name} is .*, must be a whole number$"):
        Recipe.from_dict(VALUES | {name: value})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "classification_weight", "sharing_rate"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, False, None, "0.1", [0.1], (), 10**400])
def test_an_amount_is_a_finite_number(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"^recipe: {name} is .*, must be a finite number$"):
        Recipe.from_dict(VALUES | {name: value})


@pytest.mark.parametrize(("name", "low"), [("epochs", 1), ("batch_size", 1), ("learning_rate", 0), ("sharing_rate", 0)])
def test_a_number_has_a_least_value(name: str, low: int) -> None:
    with pytest.raises(SpecError, match=f"^recipe: {name} is {low - 1}, must be at least {low}$"):
        Recipe.from_dict(VALUES | {name: low - 1})
    assert getattr(Recipe.from_dict(VALUES | {name: low}), name) == low


@pytest.mark.parametrize("name", ["optimizer", "balancing"])
@pytest.mark.parametrize("value", [None, 1, [], "best"])
def test_a_choice_is_one_of_those_there_are(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"^recipe: {name} is .*; choose one of "):
        Recipe.from_dict(VALUES | {name: value})


def test_an_epoch_is_one_flat_row_and_reads_back() -> None:
    epoch = {"epoch": 3, "denoise_loss": 0.5, "classify_loss": None, "seconds": 1.5}
    row = EpochRow(**epoch, values={"psnr": 20.5, "made_up": 0.25})
    assert flat(row) == epoch | {"psnr": 20.5, "made_up": 0.25}
    assert from_flat(EpochRow, flat(row)) == row
    assert row.validated


def test_an_epoch_of_an_older_checkpoint_has_no_metrics_that_were_none() -> None:
    old = {"epoch": 2, "denoise_loss": 0.5, "classify_loss": 0.1, "seconds": 1.5}
    row = from_flat(EpochRow, old | {"psnr": None, "accuracy": None, "stability": None})
    assert (row.epoch, row.classify_loss, row.values, row.validated) == (2, 0.1, {}, False)
