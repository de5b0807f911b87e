"""A stored trial as the values that people read."""

from __future__ import annotations

import math

from nas.types import (
    Measurement,
    ProbeCurve,
)
from studies.store.records import (
    ProbeRecord,
    TrialRecord,
)


def stored_loss(stored: float | None) -> float:
    return math.nan if stored is None else stored


def stored_measurement(trial: TrialRecord, probe: ProbeCurve) -> Measurement:
    return Measurement(
        values=trial.values or {},
        probe=probe,
        gates=tuple(trial.gates or ()),
        seconds=trial.seconds or 0.0,
        peak_memory=trial.peak_memory or 0.0,
        seed=trial.seed or 0,
    )


def stored_curve(record: ProbeRecord | None) -> ProbeCurve:
    return ProbeCurve() if record is None else record.curve
