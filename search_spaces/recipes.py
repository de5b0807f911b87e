"""A search space as a study uses it: with the part of every recipe that the study decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.errors import ConfigError
from nas.protocols import SearchSpace
from nas.types import Candidate, ClassWeights, Constraint, Cost, Spec, Task

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "class_weights"
SEARCHED = "search"
"""The class weights of a study in which every candidate has its own."""


@dataclass(frozen=True, slots=True)
class StudySpace:
    """A `SearchSpace` whose recipes have the class weights and the label smoothing of a study.

    Class weights that are searched are one more hyperparameter, which is absent in trials of other studies.

    Attributes:
        space: the space of the networks.
        class_weights: those of every recipe (`nas.types.Recipe`), or `SEARCHED`.
        label_smoothing: that of every recipe.
    """

    space: SearchSpace
    class_weights: str
    label_smoothing: float

    @property
    def name(self) -> str:
        return self.space.name

    @property
    def version(self) -> int:
        return self.space.version

    @property
    def prior(self) -> Path | None:
        return self.space.prior

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        found = self.space.distributions(task)
        if self.class_weights != SEARCHED:
            return found
        if WEIGHTS in found:
            raise ConfigError(f"`{WEIGHTS}` {SEARCHED}: space {self.name} has such a hyperparameter; leave it out")
        return {**found, WEIGHTS: CategoricalDistribution(get_args(ClassWeights))}

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        weights = self.class_weights
        if weights == SEARCHED:
            params = dict(params)
            weights = params.pop(WEIGHTS, "none")
        return self._of_study(self.space.decode(params, task, epochs), weights)

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        found = self.space.encode(candidate)
        return {**found, WEIGHTS: candidate.recipe.class_weights} if self.class_weights == SEARCHED else found

    def spec(self, value: Mapping[str, Any]) -> Spec:
        return self.space.spec(value)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        return self.space.limits(task)

    def cost(self, spec: Spec, task: Task) -> Cost:
        return self.space.cost(spec, task)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        return self.space.build(spec, task)

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        weights = "none" if self.class_weights == SEARCHED else self.class_weights
        found = self.space.baselines(task, epochs, limits)
        return {name: self._of_study(candidate, weights) for name, candidate in found.items()}

    def _of_study(self, candidate: Candidate, weights: str) -> Candidate:
        recipe = replace(candidate.recipe, class_weights=weights, label_smoothing=self.label_smoothing)  # type: ignore[arg-type]
        return replace(candidate, recipe=recipe)


def space_of_study(space: SearchSpace, task: Task, class_weights: str, label_smoothing: float) -> SearchSpace:
    """Returns a space with what a study decides about classification; the space itself where that is nothing.

    Raises:
        ConfigError: the task has no classes, and something was decided.
    """
    if class_weights == "none" and not label_smoothing:
        return space
    check_classes(task, class_weights, label_smoothing)
    return StudySpace(space, class_weights, label_smoothing)


def check_classes(task: Task, class_weights: str | None, label_smoothing: float | None) -> None:
    """Raises ConfigError for settings of classification that are asked for where there are no classes."""
    for name, value, usual in ((WEIGHTS, class_weights, "none"), ("label_smoothing", label_smoothing, 0.0)):
        if not task.classifies and value not in (None, usual):
            raise ConfigError(f"`{name}` {value}: the data has no labels; leave it out")
