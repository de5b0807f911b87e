"""The front of a study as rows, and the choice from it with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import ConfigError, StudyError
from nas.pareto import hypervolume, knee, non_dominated
from nas.types import Objective, TrialResult

if TYPE_CHECKING:
    from studies.ledger import SqlLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The Pareto front and one member of it.

    Attributes:
        front: members, by number; every measured value is in their `values`.
        chosen: the picked member.
        reason: why, in one sentence.
        hypervolume: of the front, from the study's reference point.
    """

    front: tuple[TrialResult, ...]
    chosen: TrialResult
    reason: str
    hypervolume: float


def choose(ledger: SqlLedger, *, pick: str = "knee", prefer: Mapping[str, float] | None = None) -> Choice:
    """Picks from the front of a study.

    Args:
        ledger: the study.
        pick: ``knee``, the name of an objective (its best member), or a trial's number.
        prefer: weights of objectives in the knee's distance; 1 for those not named.

    Raises:
        StudyError: no trial is complete, or the trial is not on the front.
        ConfigError: an unknown pick, objective or weight.
    """
    objectives = ledger.config.objectives
    names = [o.name for o in objectives]
    for name, weight in (prefer or {}).items():
        if name not in names:
            raise ConfigError(f"--prefer names {name!r}; objectives of this study are {', '.join(names)}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"--prefer {name}={weight:g}: a weight is a number of at least 0")
    results = ledger.results()
    if not results:
        raise StudyError(
            f"study {ledger.config.study!r} has no complete trial yet; continue it with: "
            f"skipnas search --study {ledger.config.study}"
        )
    maximize = [o.direction == "maximize" for o in objectives]
    values = np.array([[r.values[name] for name in names] for r in results])
    mask = non_dominated(values, maximize)
    front = tuple(r for r, on in zip(results, mask, strict=True) if on)
    values = values[mask]
    index, reason = _pick(pick, front, values, objectives, maximize, prefer or {})
    volume = hypervolume(values, [o.reference for o in objectives], maximize)
    return Choice(front=front, chosen=front[index], reason=reason, hypervolume=volume)


def _pick(
    pick: str,
    front: Sequence[TrialResult],
    values: np.ndarray[Any, np.dtype[np.float64]],
    objectives: Sequence[Objective],
    maximize: Sequence[bool],
    prefer: Mapping[str, float],
) -> tuple[int, str]:
    names = [o.name for o in objectives]
    if pick == "knee":
        point = knee(values, maximize, [prefer.get(name, 1.0) for name in names])
        number = front[point.index].number
        if len(front) == 1:
            return point.index, f"trial {number} is the only member of the front"
        gives = [
            f"{100 * loss:.0f} % of the front's range of {name}"
            for name, loss in zip(names, point.losses, strict=True)
            if loss > 0
        ]
        weights = f" (weights {', '.join(f'{k}={v:g}' for k, v in prefer.items())})" if prefer else ""
        return point.index, (
            f"trial {number} is the knee{weights}: its distance to the ideal point, {point.distance:.3f}, is the least "
            f"of {len(front)}; against the best of each objective it gives up {_join(gives)}"
        )
    if pick in names:
        column = names.index(pick)
        index = int((np.argmax if maximize[column] else np.argmin)(values[:, column]))
        value = f"{values[index, column]:.4g} {objectives[column].unit}".strip()
        return index, f"trial {front[index].number} has the best {pick} of the front, {value}"
    numbers = [r.number for r in front]
    if pick.isdigit():
        if int(pick) in numbers:
            return numbers.index(int(pick)), f"trial {pick} was asked for by number"
        raise StudyError(f"trial {pick} is not on the front; its members are {', '.join(map(str, numbers))}")
    raise ConfigError(f"--pick {pick!r} is not known; use knee, one of {', '.join(names)}, or a trial's number")


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing"
