"""A spec is validated, canonical and survives JSON."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unet_strategies import specs

from nas.errors import SpecError
from nas.types import Task
from search_spaces.unet.spec import UNetSpec, deepest

BASE: dict[str, Any] = {
    "levels": 3,
    "width": 16,
    "growth": "doubling",
    "fusion": "add",
    "gate": "scalar",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
}


def task(height: int, width: int) -> Task:
    return Task(channels=1, classes=10, height=height, width=width, noise="gaussian:50")


@given(specs())
def test_json_and_dictionary_round_trips(spec: UNetSpec) -> None:
    assert UNetSpec.from_json(spec.to_json()) == spec
    assert UNetSpec.from_dict(spec.to_dict()) == spec
    assert UNetSpec.from_json(spec.to_json()).digest == spec.digest


@given(specs(), specs())
def test_equal_specs_and_only_they_share_a_digest(one: UNetSpec, other: UNetSpec) -> None:
    assert (one.digest == other.digest) == (one == other)


@pytest.mark.parametrize(
    ("off", "without_effect"),
    [
        ({"levels": 1}, {"growth": "constant"}),
        ({"levels": 1}, {"resampling": "strided"}),
        ({"levels": 1}, {"fusion": "concat", "gate": "channel"}),
        ({"levels": 1}, {"head_attach": "decoder"}),
        ({"fusion": "none"}, {"gate": "channel"}),
        ({"head_hidden": 0}, {"head_width": 256}),
        ({}, {"head_dropout": 0}),
    ],
)
def test_a_choice_that_is_switched_off_does_not_change_the_digest(
    off: dict[str, Any], without_effect: dict[str, Any]
) -> None:
    one, other = UNetSpec(**BASE | off), UNetSpec(**BASE | off | without_effect)
    assert one == other
    assert one.digest == other.digest


def test_digests_of_stored_studies_stay() -> None:
    assert UNetSpec(**BASE).digest == "d82e95b03f4a51c1"
    head = {"head_attach": "decoder", "head_hidden": 2, "head_width": 32, "head_dropout": 0.25}
    assert UNetSpec(**BASE, **head).digest == "23bdea10faa2f11f"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", 6, "unet: levels is 6; give an integer from 1 to 5"),
        ("levels", True, "unet: levels is True; give an integer from 1 to 5"),
        ("width", 16.0, "unet: width is 16.0; give an integer from 4 to 64"),
        ("head_hidden", 3, "unet: head_hidden is 3; give an integer from 0 to 2"),
        ("head_width", 7, "unet: head_width is 7; give an integer from 8 to 256"),
        ("fusion", "sum", "unet: fusion is 'sum'; choose one of none, concat, add"),
        ("kernel", 4, "unet: kernel is 4; choose one of 3, 5"),
        ("norm", ["batch"], "unet: norm is ['batch']; choose one of none, batch, group"),
        ("head_dropout", 1, "unet: head_dropout is 1; give a number from 0 to below 1"),
        ("head_dropout", "half", "unet: head_dropout is 'half'; give a number from 0 to below 1"),
        ("head_dropout", float("nan"), "unet: head_dropout is nan; give a number from 0 to below 1"),
    ],
)
def test_a_value_outside_its_rule_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        UNetSpec(**BASE | {field: value})
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "unet: not JSON"),
        ("[3]", "unet: JSON is a list; give an object"),
        ('{"depth": 3}', "unknown field 'depth'"),
        ('{"levels": 3}', "field 'width' is missing"),
    ],
)
def test_text_that_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        UNetSpec.from_json(text)


def test_an_image_that_is_too_small_for_the_depth_is_refused_in_one_line() -> None:
    spec = UNetSpec(**BASE | {"levels": 4})
    spec.validate_for(task(16, 40))
    with pytest.raises(SpecError) as refused:
        spec.validate_for(task(40, 15))
    assert str(refused.value) == (
        "unet: 4 levels with max resampling leave under 2 pixels of a 40x15 image; "
        "use at most 3 levels or images of 16 pixels a side"
    )


def test_full_resolution_needs_no_size() -> None:
    UNetSpec(**BASE | {"levels": 5, "resampling": "none"}).validate_for(task(1, 1))


@given(st.integers(1, 100), st.integers(1, 100), specs())
def test_deepest_is_the_last_depth_that_is_valid(height: int, width: int, spec: UNetSpec) -> None:
    if spec.levels <= deepest(task(height, width)):
        spec.validate_for(task(height, width))
    elif spec.resampling != "none":
        with pytest.raises(SpecError):
            spec.validate_for(task(height, width))
