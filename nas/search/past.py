"""The past of a study, as a proposal needs it, and the type of proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import optuna

    from nas.search.pareto import Array
    from nas.types import Cost, Objective

Judged = Mapping[int, tuple[int, tuple[float, ...]]]
"""Trial number -> (epoch up to which it was judged, values of the objectives there). A value is NaN for an objective
that is known only at the end, and the values are () for a trial that diverged."""


class Past(Protocol):
    """The questions that a sampler may ask of a study."""

    def judged(self) -> Judged:
        """Returns every trained trial, in the order in which their ends were told.

        The epoch is the last that was validated: the full budget of a complete trial, the rung of a stopped one. Trials
        that diverged or ran out of memory have epoch 0 and no values.
        """

    def under_way(self, *, reread: bool = True) -> list[int]:
        """Returns the numbers of the trials that have not ended, whichever driver trains them, in ascending order.

        Without reading again they are those of the last reading. Whoever made a trial or took one over has just read.
        """

    def drawn(self, numbers: Sequence[int]) -> Array:
        """Returns hyperparameters of trials as Optuna stores them, shape (trials, hyperparameters).

        Columns are in the order of the study's distributions. A value is NaN where none was drawn yet.
        """

    def rung_objectives(self) -> Sequence[Objective]:
        """Returns the study's objectives that are known wherever trials are validated (see `Metric.at_rungs`)."""

    def rung(self, epoch: int) -> Mapping[int, Sequence[float]]:
        """Returns number -> values of `rung_objectives` after an epoch, of every trial that was validated there."""

    def as_optuna(self, number: int) -> tuple[optuna.Study, optuna.trial.FrozenTrial]:
        """Returns the study and one of its trials for Optuna's own samplers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A candidate as a sampler sees it.

    Attributes:
        params: its hyperparameters, canonical: those that are switched off have one value.
        digest: its identity.
        cost: its costs.
        batch_size: images of a training step.
        fits: whether it is within the study's limits.
    """

    params: Mapping[str, Any]
    digest: str
    cost: Cost
    batch_size: int
    fits: bool


Propose = Callable[[int, Past], dict[str, Any]]
"""(number of a trial, the past of its study) -> every hyperparameter of the trial.

The same number and past give the same proposal, so that a call whose answer was lost can be repeated. Two of Optuna's
samplers are exceptions: ``qmc`` goes on in its sequence, whose place the study keeps, and the result of ``gp`` depends
on the last bits of its sums.
"""

Acceptable = Callable[[Mapping[str, Any]], bool]
"""Tells whether a proposal may be trained: it is new, and within its limits."""
