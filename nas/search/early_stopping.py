"""The epochs at which candidates are validated, and the rules that stop candidates there early.

A new rule is a function of a `Rung` and an entry of `RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nas.search.pareto import Array, contributions, dominators, fronts, net_gaps
from nas.types import Objective

REDUCTION = 3
"""The ratio of consecutive milestones. Validation follows epochs 1, 3, 9, 27, ... and the last one, and rungs stand
there."""

FIRST_RUNG = 0.1
"""The share of a run before which successive halving stops no candidate. Of 27 epochs on digits, ranks after the first
correlate with the final ranks by up to 0.4, and ranks after the third by 0.8 to 0.9 (benchmarks/RESULTS.md)."""

HOPE = 0.5
"""How many standard deviations more than others a candidate may gain after a rung when `may_still_win` judges it. On
the trained table, searches end without this at 0.945 of the hypervolume under one limit of MACs, and with it at 0.970,
which is all there is; twice as much spends a third more epochs for nothing (benchmarks/RESULTS.md)."""

FEWEST_GAINS = 3
"""The number of candidates trained to the end from which gains after a rung are known."""


def is_milestone(epoch: int, epochs: int) -> bool:
    """Tells whether validation follows this epoch: a power of `REDUCTION`, or the last one."""
    while epoch % REDUCTION == 0 and epoch != epochs:
        epoch //= REDUCTION
    return epoch in (1, epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A candidate that was validated before the end of its run.

    Attributes:
        number: the candidate's number.
        epoch: the epoch after which it was validated.
        epochs: epochs of a full run.
        objectives: directions and reference point of the values.
        reached: epoch -> values, in the order of `objectives`, of every candidate that was validated after it, by
            number, whatever became of the candidate later.
    """

    number: int
    epoch: int
    epochs: int
    objectives: Sequence[Objective]
    reached: Callable[[int], Mapping[int, Sequence[float]]]


Rule = Callable[[Rung], bool]
"""Tells whether a candidate goes on."""

Merit = Callable[[Array, Sequence[float], Sequence[bool]], Array]
"""Orders points of one non-domination rank, the largest value first: (values, reference point, maximize) -> (n,)."""


def successive_halving(rung: Rung, merit: Merit) -> bool:
    """Asynchronous successive halving for several objectives, which spares a candidate that may still win.

    A candidate passes a rung when it is among the best third of all candidates that have reached it so far. They are
    ordered by non-domination rank, and within a rank by `merit` (Li et al., ASHA, 2020; for several objectives
    Schmucker et al., MO-ASHA, 2021). Equal candidates pass together. A candidate that no other one beats always passes,
    so that the best one known is never stopped, which a third of few good candidates would do. One that is not among
    the third passes all the same if it `may_still_win`. Objectives may have any direction and scale.
    """
    return rung.epoch < FIRST_RUNG * rung.epochs or _among_the_best(rung, merit) or may_still_win(rung)


def _among_the_best(rung: Rung, merit: Merit) -> bool:
    """Tells whether a candidate is among the best third at its rung."""
    reached = rung.reached(rung.epoch)
    numbers = list(reached)
    own = numbers.index(rung.number)
    values = np.array([reached[n] for n in numbers], dtype=np.float64)
    maximize = [o.direction == "maximize" for o in rung.objectives]
    places = math.ceil(len(numbers) / REDUCTION)
    better = dominators(values, own, maximize)
    if not better or better >= places:  # most calls end here, without finding fronts of thousands
        return not better
    for front in fronts(values, maximize):
        if own in front:
            if len(front) <= places:
                return True
            merits = merit(values[front], [o.reference for o in rung.objectives], maximize)
            return bool(merits[front == own].item() >= np.sort(merits)[-places])
        places -= len(front)
        if places <= 0:
            break
    return False


def may_still_win(rung: Rung) -> bool:
    """Tells whether a candidate would end on the front if it gained a little more from here on than others did.

    What the candidates that were trained to the end have gained since this rung tells how much a rung says: their
    median gain, and `HOPE` standard deviations of it, are added to the candidate's values in each objective. False
    while fewer than `FEWEST_GAINS` of them are known.
    """
    there, ends = rung.reached(rung.epoch), rung.reached(rung.epochs)
    both = [number for number in ends if number in there]
    if len(both) < FEWEST_GAINS:
        return False
    sign = np.array([1.0 if o.direction == "maximize" else -1.0 for o in rung.objectives])
    final = sign * np.array([ends[number] for number in both], dtype=np.float64)
    gains = final - sign * np.array([there[number] for number in both], dtype=np.float64)
    own = sign * np.array(there[rung.number], dtype=np.float64)
    hoped = own + np.median(gains, axis=0) + HOPE * gains.std(axis=0)
    return not (final >= hoped).all(axis=1).any()


RULES: Mapping[str, Rule] = {
    "hypervolume": partial(successive_halving, merit=contributions),
    "epsilon-net": partial(
        successive_halving, merit=lambda values, reference_point, maximize: net_gaps(values, maximize)
    ),
}
"""The rules of early stopping by name: successive halving, which prefers within a rank the larger contribution to the
hypervolume, or what an epsilon-net takes first (Salinas et al., 2021)."""
