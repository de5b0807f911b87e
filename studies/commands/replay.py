"""A study proposed once more: the engine itself runs again, with the store in place of training."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import StudyError
from nas.outcome import Outcome
from studies.reading.space import study_space
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger
from studies.store.optuna_bridge import enqueued_params
from studies.store.records import TrialRecord

if TYPE_CHECKING:
    from nas.engine.job import Job
    from nas.engine.searcher import StudySearcher
    from nas.protocols import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The result of a replay.

    Attributes:
        proposed: number of trials proposed again, in the stored order of asks and tells.
        differs: the first trial whose candidate differs; None when all are the same.
    """

    proposed: int
    differs: int | None

    def line(self) -> str:
        """For people."""
        if self.differs is None:
            return f"{self.proposed} trials were proposed again, each the same candidate"
        return f"trial {self.differs} is another candidate; the {self.proposed - 1} before it are the same"


def replay(study: StudyReader, own_space: str | None = None) -> Replayed:
    """Proposes a study's candidates again, in the stored order of asks and tells, and compares digests.

    Enqueued trials are enqueued again. Each trial's results come from the store, so nothing is trained.

    Args:
        study: the study.
        own_space: the study's own search space, whose code is imported; see `search_spaces.stored_space`.

    Raises:
        StudyError: the study has trials from before the order of asks was kept.
    """
    trials = {trial.number: trial for trial in study.optuna_trials()}
    records = {record.number: record for record in study.trials()}
    old = [number for number, record in records.items() if record.started is not None and record.ask_order is None]
    if old:
        raise StudyError(
            f"study {study.config.study!r} cannot be proposed again: an older version made {len(old)} of its trials, "
            "which did not keep the order of proposals; give a newer study"
        )
    space = study_space(study, own_space)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_storage(f"sqlite:///{Path(folder) / 'replay.db'}") as storage,
        create_study(storage, study.config, study.distributions, {}, study.command) as again,
    ):
        searcher = _searcher(again, space, len(trials))
        tried: defaultdict[str | None, set[str]] = defaultdict(set)
        proposed = 0
        with again.drive():
            for event, number in study.events():
                record = records[number]
                if event == "tell":
                    _tell(study, searcher, record)
                    continue
                version = record.trained_by
                if version is not None and version != again.training_version:
                    # Another version of the training code went on, to which no candidate is a duplicate of the last's.
                    again.training_version = version
                    searcher = _searcher(again, space, len(trials), searcher.live)
                if number >= len(again.optuna_trials()):
                    for waiting in range(number, len(trials)):
                        fixed = enqueued_params(trials[waiting])
                        if not fixed:
                            break
                        again.optuna_study.enqueue_trial(fixed)
                if record.outcome.rejected or record.outcome is Outcome.INVALID:
                    continue  # it is drawn again on the way to the next accepted one
                searcher.tried = tried[record.asked_by]
                job = searcher.ask(str(number))
                proposed += 1
                if job is None or (job.number, job.digest) != (number, record.digest):
                    return Replayed(proposed=proposed, differs=number)
    return Replayed(proposed=proposed, differs=None)


def _searcher(again: SqlLedger, space: SearchSpace, trials: int, live: dict[str, Job] | None = None) -> StudySearcher:
    from nas.engine.searcher import StudySearcher

    searcher = StudySearcher(
        again,
        space,
        trials=trials + 1,
        stopping=lambda: False,
        on_end=lambda number, outcome: None,
    )
    searcher.patience = searcher.endurance = math.inf  # a search that was given up went on
    searcher.live |= live or {}
    return searcher


def _tell(study: StudyReader, searcher: StudySearcher, record: TrialRecord) -> None:
    """Ends a trial of the replayed study as the stored one ended."""
    from nas.engine.report import Report

    number, outcome = record.number, record.outcome
    if outcome.rejected or outcome is Outcome.INVALID:
        return
    rows = tuple(study.progress.epochs_table(number))
    searcher.record(str(number), Report(number=number, rows=rows))
    measurement = study.measurement(number) if outcome is Outcome.COMPLETE else None
    if outcome is Outcome.STOPPED:
        searcher.stop(str(number), record.epochs_done)
    report = Report(number=number, outcome=outcome, measurement=measurement, detail=record.detail or "")
    searcher.on_trial_complete(str(number), {"report": report})
