"""Where a candidate is validated and may be stopped, and who goes on there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nas.search.pareto import WITHIN_RANK, dominators, fronts
from nas.types import Objective

FIRST_RUNG = 0.1
"""Share of a run before which nobody is stopped. Of 27 epochs on digits, ranks after the first say little about ranks
at the end, and after the third much: correlations up to 0.4, and of 0.8 to 0.9 (benchmarks/RESULTS.md)."""


def has_rung(epoch: int, epochs: int) -> bool:
    """Whether a validated epoch of a run of `epochs` is late enough for a rung."""
    return epoch >= FIRST_RUNG * epochs


def goes_on(
    number: int, reached: Mapping[int, Sequence[float]], objectives: Sequence[Objective], within: str = "hypervolume"
) -> bool:
    """Whether a candidate passes its rung.

    Args:
        number: of the candidate, a key of `reached`.
        reached: values at this rung, in the order of `objectives`, of every candidate that reached it.
        objectives: directions, and the reference point that contributions are counted from.
        within: what decides within a rank, a key of `nas.search.pareto.WITHIN_RANK`.
    """
    numbers = list(reached)
    own = numbers.index(number)
    values = np.array([reached[n] for n in numbers], dtype=np.float64)
    maximize = [o.direction == "maximize" for o in objectives]
    places = math.ceil(len(numbers) / REDUCTION)
    if dominators(values, own, maximize) >= places:  # most end here, and no front of thousands need be found
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
"""Validation happens after epochs 1, 3, 9, 27, ... and after the last. Rungs of early stopping stand there."""


def is_milestone(epoch: int, epochs: int) -> bool:
    """Whether validation follows this epoch: powers of `REDUCTION`, and the last one."""
    while epoch % REDUCTION == 0 and epoch != epochs:
        epoch //= REDUCTION
    return epoch in (1, epochs)
