"""The space ``unet``: hyperparameters to candidates and back. No torch until a network is built or counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas.types import Candidate, Constraint, Cost, Recipe, Spec, Task
from search_spaces.unet.spec import CHOICES, RANGES, UNetSpec, deepest

if TYPE_CHECKING:
    from torch import nn

MAX_PARAMS = 2_000_000
MAX_MACS_PER_PIXEL = 100_000

# Hyperparameters carry the names of the fields they set, of UNetSpec and Recipe. Everything lies on a
# grid, so that candidates repeat exactly.
TRUNK: Mapping[str, BaseDistribution] = {
    "width": CategoricalDistribution((4, 8, 12, 16, 24, 32, 48, 64)),
    **{
        name: CategoricalDistribution(CHOICES[name])
        for name in ("growth", "fusion", "gate", "resampling", "block", "norm", "kernel")
    },
}
TRAINING: Mapping[str, BaseDistribution] = {
    "learning_rate": CategoricalDistribution((0.0003, 0.0006, 0.001, 0.002, 0.003, 0.006, 0.01)),
    "weight_decay": CategoricalDistribution((0.0, 0.00001, 0.0001, 0.001, 0.01)),
    "batch_size": CategoricalDistribution((16, 32, 64, 128)),
}
# Only with classes. The denoising loss starts near 1 and cross-entropy near ln(classes).
CLASSIFICATION: Mapping[str, BaseDistribution] = {
    "head_attach": CategoricalDistribution(CHOICES["head_attach"]),
    "head_hidden": IntDistribution(*RANGES["head_hidden"]),
    "head_width": CategoricalDistribution((8, 16, 32, 64, 128, 256)),
    "head_dropout": CategoricalDistribution((0.0, 0.1, 0.25, 0.5)),
    "classification_weight": CategoricalDistribution((0.01, 0.03, 0.1, 0.3, 1.0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpace:
    """Every U-Net that `UNetSpec` describes, with its recipe (see `nas.protocols.SearchSpace`)."""

    name: str = "unet"
    version: int = 1

    def distributions(self, task: Task) -> dict[str, BaseDistribution]:
        """Hyperparameters by name: depths that fit the image; head and lambda only with classes."""
        return {
            "levels": IntDistribution(RANGES["levels"][0], deepest(task)),
            **TRUNK,
            **TRAINING,
            **(CLASSIFICATION if task.classifies else {}),
        }

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        """Hyperparameters to a canonical candidate; what the task has no use for is ignored.

        Raises:
            SpecError: a value is outside its rule or the image is too small for the depth; never for a
                point of ``distributions(task)``.
        """
        known = {name: params[name] for name in self.distributions(task) if name in params}
        recipe = {name: known.pop(name) for name in (*TRAINING, "classification_weight") if name in known}
        spec = self.spec(known)
        spec.validate_for(task)
        if not task.classifies:
            recipe["classification_weight"] = 0.0
        return Candidate(spec=spec, recipe=Recipe.from_dict({**recipe, "epochs": epochs}))

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """All hyperparameters of a candidate; those that are switched off at their canonical value."""
        recipe = asdict(candidate.recipe)
        return {**asdict(_unet(candidate.spec)), **{n: recipe[n] for n in (*TRAINING, "classification_weight")}}

    def spec(self, value: Mapping[str, Any]) -> UNetSpec:
        """Raises SpecError."""
        return UNetSpec.from_dict(value)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        """At most 2 million parameters, and 100,000 MACs for each pixel of the task's image."""
        return (
            Constraint(name="params", upper=MAX_PARAMS),
            Constraint(name="macs", upper=MAX_MACS_PER_PIXEL * task.height * task.width),
        )

    def cost(self, spec: Spec, task: Task) -> Cost:
        """Parameters and MACs of one image, from the spec alone."""
        from search_spaces.unet.network import UNet

        return UNet.cost(_unet(spec), task)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        """A freshly initialised network. Raises SpecError when the task's image is too small for it."""
        from search_spaces.unet.network import UNet

        unet = _unet(spec)
        unet.validate_for(task)
        return UNet(unet, task)


def _unet(spec: Spec) -> UNetSpec:
    if not isinstance(spec, UNetSpec):
        raise TypeError(f"the unet space holds UNetSpec, not {type(spec).__name__}")
    return spec
