"""The growth of a study's hypervolume over time, and what more time would probably bring.

The hypervolume of a search grows about evenly over the logarithm of time: as much time again brings about what the
second half of the time so far has brought. On a surrogate of the atlas of digits, the second half of 12, 16, 24 and 32
trials brought 16, 13, 10 and 7 in the mean of eight searches, and as many trials again 10, 7, 9 and 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_TRIALS = 24
"""The number of trained trials before which nothing is foretold. The networks that a search begins with would make the
first ones look like fast growth."""


def gain_of_second_half(times: Sequence[float], volumes: Sequence[float], begun: float = 0.0) -> float | None:
    """Returns what the hypervolume gained in the second half of the time, in its own unit, at least 0.

    It is what as much time again would probably bring. None with fewer than `LEAST_TRIALS` trials.

    Args:
        times: ends of trained trials since the start, in ascending order, in any unit.
        volumes: the hypervolume after each of these trials.
        begun: the hypervolume at the start.
    """
    if len(times) < LEAST_TRIALS:
        return None
    before = [volume for time, volume in zip(times, volumes, strict=True) if time <= times[-1] / 2]
    return volumes[-1] - (before[-1] if before else begun)


def pace(times: Sequence[float], volumes: Sequence[float], begun: float = 0.0) -> float | None:
    """Returns the growth that is expected now in a unit of time, as a share of the hypervolume; None where
    `gain_of_second_half` is, and while the hypervolume is 0: then no network is better than the reference point yet.

    It is the slope at the end of the line through both halves over the logarithm of time.
    """
    gain = gain_of_second_half(times, volumes, begun)
    if gain is None or not volumes[-1]:
        return None
    return gain / (math.log(2.0) * times[-1] * volumes[-1])
