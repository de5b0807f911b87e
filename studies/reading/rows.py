"""The trials of a study as plain rows, and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.files import write_whole
from nas.search.objectives import of_basis
from studies.reading.study import StudyReader, recorded
from studies.store.records import TrialRecord


def study_rows(study: StudyReader) -> list[dict[str, Any]]:
    """Returns one flat row per trial, for tables: outcome, objectives, size, cost, hyperparameters, digest."""
    with study.storage.guard():
        trials = study.optuna_trials()
    records = {record.number: record for record in study.trials()}
    nothing = TrialRecord()
    names = dict.fromkeys([o.name for o in study.config.objectives] + [m.name for m in of_basis("cost", "program")])
    rows = []
    for trial in trials:
        record = records.get(trial.number, nothing)
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name,
                "reason": record.reason,
                **{name: recorded(record, name) for name in names},
                "seconds": record.seconds,
                "training_version": record.trained_by,
                **{name: trial.params.get(name) for name in study.distributions},
                "digest": record.digest,
            }
        )
    return rows


def to_csv(study: StudyReader, path: Path) -> int:
    """Writes `study_rows` to a CSV file, whole or not at all, and returns the number of trials.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = study_rows(study)

    def write(file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, rows[0] if rows else ["number", "state"])
            writer.writeheader()
            writer.writerows(rows)

    try:
        path.parent.stat()  # a mistyped folder is not made
        write_whole(path, write)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}); name a file in a folder that you can write to"
        ) from None
    return len(rows)
