"""The two seams of the engine: what can be built (SearchSpace), and what is kept (Ledger)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from nas.types import (
    Candidate,
    Constraint,
    Cost,
    Counts,
    EpochRow,
    Measurement,
    Objective,
    ProbeCurve,
    Spec,
    StudyConfig,
    Task,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from torch import nn

    from nas.search.pareto import Array


class SearchSpace(Protocol):
    """What can be built. A value that can be pickled: Ray sends it to the workers."""

    @property
    def name(self) -> str:
        """As given to ``--space``."""

    @property
    def version(self) -> int:
        """Raised when hyperparameters change; a study keeps its version and distributions."""

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        """Every hyperparameter with the choices that the task allows. Never empty."""

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        """Hyperparameters to a canonical candidate.

        A hyperparameter that is absent (a study of an older version) takes the value the older version
        implied. Raises SpecError when the combination is not valid for the task.
        """

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """A candidate to hyperparameters, all of them; ``decode(encode(c), task, epochs) == c``."""

    def spec(self, value: Mapping[str, Any]) -> Spec:
        """A spec from its dictionary (``Spec.to_dict``). Raises SpecError."""

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        """Default limits of parameters and MACs for the task."""

    def cost(self, spec: Spec, task: Task) -> Cost:
        """Parameters and MACs from the spec alone, without building the network."""

    # A space may also have ``baselines(task, epochs, limits) -> dict[str, Candidate]``: reference networks by
    # name that the task has a use for, as near the limits as they can be, for ``search --baselines``.

    def build(self, spec: Spec, task: Task) -> nn.Module:
        """A freshly initialised network: images (N, C, H, W) -> (denoised (N, C, H, W), logits (N, K)).

        The module has ``gates() -> list[Tensor]``: the learned skip gates, shallow first. It may have

        - ``tasks``: which of ``denoise`` and ``classify`` it learns, both by default; the output of the
          other is constant, and takes no part in the loss's balance and the stability score;
        - ``parameter_groups() -> dict[str, list[Parameter]]``: all parameters, where the recipe trains some
          at another rate: those named ``sharing`` at ``sharing_rate`` times its learning rate;
        - ``penalty() -> Tensor | None``: a term () that the loss adds, such as one of the weights;
        - ``reach``: how many pixels to either side of an output pixel it looks at, None (as without it) for all of
          them. Tiles of a large image overlap by it, see `nas.bundles.inference`.
        """


class Ledger(Protocol):
    """What is kept: the only way the engine writes. Used by the driver alone, from one thread.

    A trial's records are written before Optuna is told, so that a trial that is finished in the study
    is complete in the records. Every method may raise StorageError.

    Several drivers, on several machines, may work on one study. A driver owns the trials that it asks
    for or claims; what it writes to a trial that another has taken over raises LeaseLostError and
    changes nothing. Together they keep to one budget::

        with ledger.drive():
            if (claimed := ledger.claim()) is not None:   # an interrupted trial has its place already
                number, params = claimed
            elif ledger.reserve(trials):                  # a place for a new one
                trial = ledger.study.ask(ledger.distributions)
            ...
            ledger.start(number, candidate, cost, worker) or ledger.reject(number, candidate, cost, "duplicate")

    Attributes:
        study: Optuna's. Within `drive`, trials that its `ask` makes are this driver's from the first moment,
            each in the place of a reservation if there is one.
        reserved: places that this driver holds for trials it has not asked for yet.
    """

    config: StudyConfig
    study: optuna.Study
    distributions: dict[str, BaseDistribution]

    @property
    def reserved(self) -> int: ...

    def drive(self) -> AbstractContextManager[None]:
        """This process is a driver of the study while the block runs: it holds a lease that it renews.

        At the end, or when it is seen to be dead, its reservations are free and others may claim its
        unfinished trials. Within the block a database that is gone for a while is waited for.
        """

    def reserve(self, trials: int, ahead: int = 1) -> bool:
        """Holds a place for one more trial, if the study has fewer than `trials` of them.

        And for up to `ahead` trials, when so many places are free that other drivers find enough.

        Counted are trained trials, unfinished ones whoever has them, and reservations of all live drivers.
        False says that the places are taken, not that all is done: an unfinished trial may still fail.
        """

    def release(self) -> None:
        """Gives an unused reservation back."""

    def claim(self) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial that no live driver owns: number and hyperparameters; None without one.

        No other driver gets it as well. It may have been started before, and have a checkpoint.
        """

    def interrupt(self, number: int) -> None:
        """This driver trains a trial no longer, and may claim it again."""

    def counts(self) -> Counts:
        """Trials by outcome, from the store."""

    def trained_digests(self) -> Mapping[str, int]:
        """Digest -> number of every trial that was trained to an end (COMPLETE or PRUNED)."""

    def started_digests(self) -> Set[str]:
        """Digest of every trial that ever began to train, whatever became of it.

        The set that is returned grows by itself: with every other call it knows what the study holds then.
        """

    def under_way(self) -> list[int]:
        """Numbers of the trials that have not ended, whichever driver trains them, ascending."""

    def ended(self) -> Set[int]:
        """Numbers of the trials that have ended, however."""

    def drawn(self, numbers: Sequence[int]) -> Array:
        """Hyperparameters of trials as Optuna stores them, shape (trials, hyperparameters).

        In the order of `distributions`; NaN where none was drawn yet.
        """

    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """A trial begins to train: candidate, cost, constraints and start time are recorded.

        False, and nothing is, when another trial of the study with the same digest was trained to an end or
        is under way, at any driver or interrupted. So no candidate is ever trained twice.
        """

    def reject(self, number: int, candidate: Candidate, cost: Cost, reason: str) -> None:
        """FAIL without training, candidate and cost on record. Reasons: duplicate, over_limit.

        A reservation that the trial was asked with is there for the next; a claimed trial leaves none.
        """

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""

    def epochs_table(self, number: int) -> list[EpochRow]:
        """What `epochs` kept of a trial, first to last."""

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """COMPLETE with the values of the study's objectives."""

    def prune(self, number: int, reason: str, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """PRUNED without values. Reasons: diverged, out_of_memory, and stopped (by a rung)."""

    def fail(self, number: int, reason: str, *, detail: str = "") -> None:
        """FAIL. Reasons: exception, worker_lost, timeout, and duplicate, over_limit (never trained)."""

    def rung_objectives(self) -> tuple[Objective, ...]:
        """The study's objectives that are known after every validated epoch: all but latency."""

    def rung(self, epoch: int) -> dict[int, tuple[float, ...]]:
        """Number -> values of `rung_objectives` at `epoch`, of every trial that was validated there.

        Whatever became of it later, and whichever driver trained it.
        """

    def judged(self) -> Mapping[int, tuple[int, tuple[float, ...]]]:
        """Number -> (epoch, values of the objectives there), of every trained trial, in the order of tells.

        The epoch is the last that was validated: the full budget of a COMPLETE trial, the rung of a stopped
        one, whose objectives that are known at the end alone are NaN. Trials that diverged or ran out of memory
        have epoch 0 and no values.
        """

    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""

    def front(self) -> list[int]:
        """Numbers of the trials on the Pareto front, by the study's objectives."""

    def events(self) -> list[tuple[str, int]]:
        """Asks and tells in the order in which they happened: ("ask" or "tell", number)."""
