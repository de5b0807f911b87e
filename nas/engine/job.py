"""A worker's job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.types import Candidate, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One candidate to be trained once.

    Attributes:
        number: number of the trial or of a confirmation's run; the worker names its files by it.
        digest: digest of the candidate.
        spec: the architecture as `nas.types.Spec.to_dict` returns it; the worker's own space reads it.
        recipe: the training recipe.
        seed: seed of weights, order of the data and training noise.
        retried: whether a worker was lost with it before. It is trained without graphs then (`nas.training.captured`),
            because a GPU that fails takes its process along.
    """

    number: int
    digest: str
    spec: Mapping[str, Any]
    recipe: Recipe
    seed: int
    retried: bool = False

    @classmethod
    def of(cls, candidate: Candidate, *, number: int, seed: int) -> Job:
        return cls(
            number=number, digest=candidate.digest, spec=candidate.spec.to_dict(), recipe=candidate.recipe, seed=seed
        )
