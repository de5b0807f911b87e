"""The front of a study as rows, and the choice from it with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import ConfigError, StudyError
from nas.parsing import read_whole
from nas.search.confirmation import Confirmed, summarize
from nas.search.objectives import DEFAULT, metric_of, titled
from nas.search.pareto import Array, hypervolume, knee, non_dominated
from nas.types import Objective, TrialResult
from studies.settings import NO_LIMITS, SizeLimits

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
        limits: the limits of size that all members keep.
    """

    front: tuple[TrialResult, ...]
    chosen: TrialResult
    reason: str
    hypervolume: float
    confirmed: Mapping[int, Confirmed] = field(default_factory=dict)
    unconfirmed: tuple[int, ...] = ()
    searched: tuple[int, ...] = ()
    limits: SizeLimits = NO_LIMITS

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
    study: StudyReader,
    *,
    pick: str = "knee",
    prefer: Mapping[str, float] | None = None,
    limits: SizeLimits = NO_LIMITS,
    confirmed: bool = True,
) -> Choice:
    """Picks from the front of a study: by confirmed means where there are any, else by the search's values.

    Args:
        study: the study.
        pick: ``knee``, the name of an objective (its best member), or a trial's number.
        prefer: weights of objectives in the knee's distance; 1 for other objectives.
        limits: limits of size; the front is then that of all complete trials within them.
        confirmed: False to use the search's values in any case.

    Raises:
        StudyError: no trial is complete, none is within the limits, or the trial is not on the front.
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
    results = study.results(None if limits.upper else study.progress.front())
    if not results:
        raise StudyError(
            f"study {study.config.study!r} has no complete trial yet; continue it with: "
            f"skipnas search --study {study.config.study}"
        )
    sound = {one.digest: one for one in summarize(study.progress.confirmations()) if one.sound} if confirmed else {}
    if limits.upper:
        results = _within(results, sound, limits, study.config.study)
    searched, values = _front(results, objectives)
    found = {r.number: sound[r.digest] for r in searched if r.digest in sound}
    if found:
        front, values = _front([r for r in searched if r.number in found], objectives, found)
    else:
        front = searched
    chosen, reason = _pick(pick, front, values, objectives, prefer or {}, limits, searched, found)
    maximize = [o.direction == "maximize" for o in objectives]
    return Choice(
        front=tuple(front),
        chosen=chosen,
        reason=reason,
        hypervolume=hypervolume(values, [o.reference for o in objectives], maximize),
        confirmed=found,
        unconfirmed=tuple(r.number for r in searched if r.number not in found) if found else (),
        searched=tuple(r.number for r in searched),
        limits=limits,
    )


def _within(
    results: Sequence[TrialResult], confirmed: Mapping[str, Confirmed], limits: SizeLimits, study: str
) -> list[TrialResult]:
    """Returns the results within the limits, by confirmed means where there are any.

    A trial that has no figure of a limited metric is not among them.

    Raises:
        StudyError: there is none.
    """
    upper = limits.upper
    known = [_with_means(r, confirmed[r.digest]) if r.digest in confirmed else r for r in results]
    measured = [(r, shown) for r, shown in zip(results, known, strict=True) if upper.keys() <= shown.values.keys()]
    fitting = [r for r, shown in measured if all(shown.values[name] <= most for name, most in upper.items())]
    if fitting:
        return fitting
    asked = join_words([f"`max_{name}` {most:,}" for name, most in upper.items()])
    nothing = f"no complete trial of study {study!r} keeps {asked}"
    if not measured:
        raise StudyError(f"{nothing}, because none was measured in this; leave the limit out")
    smallest = [min((shown for _, shown in measured), key=_value_of(name)) for name in upper]
    told = {r.number: f"trial {r.number} with {titled({n: r.values[n] for n in upper})}" for r in smallest}
    raise StudyError(f"{nothing}; the smallest is {' or '.join(told.values())}; give a larger limit")


def _value_of(name: str) -> Callable[[TrialResult], float]:
    return lambda result: result.values[name]


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
    prefer: Mapping[str, float],
    limits: SizeLimits,
    searched: Sequence[TrialResult],
    confirmed: Mapping[int, Confirmed],
) -> tuple[TrialResult, str]:
    """Returns the picked member of a front, and the reason in one sentence."""
    names = [o.name for o in objectives]
    fitting = f" among trials with {_limits_in_words(limits)}" if limits.upper else ""
    among = f"{fitting} by means under {seed_count(confirmed.values())}" if confirmed else fitting
    if pick == "knee":
        maximize = [o.direction == "maximize" for o in objectives]
        chosen = front[knee(values, maximize, [prefer.get(name, 1.0) for name in names])]
        if len(front) == 1:
            return chosen, f"trial {chosen.number} is the only member of the front{among}: {_has(chosen, objectives)}"
        weights = f" (weights {', '.join(f'{k}={v:g}' for k, v in prefer.items())})" if prefer else ""
        head = f"trial {chosen.number} is the knee{among}{weights}: {_has(chosen, objectives)}"
        return chosen, head + _trade(chosen, front, objectives)
    if pick in names:
        chosen = _best(front, objectives[names.index(pick)])
        value = metric_of(pick).text(chosen.values[pick])
        head = f"trial {chosen.number} has the best {pick} of the front{among}, {value}"
        return chosen, head + _trade(chosen, front, objectives)
    try:
        number = read_whole(pick)
    except ValueError:
        raise ConfigError(
            f"`pick` {pick!r} is not known; use knee, one of {', '.join(names)}, or a trial's number"
        ) from None
    return _by_number(number, front, objectives, searched, confirmed, fitting)


def _by_number(
    number: int,
    front: Sequence[TrialResult],
    objectives: Sequence[Objective],
    searched: Sequence[TrialResult],
    confirmed: Mapping[int, Confirmed],
    fitting: str,
) -> tuple[TrialResult, str]:
    """Returns a member of the confirmed front or of the search's."""
    asked = f"trial {number} was asked for by number"
    for result in front:
        if result.number == number:
            return result, f"{asked}: {_has(result, objectives)}{_trade(result, front, objectives)}"
    for result in searched:
        if result.number == number and number in confirmed:
            why = "by the confirmed means another trial is at least as good in all objectives and better in one"
            return _with_means(result, confirmed[number]), f"{asked}; {why}"
        if result.number == number:
            return result, f"{asked}; it is not confirmed, its values are those of the search's one run"
    raise StudyError(
        f"trial {number} is not on the front{fitting}; its members are {', '.join(str(r.number) for r in searched)}"
    )


# --- the reason in words ---
def _best(front: Sequence[TrialResult], objective: Objective) -> TrialResult:
    """Returns the first of the members that are the best in an objective."""
    best = max if objective.direction == "maximize" else min
    return best(front, key=_value_of(objective.name))


def _has(result: TrialResult, objectives: Sequence[Objective]) -> str:
    """Returns a trial's objectives in a sentence: ``20.84 dB, 97.45 %, training stability 0.800``.

    Everybody takes dB for PSNR and percents for accuracy, so that other metrics on images need their names.
    """
    metrics = [metric_of(o.name) for o in objectives]
    plain = {m.name for m in metrics if m.unit and (m.name in DEFAULT or m.basis != "images")}
    return ", ".join((m.text if m.name in plain else m.titled)(result.values[m.name]) for m in metrics)


def _trade(chosen: TrialResult, front: Sequence[TrialResult], objectives: Sequence[Objective]) -> str:
    """Tells what a member gives up against the best of each objective, and what it has over these members in return.

    Returns the end of a sentence, which begins with a semicolon; it is empty for the only member of a front.
    """
    if len(front) == 1:
        return ""
    gives, needs = [], []
    rivals: dict[int, TrialResult] = {}
    for objective in objectives:
        best = _best(front, objective)
        if best.values[objective.name] == chosen.values[objective.name]:
            continue
        rivals[best.number] = best
        loss = _difference(objective.name, best, chosen)
        if objective.direction == "maximize":
            gives.append(f"{loss} (trial {best.number})")
        else:
            needs.append(f"{loss} more (trial {best.number})")
    if not rivals:
        return "; no member of the front is better in any objective"
    losses = [f"{verb} {join_words(told)}" for verb, told in (("gives up", gives), ("needs", needs)) if told]
    returns = [f"{_lead(chosen, rival, objectives)} than trial {rival.number}" for rival in rivals.values()]
    return f"; against the best of each objective it {' and '.join(losses)}; in return it has {', and '.join(returns)}"


def _lead(chosen: TrialResult, rival: TrialResult, objectives: Sequence[Objective]) -> str:
    """Returns the objectives in which a member is better than another: ``1.10 points of accuracy more``."""
    more, less = [], []
    for objective in objectives:
        lead = chosen.values[objective.name] - rival.values[objective.name]
        if objective.direction == "maximize" and lead > 0:
            more.append(_difference(objective.name, chosen, rival))
        elif objective.direction == "minimize" and lead < 0:
            less.append(_difference(objective.name, chosen, rival))
    return join_words([f"{join_words(told)} {word}" for told, word in ((more, "more"), (less, "less")) if told])


def _difference(name: str, one: TrialResult, other: TrialResult) -> str:
    """Returns a difference in a metric: ``0.07 dB of PSNR``, ``0.69 points of accuracy``, ``12,000 MACs``.

    It is that of the figures as people are shown them, so that they find it again.
    """
    metric = metric_of(name)
    difference = abs(round(one.values[name], metric.digits) - round(other.values[name], metric.digits))
    if metric.digits is None:
        return f"{metric.figure(difference)} {metric.title}"
    figure = metric.figure(difference)
    if float(figure) == 0:
        figure = f"under {metric.figure(10.0**-metric.digits)}"
    unit = "points" if metric.unit == "%" else metric.unit
    return f"{figure} {unit} of {metric.title}" if unit else f"{figure} of {metric.title}"


def _limits_in_words(limits: SizeLimits) -> str:
    """Returns ``at most 1,000,000 MACs and 2.5 ms of latency``."""
    words = [
        f"{upper:,} {metric_of(name).unit} of {name}" if metric_of(name).unit else f"{upper:,} {metric_of(name).title}"
        for name, upper in limits.upper.items()
    ]
    return f"at most {join_words(words)}"


def join_words(parts: Sequence[str]) -> str:
    """Returns ``psnr, accuracy and stability``; ``nothing`` without parts."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing"
