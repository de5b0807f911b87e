"""The networks of the papers by name."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from unet_strategies import DIGITS

from nas.errors import ConfigError, SpecError
from nas.types import Constraint, Task
from search_spaces.unet.references import LEVELS, REFERENCES, WIDTH, baselines, reference_network
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import WIDTHS, UNetSpec

SPACE = UNetSpace()
COLOUR = Task(channels=3, classes=10, height=32, width=32, noise="gaussian:25")
DENOISING = Task(channels=1, classes=0, height=40, width=40, noise="gaussian:25")
ALONE = ("addunet-denoise", "single-task-denoise", "single-task-classify")


def spec_of(name: str, task: Task = COLOUR, **options: Any) -> UNetSpec:
    spec = reference_network(name, task, **options).spec
    assert isinstance(spec, UNetSpec)
    return spec


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_builds_and_survives_as_a_candidate(name: str) -> None:
    candidate = reference_network(name, COLOUR, epochs=9)
    assert candidate.recipe.epochs == 9
    assert SPACE.decode(SPACE.encode(candidate), COLOUR, 9) == candidate
    denoised, logits = SPACE.build(candidate.spec, COLOUR)(torch.rand(2, 3, 17, 23))
    assert denoised.shape == (2, 3, 17, 23)
    assert logits.shape == (2, 10)


def test_references_are_distinct_networks() -> None:
    assert len({spec_of(name) for name in REFERENCES}) == len(REFERENCES)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name not in ALONE])
@pytest.mark.parametrize("task", [DIGITS, COLOUR])
def test_a_reference_lies_in_the_space(name: str, task: Task) -> None:
    encoded = SPACE.encode(reference_network(name, task))
    for hyperparameter, choices in SPACE.choices(task).items():
        assert encoded[hyperparameter] in choices, hyperparameter


@pytest.mark.parametrize(
    ("space", "names"),
    [
        ("classic", {"unet", "attention-unet", "unet++", "residual-unet", "hard-sharing"}),
        ("addunet", {"addunet"}),
        ("multi_resnet", {"residual-unet", "multi-resnet", "multi-resnet-none-added"}),
        ("nddr", {"unet", "hard-sharing", "cross-stitch", "sluice", "nddr", "nddr-no-shortcut", "residual-unet"}),
    ],
)
def test_each_named_space_holds_its_references(space: str, names: set[str]) -> None:
    choices = UNetSpace(name=space).choices(COLOUR)
    found = {
        name: UNetSpace(name=space).encode(reference_network(name, COLOUR)) for name in REFERENCES if name not in ALONE
    }
    inside = {name for name, encoded in found.items() if all(encoded[each] in c for each, c in choices.items())}
    assert inside == names


def test_depth_follows_the_image_and_width_the_budget() -> None:
    assert spec_of("unet").levels == LEVELS
    assert spec_of("unet", DIGITS).levels == 3
    assert spec_of("unet").width == WIDTH
    for budget in (60_000, 300_000):
        spec = spec_of("unet", max_params=budget)
        wider = replace(spec, width=WIDTHS[WIDTHS.index(spec.width) + 1])
        assert SPACE.cost(spec, COLOUR).params <= budget < SPACE.cost(wider, COLOUR).params
    narrow = spec_of("sluice", max_macs=20_000_000, widths=range(4, 17))  # odd ones are not for it
    assert SPACE.cost(narrow, COLOUR).macs <= 20_000_000
    with pytest.raises(ConfigError, match="no width from 4 is within 10 params; allow more"):
        reference_network("unet", COLOUR, max_params=10)


def test_an_unknown_reference_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="reference 'resnet' is unknown; choose one of: unet, attention-unet"):
        reference_network("resnet", COLOUR)


def test_without_classes_only_what_denoises_is_a_baseline() -> None:
    with pytest.raises(SpecError, match="for data without classes"):
        reference_network("nddr", DENOISING)
    found = baselines(DENOISING, 3, ())
    assert set(found) == {name for name in REFERENCES if spec_of(name).columns == 1} - {"single-task-classify"}
    assert all(candidate.recipe.classification_weight == 0 for candidate in found.values())


def test_baselines_keep_the_limits_where_a_width_does() -> None:
    limits = (Constraint(name="params", upper=60_000), Constraint(name="macs", upper=1_000_000))
    found = SPACE.baselines(DIGITS, 3, limits)
    assert set(found) == set(REFERENCES)
    for name, candidate in found.items():
        cost = SPACE.cost(candidate.spec, DIGITS)
        assert candidate.spec.width == 4 or all(limit.violation(cost) <= 0 for limit in limits), name
    wide = SPACE.baselines(DIGITS, 3, SPACE.limits(DIGITS))
    assert {candidate.spec.width for candidate in wide.values()} == {WIDTH}
