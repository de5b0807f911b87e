"""The growth of a study's hypervolume over time, and what more time would probably bring.

The hypervolume of a search grows about evenly over the logarithm of time (benchmarks/RESULTS.md, "The default search
under ten study seeds"): as much time again brings about what the second half of the time so far has brought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LEAST_TRIALS = 24
"""The number of trained trials before which nothing is foretold. The networks that a search begins with would make the
first ones look like fast growth."""


@dataclass(slots=True, kw_only=True)
class Growth:
    """The hypervolume at the end of each trained trial.

    Attributes:
        begun: the hypervolume at the start.
        times: ends of the trials since the start, in ascending order, in any unit.
        volumes: the hypervolume after each of these trials.
    """

    begun: float = 0.0
    times: list[float] = field(default_factory=list)
    volumes: list[float] = field(default_factory=list)

    def add(self, time: float, volume: float) -> None:
        """Adds the end of a trial."""
        self.times.append(time)
        self.volumes.append(volume)

    def promise(self) -> float | None:
        """Returns what as much time again would probably add to the hypervolume, in its own unit, at least 0.

        It is the gain of the second half of the time. None with fewer than `LEAST_TRIALS` trials.
        """
        if len(self.times) < LEAST_TRIALS:
            return None
        half = self.times[-1] / 2
        before = [volume for time, volume in zip(self.times, self.volumes, strict=True) if time <= half]
        return self.volumes[-1] - (before[-1] if before else self.begun)

    def pace(self) -> float | None:
        """Returns the growth that is expected now in a unit of time, as a share of the hypervolume.

        It is the slope at the end of the line through both halves over the logarithm of time. None where `promise` is,
        and while the hypervolume is 0: then no network is better than the reference point yet.
        """
        promise = self.promise()
        if promise is None or not self.volumes[-1]:
            return None
        return promise / (math.log(2.0) * self.times[-1] * self.volumes[-1])
