"""Rows of the epochs table, written from the engine's epochs and read back."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Row, select

from nas.errors import StorageError, in_short
from nas.types import EpochRow
from studies.store.records import EPOCH_METRICS
from studies.store.statements import EPOCHS
from studies.store.stored import is_numbers


def epoch_columns(row: EpochRow) -> dict[str, Any]:
    """Returns an epoch as columns of `studies.store.records.EpochRecord`."""
    own = {name: getattr(row, name) for name in ("epoch", "denoise_loss", "classify_loss", "seconds")}
    own |= {name: row.values.get(name) for name in EPOCH_METRICS}
    # SQLite turns NaN into NULL, so this is done for every database. JSON has no word for infinity.
    columns = {name: None if value is None or math.isnan(value) else value for name, value in own.items()}
    further = {n: float(v) for n, v in row.values.items() if n not in EPOCH_METRICS and math.isfinite(v)}
    return columns | {"further": further or None}


def read_epochs(connection: Connection, study_id: int, number: int | None = None) -> dict[int, list[EpochRow]]:
    """Number -> epochs in order, of every trial that has any, or of one trial alone; in one query."""
    query = select(EPOCHS).where(EPOCHS.c.study_id == study_id).order_by(EPOCHS.c.number, EPOCHS.c.epoch)
    if number is not None:
        query = query.where(EPOCHS.c.number == number)
    tables: defaultdict[int, list[EpochRow]] = defaultdict(list)
    for row in connection.execute(query):
        tables[row.number].append(_epoch(row))
    return dict(tables)


def _epoch(row: Row[Any]) -> EpochRow:
    """Returns an epoch as it was reported."""
    values = {name: value for name in EPOCH_METRICS if (value := getattr(row, name)) is not None}
    if row.further is not None and not is_numbers(row.further):
        raise StorageError(
            f"the database holds {in_short(repr(row.further)[:200])} where numbers by name belong: another program "
            "wrote it; mend the record, or delete its study"
        )
    return EpochRow(
        epoch=row.epoch,
        denoise_loss=math.nan if row.denoise_loss is None else row.denoise_loss,
        classify_loss=row.classify_loss,
        seconds=row.seconds,
        values=values | {name: value for name, value in (row.further or {}).items() if value is not None},
    )
