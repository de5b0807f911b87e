"""A search space of the user's own, whose return values are checked and whose missing parts have defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError, in_short
from nas.protocols import SearchSpace
from nas.types import Candidate, Constraint, Cost, Spec, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import nn

REQUIRED = ("name", "version", "distributions", "decode", "encode", "spec", "limits", "cost", "build")
"""The attributes of `nas.protocols.SearchSpace` that a space must have."""


@dataclass(frozen=True, slots=True)
class OwnSpace:
    """A `SearchSpace` around an object that somebody else wrote.

    Every method raises ConfigError, in one line, for a return value that does not fit the protocol. So the space's
    author reads about the mistake where it was made, and not where it would break something later.

    Attributes:
        space: the object; it is pickled by the name of its module.
        name: the text that ``--space`` takes.
    """

    space: Any
    name: str

    @classmethod
    def of(cls, space: Any, name: str) -> OwnSpace:
        """Wraps an object. Raises ConfigError when the object lacks a required attribute or has another name."""
        if missing := [part for part in REQUIRED if not hasattr(space, part)]:
            raise ConfigError(f"search space {name!r} lacks {missing[0]!r}; give an object with {', '.join(REQUIRED)}")
        if space.name != name:
            raise ConfigError(f"search space {name!r} calls itself {space.name!r}; set its name to {name!r}")
        if type(space.version) is not int or space.version < 1:
            raise ConfigError(f"search space {name!r} has the version {space.version!r}; give an integer from 1")
        return cls(space, name)

    @property
    def version(self) -> int:
        version: int = self.space.version
        return version

    @property
    def prior(self) -> Path | None:
        found: Path | None = getattr(self.space, "prior", None)
        self._check("prior", found, found is None or isinstance(found, Path), "a pathlib.Path, or None")
        return found

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = self.space.distributions(task)
        self._check("distributions", found, _are_distributions(found), "Optuna's distributions by name, at least one")
        return found

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        found: Candidate = self.space.decode(params, task, epochs)
        self._check("decode", found, _is_candidate(found), CANDIDATE)
        return found

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        found: dict[str, Any] = self.space.encode(candidate)
        self._check("encode", found, _is_named(found), "hyperparameters by name")
        return found

    def spec(self, value: Mapping[str, Any]) -> Spec:
        found: Spec = self.space.spec(value)
        self._check("spec", found, _is_spec(found), "a hashable value with to_dict()")
        return found

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        found: Sequence[Constraint] = self.space.limits(task)
        self._check("limits", found, _are_constraints(found), "nas.types.Constraint values")
        return tuple(found)

    def cost(self, spec: Spec, task: Task) -> Cost:
        found: Cost = self.space.cost(spec, task)
        self._check("cost", found, isinstance(found, Cost), "a nas.types.Cost")
        return found

    def build(self, spec: Spec, task: Task) -> nn.Module:
        from torch import nn

        found: nn.Module = self.space.build(spec, task)
        self._check("build", found, isinstance(found, nn.Module), "a torch.nn.Module")
        return found

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        if not hasattr(self.space, "baselines"):
            return SearchSpace.baselines(self, task, epochs, limits)
        found: dict[str, Candidate] = self.space.baselines(task, epochs, limits)
        right = _is_named(found) and all(map(_is_candidate, found.values()))
        self._check("baselines", found, right, f"reference networks by name, each {CANDIDATE}")
        return found

    def learns_classes(self, spec: Spec) -> bool:
        if not hasattr(self.space, "learns_classes"):
            return SearchSpace.learns_classes(self, spec)
        found: bool = self.space.learns_classes(spec)
        self._check("learns_classes", found, isinstance(found, bool), "True or False")
        return found

    def _check(self, method: str, found: object, right: bool, rule: str) -> None:
        if not right:
            shown = in_short(repr(found))
            raise ConfigError(f"search space {self.name!r}: {method} returns {shown}, must return {rule}")


CANDIDATE = "a nas.types.Candidate whose spec is hashable and has to_dict()"


def _is_spec(found: Any) -> bool:
    return hasattr(found, "to_dict") and getattr(found, "__hash__", None) is not None


def _is_candidate(found: Any) -> bool:
    return isinstance(found, Candidate) and _is_spec(found.spec)


def _is_named(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(name, str) for name in found)


def _are_constraints(found: Any) -> bool:
    return isinstance(found, Sequence) and all(isinstance(limit, Constraint) for limit in found)


def _are_distributions(found: Any) -> bool:
    from optuna.distributions import BaseDistribution

    return _is_named(found) and bool(found) and all(isinstance(d, BaseDistribution) for d in found.values())
