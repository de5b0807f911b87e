"""The recipes of a study: class weights that are fixed or searched, and label smoothing."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from unet_strategies import DIGITS, points

from nas.errors import ConfigError, SpecError
from nas.protocols import prior_of
from nas.settings import StudyConfig
from nas.types import Recipe, Task
from search_spaces import get_space
from search_spaces.recipes import space_of_study

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
        assert candidate.recipe.class_weights == "balanced"
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
