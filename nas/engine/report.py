"""What a worker reports to the driver, epoch by epoch and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.outcome import Outcome
from nas.types import EpochRow, Measurement, ProbeCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says after some epochs; `outcome` is None while the trial goes on.

    A complete trial has a `measurement`, and `strip` says whether it left its picture. `warnings` are what the worker
    warned of since its last report, for a person: Ray shows nothing of what workers log.
    """

    number: int
    rows: tuple[EpochRow, ...] = ()
    outcome: Outcome | None = None
    measurement: Measurement | None = None
    probe: ProbeCurve | None = None
    detail: str = ""
    strip: bool = False
    warnings: tuple[str, ...] = ()


class LivesInDriver:
    """Pickled as None. Tune writes its whole configuration to disk for `Tuner.restore`, which is never
    used here; connections cannot be pickled, and their passwords must not be."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()
