"""The space ``unet`` and its restrictions: hyperparameters to candidates and back.

Torch is not imported until a network is built or counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas.errors import SpecError
from nas.types import Balancing, Candidate, Constraint, Cost, Optimizer, Recipe, Spec, Task
from search_spaces.unet.spec import CHOICES, HEAD_WIDTH, RANGES, WIDTHS, UNetSpec, deepest

if TYPE_CHECKING:
    from torch import nn

MAX_PARAMS = 2_000_000
MAX_MACS_PER_PIXEL = 100_000

NETWORK: Mapping[str, Sequence[Any]] = {
    "levels": range(RANGES["levels"][0], RANGES["levels"][1] + 1),
    "width": WIDTHS,
    **{
        name: CHOICES[name]
        for name in ("growth", "fusion", "gate", "resampling", "block", "norm", "kernel", "encoder", "update")
    },
    "kernel_schedule": CHOICES["kernel_schedule"],
    "extra_blocks": range(RANGES["extra_blocks"][0], RANGES["extra_blocks"][1] + 1),
    "prediction": CHOICES["prediction"],
}

TRAINING: Mapping[str, Sequence[Any]] = {
    "learning_rate": (0.0003, 0.0006, 0.001, 0.002, 0.003, 0.006, 0.01),
    "weight_decay": (0.0, 0.00001, 0.0001, 0.00025, 0.001, 0.01),
    "batch_size": (16, 32, 64, 128),
    "optimizer": get_args(Optimizer),
}

# These exist only with classes. The denoising loss starts near 1, and cross-entropy near ln(classes).
CLASSIFICATION: Mapping[str, Sequence[Any]] = {
    "head_attach": CHOICES["head_attach"],
    "head_hidden": range(RANGES["head_hidden"][0], RANGES["head_hidden"][1] + 1),
    "head_width": (8, 16, 32, 64, 128, 256, 512),
    "head_norm": ("batch",),  # without it heads hardly learn in short trainings (benchmarks/RESULTS.md)
    "head_dropout": (0.0, 0.1, 0.25, 0.5),
    "columns": CHOICES["columns"],
    "sharing": CHOICES["sharing"],
    "nddr_alpha": CHOICES["nddr_alpha"],
    "nddr_shortcut": CHOICES["nddr_shortcut"],
}

BALANCE: Mapping[str, Sequence[Any]] = {
    "classification_weight": (0.01, 0.03, 0.1, 0.3, 1.0),
    "balancing": get_args(Balancing),
    "sharing_rate": (1.0, 10.0, 100.0, 1000.0),
}

SPEC_FIELDS = tuple(each.name for each in fields(UNetSpec))
RECIPE_FIELDS = (*TRAINING, *BALANCE)
FIXED_BALANCE: Mapping[str, Sequence[Any]] = {"balancing": ("fixed",), "optimizer": ("adamw",), "sharing_rate": (1.0,)}

ONE_TRUNK: Mapping[str, Sequence[Any]] = {
    **FIXED_BALANCE,
    "columns": (1,),
    "sharing": ("none",),
    "nddr_alpha": (0.9,),
    "nddr_shortcut": (True,),
}

RESTRICTIONS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "unet": {},
    # U-Net, Attention U-Net, U-Net++, residual U-Net.
    "classic": {
        **ONE_TRUNK,
        "fusion": ("none", "concat", "dense"),
        "gate": ("none", "attention"),
        "resampling": ("max", "average", "strided"),
        "block": ("conv", "residual"),
        "encoder": ("learned",),
        "update": ("plain",),
        "kernel_schedule": ("constant",),
        "extra_blocks": (0,),
        "prediction": ("image",),
    },
    # Width and resolution are constant; the update, the skips and the gates are searched.
    "addunet": {
        **ONE_TRUNK,
        "growth": ("constant",),
        "fusion": ("none", "concat", "add", "nddr"),
        "gate": ("none", "scalar", "channel"),
        "resampling": ("none",),
        "block": ("conv", "residual"),
        "encoder": ("learned",),
        "extra_blocks": (0,),
        "prediction": ("image",),
    },
    "multi_resnet": {
        **ONE_TRUNK,
        "fusion": ("concat",),
        "gate": ("none",),
        "resampling": ("average",),
        "block": ("residual",),
        "norm": ("group",),
        "update": ("plain",),
        "kernel_schedule": ("constant",),
        "prediction": ("image",),
    },
    # Plain U-Nets, in which the layers between the tasks are searched.
    "nddr": {
        "fusion": ("concat",),
        "gate": ("none",),
        "resampling": ("max", "average"),
        "block": ("conv", "residual"),
        "encoder": ("learned",),
        "update": ("plain",),
        "kernel_schedule": ("constant",),
        "extra_blocks": (0,),
        "prediction": ("image",),
        "balancing": ("fixed",),
    },
    # The choices that matter most, under one recipe. The space is small enough to be trained whole
    # (benchmarks/table.py).
    "table": {
        **FIXED_BALANCE,
        "levels": (2, 3),
        "width": (8, 16),
        "growth": ("doubling",),
        "fusion": ("none", "concat", "add"),
        "gate": ("none", "scalar", "channel", "attention"),
        "resampling": ("average",),
        "block": ("conv",),
        "norm": ("batch",),
        "kernel": (3,),
        "update": ("plain",),
        "kernel_schedule": ("constant",),
        "extra_blocks": (0,),
        "prediction": ("image",),
        "head_hidden": (0,),
        "head_width": (HEAD_WIDTH,),
        "head_norm": ("none",),  # as it was when the table was trained
        "head_dropout": (0.0,),
        "sharing": ("cross_stitch", "nddr"),
        "nddr_alpha": (0.9,),
        "nddr_shortcut": (True,),
        "learning_rate": (0.003,),
        "weight_decay": (0.0001,),
        "batch_size": (64,),
        "classification_weight": (0.3,),
    },
}
"""The choices that each named space keeps of the one space; hyperparameters that are not listed keep all choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpace:
    """U-Nets that `UNetSpec` describes, with their recipes (see `nas.protocols.SearchSpace`).

    Each version has every hyperparameter of the one before it, with at least its choices. For the others the default is
    the value that the older version implied, so studies of older versions continue with their own distributions.
    Version 3 normalises the features that a classification head reads (`head_norm`). No head is drawn without that:
    such a head gains nothing, and most candidates with one answer one class for all images after a short training.

    Attributes:
        name: a key of `RESTRICTIONS`.
    """

    name: str = "unet"
    version: int = 3

    @property
    def restriction(self) -> Mapping[str, Sequence[Any]]:
        """The hyperparameters that have fewer choices here than in ``unet``."""
        return RESTRICTIONS[self.name]

    @property
    def prior(self) -> Path:
        """The file of earlier trials of four tasks (`benchmarks.prior`), which serves every restriction."""
        return Path(__file__).with_name("prior.json")

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        """Returns the distributions of all hyperparameters by name, except those with one choice left by a restriction.

        A hyperparameter that has a single choice in the whole space is among them. Its absence means the value that an
        older version of the space implied.
        """
        fixed = {name for name, choices in self.restriction.items() if name != "levels" and len(choices) == 1}
        return {name: _distribution(choices) for name, choices in self.choices(task).items() if name not in fixed}

    def choices(self, task: Task) -> dict[str, Sequence[Any]]:
        """Returns the choices of every hyperparameter that the task uses.

        The hyperparameters of classification need classes. The depths must fit the image, wherever levels are smaller
        than it.
        """
        options = {**NETWORK, **TRAINING, **({**CLASSIFICATION, **BALANCE} if task.classifies else {})}
        options |= {name: choices for name, choices in self.restriction.items() if name in options}
        if options["resampling"] != ("none",):
            options["levels"] = _fitting(options["levels"], deepest(task))
        return options

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        """Turns hyperparameters into a canonical candidate, and ignores hyperparameters that the task does not use.

        Raises:
            SpecError: a value is outside its rule or the image is too small for the depth; never for a point of
                ``distributions(task)``.
        """
        given = {n: choices[0] for n, choices in self.restriction.items() if len(choices) == 1} | dict(params)
        if not task.classifies:
            given = {n: value for n, value in given.items() if n not in CLASSIFICATION and n not in BALANCE}
        spec = self.spec({name: given[name] for name in SPEC_FIELDS if name in given})
        spec.validate_for(task)
        recipe = {name: given[name] for name in RECIPE_FIELDS if name in given}
        if not task.classifies:
            recipe["classification_weight"] = 0.0
        if spec.sharing == "none":
            recipe["sharing_rate"] = 1.0
        if spec.tasks != "joint":
            recipe["balancing"] = "fixed"
        return Candidate(spec=spec, recipe=Recipe.from_dict({**recipe, "epochs": epochs}))

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """Turns a candidate into all its hyperparameters.

        A hyperparameter that is switched off gets its canonical value, or an equivalent one that this space has.
        """
        spec = _unet(candidate.spec)
        params = {name: getattr(spec, name) for name in SPEC_FIELDS}
        params |= {name: getattr(candidate.recipe, name) for name in RECIPE_FIELDS}
        for name, choices in {**NETWORK, **CLASSIFICATION, **self.restriction}.items():
            if name in SPEC_FIELDS and params[name] not in choices:
                same = (choice for choice in choices if _with(spec, name, choice) == spec)
                params[name] = next(same, params[name])
        return params

    def spec(self, value: Mapping[str, Any]) -> UNetSpec:
        """Reads a spec from its dictionary. Raises SpecError."""
        return UNetSpec.from_dict(value)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        """Returns the limits: 2 million parameters, and 100,000 MACs for each pixel of the task's image."""
        return (
            Constraint(name="params", upper=MAX_PARAMS),
            Constraint(name="macs", upper=MAX_MACS_PER_PIXEL * task.height * task.width),
        )

    def cost(self, spec: Spec, task: Task) -> Cost:
        """Returns parameters and MACs of one image, from the spec alone."""
        from search_spaces.unet.network import cost_of

        return cost_of(_unet(spec), task)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        """Builds a network with fresh weights. Raises SpecError when the spec is not valid for the task."""
        from search_spaces.unet.network import build

        unet = _unet(spec)
        unet.validate_for(task)
        return build(unet, task)

    def baselines(self, task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
        """Returns the reference networks that suit the task, each as wide as the limits allow."""
        from search_spaces.unet.references import baselines

        return baselines(task, epochs, limits)

    def learns_classes(self, spec: Spec) -> bool:
        """Tells whether a network has a head: those that denoise alone have none."""
        return _unet(spec).tasks != "denoise"


def _fitting(levels: Sequence[int], deepest: int) -> range:
    """Returns the depths of a range that the image allows, or the deepest possible one when there are none."""
    return range(min(levels[0], deepest), min(levels[-1], deepest) + 1)


def _with(spec: UNetSpec, name: str, choice: Any) -> UNetSpec | None:
    """A spec with another choice; None when that is not valid."""
    try:
        return replace(spec, **{name: choice})
    except SpecError:
        return None


def _distribution(choices: Sequence[Any]) -> BaseDistribution:
    if isinstance(choices, range):
        return IntDistribution(choices[0], choices[-1])
    return CategoricalDistribution(choices)


def _unet(spec: Spec) -> UNetSpec:
    if not isinstance(spec, UNetSpec):
        raise TypeError(f"the unet space holds UNetSpec, not {type(spec).__name__}")
    return spec
