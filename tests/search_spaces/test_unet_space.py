"""Hyperparameters to candidates and back."""

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unet_strategies import DIGITS, points, specs, tasks

from nas.errors import SpecError
from nas.types import Candidate, Constraint, Recipe, Task, canonical_json, digest_of
from search_spaces import SPACES
from search_spaces.unet.space import BALANCE, CLASSIFICATION, UNetSpace
from search_spaces.unet.spec import UNetSpec, deepest

SPACE = UNetSpace()


@settings(deadline=None)
@given(st.data(), st.sampled_from(list(SPACES)), tasks())
def test_every_point_decodes_to_a_valid_candidate_and_back(data: st.DataObject, name: str, task: Task) -> None:
    space = UNetSpace(name=name)
    candidate = space.decode(data.draw(points(space.distributions(task))), task, epochs=9)
    candidate.spec.validate_for(task)
    assert candidate.recipe.epochs == 9
    assert space.decode(space.encode(candidate), task, epochs=9) == candidate
    assert space.spec(candidate.spec.to_dict()) == candidate.spec


@settings(deadline=None)
@given(st.data(), st.sampled_from(list(SPACES)), tasks())
def test_encoding_stays_inside_the_space(data: st.DataObject, name: str, task: Task) -> None:
    space = UNetSpace(name=name)
    distributions = space.distributions(task)
    params = space.encode(space.decode(data.draw(points(distributions)), task, epochs=1))
    assert set(distributions) <= set(params)
    for name, distribution in distributions.items():
        assert distribution._contains(distribution.to_internal_repr(params[name]))


@settings(deadline=None)
@given(st.data(), st.sampled_from([name for name in SPACES if name != "unet"]), tasks())
def test_a_restriction_is_a_part_of_the_whole_space(data: st.DataObject, name: str, task: Task) -> None:
    part, whole = UNetSpace(name=name).choices(task), SPACE.choices(task)
    assert part.keys() == whole.keys()
    for hyperparameter, choices in part.items():
        # Depth is what the image allows, where a level is smaller than it; `table` has the heads of before.
        if hyperparameter != "levels" and (name, hyperparameter) != ("table", "head_norm"):
            assert set(choices) <= set(whole[hyperparameter])
    candidate = UNetSpace(name=name).decode(data.draw(points(UNetSpace(name=name).distributions(task))), task, 3)
    if candidate.spec.levels <= deepest(task):
        assert SPACE.decode(SPACE.encode(candidate), task, 3) == candidate


def test_the_table_keeps_the_heads_that_it_was_trained_with() -> None:
    """It is the one restriction with a choice that the whole space has given up."""
    space = UNetSpace(name="table")
    assert "head_norm" not in space.distributions(DIGITS)
    drawn = {name: _first(d) for name, d in space.distributions(DIGITS).items()}
    assert space.decode(drawn, DIGITS, 3).spec.head_norm == "none"
    assert UNetSpace(name="table").choices(DIGITS)["head_norm"] == ("none",)


def test_heads_are_normalised_but_for_those_of_studies_of_before() -> None:
    assert SPACE.distributions(DIGITS)["head_norm"] == optuna.distributions.CategoricalDistribution(("batch",))
    drawn = {name: _first(d) for name, d in SPACE.distributions(DIGITS).items()}
    assert SPACE.decode(drawn, DIGITS, 3).spec.head_norm == "batch"
    del drawn["head_norm"]  # a study of version 2 has no such hyperparameter
    assert SPACE.decode(drawn, DIGITS, 3).spec.head_norm == "none"


@pytest.mark.parametrize("name", [name for name in SPACES if name != "unet"])
def test_a_restriction_leaves_something_out(name: str) -> None:
    part, whole = UNetSpace(name=name).choices(DIGITS), SPACE.choices(DIGITS)
    assert math.prod(map(len, part.values())) < 0.001 * math.prod(map(len, whole.values()))


def test_version_1_decodes_to_what_it_was() -> None:
    """40 points of version 1, with the digests of candidate and spec that it gave them, for 8x8 digits."""
    for params, candidate, spec in json.loads((Path(__file__).parent / "unet_version_1.json").read_text()):
        decoded = SPACE.decode(params, DIGITS, epochs=9)
        assert (decoded.digest, digest_of(canonical_json(decoded.spec.to_dict()))) == (candidate, spec)
        encoded = SPACE.encode(decoded)
        assert SPACE.decode({name: encoded[name] for name in params}, DIGITS, epochs=9) == decoded


@settings(deadline=None)
@given(st.data())
def test_a_recipe_without_effect_is_not_another_candidate(data: st.DataObject) -> None:
    params = data.draw(points(SPACE.distributions(DIGITS)))
    candidate = SPACE.decode(params, DIGITS, epochs=3)
    assert candidate == SPACE.decode(params | _without_effect(candidate), DIGITS, epochs=3)


def _without_effect(candidate: Candidate) -> dict[str, Any]:
    recipe, spec = candidate.recipe, candidate.spec
    return {
        **({"classification_weight": 0.03} if recipe.balancing == "uncertainty" else {}),
        **({"sharing_rate": 1000.0} if spec.sharing == "none" else {}),
    }


@settings(deadline=None)
@given(specs(levels=st.integers(1, 3)), st.floats(1e-5, 1), st.integers(1, 512))
def test_a_candidate_off_the_grid_survives_too(spec: UNetSpec, rate: float, batch: int) -> None:
    recipe = Recipe(epochs=3, batch_size=batch, learning_rate=rate, weight_decay=rate, classification_weight=rate)
    candidate = Candidate(spec=spec, recipe=recipe)
    assert SPACE.decode(SPACE.encode(candidate), DIGITS, epochs=3) == candidate


@settings(deadline=None)
@given(tasks(100))
def test_depths_that_the_image_is_too_small_for_are_not_proposed(task: Task) -> None:
    levels = SPACE.distributions(task)["levels"]
    assert isinstance(levels, optuna.distributions.IntDistribution)
    assert (levels.low, levels.high) == (1, deepest(task))


@pytest.mark.parametrize(("side", "levels"), [(1, 1), (3, 1), (4, 2), (8, 3), (28, 4), (32, 5), (256, 5)])
def test_depth_by_image_side(side: int, levels: int) -> None:
    assert deepest(Task(channels=1, classes=0, height=side, width=2 * side, noise="none")) == levels


def test_without_classes_there_is_no_head_to_choose() -> None:
    task = Task(channels=1, classes=0, height=8, width=8, noise="gaussian:50")
    only_with_classes = set(SPACE.distributions(DIGITS)) - set(SPACE.distributions(task))
    assert only_with_classes == {*CLASSIFICATION, *BALANCE}


def test_a_point_that_is_not_valid_for_the_task_is_refused() -> None:
    params: dict[str, Any] = SPACE.encode(
        SPACE.decode({n: _first(d) for n, d in SPACE.distributions(DIGITS).items()}, DIGITS, epochs=1)
    )
    with pytest.raises(SpecError, match="leave under 2 pixels of a 8x8 image"):
        SPACE.decode(params | {"levels": 4, "resampling": "max"}, DIGITS, epochs=1)
    with pytest.raises(SpecError, match="field 'width' is missing"):
        SPACE.decode({name: value for name, value in params.items() if name != "width"}, DIGITS, epochs=1)


def test_limits_follow_the_pixels() -> None:
    assert SPACE.limits(DIGITS) == (
        Constraint(name="params", upper=2_000_000),
        Constraint(name="macs", upper=6_400_000),
    )


def test_optuna_stores_the_space_unchanged() -> None:
    for distribution in SPACE.distributions(DIGITS).values():
        stored = optuna.distributions.distribution_to_json(distribution)
        assert optuna.distributions.json_to_distribution(stored) == distribution


def test_foreign_specs_are_a_bug() -> None:
    class Foreign:
        def to_dict(self) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="not Foreign"):
        SPACE.cost(Foreign(), DIGITS)


def _first(distribution: optuna.distributions.BaseDistribution) -> Any:
    return distribution.to_external_repr(getattr(distribution, "low", 0))
