"""A stored study as people read it: its trials, measurements, curves and events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, select

from nas.errors import StudyError
from nas.outcome import Outcome
from nas.search.objectives import metric_of
from nas.types import EpochRow, Measurement, ProbeCurve, TrialResult
from studies.store import statements as sql
from studies.store.connection import Storage
from studies.store.epochs import read_epochs
from studies.store.leases import live_drivers
from studies.store.opened import OpenedStudy
from studies.store.optuna_bridge import OPTUNA_TRIALS, USER_ATTRIBUTES
from studies.store.progress import Progress
from studies.store.records import DriverRecord, ProbeRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from studies.reading.history import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A trial that has not ended.

    Attributes:
        epochs_done: the last epoch in the records; 0 when there is none.
        driver: who trains it; None when it was interrupted.
        dead: who did when it was interrupted; None when that driver gave it back, or is no longer known.
    """

    number: int
    epochs_done: int
    driver: DriverRecord | None
    dead: DriverRecord | None


class StudyReader(OpenedStudy):
    """A study that is read. Every method asks the database, which another process may be writing to.

    Attributes:
        progress: counts, values of the objectives, and the front.
    """

    def __init__(self, storage: Storage, name: str, record: StudyRecord) -> None:
        super().__init__(storage, name, record)
        self.progress = Progress(self)

    # Trials

    def trial(self, number: int) -> TrialRecord:
        """Everything recorded of one trial. Raises StudyError when there is nothing."""
        with self.storage.session() as session:
            record = session.get(TrialRecord, (self.study_id, number))
        if record is None:
            raise StudyError(f"study {self.config.study!r} has no record of a trial {number}; see `studies show`")
        return record

    def trials(self) -> list[TrialRecord]:
        """Everything recorded of every trial that started or ended, by number."""
        query = select(TrialRecord).where(TrialRecord.study_id == self.study_id).order_by(TrialRecord.number)
        with self.storage.session() as session:
            return list(session.scalars(query))

    def unfinished(self) -> list[Unfinished]:
        """Every trial that has not ended, and who trains it, by number."""
        with self.storage.session() as session:
            live = live_drivers(session.connection(), self.study_id)
            return [
                Unfinished(
                    number=row.number,
                    epochs_done=row.epochs_done or 0,
                    driver=live.get(row.owner or ""),
                    dead=None if row.owner in live else session.get(DriverRecord, row.owner or ""),
                )
                for row in self.progress.running(session.connection())
                if row.reason is None
            ]

    def trained_digests(self) -> dict[str, int]:
        """Digest -> number of every trial that was trained to an end; a digest's first trial stands."""
        with self.storage.transaction() as connection:
            rows = connection.execute(sql.ENDED, {"study": self.study_id, "after": 0}).all()
        return {row.digest: row.number for row in reversed(rows)}

    def training_versions(self) -> dict[int, int]:
        """Version of the training code -> how many trials it trained to an end, oldest version first."""
        with self.storage.transaction() as connection:
            rows = connection.execute(sql.TRAINING_VERSIONS, {"study": self.study_id}).all()
        return dict(sorted((version, count) for version, count in rows))

    def events(self) -> list[tuple[str, int]]:
        """Asks and tells in the order in which they happened: ("ask" or "tell", number).

        An ask stands where its trial was made, just before it was proposed. Trials of schema 1 have tells alone.
        """
        orders = (TrialRecord.number, TrialRecord.ask_order, TrialRecord.tell_order)
        with self.storage.session() as session:
            rows = session.execute(select(*orders).where(TrialRecord.study_id == self.study_id)).all()
        events = [
            (order, kind, row.number)
            for row in rows
            for kind, order in (("ask", row.ask_order), ("tell", row.tell_order))
            if order is not None
        ]
        return [(kind, number) for _, kind, number in sorted(events)]

    def references(self) -> dict[int, str]:
        """Number -> name of the network of the papers, of every trial that was enqueued as one."""
        trials, attributes = OPTUNA_TRIALS.c, USER_ATTRIBUTES.c
        query = (
            select(trials.number, attributes.value_json)
            .join_from(OPTUNA_TRIALS, USER_ATTRIBUTES, attributes.trial_id == trials.trial_id)
            .where(trials.study_id == self.study_id, attributes.key == "baseline")
        )
        with self.storage.session() as session:
            found = session.execute(query).all()
        names = {}
        for number, text in found:
            with contextlib.suppress(ValueError, TypeError):  # an attribute that a stranger gave to a trial
                if isinstance(name := json.loads(text), str):
                    names[number] = name
        return names

    # What complete trials brought

    def results(self, numbers: Sequence[int] | None = None) -> list[TrialResult]:
        """Every COMPLETE trial, or those of `numbers` that are, by number."""
        columns = (TrialRecord.number, TrialRecord.digest, TrialRecord.spec, TrialRecord.recipe, TrialRecord.values)
        query = select(*columns, sql.TRAINED_BY).where(self._complete()).order_by(TrialRecord.number)
        if numbers is not None:
            query = query.where(TrialRecord.number.in_(numbers))
        with self.storage.session() as session:
            rows = session.execute(query).all()
        for row in rows:
            if lacks := [name for name in ("digest", "spec", "recipe", "values") if getattr(row, name) is None]:
                raise StudyError(
                    f"trial {row.number} of study {self.config.study!r} is complete and has no {lacks[0]}: another "
                    "program wrote it; delete the study, or restore the database"
                )
        return [TrialResult(**row._mapping) for row in rows]

    def measurement(self, number: int) -> Measurement:
        """The measurement that a COMPLETE trial ended with. Raises StudyError when there is none."""
        record = self.trial(number)
        if record.values is None:
            raise StudyError(f"trial {number} of study {self.config.study!r} is not complete; see `studies show`")
        return _measurement(record, self.probe(number))

    def measurements(self) -> dict[str, Measurement]:
        """Digest -> the measurement of every COMPLETE trial of this version of the training code, in one query."""
        of_trial = and_(ProbeRecord.study_id == TrialRecord.study_id, ProbeRecord.number == TrialRecord.number)
        query = select(TrialRecord, ProbeRecord).outerjoin(ProbeRecord, of_trial)
        query = query.where(self._complete(), sql.OF_VERSION)
        with self.storage.session() as session:
            rows = session.execute(query, {"version": self.training_version}).all()
        return {trial.digest or "": _measurement(trial, _curve(probe)) for trial, probe in rows}

    # Curves

    def epochs_tables(self) -> dict[int, list[EpochRow]]:
        """Number -> epochs in order, of every trial that has any."""
        with self.storage.transaction() as connection:
            return read_epochs(connection, self.study_id)

    def probe(self, number: int) -> ProbeCurve:
        """A trial's probe curve, to single precision; empty when it has none."""
        return self.probes([number])[number]

    def probes(self, numbers: Sequence[int]) -> dict[int, ProbeCurve]:
        """Probe curves of these trials, to single precision; empty ones where there are none."""
        query = select(ProbeRecord).where(ProbeRecord.study_id == self.study_id, ProbeRecord.number.in_(numbers))
        with self.storage.session() as session:
            found = {record.number: record.curve for record in session.scalars(query)}
        return {number: found.get(number, ProbeCurve()) for number in numbers}

    def _complete(self) -> ColumnElement[bool]:
        return and_(TrialRecord.study_id == self.study_id, TrialRecord.reason == Outcome.COMPLETE.stored)


def recorded(trial: TrialRecord | Trial, name: str) -> float | None:
    """A metric of a trial; its costs are known from its start, others when it is complete."""
    if metric_of(name).basis == "cost":
        cost: int | None = getattr(trial, name)
        return cost
    return (trial.values or {}).get(name)


def _measurement(trial: TrialRecord, probe: ProbeCurve) -> Measurement:
    return Measurement(
        values=trial.values or {},
        probe=probe,
        gates=tuple(trial.gates or ()),
        seconds=trial.seconds or 0.0,
        peak_memory=trial.peak_memory or 0.0,
        seed=trial.seed or 0,
    )


def _curve(record: ProbeRecord | None) -> ProbeCurve:
    return ProbeCurve() if record is None else record.curve
