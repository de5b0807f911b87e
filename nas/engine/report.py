"""A worker's reports to the driver, epoch by epoch and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.outcome import Outcome
from nas.types import EpochRow, Measurement, ProbeCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A worker's report after some epochs; `outcome` is None while the trial goes on.

    A complete trial has a `measurement`, and `strip` tells whether it left its picture. `warnings` are the worker's
    warnings since its last report, for people to read, because Ray shows nothing of the workers' logs.
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
    """An object that is pickled as None.

    Tune writes its whole configuration to disk for `Tuner.restore`, which is never used here. Connections cannot be
    pickled, and their passwords must not be.
    """

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()
