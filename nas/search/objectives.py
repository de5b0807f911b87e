"""What a search can optimise. A new objective is one entry here and one figure in `nas.training.evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.errors import ConfigError
from nas.types import Constraint, Direction, Objective, Task

DEFAULT = ("psnr", "accuracy", "stability")
LATENCY_REFERENCE = 1000.0
"""ms per image; costs have the space's limits as their reference, and no space limits latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialQuality:
    """What needs no network: the zero of every quality.

    Attributes:
        psnr: mean PSNR in dB of the noisy validation images.
        accuracy: percent right when the largest class is always answered; None without labels.
    """

    psnr: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class _Kind:
    direction: Direction
    unit: str
    reference: Callable[[TrivialQuality, dict[str, int]], float]
    digits: int | None
    """Decimals that people are shown; None for amounts, which are whole numbers."""
    missing: Callable[[Task], str | None] = lambda task: None
    """Why the task cannot have this objective, or None when it can."""


def _needs_labels(task: Task) -> str | None:
    return None if task.classifies else "the data has no labels"


def _needs_noise(task: Task) -> str | None:
    return None if task.denoises else "noise is none, so there is nothing to restore"


def _needs_learning(task: Task) -> str | None:
    return None if task.denoises or task.classifies else "noise is none and the data has no labels: no task is left"


KINDS = {
    "psnr": _Kind("maximize", "dB", lambda trivial, limits: trivial.psnr, 2, _needs_noise),
    "accuracy": _Kind("maximize", "%", lambda trivial, limits: trivial.accuracy or 0.0, 2, _needs_labels),
    "stability": _Kind("maximize", "", lambda trivial, limits: 0.0, 3, _needs_learning),
    "params": _Kind("minimize", "", lambda trivial, limits: float(limits["params"]), None),
    "macs": _Kind("minimize", "", lambda trivial, limits: float(limits["macs"]), None),
    "latency": _Kind("minimize", "ms", lambda trivial, limits: LATENCY_REFERENCE, 3),
}


def digits_of(name: str) -> int | None:
    """Decimals of an objective's figures; None for amounts, and for what only a newer version knows."""
    return KINDS[name].digits if name in KINDS else None


def resolve_objectives(
    names: Sequence[str], task: Task, trivial: TrivialQuality, constraints: Sequence[Constraint]
) -> tuple[tuple[Objective, ...], list[str]]:
    """The objectives of a study, and a line for each that drops out because the task cannot have it.

    Raises:
        ConfigError: an unknown or repeated name, a cost without a limit, or no objective left.
    """
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"objective {name!r} is not known; choose from {', '.join(KINDS)}")
        if list(names).count(name) > 1:
            raise ConfigError(f"objective {name!r} is named twice; name each objective once")
    reasons = {name: KINDS[name].missing(task) for name in names}
    notes = [f"objective {name} drops out: {reason}" for name, reason in reasons.items() if reason]
    limits: dict[str, int] = {c.name: c.upper for c in constraints}
    for name in {"params", "macs"}.intersection(names) - limits.keys():
        raise ConfigError(f"objective {name!r} needs a limit as its reference, the space has none; give --max-{name}")
    objectives = tuple(
        Objective(
            name=name,
            direction=KINDS[name].direction,
            unit=KINDS[name].unit,
            reference=KINDS[name].reference(trivial, limits),
        )
        for name in names
        if not reasons[name]
    )
    if not objectives:
        raise ConfigError(f"no objective is left of {','.join(names)}: {'; '.join(filter(None, reasons.values()))}")
    return objectives, notes
