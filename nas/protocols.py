"""The two seams of the engine: what can be built (SearchSpace), and what is kept (Ledger)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nas.types import Candidate, Constraint, Cost, Counts, EpochRow, Measurement, ProbeCurve, Spec, StudyConfig, Task

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from torch import nn


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

    def build(self, spec: Spec, task: Task) -> nn.Module:
        """A freshly initialised network: images (N, C, H, W) -> (denoised (N, C, H, W), logits (N, K)).

        The module has ``gates() -> list[Tensor]``: the learned skip gates, shallow first.
        """


class Ledger(Protocol):
    """What is kept: the only way the engine writes. Used by the driver alone, from one thread.

    A trial's records are written before Optuna is told, so that a trial that is finished in the study
    is complete in the records. Every method may raise StorageError.
    """

    config: StudyConfig
    study: optuna.Study
    distributions: dict[str, BaseDistribution]

    def counts(self) -> Counts:
        """Trials by outcome, from the store."""

    def interrupted(self) -> list[tuple[int, dict[str, Any]]]:
        """Trials left RUNNING by a driver that is gone: number and hyperparameters, oldest first."""

    def trained_digests(self) -> Mapping[str, int]:
        """Digest -> number of every trial that was trained to an end (COMPLETE or PRUNED)."""

    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> None:
        """A trial begins to train: candidate, cost, constraints and start time are recorded."""

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""

    def complete(self, number: int, measurement: Measurement) -> None:
        """COMPLETE with the values of the study's objectives."""

    def prune(self, number: int, reason: str, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """PRUNED without values. Reasons: diverged, out_of_memory, and stopped (by a rung)."""

    def fail(self, number: int, reason: str, *, detail: str = "") -> None:
        """FAIL. Reasons: exception, worker_lost, timeout, and duplicate, over_limit (never trained)."""

    def objective_values(self) -> dict[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""

    def front(self) -> list[int]:
        """Numbers of the trials on the Pareto front, by the study's objectives."""
