"""The recipes of a study: class weights that are fixed or searched, and label smoothing."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from unet_strategies import DIGITS, points

from nas.errors import ConfigError, SpecError
from nas.protocols import prior_of
from nas.settings import StudyConfig
from nas.types import Candidate, Recipe, Task
from search_spaces import get_space
from search_spaces.recipes import space_of_study
from search_spaces.unet.references import reference_network
from search_spaces.unet.space import UNetSpace

SPACE = get_space("unet")
SEARCHED = space_of_study(SPACE, DIGITS, "search", 0.1)
BALANCED = space_of_study(SPACE, DIGITS, "balanced", 0.0)


def test_a_study_that_decides_nothing_has_the_space_itself() -> None:
    assert space_of_study(SPACE, DIGITS, "none", 0.0) is SPACE


@settings(deadline=None, max_examples=30)
@given(points(SEARCHED.distributions(DIGITS)))
def test_searched_weights_are_one_more_hyperparameter(params: dict[str, Any]) -> None:
    candidate = SEARCHED.decode(params, DIGITS, 3)
    assert candidate.recipe.class_weights == params["class_weights"]
    assert candidate.recipe.label_smoothing == 0.1
    assert SEARCHED.decode(SEARCHED.encode(candidate), DIGITS, 3) == candidate
    plain = SPACE.decode(params, DIGITS, 3)
    assert candidate.spec == plain.spec
    assert plain.recipe.class_weights == "none"


def test_fixed_weights_are_those_of_every_recipe() -> None:
    assert BALANCED.distributions(DIGITS) == SPACE.distributions(DIGITS)
    references = BALANCED.baselines(DIGITS, 3, BALANCED.limits(DIGITS))
    assert references
    for candidate in references.values():
        learns = SPACE.learns_classes(candidate.spec)
        assert candidate.recipe.class_weights == ("balanced" if learns else "none")
        assert BALANCED.decode(BALANCED.encode(candidate), DIGITS, 3) == candidate


def test_a_trial_of_an_older_study_has_no_weights() -> None:
    params = SPACE.encode(next(iter(SPACE.baselines(DIGITS, 3, SPACE.limits(DIGITS)).values())))
    assert SEARCHED.decode(params, DIGITS, 3).recipe.class_weights == "none"


def test_it_travels_to_workers() -> None:
    assert pickle.loads(pickle.dumps(SEARCHED)) == SEARCHED
    assert (SEARCHED.name, SEARCHED.version, SEARCHED.prior) == (SPACE.name, SPACE.version, SPACE.prior)


@pytest.mark.parametrize(("weights", "smoothing", "named"), [("search", 0.0, "class_weights"), ("none", 0.2, "label_")])
def test_without_classes_it_is_refused(weights: str, smoothing: float, named: str) -> None:
    task = Task(channels=1, classes=0, height=8, width=8, noise="gaussian:50")
    with pytest.raises(ConfigError, match=f"`{named}.*: the data has no labels; leave it out"):
        space_of_study(SPACE, task, weights, smoothing)


def test_recipes_hold_to_their_rules_and_older_ones_keep_their_form() -> None:
    fields: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "weight_decay": 0.0}
    fields["classification_weight"] = 0.3
    assert Recipe(**fields).to_dict() == fields
    assert Recipe.from_dict({**fields, "class_weights": "sampled"}).class_weights == "sampled"
    with pytest.raises(SpecError, match="class_weights is 'all'; choose one of none, balanced, sampled"):
        Recipe(**fields, class_weights="all")
    with pytest.raises(SpecError, match="label_smoothing is 1, must be below 1"):
        Recipe(**fields, label_smoothing=1)


def test_earlier_trials_are_of_use_where_weights_are_searched() -> None:
    settings: dict[str, Any] = {"study": "s", "space": "unet", "space_version": SPACE.version, "data": "digits"}
    config = StudyConfig(
        **settings, fingerprint="f", task=DIGITS, epochs=3, objectives=(), constraints=(), prior="space"
    )
    plain = prior_of(SPACE, config, SPACE.distributions(DIGITS))
    found = prior_of(SEARCHED, config, SEARCHED.distributions(DIGITS))
    assert len(found.trials) == len(plain.trials) > 0
    assert {trial.hyperparameters["class_weights"] for trial in found.trials} == {"none"}


def test_a_network_without_classes_is_the_same_candidate_whatever_the_weights() -> None:
    params = SPACE.encode(reference_network("addunet-denoise", DIGITS, epochs=3))
    found = {SEARCHED.decode({**params, "class_weights": each}, DIGITS, 3).digest for each in ("none", "balanced")}
    assert len(found) == 1
    params["tasks"] = "joint"
    found = {SEARCHED.decode({**params, "class_weights": each}, DIGITS, 3).digest for each in ("none", "balanced")}
    assert len(found) == 2


@dataclass(frozen=True)
class Opinionated(UNetSpace):
    """A space whose recipes have class weights and smoothing of their own."""

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        found = UNetSpace.decode(self, params, task, epochs)
        return replace(found, recipe=replace(found.recipe, class_weights="balanced", label_smoothing=0.2))


def test_what_a_study_does_not_decide_stays_as_the_space_has_it_and_the_rest_is_refused() -> None:
    own = Opinionated()
    params = SPACE.encode(next(iter(SPACE.baselines(DIGITS, 3, SPACE.limits(DIGITS)).values())))
    smoothed = space_of_study(own, DIGITS, "none", 0.2)
    assert smoothed.distributions(DIGITS) == own.distributions(DIGITS)
    assert smoothed.decode(params, DIGITS, 3).recipe.class_weights == "balanced"
    assert space_of_study(own, DIGITS, "balanced", 0.0).decode(params, DIGITS, 3).recipe.label_smoothing == 0.2
    for weights, smoothing, told in (
        ("sampled", 0.0, "`class_weights` sampled: recipes of space unet have balanced; leave it out"),
        ("search", 0.0, "`class_weights` search: recipes of space unet have balanced; leave it out"),
        ("none", 0.1, "`label_smoothing` 0.1: recipes of space unet have 0.2; leave it out"),
    ):
        with pytest.raises(ConfigError) as refused:
            space_of_study(own, DIGITS, weights, smoothing).distributions(DIGITS)
        assert str(refused.value) == told


@pytest.mark.parametrize("weights", ["search", "balanced"])
def test_a_hyperparameter_of_the_space_is_not_decided_over(weights: str) -> None:
    nested = space_of_study(SEARCHED, DIGITS, weights, 0.0)
    with pytest.raises(
        ConfigError, match="`class_weights`: space unet has a hyperparameter of this name; leave it out"
    ):
        nested.distributions(DIGITS)
