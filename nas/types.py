"""The values that travel between the rooms: frozen, keyword-only, and free of torch, Ray and SQL."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from nas.errors import SpecError

Direction = Literal["maximize", "minimize"]
Optimizer = Literal["adamw", "sgd"]
Balancing = Literal["fixed", "uncertainty", "surgery"]
ClassWeights = Literal["none", "balanced", "sampled"]
MAX_PARAMS = 200_000_000
"""The largest number of parameters of a bundle. A larger network is refused from its spec, before it takes memory."""

MAX_CHANNELS = 16
"""The largest number of channels of an image."""

MAX_SIDE = 2**16
"""The limit of a task's classes and of its image sides in pixels."""

PRECISIONS = ("auto", "fp32", "bf16")
"""The precisions that a request may name; auto stands for the faster of the others."""
T = TypeVar("T")


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no spaces, so that equal values give equal text, on which digests rely."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(text: str) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Spec(Protocol):
    """An architecture as the engine sees it: a hashable value that turns itself into JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values in canonical form: equal networks give equal dictionaries."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task that a network is built for.

    Attributes:
        channels: image channels, 1 to `MAX_CHANNELS`; 1 is gray and 3 colour.
        classes: number of classes; 0 when the data has no labels (denoising only).
        height: image height in pixels during the search.
        width: image width in pixels during the search.
        noise: canonical noise name, e.g. ``gaussian:50`` (see `nas.data.noise`).
        clean: whether clean images are known, with which restored ones are compared.
    """

    channels: int
    classes: int
    height: int
    width: int
    noise: str
    clean: bool = True

    @property
    def denoises(self) -> bool:
        """False when there is no noise to remove; the network then only reproduces its input."""
        return self.noise != "none"

    @property
    def classifies(self) -> bool:
        return self.classes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The training recipe of a network.

    Attributes:
        epochs: full budget in passes over the training split; the schedule always spans it.
        batch_size: images per step.
        learning_rate: peak rate of the optimiser.
        weight_decay: decoupled from the loss in AdamW, an L2 penalty's gradient in SGD.
        classification_weight: lambda of ``L_denoise + lambda * L_classify`` (AddUNet), >= 0. Learned uncertainty
            weights take its place; it is 1 then.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9.
        sharing_rate: learning rate of the layers between task columns, over that of all others.
        balancing: the way in which the tasks' losses become one step (see `nas.training.balancing`).
        class_weights: what makes up for unequal classes: ``none``; ``balanced``, by which an image weighs in the
            cross-entropy inversely to the size of its class; or ``sampled``, by which an epoch draws images with
            replacement so that each class is equally likely.
        label_smoothing: share of the target that cross-entropy spreads over all classes, in [0, 1).

    Raises:
        SpecError: a field is outside its rule.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    classification_weight: float
    optimizer: Optimizer = "adamw"
    sharing_rate: float = 1.0
    balancing: Balancing = "fixed"
    class_weights: ClassWeights = "none"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self._check(name, (int,), "a whole number", low=1)
        for name in ("learning_rate", "weight_decay", "classification_weight", "sharing_rate", "label_smoothing"):
            self._check(name, (int, float), "a finite number", low=0)
        if self.label_smoothing >= 1:
            raise SpecError(f"recipe: label_smoothing is {self.label_smoothing!r}, must be below 1")
        known = {"optimizer": Optimizer, "balancing": Balancing, "class_weights": ClassWeights}
        for name, literal in known.items():
            choices = get_args(literal)
            if (value := getattr(self, name)) not in choices:
                raise SpecError(f"recipe: {name} is {value!r}; choose one of {', '.join(choices)}")
        if self.balancing == "uncertainty":
            object.__setattr__(self, "classification_weight", 1.0)

    def _check(self, name: str, kinds: tuple[type, ...], what: str, low: int) -> None:
        value = getattr(self, name)
        # Types are exact, because True is no number. JSON knows integers that no float can represent.
        if type(value) not in kinds or not abs(value) <= sys.float_info.max:
            raise SpecError(f"recipe: {name} is {value!r}, must be {what}")
        if value < low:
            raise SpecError(f"recipe: {name} is {value!r}, must be at least {low}")

    def to_dict(self) -> dict[str, Any]:
        return without_defaults(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Recipe:
        """Reads a recipe. Raises SpecError for a missing or unknown field."""
        return from_fields(cls, value, "recipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point of a search: an architecture and the recipe that trains it."""

    spec: Spec
    recipe: Recipe

    @property
    def digest(self) -> str:
        """The identity of the candidate; equal networks with equal recipes share it."""
        return digest_of(canonical_json({"spec": self.spec.to_dict(), "recipe": self.recipe.to_dict()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The size of a network: learned parameters, and multiply-accumulates for one image of the task."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric that a study optimises, as the study keeps it.

    Attributes:
        name: name of the metric (see `nas.search.objectives.METRICS`), its key in a `Measurement`'s values.
        direction: ``maximize`` or ``minimize``.
        unit: the unit that people are shown (``dB``, ``%``, ...; empty for none).
        reference: its coordinate of the hypervolume's reference point, a value that contributes nothing.
    """

    name: str
    direction: Direction
    unit: str
    reference: float

    @property
    def label(self) -> str:
        """``psnr (dB)``, or the name alone without a unit."""
        return labelled(self.name, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySetting:
    """Where the latency of a study's networks is measured: in ONNX Runtime, or by a command of the user.

    Attributes:
        height, width: size of the images in pixels.
        batch: images at a time.
        threads: threads of ONNX Runtime; None with a command.
        provider: what ONNX Runtime computes with, as ``cpu`` or ``cuda``; None with a command.
        command: prints the milliseconds of a run of the program ``{model}``. A study keeps it to be compared, and it is
            run only when a person gives it again, because a study may come from a stranger.
    """

    height: int
    width: int
    batch: int = 1
    threads: int | None = None
    provider: str | None = None
    command: str | None = None

    @property
    def size(self) -> str:
        """The size as the command line takes it: ``256x256``."""
        return f"{self.height}x{self.width}"

    @property
    def images(self) -> str:
        """What a run of the program takes: ``an image of 64x64``, ``8 images of 64x64``."""
        return f"{'an image' if self.batch == 1 else f'{self.batch} images'} of {self.size}"

    @property
    def place(self) -> str:
        """Where the program runs, in words that name no machine."""
        if self.command is not None:
            return "as a command of the search measured it"
        return f"in ONNX Runtime ({self.provider}, {self.threads} thread{'' if self.threads == 1 else 's'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """An upper limit that every candidate must keep before it is trained."""

    name: Literal["params", "macs"]
    upper: int
    unit: str = ""

    def violation(self, cost: Cost) -> float:
        """Returns the amount above the limit; at most 0 when the limit is kept."""
        return float(getattr(cost, self.name) - self.upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """The facts known after one epoch.

    Attributes:
        epoch: 1-based.
        denoise_loss: mean training loss of denoising, in units of the trivial loss.
        classify_loss: mean cross-entropy in nats; None without labels.
        seconds: wall time of the epoch, validation included.
        values: every metric that is known after each validation, by name (see `nas.search.objectives.METRICS`); empty
            where the epoch was not validated.
    """

    epoch: int
    denoise_loss: float
    classify_loss: float | None
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def validated(self) -> bool:
        """Whether the epoch was validated, so that candidates can be compared at it."""
        return bool(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCurve:
    """Losses on the fixed probe batch, in evaluation mode, spaced evenly in steps (see `nas.training.stability`).

    Attributes:
        steps: optimiser steps done at each probe.
        denoise: MSE over the noisy input's MSE; empty when the task does not denoise.
        classify: cross-entropy over ln(classes); empty without labels.
    """

    steps: tuple[int, ...] = ()
    denoise: tuple[float, ...] = ()
    classify: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of one training run.

    Attributes:
        values: every measured metric by name (see `nas.search.objectives.METRICS`), whether it is optimised or not.
        probe: the probe curve behind the stability score.
        gates: learned skip gates by level, shallow first: mean, minimum and maximum of each.
        seconds: wall time spent training and judging.
        peak_memory: peak memory of the process or device in MiB.
        seed: seed of weights, data order and training noise.
    """

    values: Mapping[str, float]
    probe: ProbeCurve
    gates: tuple[Mapping[str, float], ...]
    seconds: float
    peak_memory: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The numbers of a study's trials by outcome. The size that a study should have counts the `trained` ones."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    duplicate: int = 0
    over_limit: int = 0

    @property
    def trained(self) -> int:
        return self.complete + self.pruned

    @property
    def proposals(self) -> int:
        return self.trained + self.failed + self.running + self.duplicate + self.over_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """A finished trial for comparisons and for people."""

    number: int
    digest: str
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    values: Mapping[str, float] = field(default_factory=dict)
    training_version: int = 1


@cache
def _defaults(cls: type) -> Mapping[str, Any]:
    """Returns the default of each field of a dataclass; ``dataclasses.MISSING`` for none."""
    return {f.name: f.default for f in dataclasses.fields(cls)}


def without_defaults(value: Any) -> dict[str, Any]:
    """Returns a dataclass as a dictionary without fields at their default.

    A field that a later version adds has a default, so older dictionaries and digests stay the same.
    """
    found = ((name, default, getattr(value, name)) for name, default in _defaults(type(value)).items())  # type: ignore[arg-type]
    return {name: each for name, default, each in found if each != default}


def flat(row: Any) -> dict[str, Any]:
    """Returns a dataclass with a mapping `values` as one flat dictionary: its other fields, then the values."""
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "values"}
    return fields | dict(row.values)


def from_flat(cls: type[T], row: Mapping[str, Any]) -> T:
    """Makes the dataclass from which `flat` made `row`. Values that are None are left out, because older versions wrote
    them."""
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    fields: dict[str, Any] = {name: value for name, value in row.items() if name in names}
    fields["values"] = {name: value for name, value in row.items() if name not in names and value is not None}
    return cls(**fields)


def from_fields(cls: type[T], value: Mapping[str, Any], what: str) -> T:
    """Builds a dataclass from a mapping. Raises SpecError that names a missing or unknown field."""
    defaults = _defaults(cls)  # type: ignore[arg-type]
    if not value.keys() <= defaults.keys():
        unknown = min(value.keys() - defaults.keys())
        raise SpecError(f"{what}: unknown field {unknown!r}; known are {', '.join(defaults)}")
    for name, default in defaults.items():
        if default is dataclasses.MISSING and name not in value:
            raise SpecError(f"{what}: field {name!r} is missing")
    return cls(**value)


def check_types(value: Any) -> None:
    """Raises TypeError for the first field of a dataclass that holds no value of its type. Only fields of plain types
    are looked at: text, numbers, truth values, choices of them, and other dataclasses, whose fields are not looked
    at."""
    for name, hint in get_type_hints(type(value)).items():
        found = getattr(value, name)
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        right = [
            found in get_args(kind) if get_origin(kind) is Literal else type(found) in _SAME.get(kind, (kind,))
            for kind in kinds
            if kind in _SAME or get_origin(kind) is Literal or dataclasses.is_dataclass(kind)
        ]
        if right and not any(right):
            raise TypeError(f"{name} is {found!r}")


_SAME: Mapping[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    NoneType: (NoneType,),
}
"""The types of values that a field of a plain type may hold."""


def labelled(name: str, unit: str) -> str:
    """Returns a name with its unit, if there is one: ``psnr (dB)``."""
    return f"{name} ({unit})" if unit else name


def candidate_seed(study_seed: int, digest: str) -> int:
    """Returns the seed of a candidate's weights, data order and noise, from the study's seed and its digest."""
    return int(digest_of(f"{study_seed}:{digest}"), 16) % 2**31
