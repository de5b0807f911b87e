"""The networks of the papers by name. Each is a candidate, to compare with or to begin a search with.

Their depth is `LEVELS`, or as many levels as the image allows. Their width is `WIDTH`, or the widest of the grid within
a budget. A detail that a paper leaves open is as in U-Net: 3x3 convolutions, batch norm, and a head without hidden
layers at the bottleneck, which normalises the features that it reads. Nothing is fitted to any data.

The networks of NDDR-CNN's comparison all have their head at the decoder's end, so that both tasks' columns have the
same stages; single-task networks are one such column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.errors import ConfigError, SpecError
from nas.types import Candidate, Constraint, Recipe, Task
from search_spaces.unet.spec import WIDTHS, UNetSpec, deepest

LEVELS = 4
WIDTH = 16

RECIPE: Mapping[str, Any] = {
    "batch_size": 32,
    "learning_rate": 0.003,
    "weight_decay": 0.0001,
    "classification_weight": 0.3,
}
SHARING_RECIPE: Mapping[str, Any] = {
    **RECIPE,
    "optimizer": "sgd",
    "weight_decay": 0.00025,
    "sharing_rate": 100.0,
}
"""The recipe for networks with layers between columns: SGD with momentum 0.9, and 100 times the rate for those layers,
which Adam does not tolerate. On digits a base rate of 0.01 diverges and 0.001 is slow; cross-stitch is brittle near
0.003 too."""

UNET: Mapping[str, Any] = {
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
    "head_norm": "batch",
}
RESIDUAL: Mapping[str, Any] = {**UNET, "resampling": "average", "block": "residual", "norm": "group"}
ADDUNET: Mapping[str, Any] = {
    **UNET,
    "growth": "constant",
    "resampling": "none",
    "update": "subtractive",
    "fusion": "add",
    "gate": "scalar",
}
COLUMN: Mapping[str, Any] = {**UNET, "head_attach": "decoder"}

REFERENCES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    # Ronneberger et al. 2015, Oktay et al. 2018, Zhou et al. 2018
    "unet": (UNET, RECIPE),
    "attention-unet": ({**UNET, "gate": "attention"}, RECIPE),
    "unet++": ({**UNET, "fusion": "dense"}, RECIPE),
    # Williams et al. 2023
    "residual-unet": (RESIDUAL, RECIPE),
    "multi-resnet": ({**RESIDUAL, "encoder": "haar", "extra_blocks": 3}, RECIPE),
    "multi-resnet-none-added": ({**RESIDUAL, "encoder": "haar"}, RECIPE),
    # Lakkavalli 2026
    "addunet": (ADDUNET, RECIPE),
    "addunet-denoise": ({**ADDUNET, "tasks": "denoise"}, RECIPE),
    # Gao et al. 2019, Misra et al. 2016, Ruder et al. 2019
    "single-task-denoise": ({**COLUMN, "tasks": "denoise"}, RECIPE),
    "single-task-classify": ({**COLUMN, "tasks": "classify"}, {**RECIPE, "classification_weight": 1.0}),
    "hard-sharing": (COLUMN, RECIPE),
    "cross-stitch": ({**COLUMN, "columns": 2, "sharing": "cross_stitch"}, SHARING_RECIPE),
    "sluice": ({**COLUMN, "columns": 2, "sharing": "sluice_2"}, SHARING_RECIPE),
    "nddr": ({**COLUMN, "columns": 2, "sharing": "nddr"}, SHARING_RECIPE),
    "nddr-no-shortcut": ({**COLUMN, "columns": 2, "sharing": "nddr", "nddr_shortcut": False}, SHARING_RECIPE),
}


def reference_network(
    name: str,
    task: Task,
    *,
    epochs: int = 27,
    max_params: int | None = None,
    max_macs: int | None = None,
    widths: Sequence[int] = WIDTHS,
) -> Candidate:
    """Returns a network of the papers, with the recipe that its method needs.

    Args:
        name: a key of `REFERENCES`.
        task: the task that it is for; without classes, networks that need them are refused.
        epochs: epochs of the recipe.
        max_params, max_macs: budget, within which the widest network of `widths` is taken. Without a budget its width
            is `WIDTH`.
        widths: channels of the first level to choose from.

    Raises:
        ConfigError: the name is unknown, or no width is within the budget.
        SpecError: the task has no classes, and the network needs them.
    """
    if name not in REFERENCES:
        raise ConfigError(f"reference {name!r} is unknown; choose one of: {', '.join(REFERENCES)}")
    fields, recipe = REFERENCES[name]
    spec = UNetSpec(levels=min(LEVELS, deepest(task)), width=WIDTH, **fields)
    spec.validate_for(task)
    limits = []
    if max_params is not None:
        limits.append(Constraint(name="params", upper=max_params))
    if max_macs is not None:
        limits.append(Constraint(name="macs", upper=max_macs))
    if limits:
        spec = widest(spec, task, limits, widths)
    weight = recipe["classification_weight"] if task.classifies else 0.0
    return Candidate(spec=spec, recipe=Recipe(epochs=epochs, **{**recipe, "classification_weight": weight}))


def widest(spec: UNetSpec, task: Task, limits: Sequence[Constraint], widths: Sequence[int] = WIDTHS) -> UNetSpec:
    """Returns `spec` at the largest of `widths` that the spec and the limits allow. Raises ConfigError when there is
    none."""
    from search_spaces.unet.network import cost_of

    for width in sorted(widths, reverse=True):
        try:
            wide = replace(spec, width=width)
        except SpecError:
            continue  # an odd width cannot be split
        if all(limit.violation(cost_of(wide, task)) <= 0 for limit in limits):
            return wide
    said = ", ".join(f"{limit.upper:,} {limit.name}" for limit in limits)
    raise ConfigError(f"no width from {min(widths)} is within {said}; allow more")


def baselines(task: Task, epochs: int, limits: Sequence[Constraint]) -> dict[str, Candidate]:
    """Returns every reference network that suits the task, `WIDTH` wide, or narrower where the limits require it.

    A network that is over the limits at every width is returned at its narrowest, so that the caller sees it.
    """
    found = {}
    for name in REFERENCES:
        try:
            candidate = reference_network(name, task, epochs=epochs)
        except SpecError:
            continue  # it classifies, and there are no classes
        assert isinstance(candidate.spec, UNetSpec)
        widths = [width for width in WIDTHS if width <= WIDTH]
        try:
            spec = widest(candidate.spec, task, limits, widths)
        except ConfigError:
            spec = replace(candidate.spec, width=min(widths))
        found[name] = replace(candidate, spec=spec)
    return found
