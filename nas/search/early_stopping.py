"""The epochs at which candidates are validated, and the rules that stop candidates there early.

A new rule is a function of `Rungs` and an entry of `RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np

from nas.search.pareto import Array
from nas.search.ranking import Front, Ranking
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


class Rungs:
    """What is known of a study's candidates at the milestones before its last epoch, and at this.

    It is kept sorted as candidates arrive, so that a decision takes hardly longer among thousands than among few.

    Args:
        objectives: directions and reference point of the values.
        epochs: epochs of a full run.
        reached: epoch -> values, in the order of `objectives`, of every candidate that was validated after it, by
            number, whatever became of the candidate later. What it returns for an epoch only grows, at its end.
    """

    def __init__(
        self, objectives: Sequence[Objective], epochs: int, reached: Callable[[int], Mapping[int, Sequence[float]]]
    ) -> None:
        self.objectives, self.epochs, self.reached = objectives, epochs, reached
        self.maximize = [o.direction == "maximize" for o in objectives]
        self._rankings: dict[int, Ranking] = {}
        self._known: dict[int, Mapping[int, Sequence[float]]] = {}
        self._gains: dict[int, tuple[int, Array, Array]] = {}

    def ranking(self, epoch: int) -> Ranking:
        """Returns the candidates that have reached a rung by rank."""
        if epoch not in self._rankings:
            self._rankings[epoch] = Ranking([o.reference for o in self.objectives], self.maximize)
        ranking, self._known[epoch] = self._rankings[epoch], self.reached(epoch)
        for number, values in islice(self._known[epoch].items(), len(ranking), None):
            ranking.add(number, values)
        return ranking

    def values(self, number: int, epoch: int) -> Sequence[float]:
        """Returns the values of a candidate that the rung's `ranking` has."""
        return self._known[epoch][number]

    def gains(self, epoch: int) -> tuple[Array, Array]:
        """Returns final values of the candidates that were trained to the end, and how much better they are than at a
        rung.

        Both have shape (n, objectives), and larger is better in both.
        """
        ends = self.reached(self.epochs)
        nothing = np.empty((0, len(self.objectives)))
        known, final, gains = self._gains.get(epoch, (0, nothing, nothing))
        if known != len(ends):
            there = self.reached(epoch)
            both = [number for number in islice(ends, known, None) if number in there]
            sign = np.where(self.maximize, 1.0, -1.0)
            new = sign * np.array([ends[number] for number in both], dtype=np.float64).reshape(-1, len(self.objectives))
            before = sign * np.array([there[number] for number in both], dtype=np.float64).reshape(new.shape)
            final, gains = np.vstack([final, new]), np.vstack([gains, new - before])
            self._gains[epoch] = len(ends), final, gains
        return final, gains


Rule = Callable[[Rungs, int, int], bool]
"""Tells whether a candidate goes on: (rungs, its number, the epoch after which it was validated)."""

Merit = Callable[[Front], Array]
"""Orders the points of one non-domination rank, the largest value first, shape (n,)."""


def successive_halving(rungs: Rungs, number: int, epoch: int, merit: Merit) -> bool:
    """Asynchronous successive halving for several objectives, which spares a candidate that may still win.

    A candidate passes a rung when it is among the best third of all candidates that have reached it so far. They are
    ordered by non-domination rank, and within a rank by `merit` (Li et al., ASHA, 2020; for several objectives
    Schmucker et al., MO-ASHA, 2021). Equal candidates pass together. A candidate that no other one beats always passes,
    so that the best one known is never stopped, which a third of few good candidates would do. One that is not among
    the third passes all the same if it `may_still_win`. Objectives may have any direction and scale.
    """
    if epoch < FIRST_RUNG * rungs.epochs:
        return True
    return _among_the_best(rungs, number, epoch, merit) or may_still_win(rungs, number, epoch)


def _among_the_best(rungs: Rungs, number: int, epoch: int, merit: Merit) -> bool:
    """Tells whether a candidate is among the best third at its rung."""
    ranking = rungs.ranking(epoch)
    rank = ranking.rank(rungs.values(number, epoch))
    front = ranking.fronts[rank]
    places = math.ceil(len(ranking) / REDUCTION) - sum(len(better) for better in ranking.fronts[:rank])
    if rank == 0 or len(front) <= places:
        return True
    if places <= 0:
        return False
    merits = merit(front)
    own, needed = float(merits[front.numbers == number].item()), float(np.sort(merits)[-places])
    # Equal merits may differ in their last bits, by the order in which candidates came.
    return own >= needed or math.isclose(own, needed)


def may_still_win(rungs: Rungs, number: int, epoch: int) -> bool:
    """Tells whether a candidate would end on the front if it gained a little more from here on than others did.

    What the candidates that were trained to the end have gained since this rung tells how much a rung says: their
    median gain, and `HOPE` standard deviations of it, are added to the candidate's values in each objective. False
    while fewer than `FEWEST_GAINS` of them are known.
    """
    final, gains = rungs.gains(epoch)
    if len(gains) < FEWEST_GAINS:
        return False
    own = np.where(rungs.maximize, 1.0, -1.0) * np.array(rungs.values(number, epoch), dtype=np.float64)
    hoped = own + np.median(gains, axis=0) + HOPE * gains.std(axis=0)
    return not (final >= hoped).all(axis=1).any()


RULES: Mapping[str, Rule] = {
    "hypervolume": partial(successive_halving, merit=Front.contributions),
    "epsilon-net": partial(successive_halving, merit=Front.gaps),
}
"""The rules of early stopping by name: successive halving, which prefers within a rank the larger contribution to the
hypervolume, or what an epsilon-net takes first (Salinas et al., 2021)."""
