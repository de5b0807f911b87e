"""The epochs at which candidates are validated and may be stopped, and the candidates that go on there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nas.search.pareto import WITHIN_RANK, dominators, fronts
from nas.types import Objective

FIRST_RUNG = 0.1
"""The share of a run before which no candidate is stopped. Of 27 epochs on digits, ranks after the first correlate with
the final ranks by up to 0.4, and ranks after the third by 0.8 to 0.9 (benchmarks/RESULTS.md)."""


def has_rung(epoch: int, epochs: int) -> bool:
    """Tells whether a validated epoch of a run of `epochs` is late enough for a rung."""
    return epoch >= FIRST_RUNG * epochs


def goes_on(
    number: int, reached: Mapping[int, Sequence[float]], objectives: Sequence[Objective], within: str = "hypervolume"
) -> bool:
    """Tells whether a candidate passes its rung.

    Args:
        number: the candidate's number, a key of `reached`.
        reached: values at this rung, in the order of `objectives`, of every candidate that reached it.
        objectives: directions, and the reference from which contributions are counted.
        within: the merit that decides within a rank, a key of `nas.search.pareto.WITHIN_RANK`.
    """
    numbers = list(reached)
    own = numbers.index(number)
    values = np.array([reached[n] for n in numbers], dtype=np.float64)
    maximize = [o.direction == "maximize" for o in objectives]
    places = math.ceil(len(numbers) / REDUCTION)
    if dominators(values, own, maximize) >= places:  # most calls end here, without finding fronts of thousands
        return False
    for front in fronts(values, maximize):
        if own in front:
            if len(front) <= places:
                return True
            merits = WITHIN_RANK[within](values[front], [o.reference for o in objectives], maximize)
            return bool(merits[front == own].item() >= np.sort(merits)[-places])
        places -= len(front)
        if places <= 0:
            break
    return False


REDUCTION = 3
"""The ratio of consecutive milestones. Validation follows epochs 1, 3, 9, 27, ... and the last one, and rungs stand
there."""


def is_milestone(epoch: int, epochs: int) -> bool:
    """Tells whether validation follows this epoch: a power of `REDUCTION`, or the last one."""
    while epoch % REDUCTION == 0 and epoch != epochs:
        epoch //= REDUCTION
    return epoch in (1, epochs)
