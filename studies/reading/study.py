"""A stored trial as the values that people read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from nas.search.objectives import metric_of
from nas.types import EpochRow, Measurement, ProbeCurve
from studies.store.records import EPOCH_METRICS, EpochRecord, ProbeRecord, TrialRecord

if TYPE_CHECKING:
    from studies.reading.history import Trial


def stored_epoch(record: EpochRecord | Row[Any]) -> EpochRow:
    """Returns an epoch as it was reported. `record` has the columns of `EpochRecord`."""
    values = {name: value for name in EPOCH_METRICS if (value := getattr(record, name)) is not None}
    return EpochRow(
        epoch=record.epoch,
        denoise_loss=math.nan if record.denoise_loss is None else record.denoise_loss,
        classify_loss=record.classify_loss,
        seconds=record.seconds,
        values=values | (record.further or {}),
    )


def recorded(trial: TrialRecord | Trial, name: str) -> float | None:
    """A metric of a trial; its costs are known from its start, others when it is complete."""
    if metric_of(name).basis == "cost":
        cost: int | None = getattr(trial, name)
        return cost
    return (trial.values or {}).get(name)


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
