"""Random candidates of a space, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas.errors import SpecError
from nas.types import Candidate, Constraint, Task

if TYPE_CHECKING:
    from numpy.random import Generator
    from optuna.distributions import BaseDistribution

    from nas.protocols import SearchSpace

DRAWS_PER_SAMPLE = 1000
"""The number of draws for each sampled architecture after which the limits are called too tight."""


def sampled(
    space: SearchSpace, task: Task, limits: Sequence[Constraint], count: int, seed: int, epochs: int = 1
) -> list[Candidate]:
    """Returns distinct random candidates within the limits, the same ones for the same seed.

    The list is shorter than `count` when the draws find no more candidates.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    distributions = space.distributions(task)
    found: dict[str, Candidate] = {}
    for _ in range(DRAWS_PER_SAMPLE * count):
        params = {name: _draw(d, generator) for name, d in distributions.items()}
        try:
            candidate = space.decode(params, task, epochs)
        except SpecError:
            continue
        cost = space.cost(candidate.spec, task)
        if all(limit.violation(cost) <= 0 for limit in limits):
            found.setdefault(candidate.digest, candidate)
        if len(found) == count:
            break
    return list(found.values())


def _draw(distribution: Any, generator: Generator) -> Any:
    if is_discrete(distribution):
        values = choices(distribution)
        return values[generator.integers(len(values))]
    if distribution.log:
        return math.exp(generator.uniform(math.log(distribution.low), math.log(distribution.high)))
    return generator.uniform(distribution.low, distribution.high)


def is_discrete(distribution: Any) -> bool:
    """Tells whether a distribution has finitely many values."""
    return hasattr(distribution, "choices") or distribution.step is not None


def choices(distribution: Any) -> list[Any]:
    """Returns every value of a discrete distribution of Optuna, in order."""
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    steps = round((distribution.high - distribution.low) / distribution.step)
    return [round(distribution.low + k * distribution.step, 10) for k in range(steps + 1)]


def allows(distribution: BaseDistribution, value: Any) -> bool:
    """Tells whether a value, as a person may write it, is one of a distribution's and not only rounded to one."""
    try:
        stored = distribution.to_internal_repr(value)
        return distribution._contains(stored) and bool(distribution.to_external_repr(stored) == value)
    except (ValueError, TypeError):  # the value is of another kind
        return False


def rule(distribution: Any) -> str:
    """Returns a distribution's values in words for people."""
    if hasattr(distribution, "choices"):
        return f"one of {', '.join(map(str, distribution.choices))}"
    steps = "" if distribution.step in (None, 1) else f" in steps of {distribution.step:g}"
    kind = "an integer" if isinstance(distribution.low, int) else "a number"
    return f"{kind} from {distribution.low:g} to {distribution.high:g}{steps}"
