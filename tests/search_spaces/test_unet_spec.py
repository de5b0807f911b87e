"""A spec is validated, canonical and survives JSON."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unet_strategies import specs

from nas.errors import SpecError
from nas.types import Task, canonical_json, digest_of
from search_spaces.unet.spec import CHOICES, UNetSpec, deepest

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


def digest(spec: UNetSpec) -> str:
    """Of the architecture alone, made as a candidate's is."""
    return digest_of(canonical_json(spec.to_dict()))


@settings(deadline=None)
@given(specs())
def test_json_and_dictionary_round_trips(spec: UNetSpec) -> None:
    assert UNetSpec.from_dict(spec.to_dict()) == spec
    assert UNetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@settings(deadline=None)
@given(specs(), specs())
def test_equal_specs_and_only_they_share_a_digest(one: UNetSpec, other: UNetSpec) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@pytest.mark.parametrize(
    ("off", "without_effect"),
    [
        ({"levels": 1}, {"growth": "constant"}),
        ({"levels": 1}, {"resampling": "strided"}),
        ({"levels": 1}, {"fusion": "concat", "gate": "channel"}),
        ({"levels": 1}, {"head_attach": "decoder"}),
        ({"levels": 1}, {"encoder": "haar"}),
        ({"levels": 1}, {"kernel_schedule": "growing"}),
        ({"levels": 1}, {"extra_blocks": 3}),
        ({"levels": 1}, {"head_attach": "all"}),
        ({"resampling": "average"}, {"resampling": "haar"}),
        ({"encoder": "haar"}, {"resampling": "haar"}),
        ({"encoder": "haar"}, {"resampling": "none"}),
        ({"encoder": "haar"}, {"update": "subtractive"}),
        ({"block": "naf"}, {"norm": "group"}),
        ({"block": "naf"}, {"update": "residual"}),
        ({"block": "residual"}, {"update": "residual"}),
        ({"fusion": "selective_kernel"}, {"gate": "attention"}),
        ({"fusion": "nddr"}, {"gate": "none"}),
        ({"fusion": "nddr"}, {"gate": "channel"}),
        ({"fusion": "dense", "levels": 2}, {"fusion": "concat"}),
        ({"fusion": "dense", "update": "subtractive"}, {"fusion": "concat"}),
        ({"columns": 1}, {"sharing": "nddr", "nddr_alpha": 0.5, "nddr_shortcut": False}),
        ({"columns": 2}, {"nddr_alpha": 0.1}),
        ({"columns": 2, "sharing": "sluice"}, {"nddr_shortcut": False}),
        ({"columns": 2, "sharing": "nddr", "levels": 1}, {"nddr_shortcut": False}),
        ({"columns": 2, "sharing": "sluice", "levels": 1}, {"sharing": "cross_stitch"}),
        ({"tasks": "denoise"}, {"columns": 2, "sharing": "nddr"}),
        ({"tasks": "denoise"}, {"head_attach": "decoder", "head_hidden": 2, "head_width": 8, "head_dropout": 0.5}),
        ({"tasks": "classify"}, {"fusion": "concat", "gate": "attention", "extra_blocks": 2}),
        ({"tasks": "classify", "head_attach": "decoder"}, {"prediction": "noise"}),
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
    assert digest(one) == digest(other)


@settings(deadline=None)
@given(specs())
def test_what_is_canonical_stays_as_it_is(spec: UNetSpec) -> None:
    assert UNetSpec(**asdict(spec)) == spec


def test_numbers_of_another_type_are_the_same_number() -> None:
    same = UNetSpec(**BASE | {"kernel": 3.0, "nddr_alpha": 1, "columns": True})
    assert digest(same) == digest(UNetSpec(**BASE))


def test_digests_of_stored_studies_stay() -> None:
    assert digest(UNetSpec(**BASE)) == "d82e95b03f4a51c1"
    head = {"head_attach": "decoder", "head_hidden": 2, "head_width": 32, "head_dropout": 0.25}
    assert digest(UNetSpec(**BASE, **head)) == "23bdea10faa2f11f"


@pytest.mark.parametrize(
    ("schedule", "kernels"),
    [("constant", (3, 3, 3, 3)), ("growing", (3, 5, 7, 7)), ("shrinking", (7, 7, 5, 3))],
)
def test_kernels_over_depth(schedule: str, kernels: tuple[int, ...]) -> None:
    assert UNetSpec(**BASE | {"levels": 4, "kernel_schedule": schedule}).kernels == kernels


def test_two_subspaces_need_an_even_width() -> None:
    with pytest.raises(SpecError, match="width is 5, which sluice_2 cannot split in two; give an even one"):
        UNetSpec(**BASE | {"width": 5, "columns": 2, "sharing": "sluice_2"})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", 6, "unet: levels is 6; give an integer from 1 to 5"),
        ("levels", True, "unet: levels is True; give an integer from 1 to 5"),
        ("width", 16.0, "unet: width is 16.0; give an integer from 4 to 64"),
        ("head_hidden", 3, "unet: head_hidden is 3; give an integer from 0 to 2"),
        ("head_width", 7, "unet: head_width is 7; give an integer from 8 to 512"),
        ("fusion", "sum", f"unet: fusion is 'sum'; choose one of {', '.join(CHOICES['fusion'])}"),
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
    ("value", "message"),
    [
        ({"depth": 3}, "unknown field 'depth'"),
        ({"levels": 3}, "field 'width' is missing"),
    ],
)
def test_a_dictionary_that_is_no_spec_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        UNetSpec.from_dict(value)


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


@pytest.mark.parametrize("needs", [{"columns": 2}, {"tasks": "classify"}])
def test_a_network_that_needs_classes_is_refused_without(needs: dict[str, Any]) -> None:
    denoising = Task(channels=1, classes=0, height=40, width=40, noise="gaussian:50")
    with pytest.raises(SpecError, match="for data without classes; use 1 column and tasks joint or denoise"):
        UNetSpec(**BASE | needs).validate_for(denoising)


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), specs())
def test_deepest_is_the_last_depth_that_is_valid(height: int, width: int, spec: UNetSpec) -> None:
    if spec.levels <= deepest(task(height, width)):
        spec.validate_for(task(height, width))
    elif spec.resampling != "none":
        with pytest.raises(SpecError):
            spec.validate_for(task(height, width))
