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
from search_spaces.draws import sampled

if TYPE_CHECKING:
    from torch import nn

CLASS_WEIGHTS = "class_weights"
SEARCHED = "search"
"""The class weights of a study in which every candidate has its own."""

USUAL: Mapping[str, Any] = {CLASS_WEIGHTS: "none", "label_smoothing": 0.0}
"""What a study that decides nothing has; a space's own recipes may have something else."""


@dataclass(frozen=True, slots=True)
class StudySpace:
    """A `SearchSpace` whose recipes have the class weights and the label smoothing of a study.

    Class weights that are searched are one more hyperparameter, which is absent in trials of other studies. What a
    study does not decide stays as the space has it, and a candidate that learns no classes has none of it.

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
        """Returns those of the space, and the class weights where they are searched.

        Raises:
            ConfigError: the space decides itself what the study asks for.
        """
        found = self.space.distributions(task)
        for name in self._asked:
            if name in found:
                raise ConfigError(f"`{name}`: space {self.name} has a hyperparameter of this name; leave it out")
        for candidate in sampled(self.space, task, (), count=1, seed=0):
            self._of_study(candidate, self._weights({}))
        if self.class_weights != SEARCHED:
            return found
        return {**found, CLASS_WEIGHTS: CategoricalDistribution(get_args(ClassWeights))}

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        own = params
        if self.class_weights == SEARCHED:
            own = {name: value for name, value in params.items() if name != CLASS_WEIGHTS}
        return self._of_study(self.space.decode(own, task, epochs), self._weights(params))

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        found = self.space.encode(candidate)
        return {**found, CLASS_WEIGHTS: candidate.recipe.class_weights} if self.class_weights == SEARCHED else found

    def spec(self, value: Mapping[str, Any]) -> Spec:
        return self.space.spec(value)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        return self.space.limits(task)

    def cost(self, spec: Spec, task: Task) -> Cost:
        return self.space.cost(spec, task)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        return self.space.build(spec, task)

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        found = self.space.baselines(task, epochs, limits)
        return {name: self._of_study(candidate, self._weights({})) for name, candidate in found.items()}

    def learns_classes(self, spec: Spec) -> bool:
        return self.space.learns_classes(spec)

    @property
    def _asked(self) -> dict[str, Any]:
        """What the study decides, by field of a recipe."""
        decided = {CLASS_WEIGHTS: self.class_weights, "label_smoothing": self.label_smoothing}
        return {name: value for name, value in decided.items() if value != USUAL[name]}

    def _weights(self, params: Mapping[str, Any]) -> str:
        return str(params.get(CLASS_WEIGHTS, "none")) if self.class_weights == SEARCHED else self.class_weights

    def _of_study(self, candidate: Candidate, weights: str) -> Candidate:
        """Returns a candidate of the space with the recipe that the study wants.

        Raises:
            ConfigError: the space's recipe has something else itself.
        """
        if not self.space.learns_classes(candidate.spec):
            return candidate
        for name, asked in self._asked.items():
            own = getattr(candidate.recipe, name)
            if own not in (USUAL[name], asked):
                raise ConfigError(f"`{name}` {asked}: recipes of space {self.name} have {own}; leave it out")
        values: dict[str, Any] = {
            name: weights if name == CLASS_WEIGHTS else asked for name, asked in self._asked.items()
        }
        return replace(candidate, recipe=replace(candidate.recipe, **values))


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
    for name, value in ((CLASS_WEIGHTS, class_weights), ("label_smoothing", label_smoothing)):
        if not task.classifies and value not in (None, USUAL[name]):
            raise ConfigError(f"`{name}` {value}: the data has no labels; leave it out")
