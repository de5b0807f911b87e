"""The front of a study as rows, and the choice from it with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import ConfigError, StudyError
from nas.parsing import read_whole
from nas.search.confirmation import Confirmed, summarize
from nas.search.objectives import metric_of
from nas.search.pareto import Array, hypervolume, knee, non_dominated
from nas.types import Objective, TrialResult

if TYPE_CHECKING:
    from studies.reading.study import StudyReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The Pareto front and one member of it.

    Attributes:
        front: members, by number. Their `values` have every measured value: means over seeds where the front is
            confirmed, else values of the search's one run.
        chosen: the picked member.
        reason: the reason for the choice in one sentence.
        hypervolume: hypervolume of the front, from the study's reference point.
        confirmed: trial -> its runs under several seeds, for the confirmed trials of the search's front; empty when all
            values are the search's.
        unconfirmed: the rest of the search's front, which is left out of `front`; empty when nothing is confirmed.
        searched: numbers of the front by the search's values.
    """

    front: tuple[TrialResult, ...]
    chosen: TrialResult
    reason: str
    hypervolume: float
    confirmed: Mapping[int, Confirmed] = field(default_factory=dict)
    unconfirmed: tuple[int, ...] = ()
    searched: tuple[int, ...] = ()

    @property
    def confirmed_front(self) -> tuple[TrialResult, ...]:
        """The front by confirmed means; empty when nothing is confirmed."""
        return self.front if self.confirmed else ()

    @property
    def seeds(self) -> str:
        """The number of seeds behind the values: ``5 seeds``, ``3 to 5 seeds``, ``1 seed``."""
        return seed_count(self.confirmed.values())


def seed_count(found: Iterable[Confirmed]) -> str:
    """Returns ``5 seeds`` or ``3 to 5 seeds``; ``1 seed`` when nothing is confirmed."""
    counts = sorted({one.runs for one in found}) or [1]
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def choose(
    study: StudyReader, *, pick: str = "knee", prefer: Mapping[str, float] | None = None, confirmed: bool = True
) -> Choice:
    """Picks from the front of a study: by confirmed means where there are any, else by the search's values.

    Args:
        study: the study.
        pick: ``knee``, the name of an objective (its best member), or a trial's number.
        prefer: weights of objectives in the knee's distance; 1 for other objectives.
        confirmed: False to use the search's values in any case.

    Raises:
        StudyError: no trial is complete, or the trial is not on the front.
        ConfigError: the pick, an objective or a weight is unknown or invalid.
    """
    objectives = study.config.objectives
    names = [o.name for o in objectives]
    for name, weight in (prefer or {}).items():
        if name not in names:
            raise ConfigError(f"`prefer` names {name!r}; objectives of this study are {', '.join(names)}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"`prefer` {name}={weight:g}: a weight is a number of at least 0")
    if prefer and pick != "knee":
        raise ConfigError(f"`prefer` weighs objectives for the knee, and `pick` is {pick!r}; leave one of them out")
    if prefer and not any(prefer.get(name, 1.0) for name in names):
        raise ConfigError("`prefer` gives no objective a weight; give at least one above zero")
    results = study.results(study.progress.front())
    if not results:
        raise StudyError(
            f"study {study.config.study!r} has no complete trial yet; continue it with: "
            f"skipnas search --study {study.config.study}"
        )
    maximize = [o.direction == "maximize" for o in objectives]
    searched, values = _front(results, objectives)
    found = _confirmed(study, searched) if confirmed else {}
    if found:
        front, values = _front([r for r in searched if r.number in found], objectives, found)
    else:
        front = searched
    chosen, reason = _pick(pick, front, values, objectives, maximize, prefer or {}, searched, found)
    return Choice(
        front=tuple(front),
        chosen=chosen,
        reason=reason,
        hypervolume=hypervolume(values, [o.reference for o in objectives], maximize),
        confirmed=found,
        unconfirmed=tuple(r.number for r in searched if r.number not in found) if found else (),
        searched=tuple(r.number for r in searched),
    )


def _confirmed(study: StudyReader, front: Sequence[TrialResult]) -> dict[int, Confirmed]:
    """Returns trial -> its runs under several seeds, for members whose runs were all complete."""
    found = {one.digest: one for one in summarize(study.progress.confirmations()) if one.sound}
    return {r.number: found[r.digest] for r in front if r.digest in found}


def _front(
    results: Sequence[TrialResult], objectives: Sequence[Objective], confirmed: Mapping[int, Confirmed] | None = None
) -> tuple[list[TrialResult], Array]:
    """Returns the results that no other result dominates, with their values as an array; by confirmed means if
    given."""
    rows = [_with_means(r, confirmed[r.number]) for r in results] if confirmed else list(results)
    values = np.array([[r.values[o.name] for o in objectives] for r in rows])
    mask = non_dominated(values, [o.direction == "maximize" for o in objectives])
    return [r for r, on in zip(rows, mask, strict=True) if on], values[mask]


def _with_means(result: TrialResult, confirmed: Confirmed) -> TrialResult:
    return replace(result, values={name: value.mean for name, value in confirmed.values.items()})


def _pick(
    pick: str,
    front: Sequence[TrialResult],
    values: Array,
    objectives: Sequence[Objective],
    maximize: Sequence[bool],
    prefer: Mapping[str, float],
    searched: Sequence[TrialResult],
    confirmed: Mapping[int, Confirmed],
) -> tuple[TrialResult, str]:
    names = [o.name for o in objectives]
    means = f" by means under {seed_count(confirmed.values())}" if confirmed else ""
    if pick == "knee":
        point = knee(values, maximize, [prefer.get(name, 1.0) for name in names])
        number = front[point.index].number
        if len(front) == 1:
            return front[0], f"trial {number} is the only member of the front{means}"
        gives = [
            f"{100 * loss:.0f} % of the front's range of {name}"
            for name, loss in zip(names, point.losses, strict=True)
            if loss > 0
        ]
        weights = f" (weights {', '.join(f'{k}={v:g}' for k, v in prefer.items())})" if prefer else ""
        return front[point.index], (
            f"trial {number} is the knee{means}{weights}: its distance to the ideal point, {point.distance:.3f}, is "
            f"the least of {len(front)}; against the best of each objective it gives up {join_words(gives)}"
        )
    if pick in names:
        column = names.index(pick)
        index = int((np.argmax if maximize[column] else np.argmin)(values[:, column]))
        value = metric_of(pick).text(values[index, column])
        return front[index], f"trial {front[index].number} has the best {pick} of the front{means}, {value}"
    try:
        number = read_whole(pick)
    except ValueError:
        raise ConfigError(
            f"`pick` {pick!r} is not known; use knee, one of {', '.join(names)}, or a trial's number"
        ) from None
    return _by_number(number, front, searched, confirmed)


def _by_number(
    number: int, front: Sequence[TrialResult], searched: Sequence[TrialResult], confirmed: Mapping[int, Confirmed]
) -> tuple[TrialResult, str]:
    """Returns a member of the confirmed front or of the search's."""
    asked = f"trial {number} was asked for by number"
    for result in front:
        if result.number == number:
            return result, asked
    for result in searched:
        if result.number == number and number in confirmed:
            why = "by the confirmed means another trial is at least as good in all objectives and better in one"
            return _with_means(result, confirmed[number]), f"{asked}; {why}"
        if result.number == number:
            return result, f"{asked}; it is not confirmed, its values are those of the search's one run"
    raise StudyError(
        f"trial {number} is not on the front; its members are {', '.join(str(r.number) for r in searched)}"
    )


def join_words(parts: Sequence[str]) -> str:
    """Returns ``psnr, accuracy and stability``; ``nothing`` without parts."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing"
