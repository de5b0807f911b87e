"""The `nas.protocols.Ledger` on SQL: Optuna's study and the project's own records, kept in step.

A trial's end is committed to the records first and told to Optuna second. Whatever happens between the
two, the records know the outcome, and `SqlLedger.interrupted` tells it when the study is opened again.
Transactions begin with a write, because SQLite cannot wait for its lock once a transaction has read.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models as optuna_tables  # the schema, which Optuna versions; it has no public name
from optuna.trial import TrialState
from sqlalchemy import ColumnElement, Select, and_, delete, func, select, update
from sqlalchemy.orm import Session

from nas.errors import StudyError
from nas.pareto import non_dominated
from nas.types import (
    Candidate,
    Cost,
    Counts,
    EpochRow,
    Measurement,
    ProbeCurve,
    StudyConfig,
    TrialResult,
    canonical_json,
)
from studies.records import STATES, TRAINED_REASONS, EpochRecord, ProbeRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from studies.storage import Storage

_EPOCH_COLUMNS = ("epoch", "denoise_loss", "classify_loss", "psnr", "accuracy", "stability", "seconds")


class SqlLedger:
    """One study of an open `Storage`; see `nas.protocols.Ledger` for what each method promises.

    As a context manager it closes the storage it came from.

    Attributes:
        provenance: versions, commit, hardware and the like, as given when the study was created.
        command: the command line that created the study.
        created: when, in seconds since the epoch.
    """

    def __init__(self, storage: Storage, study: optuna.Study, record: StudyRecord) -> None:
        self.storage = storage
        self.study = study
        self.config = StudyConfig.from_dict(record.config)
        self.distributions: dict[str, BaseDistribution] = {
            name: json_to_distribution(text) for name, text in record.distributions.items()
        }
        self.provenance: Mapping[str, Any] = record.provenance
        self.command = record.command
        self.created = record.created
        self._id = record.study_id
        self._digests: dict[str, int] = {}
        self._digests_up_to = 0

    def __enter__(self) -> SqlLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the storage's connections."""
        self.storage.close()

    # What the engine asks

    def counts(self) -> Counts:
        """Trials by outcome, in one query."""
        with self.storage.session() as session:
            return count_trials(session, self._id).get(self._id, Counts())

    def interrupted(self) -> list[tuple[int, dict[str, Any]]]:
        """Trials left RUNNING by a driver that is gone: number and hyperparameters, oldest first.

        Two kinds need no further work and are settled instead of returned: a trial whose end is in the
        records is told, and one that was cut off while it was being proposed, with only some of its
        hyperparameters drawn, has failed (`worker_lost`).
        """
        with self.storage.guard():
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        with self.storage.session() as session:
            numbers = [trial.number for trial in running]
            records = session.scalars(self._trials().where(TrialRecord.number.in_(numbers))).all()
        known = {record.number: record for record in records}
        unfinished = []
        for trial in running:
            record = known.get(trial.number)
            if record is not None and record.reason is not None:
                self._tell(trial.number, record.reason, record.values)
            elif record is None and trial.params.keys() < self.distributions.keys():
                self.fail(trial.number, "worker_lost", detail="the driver ended while it proposed this trial")
            else:
                unfinished.append((trial.number, dict(trial.params)))
        return unfinished

    def trained_digests(self) -> Mapping[str, int]:
        """Digest -> number of every trial that was trained to an end; a digest's first trial stands."""
        query = (
            select(TrialRecord.digest, TrialRecord.number, TrialRecord.tell_order)
            .where(TrialRecord.study_id == self._id, TrialRecord.tell_order > self._digests_up_to)
            .where(TrialRecord.reason.in_(TRAINED_REASONS))
            .order_by(TrialRecord.tell_order)
        )
        # Tells are committed in their order, by this process or another, so reading on from the last is enough.
        with self.storage.session() as session:
            for row in session.execute(query):
                self._digests.setdefault(row.digest, row.number)
                self._digests_up_to = row.tell_order
        return MappingProxyType(self._digests)

    def objective_values(self) -> dict[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""
        query = select(TrialRecord.number, TrialRecord.values).where(self._complete()).order_by(TrialRecord.number)
        with self.storage.session() as session:
            return {row.number: self._objectives(row.values) for row in session.execute(query)}

    def front(self) -> list[int]:
        """Numbers of the COMPLETE trials that no other dominates, in ascending order."""
        values = self.objective_values()
        if not values:
            return []
        maximize = [objective.direction == "maximize" for objective in self.config.objectives]
        mask = non_dominated(np.array(list(values.values())), maximize)
        return [number for number, keep in zip(values, mask, strict=True) if keep]

    # What the engine writes

    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> None:
        """A trial begins to train, or goes on: the first start time stays."""
        spec = candidate.spec.to_dict()
        violations = {c.name: c.violation(cost) for c in self.config.constraints}
        # Optuna reads one attribute per constraint, Optuna Dashboard the list that older versions wrote.
        constraints: dict[str, Any] = {f"constraints:{name}": value for name, value in violations.items()}
        if violations:
            constraints["constraints"] = list(violations.values())
        with self.storage.session() as session:
            self._set_attributes(session, optuna_tables.TrialSystemAttributeModel, number, constraints)
            self._set_attributes(session, optuna_tables.TrialUserAttributeModel, number, {"spec": canonical_json(spec)})
            record = session.get(TrialRecord, (self._id, number))
            if record is None:
                record = TrialRecord(study_id=self._id, number=number, started=time.time())
                session.add(record)
            elif record.reason is not None:
                raise ValueError(f"trial {number} has ended already ({record.reason or 'complete'})")
            record.digest = candidate.digest
            record.spec = spec
            record.recipe = candidate.recipe.to_dict()
            record.params = cost.params
            record.macs = cost.macs
            record.worker = worker

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""
        if not rows:
            return
        with self.storage.session() as session:
            session.execute(
                delete(EpochRecord).where(
                    EpochRecord.study_id == self._id,
                    EpochRecord.number == number,
                    EpochRecord.epoch.in_([row.epoch for row in rows]),
                )
            )
            record = session.get(TrialRecord, (self._id, number))
            if record is None:
                raise ValueError(f"trial {number} has epochs but was never started")
            record.epochs_done = max(row.epoch for row in rows)
            session.add_all(
                EpochRecord(
                    study_id=self._id, number=number, **{name: _nullable(getattr(row, name)) for name in _EPOCH_COLUMNS}
                )
                for row in rows
            )

    def complete(self, number: int, measurement: Measurement) -> None:
        """COMPLETE with the values of the study's objectives.

        Raises:
            ValueError: a value is missing, NaN or infinite, or the trial is not being trained: a bug.
        """
        values = {name: float(value) for name, value in measurement.values.items()}
        if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(wrong)}")
        if missing := [o.name for o in self.config.objectives if o.name not in values]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(missing)} was not measured")
        self._end(number, "", values=values, measurement=measurement, probe=measurement.probe)

    def prune(self, number: int, reason: str, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """PRUNED without values. Reasons: diverged, out_of_memory, and stopped (by a rung)."""
        if STATES.get(reason) is not TrialState.PRUNED:
            raise ValueError(f"{reason!r} is not a reason to prune")
        self._end(number, reason, detail=detail, probe=probe)

    def fail(self, number: int, reason: str, *, detail: str = "") -> None:
        """FAIL. Reasons: exception, worker_lost, timeout, and duplicate, over_limit (never trained)."""
        if STATES.get(reason) is not TrialState.FAIL:
            raise ValueError(f"{reason!r} is not a reason to fail")
        self._end(number, reason, detail=detail)

    # What people read

    def results(self) -> list[TrialResult]:
        """Every COMPLETE trial, by number."""
        with self.storage.session() as session:
            records = session.scalars(select(TrialRecord).where(self._complete()).order_by(TrialRecord.number))
            return [
                TrialResult(number=r.number, digest=r.digest, spec=r.spec, recipe=r.recipe, values=r.values)  # type: ignore[arg-type]
                for r in records
            ]

    def trial(self, number: int) -> TrialRecord:
        """Everything recorded of one trial. Raises StudyError when there is nothing."""
        with self.storage.session() as session:
            record = session.get(TrialRecord, (self._id, number))
        if record is None:
            raise StudyError(f"study {self.config.study!r} has no record of a trial {number}; see `studies show`")
        return record

    def trials(self) -> list[TrialRecord]:
        """Everything recorded of every trial that started or ended, by number."""
        with self.storage.session() as session:
            return list(session.scalars(self._trials().order_by(TrialRecord.number)))

    def epochs_table(self, number: int) -> list[EpochRow]:
        """A trial's epochs in order; empty when it has none."""
        query = (
            select(EpochRecord)
            .where(EpochRecord.study_id == self._id, EpochRecord.number == number)
            .order_by(EpochRecord.epoch)
        )
        with self.storage.session() as session:
            rows = [{name: getattr(record, name) for name in _EPOCH_COLUMNS} for record in session.scalars(query)]
        return [EpochRow(**row | {"denoise_loss": _loss(row["denoise_loss"])}) for row in rows]

    def probe(self, number: int) -> ProbeCurve:
        """A trial's probe curve, to single precision; empty when it has none."""
        with self.storage.session() as session:
            record = session.get(ProbeRecord, (self._id, number))
        if record is None:
            return ProbeCurve()
        return ProbeCurve(
            steps=tuple(np.frombuffer(record.steps, "<i4").tolist()),
            denoise=tuple(np.frombuffer(record.denoise, "<f4").tolist()),
            classify=tuple(np.frombuffer(record.classify, "<f4").tolist()),
        )

    # Inside

    def _trials(self) -> Select[TrialRecord]:
        return select(TrialRecord).where(TrialRecord.study_id == self._id)

    def _complete(self) -> ColumnElement[bool]:
        return and_(TrialRecord.study_id == self._id, TrialRecord.reason == "")

    def _objectives(self, values: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(values[objective.name] for objective in self.config.objectives)

    def _set_attributes(self, session: Session, table: Any, number: int, attributes: Mapping[str, Any]) -> None:
        """Writes Optuna's trial attributes within our own transaction: one commit instead of one each."""
        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        session.execute(delete(table).where(table.trial_id == trial_id, table.key.in_(list(attributes))))
        session.add_all(
            table(trial_id=trial_id, key=key, value_json=json.dumps(value)) for key, value in attributes.items()
        )

    def _end(
        self,
        number: int,
        reason: str,
        *,
        detail: str = "",
        values: dict[str, float] | None = None,
        measurement: Measurement | None = None,
        probe: ProbeCurve | None = None,
    ) -> None:
        """Commits the end of a trial to the records, then tells Optuna."""
        with self.storage.session() as session:
            # The update holds the study's row until the commit, so that two drivers never share an order.
            session.execute(
                update(StudyRecord).where(StudyRecord.study_id == self._id).values(tells=StudyRecord.tells + 1)
            )
            record = session.get(TrialRecord, (self._id, number))
            if record is None:
                if STATES[reason] is not TrialState.FAIL:
                    raise ValueError(f"trial {number} was never started")
                record = TrialRecord(study_id=self._id, number=number)
                session.add(record)
            elif record.reason is not None:
                raise ValueError(f"trial {number} has ended already ({record.reason or 'complete'})")
            record.tell_order = session.scalar(select(StudyRecord.tells).where(StudyRecord.study_id == self._id))
            record.reason = reason
            record.detail = _storable(detail) or None
            record.ended = time.time()
            if measurement is not None:
                record.values = values
                record.latency = measurement.values.get("latency")
                record.gates = [{name: float(value) for name, value in gate.items()} for gate in measurement.gates]
                record.seconds = measurement.seconds
                record.peak_memory = measurement.peak_memory
                record.seed = measurement.seed
            if probe is not None:
                session.add(_probe_record(self._id, number, probe))
            if reason:
                self._set_attributes(session, optuna_tables.TrialUserAttributeModel, number, {"reason": reason})
        self._tell(number, reason, values)

    def _tell(self, number: int, reason: str, values: Mapping[str, float] | None) -> None:
        told = None if values is None else self._objectives(values)
        with self.storage.guard():
            self.study.tell(number, told, STATES[reason])


def count_trials(session: Session, study_id: int | None = None) -> dict[int, Counts]:
    """Counts of one study, or of each study in the database, in one query."""
    trials = optuna_tables.TrialModel
    query = (
        select(trials.study_id, trials.state, TrialRecord.reason, func.count())
        .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
        .group_by(trials.study_id, trials.state, TrialRecord.reason)
    )
    if study_id is not None:
        query = query.where(trials.study_id == study_id)
    names = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    fields: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for study, state, reason, count in session.execute(query):
        untrained = state is TrialState.FAIL and reason in ("duplicate", "over_limit")
        fields[study][reason if untrained else names[state]] += count
    return {study: Counts(**counter) for study, counter in fields.items()}


def _nullable(value: float | None) -> float | None:
    """SQLite turns NaN into NULL; doing it here gives every database the same."""
    return None if value is None or math.isnan(value) else value


def _loss(stored: float | None) -> float:
    return math.nan if stored is None else stored


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL refuses NUL, and no encoder takes a lone surrogate."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _probe_record(study_id: int, number: int, probe: ProbeCurve) -> ProbeRecord:
    with np.errstate(over="ignore"):  # the loss of a diverged trial may exceed float32: infinity says enough
        return ProbeRecord(
            study_id=study_id,
            number=number,
            steps=np.asarray(probe.steps, "<i4").tobytes(),
            denoise=np.asarray(probe.denoise, "<f4").tobytes(),
            classify=np.asarray(probe.classify, "<f4").tobytes(),
        )
