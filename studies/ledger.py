"""The `nas.protocols.Ledger` on SQL: Optuna's study and the project's own records, kept in step.

A trial's end is committed to the records first and told to Optuna second. Whatever happens between the
two, the records know the outcome, and the driver that claims the trial tells it.

What drivers must agree on (places in the budget, who owns a trial, whether a candidate is new, the order of
events) is decided while holding the study's row. Such transactions begin with a write, because SQLite
cannot wait for its lock once a transaction has read.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages._rdb import models as optuna_tables  # the schema, which Optuna versions; it has no public name
from optuna.trial import TrialState
from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, or_, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, aliased

from nas.errors import LeaseLostError, StorageError, StudyError
from nas.pareto import non_dominated
from nas.types import (
    Candidate,
    Cost,
    Counts,
    EpochRow,
    Measurement,
    Objective,
    ProbeCurve,
    StudyConfig,
    TrialResult,
    canonical_json,
)
from studies.leases import Lease, drop_dead, live_drivers
from studies.records import (
    REJECTIONS,
    STATES,
    TRAINED_REASONS,
    DriverRecord,
    EpochRecord,
    ProbeRecord,
    StudyRecord,
    TrialRecord,
)

if TYPE_CHECKING:
    from studies.storage import Storage

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For this long a driver waits for a database that is gone before it gives up."""

P = ParamSpec("P")
T = TypeVar("T")
_EPOCH_COLUMNS = ("epoch", "denoise_loss", "classify_loss", "psnr", "accuracy", "stability", "seconds")
_CURVES = ("psnr", "accuracy", "stability")  # objectives in the epochs table; costs are in the trial's record
_COSTS = ("params", "macs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A trial that has not ended.

    Attributes:
        epochs_done: the last epoch in the records; 0 when there is none.
        driver: who trains it; None when it was interrupted.
    """

    number: int
    epochs_done: int
    driver: DriverRecord | None


def _patient(method: Callable[Concatenate[SqlLedger, P], T]) -> Callable[Concatenate[SqlLedger, P], T]:
    """Makes a driver outlive its database: the call is made again while the database cannot be reached.

    A call may have been carried out although its answer was lost, so methods bear being called again.
    """

    @functools.wraps(method)
    def call(self: SqlLedger, /, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return method(self, *args, **kwargs)
            except StorageError as error:
                cause = error.__cause__
                if isinstance(cause, StorageInternalError):  # Optuna's wrapping
                    cause = cause.__cause__
                gone = isinstance(cause, OperationalError | InterfaceError)
                if self._lease is None or not gone or time.monotonic() > deadline:
                    raise
                time.sleep(min(1.0, PATIENCE_SECONDS / 10))

    return call


class _Study(optuna.Study):
    """Optuna's study, with trials that belong to the driver that asks for them from their first moment."""

    ledger: SqlLedger

    def ask(self, fixed_distributions: dict[str, BaseDistribution] | None = None) -> optuna.Trial:
        """Takes the oldest enqueued trial or makes one, and draws its hyperparameters.

        A reservation, if the driver holds any, becomes the trial's place in the budget.

        Raises:
            LeaseLostError: the lease ran out since the reservation, and the budget is full by now.
        """
        return self.ledger._draw(self.ledger._make_trial(), fixed_distributions or {})


class SqlLedger:
    """One study of an open `Storage`; see `nas.protocols.Ledger` for what each method promises.

    As a context manager it closes the storage it came from.

    Attributes:
        provenance: versions, commit, hardware and the like, as given when the study was created.
        command: the command line that created the study.
        created: when, in seconds since the epoch.
    """

    def __init__(self, storage: Storage, name: str, record: StudyRecord) -> None:
        self.storage = storage
        study = _Study(study_name=name, storage=storage.optuna)
        study.ledger = self
        self.study: optuna.Study = study
        self.config = StudyConfig.from_dict(record.config)
        self.distributions: dict[str, BaseDistribution] = {
            name: json_to_distribution(text) for name, text in record.distributions.items()
        }
        self.provenance: Mapping[str, Any] = record.provenance
        self.command = record.command
        self.created = record.created
        self._id = record.study_id
        self._lease: Lease | None = None
        self._reserved = 0  # reservations that this driver knows of
        self._budget = 0  # the size of the study that they were made for
        self._held: set[int] = set()  # trials that this driver knows it owns
        self._asked: set[int] = set()  # those of them that took the place of a reservation
        self._digests: dict[str, int] = {}
        self._digests_up_to = 0
        self._judged: dict[int, tuple[int, tuple[float, ...]]] = {}
        self._judged_up_to = 0

    def __enter__(self) -> SqlLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the storage's connections."""
        self.storage.close()

    # Drivers

    @contextmanager
    def drive(self) -> Iterator[None]:
        """Makes this process a driver of the study while the block runs.

        Its lease is renewed in the background. At the end its reservations are given back and its
        unfinished trials are anyone's to claim; if it is killed, as soon as others see that it is dead.
        Meanwhile a database that is gone is waited for, `PATIENCE_SECONDS` long at each call.
        """
        if self._lease is not None:
            raise RuntimeError("this ledger drives its study already")
        lease = Lease(self.storage, self._id)
        with self.storage.session() as session:
            self._lock(session)
            drop_dead(session, self._id)
            lease.renew(session)
        self._lease = lease
        try:
            with lease.kept():
                yield
        finally:
            self._lease = None
            self._reserved = 0
            self._held.clear()
            self._asked.clear()
            self._abandon(lease)

    def _abandon(self, lease: Lease) -> None:
        try:
            with self.storage.session() as session:
                self._lock(session)
                session.execute(
                    update(TrialRecord)
                    .where(TrialRecord.study_id == self._id, TrialRecord.owner == lease.driver)
                    .where(TrialRecord.reason.is_(None))
                    .values(owner=None)
                )
                session.execute(delete(DriverRecord).where(DriverRecord.driver == lease.driver))
        except StorageError as error:
            log.warning("%s; the lease runs out by itself", error)

    def unfinished(self) -> list[Unfinished]:
        """Every trial that has not ended, and who trains it, by number."""
        with self.storage.session() as session:
            live = live_drivers(session, self._id)
            return [
                Unfinished(number=row.number, epochs_done=row.epochs_done or 0, driver=live.get(row.owner or ""))
                for row in self._running(session)
                if row.reason is None
            ]

    @_patient
    def reserve(self, trials: int) -> bool:
        """Holds one more place in the budget for this driver; False, and nothing held, when `trials` are taken."""
        if not self._room(trials):
            return False
        with self.storage.session() as session:
            self._lock(session)
            driver = self._driving().renew(session)
            # What is held but not known of, by a call whose answer was lost, is not held twice.
            driver.reserved = min(driver.reserved, self._reserved)
            free = self._taken(session) < trials
            driver.reserved += free
            reserved = driver.reserved
        self._reserved, self._budget = reserved, trials
        return free

    @_patient
    def release(self) -> None:
        """Gives an unused reservation back; nothing happens when there is none."""
        with self.storage.session() as session:
            driver = self._driving().renew(session)
            driver.reserved = reserved = max(0, min(driver.reserved, self._reserved) - 1)
        self._reserved = reserved

    def claim(self) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial whose driver is gone: number and hyperparameters, or None.

        A trial whose end is in the records is told on the way. One that was cut off while it was being
        proposed has the rest of its hyperparameters drawn, so that `study.sampler` must be set.
        """
        while (claimed := self._claim_oldest()) is not None:
            number, reason, values = claimed
            if reason is None:
                return number, dict(self._draw(number, self.distributions).params)
            self._tell(number, reason, values)
            self._held.discard(number)
        return None

    @_patient
    def _claim_oldest(self) -> tuple[int, str | None, dict[str, Any] | None] | None:
        with self.storage.session() as session:
            if not self._orphans(session):
                return None
        with self.storage.session() as session:
            self._lock(session)
            if self._lease is not None:
                self._lease.renew(session)
            orphans = self._orphans(session)
            if not orphans:
                return None
            number = orphans[0]
            record = session.get(TrialRecord, (self._id, number))
            if record is None:  # asked for by plain Optuna
                record = TrialRecord(study_id=self._id, number=number)
                session.add(record)
            record.owner = self._owner
            reason, values = record.reason, record.values
        self._held.add(number)
        return number, reason, values

    @_patient
    def _make_trial(self) -> int:
        """An Optuna trial without hyperparameters, owned by this driver; its number."""
        with self.storage.session() as session:
            self._lock(session)
            lease = self._lease if self._reserved else None
            number = self._made_unheard(session)
            if number is None:
                if lease is not None:
                    self._take_place(session, lease)
                number = self._insert_trial(session)
            reserved = 0 if lease is None else lease.renew(session).reserved
        self._held.add(number)
        if lease is not None:
            self._reserved = reserved
            self._asked.add(number)
        return number

    def _made_unheard(self, session: Session) -> int | None:
        """The trial that a call made whose answer was lost."""
        if self._lease is None:
            return None
        made = select(TrialRecord.number).where(
            TrialRecord.study_id == self._id,
            TrialRecord.owner == self._lease.driver,
            TrialRecord.reason.is_(None),
            TrialRecord.started.is_(None),
            TrialRecord.number.not_in(list(self._held)),
        )
        return session.scalar(made)

    def _take_place(self, session: Session, lease: Lease) -> None:
        """Gives up one reservation for the trial that is about to be made."""
        driver = lease.renew(session)
        if driver.reserved:
            driver.reserved -= 1
            session.flush()
        elif self._taken(session) >= self._budget:
            self._reserved = 0
            raise LeaseLostError(
                f"study {self.config.study}: the reservation ran out with its lease, and other drivers have the place"
            )

    def _insert_trial(self, session: Session) -> int:
        """Takes the oldest enqueued trial or makes one, as Optuna does, under Optuna's own lock."""
        trials = optuna_tables.TrialModel
        optuna_tables.StudyModel.find_or_raise_by_id(self._id, session, for_update=True)
        enqueued = select(trials).where(trials.study_id == self._id, trials.state == TrialState.WAITING)
        trial: Any = session.scalar(enqueued.order_by(trials.number).limit(1))
        if trial is None:
            trial = trials(study_id=self._id, state=TrialState.RUNNING)
            session.add(trial)
            session.flush()
            trial.number = trial.count_past_trials(session)
        trial.state = TrialState.RUNNING
        trial.datetime_start = datetime.now()
        number = int(trial.number)
        order = self._next_event(session)
        session.add(TrialRecord(study_id=self._id, number=number, owner=self._owner, ask_order=order))
        return number

    @_patient
    def _draw(self, number: int, distributions: Mapping[str, BaseDistribution]) -> optuna.Trial:
        """Draws the hyperparameters that a trial of this driver has not yet."""
        with self.storage.guard():
            study = self.study
            study._thread_local.cached_all_trials = None  # as Optuna's ask does
            study.get_trials(deepcopy=False)  # Optuna's cache has to know the trial before it is drawn for
            trial_id = study._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            trial = optuna.Trial(study, trial_id)
            for name, distribution in distributions.items():
                trial._suggest(name, distribution)
        return trial

    # What the engine asks

    @_patient
    def counts(self) -> Counts:
        """Trials by outcome, in one query."""
        with self.storage.session() as session:
            return count_trials(session, self._id).get(self._id, Counts())

    @_patient
    def trained_digests(self) -> Mapping[str, int]:
        """Digest -> number of every trial that was trained to an end; a digest's first trial stands."""
        # Ends are committed in their order, by this process or another, so reading on from the last is enough.
        query = self._ended_since(TrialRecord.digest, up_to=self._digests_up_to)
        with self.storage.session() as session:
            for row in session.execute(query):
                self._digests.setdefault(row.digest, row.number)
                self._digests_up_to = row.tell_order
        return MappingProxyType(self._digests)

    @_patient
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

    def rung_objectives(self) -> tuple[Objective, ...]:
        """The study's objectives that are known after any validated epoch: all but the latency."""
        return tuple(o for o in self.config.objectives if o.name in _CURVES + _COSTS)

    @_patient
    def rung(self, epoch: int) -> dict[int, tuple[float, ...]]:
        """Number -> values of `rung_objectives` at `epoch` of every trial that was validated there."""
        query = (
            select(EpochRecord.number, *self._rung_columns())
            .join(TrialRecord, and_(TrialRecord.study_id == self._id, TrialRecord.number == EpochRecord.number))
            .where(EpochRecord.study_id == self._id, EpochRecord.epoch == epoch, self._validated(EpochRecord))
        )
        with self.storage.session() as session:
            return {number: tuple(map(float, values)) for number, *values in session.execute(query)}

    @_patient
    def judged(self) -> dict[int, tuple[int, tuple[float, ...]]]:
        """Number -> last validated epoch and its values of `rung_objectives`, of every trained trial."""
        earlier = aliased(EpochRecord)
        last = (
            select(func.max(earlier.epoch))
            .where(earlier.study_id == self._id, earlier.number == TrialRecord.number, self._validated(earlier))
            .correlate(TrialRecord)
            .scalar_subquery()
        )
        at_last = and_(
            EpochRecord.study_id == self._id, EpochRecord.number == TrialRecord.number, EpochRecord.epoch == last
        )
        columns = (TrialRecord.reason, TrialRecord.values, EpochRecord.epoch, *self._rung_columns())
        query = self._ended_since(*columns, up_to=self._judged_up_to).outerjoin(EpochRecord, at_last)
        names = [o.name for o in self.rung_objectives()]
        with self.storage.session() as session:
            for number, tell_order, reason, measured, epoch, *values in session.execute(query):
                if reason == "":
                    self._judged[number] = self.config.epochs, tuple(measured[name] for name in names)
                elif reason == "stopped" and epoch is not None:
                    self._judged[number] = epoch, tuple(map(float, values))
                else:
                    self._judged[number] = 0, ()
                self._judged_up_to = tell_order
        return dict(self._judged)

    # What the engine writes

    @_patient
    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """A trial begins to train, or goes on: the first start time stays.

        False, and nothing happens, when another trial of the same digest was trained to an end, or was
        started and has not ended, whoever has it: an interrupted one will go on.
        """
        twin = (
            select(TrialRecord.number)
            .where(TrialRecord.study_id == self._id, TrialRecord.digest == candidate.digest)
            .where(TrialRecord.number != number)
            .where(
                or_(
                    TrialRecord.reason.in_(TRAINED_REASONS),
                    and_(TrialRecord.reason.is_(None), TrialRecord.started.is_not(None)),
                )
            )
            .limit(1)
        )
        with self.storage.session() as session:
            self._lock(session)
            record = self._own(session, number)
            if record.reason is not None:
                raise ValueError(f"trial {number} has ended already ({record.reason or 'complete'})")
            if session.scalar(twin) is not None:
                return False
            if record.ask_order is None:
                record.ask_order = self._next_event(session)
            self._describe(session, record, candidate, cost)
            record.started = record.started or time.time()
            record.worker = worker
        self._held.add(number)
        self._asked.discard(number)
        return True

    @_patient
    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""
        if not rows:
            return
        with self.storage.session() as session:
            # The write holds the trial until the commit, so that it is not claimed meanwhile.
            session.execute(
                update(TrialRecord)
                .where(TrialRecord.study_id == self._id, TrialRecord.number == number)
                .where(TrialRecord.owner.is_not_distinct_from(self._owner))
                .values(epochs_done=max(row.epoch for row in rows))
            )
            if self._own(session, number).started is None:
                raise ValueError(f"trial {number} has epochs but was never started")
            session.execute(
                delete(EpochRecord).where(
                    EpochRecord.study_id == self._id,
                    EpochRecord.number == number,
                    EpochRecord.epoch.in_([row.epoch for row in rows]),
                )
            )
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

    def reject(self, number: int, candidate: Candidate, cost: Cost, reason: str) -> None:
        """FAIL before training, with what was proposed. Reasons: duplicate, over_limit.

        The reservation that the trial was asked with is one again.
        """
        if reason not in REJECTIONS:
            raise ValueError(f"{reason!r} is not a reason to reject")
        self._end(number, reason, proposed=(candidate, cost))

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

    def events(self) -> list[tuple[str, int]]:
        """Asks and tells in the order in which they happened: ("ask" or "tell", number).

        An ask stands where its trial was made, just before the sampler looked at the study. Trials of
        schema 1 have tells alone.
        """
        with self.storage.session() as session:
            rows = session.execute(
                select(TrialRecord.number, TrialRecord.ask_order, TrialRecord.tell_order).where(
                    TrialRecord.study_id == self._id
                )
            )
            events = [
                (order, kind, row.number)
                for row in rows
                for kind, order in (("ask", row.ask_order), ("tell", row.tell_order))
                if order is not None
            ]
        return [(kind, number) for _, kind, number in sorted(events)]

    def measurement(self, number: int) -> Measurement:
        """The measurement that a COMPLETE trial ended with. Raises StudyError when there is none."""
        record = self.trial(number)
        if record.values is None:
            raise StudyError(f"trial {number} of study {self.config.study!r} is not complete; see `studies show`")
        return Measurement(
            values=record.values,
            probe=self.probe(number),
            gates=tuple(record.gates or ()),
            seconds=record.seconds or 0.0,
            peak_memory=record.peak_memory or 0.0,
            seed=record.seed or 0,
        )

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

    def _ended_since(self, *columns: Any, up_to: int) -> Select[Any]:
        """Number, place of the tell and `columns` of trials trained to an end after `up_to`, in that order."""
        return (
            select(TrialRecord.number, TrialRecord.tell_order, *columns)
            .where(TrialRecord.study_id == self._id, TrialRecord.tell_order > up_to)
            .where(TrialRecord.reason.in_(TRAINED_REASONS))
            .order_by(TrialRecord.tell_order)
        )

    def _rung_columns(self) -> list[Any]:
        names = [o.name for o in self.rung_objectives()]
        return [getattr(EpochRecord if name in _CURVES else TrialRecord, name) for name in names]

    def _validated(self, epochs: Any) -> ColumnElement[bool]:
        """Whether every objective that an epoch can have is there."""
        needed = [epochs.psnr, *(getattr(epochs, o.name) for o in self.config.objectives if o.name in _CURVES)]
        return and_(*(column.is_not(None) for column in needed))

    def _objectives(self, values: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(values[objective.name] for objective in self.config.objectives)

    @property
    def _owner(self) -> str | None:
        return None if self._lease is None else self._lease.driver

    def _driving(self) -> Lease:
        if self._lease is None:
            raise RuntimeError("only a driver holds reservations; call this within drive()")
        return self._lease

    def _lock(self, session: Session) -> None:
        """Holds the study until the transaction ends."""
        session.execute(update(StudyRecord).where(StudyRecord.study_id == self._id).values(events=StudyRecord.events))

    def _next_event(self, session: Session) -> int:
        """The place of an ask or a tell among the study's events; holds the study as `_lock` does."""
        session.execute(
            update(StudyRecord).where(StudyRecord.study_id == self._id).values(events=StudyRecord.events + 1)
        )
        order = session.scalar(select(StudyRecord.events).where(StudyRecord.study_id == self._id))
        assert order is not None
        return order

    def _running(self, session: Session) -> Sequence[Row[Any]]:
        """Every trial that Optuna has as RUNNING, with what the records have of it, oldest first."""
        trials = optuna_tables.TrialModel
        return session.execute(
            select(trials.number, TrialRecord.owner, TrialRecord.reason, TrialRecord.epochs_done)
            .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
            .where(trials.study_id == self._id, trials.state == TrialState.RUNNING)
            .order_by(trials.number)
        ).all()

    def _orphans(self, session: Session) -> list[int]:
        """Numbers of RUNNING trials that no other driver trains, nor this one as far as it knows."""
        running = [row for row in self._running(session) if row.number not in self._held]
        if not running:
            return []
        others = live_drivers(session, self._id).keys() - {self._owner}
        return [row.number for row in running if row.owner not in others]

    def _room(self, trials: int) -> bool:
        """A look without the lock, which most answers need no more than."""
        with self.storage.session() as session:
            return self._taken(session) < trials

    def _taken(self, session: Session) -> int:
        """Places in the budget that are taken: trained trials, unfinished ones, reservations of live drivers."""
        trials = optuna_tables.TrialModel
        untold = and_(
            trials.state == TrialState.RUNNING,
            or_(TrialRecord.reason.is_(None), TrialRecord.reason.in_(TRAINED_REASONS)),
        )
        taken = session.scalar(
            select(func.count())
            .select_from(trials)
            .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
            .where(trials.study_id == self._id)
            .where(or_(trials.state.in_([TrialState.COMPLETE, TrialState.PRUNED]), untold))
        )
        return (taken or 0) + sum(driver.reserved for driver in live_drivers(session, self._id).values())

    def _own(self, session: Session, number: int) -> TrialRecord:
        """The record of a trial of this driver; a new one when plain Optuna asked for the trial.

        Raises:
            LeaseLostError: the trial is another driver's, or has to be claimed first.
        """
        record = session.get(TrialRecord, (self._id, number))
        if record is None:
            record = TrialRecord(study_id=self._id, number=number, owner=self._owner)
            session.add(record)
        if record.owner != self._owner:
            self._held.discard(number)
            self._asked.discard(number)
            raise LeaseLostError(f"trial {number} of study {self.config.study} belongs to another driver")
        return record

    def _describe(self, session: Session, record: TrialRecord, candidate: Candidate, cost: Cost) -> None:
        """Records what a trial proposes, and whether it keeps the study's limits."""
        spec = candidate.spec.to_dict()
        record.digest = candidate.digest
        record.spec = spec
        record.recipe = candidate.recipe.to_dict()
        record.params = cost.params
        record.macs = cost.macs
        violations = {c.name: c.violation(cost) for c in self.config.constraints}
        # Optuna reads one attribute per constraint, Optuna Dashboard the list that older versions wrote.
        constraints: dict[str, Any] = {f"constraints:{name}": value for name, value in violations.items()}
        if violations:
            constraints["constraints"] = list(violations.values())
        number = record.number
        self._set_attributes(session, optuna_tables.TrialSystemAttributeModel, number, constraints)
        self._set_attributes(session, optuna_tables.TrialUserAttributeModel, number, {"spec": canonical_json(spec)})

    def _set_attributes(self, session: Session, table: Any, number: int, attributes: Mapping[str, Any]) -> None:
        """Writes Optuna's trial attributes within our own transaction: one commit instead of one each."""
        trials = optuna_tables.TrialModel
        trial_id = session.scalar(select(trials.trial_id).where(trials.study_id == self._id, trials.number == number))
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
        proposed: tuple[Candidate, Cost] | None = None,
    ) -> None:
        """Commits the end of a trial to the records, then tells Optuna."""
        self._record_end(number, reason, detail, values, measurement, probe, proposed)
        self._tell(number, reason, values)

    @_patient
    def _record_end(
        self,
        number: int,
        reason: str,
        detail: str,
        values: dict[str, float] | None,
        measurement: Measurement | None,
        probe: ProbeCurve | None,
        proposed: tuple[Candidate, Cost] | None,
    ) -> None:
        reserved = self._reserved
        with self.storage.session() as session:
            self._lock(session)
            record = self._own(session, number)
            if record.reason is not None:
                if record.reason == reason and number in self._held:
                    return  # done by a call whose answer was lost
                raise ValueError(f"trial {number} has ended already ({record.reason or 'complete'})")
            if record.started is None and STATES[reason] is not TrialState.FAIL:
                raise ValueError(f"trial {number} was never started")
            if proposed is not None:
                self._describe(session, record, *proposed)
                if self._lease is not None and number in self._asked:
                    driver = self._lease.renew(session)
                    driver.reserved = reserved = driver.reserved + 1
            record.tell_order = self._next_event(session)
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
        self._reserved = reserved
        self._held.discard(number)
        self._asked.discard(number)

    @_patient
    def _tell(self, number: int, reason: str, values: Mapping[str, float] | None) -> None:
        told = None if values is None else self._objectives(values)
        with self.storage.guard(), contextlib.suppress(UpdateFinishedTrialError):
            self.study.tell(number, told, STATES[reason], skip_if_finished=True)


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
        untrained = state is TrialState.FAIL and reason in REJECTIONS
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
