"""The two seams of the engine: SearchSpace, which builds networks, and Ledger, which keeps the study."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nas.errors import ConfigError, SpecError, in_short
from nas.outcome import Outcome
from nas.search.past import Sketch
from nas.search.prior import Prior
from nas.settings import StudyConfig
from nas.types import Candidate, Constraint, Cost, Counts, EpochRow, Measurement, Objective, ProbeCurve, Spec, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import Tensor, nn

    from nas.search.past import Propose


class SearchSpace(Protocol):
    """The networks that can be built. A space can be pickled, because Ray sends it to the workers."""

    @property
    def name(self) -> str:
        """The name by which a request asks for the space."""

    @property
    def version(self) -> int:
        """A number that is raised when hyperparameters change. A study keeps its version and distributions."""

    @property
    def prior(self) -> Path | None:
        """The file of earlier trials that a search begins with (`nas.search.prior.Prior`), or None.

        A space without this attribute has none.
        """
        return None

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        """Returns every hyperparameter with the choices that the task allows. It is never empty."""

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        """Turns hyperparameters into a canonical candidate.

        An absent hyperparameter (in a study of an older version) takes the value that the older version implied. Raises
        SpecError when the combination is not valid for the task.
        """

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """Turns a candidate into all its hyperparameters; ``decode(encode(c), task, epochs) == c``."""

    def spec(self, value: Mapping[str, Any]) -> Spec:
        """Reads a spec from its dictionary (``Spec.to_dict``). Raises SpecError."""

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        """Returns the default limits of parameters and MACs for the task."""

    def cost(self, spec: Spec, task: Task) -> Cost:
        """Returns parameters and MACs from the spec alone, without building the network."""

    def build(self, spec: Spec, task: Task) -> nn.Module:
        """Builds a network with fresh weights: images (N, C, H, W) -> (denoised (N, C, H, W), logits (N, K)).

        `Abilities` lists the attributes and methods that the network may have besides.
        """

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        """Returns the reference networks that suit the task by name, each as near the limits as it can be.

        A search may begin with them, and a confirmation trains them to compare with. A space without this method has
        none.
        """
        return {}

    def learns_classes(self, spec: Spec) -> bool:
        """Tells whether a network learns classes where the data has some. In a space without this method all do."""
        return True


def sketched(space: SearchSpace, params: Mapping[str, Any], config: StudyConfig) -> Sketch | None:
    """Returns the candidate of hyperparameters as samplers see it; None when they are not valid for the study."""
    try:
        candidate = space.decode(params, config.task, config.epochs)
    except SpecError:
        return None
    cost = space.cost(candidate.spec, config.task)
    encoded = space.encode(candidate)
    return Sketch(
        params={name: encoded.get(name, value) for name, value in params.items()},
        digest=candidate.digest,
        cost=cost,
        batch_size=candidate.recipe.batch_size,
        fits=all(limit.violation(cost) <= 0 for limit in config.constraints),
    )


def prior_of(space: SearchSpace, config: StudyConfig, names: Collection[str]) -> Prior:
    """Returns the earlier trials that a study begins with; none if it was made without, or its space has none.

    Trials that the study could not have are left out: those of another network than their values of the study's
    hyperparameters, `names`, stand for, because a hyperparameter that is fixed there had another value. The others have
    every hyperparameter of the study, also one that was not there yet.

    Raises:
        ConfigError: the space's file of them cannot be read.
    """
    if config.prior != "space" or space.prior is None:
        return Prior()
    found = Prior.read(space.prior)

    def fits(given: Mapping[str, Any]) -> bool:
        own = {name: value for name, value in given.items() if name in names}
        try:
            whole, restricted = (space.decode(params, config.task, config.epochs) for params in (given, own))
        except SpecError:
            return False
        return whole == restricted

    def whole(given: Mapping[str, Any]) -> Mapping[str, Any]:
        if given.keys() >= set(names):
            return given
        encoded = space.encode(space.decode(given, config.task, config.epochs))
        return {**{name: encoded[name] for name in names if name in encoded}, **given}

    fitting = [trial for trial in found.trials if fits(trial.hyperparameters)]
    return replace(found, trials=[replace(each, hyperparameters=whole(each.hyperparameters)) for each in fitting])


TASKS = ("denoise", "classify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """The attributes and methods by which a network describes itself. Each of them may be missing.

    Attributes:
        tasks: the tasks that it learns, of `TASKS`; by default both. The output of the other one is constant, and takes
            no part in the loss's balance and the stability score.
        reach: distance in pixels over which an output pixel depends on the input; None, the default, for the whole
            image. Tiles of a large image overlap by it (see `nas.bundles.inference`).
        reduction: sides of an image that are no multiple of this are padded inside the network; by default 1.
        gates: () -> the learned skip gates, shallow first, detached. None by default.
        penalty: () -> a term () that is added to the loss, such as a penalty of the weights, or None. None by default.
        parameter_groups: () -> all parameters by group, each in one group. The group ``sharing`` is trained at
            `nas.types.Recipe.sharing_rate` times the learning rate. By default all are in one group.
        evidence_head: the module that is given a list of feature maps (N, C_i, H_i, W_i) and returns the logits, from
            which it is found where the evidence for a class lies (see `nas.training.evidence`); None, the default, for
            a network without one.
        capturable: whether a training step of the network does the same work each time, so that a GPU may be given it
            as a whole (see `nas.training.captured`); by default False.
    """

    tasks: Sequence[str] = TASKS
    reach: int | None = None
    reduction: int = 1
    gates: Callable[[], Sequence[Tensor]] = tuple
    penalty: Callable[[], Tensor | None] = lambda: None
    parameter_groups: Callable[[], Mapping[str, Sequence[nn.Parameter]]]
    evidence_head: nn.Module | None = None
    capturable: bool = False

    @classmethod
    def of(cls, network: nn.Module) -> Abilities:
        """Reads the abilities of a network, with defaults for missing ones.

        Raises:
            ConfigError: an ability is malformed.
        """
        said: dict[str, Any] = {"parameter_groups": lambda: {"base": list(network.parameters())}}
        said |= {field.name: getattr(network, field.name) for field in fields(cls) if hasattr(network, field.name)}
        found = cls(**said)
        for name, value, rule in found._breaches(network):
            raise ConfigError(f"network {type(network).__name__}: {name} is {in_short(repr(value))}, must be {rule}")
        return found

    def _breaches(self, network: nn.Module) -> Iterator[tuple[str, Any, str]]:
        from torch import Tensor, nn

        tasks = self.tasks if isinstance(self.tasks, Sequence) else ()
        if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(TASKS):
            yield "tasks", self.tasks, f"some of {', '.join(TASKS)}"
        if self.reach is not None and (type(self.reach) is not int or self.reach < 0):
            yield "reach", self.reach, "a number of pixels, or None"
        if type(self.reduction) is not int or self.reduction < 1:
            yield "reduction", self.reduction, "a number of pixels"
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
        if self.evidence_head is not None and not isinstance(self.evidence_head, nn.Module):
            yield "evidence_head", self.evidence_head, "a module, or None"
        if type(self.capturable) is not bool:
            yield "capturable", self.capturable, "True or False"


class Ledger(Protocol):
    """The only way in which the engine writes to a study. The driver alone uses it, from one thread.

    A trial's records are written in one transaction with the tell to Optuna, so that a trial that is finished in the
    study is complete in the records. Every method may raise StorageError.

    Several drivers, on several machines, may work on one study. A driver owns the trials that it asks for or claims. A
    write to a trial that another driver has taken over raises LeaseLostError and changes nothing. Together the drivers
    keep to one budget::

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
        """Makes this process a driver of the study while the block runs: it holds a lease and renews it.

        When the block ends or the driver is known to be dead, its reservations are free, and others may claim its
        unfinished trials. Within the block a missing database is waited for.
        """

    def reserve(self, trials: int, ahead: int = 1) -> bool:
        """Holds a place for one more trial, if the study has fewer than `trials` of them.

        It holds places for up to `ahead` trials when so many are free that other drivers find enough. The count
        includes trained trials, unfinished ones of any driver, and reservations of all live drivers. False means that
        the places are taken, not that all is done, because an unfinished trial may still fail.
        """

    def ask(self, propose: Propose) -> tuple[int, dict[str, Any]]:
        """Makes a new trial of this driver, or takes the oldest enqueued one. Returns its number and hyperparameters.

        `propose` gives the hyperparameters that an enqueued trial leaves open, and all of a new one. The trial takes
        the place of a reservation if the driver holds any. Raises LeaseLostError when the reservation ran out with the
        lease, and the budget is full by now; ProposalError when the trial has no valid hyperparameters.
        """

    def claim(self, propose: Propose) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial that no live driver owns. Returns its number and hyperparameters, or None without
        one.

        No other driver gets the same trial. It may have been started before, and have a checkpoint. If it was cut off
        while it was proposed, `propose` gives the rest of its hyperparameters. Raises ProposalError when it has no
        valid ones.
        """

    def interrupt(self, number: int) -> None:
        """Says that this driver no longer trains a trial, and may claim it again."""

    def counts(self, *, reread: bool = True) -> Counts:
        """Returns the number of trials by outcome, from the store, or as they were when trials were read last."""

    def started_digests(self) -> Set[str]:
        """Returns the digest of every trial that this version of the training code began to train, except for those
        that had failed when they were read.

        The returned set is live: other calls add the digests that they read to it.
        """

    def other_drivers(self) -> list[str]:
        """Returns the other drivers that live, in words for people."""

    def under_way(self) -> list[int]:
        """Returns the numbers of the trials that have not ended, at any driver, in ascending order."""

    def ended(self) -> Set[int]:
        """Returns the numbers of the trials that have ended in any way."""

    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """Records that a trial begins to train: its candidate, cost, constraints and start time.

        Returns False and records nothing when another trial of the study with the same digest was trained to an end or
        is under way, at any driver or interrupted. So one version of the training code (`nas.training.version`) never
        trains a candidate twice. A trial that another version began loses its epochs, because it starts again.
        """

    def reject(self, number: int, candidate: Candidate, cost: Cost, outcome: Outcome) -> None:
        """Ends a trial that is not trained, a duplicate or one over a limit, and records its candidate and cost.

        The reservation with which the trial was asked serves the next one; a claimed trial leaves none.
        """

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends rows to the epochs table, and replaces rows of the same epochs."""

    def epochs_table(self, number: int) -> list[EpochRow]:
        """Returns the rows that `epochs` kept of a trial, first to last."""

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """Ends a trial as COMPLETE with the values of the study's objectives."""

    def prune(self, number: int, outcome: Outcome, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """Ends a trial that was trained without values, with an outcome whose state is PRUNED."""

    def fail(self, number: int, outcome: Outcome, *, detail: str = "") -> None:
        """Ends a trial that tells nothing about its candidate, with an outcome whose state is FAIL."""

    def rung_objectives(self) -> tuple[Objective, ...]:
        """Returns the study's objectives that are known wherever trials are validated (see `Metric.at_rungs`)."""

    def rung(self, epoch: int) -> Mapping[int, tuple[float, ...]]:
        """Returns number -> values of `rung_objectives` at `epoch`, of every trial that was validated there.

        The mapping grows at its end by later calls.
        Trials count whatever became of them later, at any driver, but only those of this version of the training code.
        """

    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Returns number -> values, in the order of the study's objectives, of every COMPLETE trial."""

    def front(self) -> list[int]:
        """Returns the numbers of the trials on the Pareto front, by the study's objectives."""

    def kept(self) -> list[int]:
        """Returns the numbers of the trials whose weights are kept: each is on the front of all that are no larger."""
