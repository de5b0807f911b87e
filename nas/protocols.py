"""The two seams of the engine: what can be built (SearchSpace), and what is kept (Ledger)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from nas.errors import ConfigError, in_short
from nas.outcome import Outcome
from nas.settings import StudyConfig
from nas.types import Candidate, Constraint, Cost, Counts, EpochRow, Measurement, Objective, ProbeCurve, Spec, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import Tensor, nn

    from nas.search.past import Propose


class SearchSpace(Protocol):
    """What can be built. A value that can be pickled: Ray sends it to the workers."""

    @property
    def name(self) -> str:
        """The name by which a request asks for the space."""

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

        What else the module may say of itself is in `Abilities`.
        """

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        """Reference networks by name that the task has a use for, each as near the limits as it can be.

        A search may begin with them, and a confirmation trains them to compare with. A space may leave this method
        out; it has none then.
        """
        return {}


TASKS = ("denoise", "classify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a network says of itself, by attributes and methods of these names; each of them may be left out.

    Attributes:
        tasks: which of `TASKS` it learns. The output of the other is constant, and takes no part in the loss's
            balance and the stability score. Both by default.
        reach: how many pixels to either side of an output pixel it looks at; None, the default, for all of them.
            Tiles of a large image overlap by it (see `nas.bundles.inference`).
        gates: () -> the learned skip gates, shallow first, detached. None by default.
        penalty: () -> a term () that the loss adds, such as one of the weights, or None. None by default.
        parameter_groups: () -> all parameters by group, each in one group. Those of the group ``sharing`` are trained
            at `nas.types.Recipe.sharing_rate` times the learning rate. By default all are in one group.
    """

    tasks: Sequence[str] = TASKS
    reach: int | None = None
    gates: Callable[[], Sequence[Tensor]] = tuple
    penalty: Callable[[], Tensor | None] = lambda: None
    parameter_groups: Callable[[], Mapping[str, Sequence[nn.Parameter]]]

    @classmethod
    def of(cls, network: nn.Module) -> Abilities:
        """Reads them from a network, with the defaults for what it leaves out.

        Raises:
            ConfigError: something that it says is not as it must be.
        """
        said: dict[str, Any] = {"parameter_groups": lambda: {"base": list(network.parameters())}}
        said |= {field.name: getattr(network, field.name) for field in fields(cls) if hasattr(network, field.name)}
        found = cls(**said)
        for name, value, rule in found._breaches(network):
            raise ConfigError(f"network {type(network).__name__}: {name} is {in_short(repr(value))}, must be {rule}")
        return found

    def _breaches(self, network: nn.Module) -> Iterator[tuple[str, Any, str]]:
        from torch import Tensor

        tasks = self.tasks if isinstance(self.tasks, Sequence) else ()
        if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(TASKS):
            yield "tasks", self.tasks, f"some of {', '.join(TASKS)}"
        if self.reach is not None and (type(self.reach) is not int or self.reach < 0):
            yield "reach", self.reach, "a number of pixels, or None"
        for name in ("gates", "penalty", "parameter_groups"):
            if not callable(value := getattr(self, name)):
                yield name, value, "a method"
        gates = self.gates()
        if not isinstance(gates, Sequence) or not all(isinstance(gate, Tensor) for gate in gates):
            yield "gates()", gates, "a list of tensors"
        penalty = self.penalty()
        if penalty is not None and not (isinstance(penalty, Tensor) and penalty.shape == ()):
            yield "penalty()", penalty, "a tensor of shape (), or None"
        groups = self.parameter_groups()
        if not isinstance(groups, Mapping):
            yield "parameter_groups()", groups, "lists of parameters by name"
        listed = [id(parameter) for group in groups.values() for parameter in group]
        if len(set(listed)) < len(listed) or set(listed) != {id(parameter) for parameter in network.parameters()}:
            yield "parameter_groups()", list(groups), "groups that hold every parameter once"


class Ledger(Protocol):
    """What is kept: the only way the engine writes. Used by the driver alone, from one thread.

    A trial's records are written with what Optuna is told, in one transaction, so that a trial that is finished in the
    study is complete in the records. Every method may raise StorageError.

    Several drivers, on several machines, may work on one study. A driver owns the trials that it asks
    for or claims; what it writes to a trial that another has taken over raises LeaseLostError and
    changes nothing. Together they keep to one budget::

        with ledger.drive():
            if (claimed := ledger.claim(propose)) is not None:   # an interrupted trial has its place already
                number, params = claimed
            elif ledger.reserve(trials):                  # a place for a new one
                number, params = ledger.ask(propose)
            ...
            ledger.start(number, candidate, cost, worker) or ledger.reject(number, candidate, cost, Outcome.DUPLICATE)

    Attributes:
        reserved: places that this driver holds for trials it has not asked for yet.
    """

    config: StudyConfig
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

    def ask(self, propose: Propose) -> tuple[int, dict[str, Any]]:
        """A new trial of this driver, or the oldest enqueued one: its number and hyperparameters.

        What an enqueued trial leaves open, which is everything of a new one, is taken from `propose`. The trial takes
        the place of a reservation if the driver holds any. Raises LeaseLostError when the reservation ran out with the
        lease, and the budget is full by now.
        """

    def claim(self, propose: Propose) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial that no live driver owns: number and hyperparameters; None without one.

        No other driver gets it as well. It may have been started before, and have a checkpoint. If it was cut off
        while it was proposed, `propose` gives the rest of its hyperparameters.
        """

    def interrupt(self, number: int) -> None:
        """This driver trains a trial no longer, and may claim it again."""

    def counts(self) -> Counts:
        """Trials by outcome, from the store."""

    def started_digests(self) -> Set[str]:
        """Digest of every trial that this version of the training code began to train, whatever became of it.

        The set that is returned grows by itself: with every other call it knows what the study holds then.
        """

    def under_way(self) -> list[int]:
        """Numbers of the trials that have not ended, whichever driver trains them, ascending."""

    def ended(self) -> Set[int]:
        """Numbers of the trials that have ended, however."""

    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """A trial begins to train: candidate, cost, constraints and start time are recorded.

        False, and nothing is, when another trial of the study with the same digest was trained to an end or
        is under way, at any driver or interrupted. So no candidate is ever trained twice by one version of the training
        code (`nas.training.version`). A trial that another version began loses its epochs, as it starts again.
        """

    def reject(self, number: int, candidate: Candidate, cost: Cost, outcome: Outcome) -> None:
        """Ends a trial that is not trained, a duplicate or one over a limit, with candidate and cost on record.

        A reservation that the trial was asked with is there for the next; a claimed trial leaves none.
        """

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""

    def epochs_table(self, number: int) -> list[EpochRow]:
        """What `epochs` kept of a trial, first to last."""

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """COMPLETE with the values of the study's objectives."""

    def prune(self, number: int, outcome: Outcome, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """Ends a trial that was trained without values: an outcome whose state is PRUNED."""

    def fail(self, number: int, outcome: Outcome, *, detail: str = "") -> None:
        """Ends a trial that says nothing of its candidate: an outcome whose state is FAIL."""

    def rung_objectives(self) -> tuple[Objective, ...]:
        """The study's objectives that are known wherever trials are validated (see `Metric.at_rungs`)."""

    def rung(self, epoch: int) -> dict[int, tuple[float, ...]]:
        """Number -> values of `rung_objectives` at `epoch`, of every trial that was validated there.

        Whatever became of it later, and whichever driver trained it, but by this version of the training code.
        """

    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""

    def front(self) -> list[int]:
        """Numbers of the trials on the Pareto front, by the study's objectives."""
