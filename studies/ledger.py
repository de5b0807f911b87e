"""The `nas.protocols.Ledger` on SQL: Optuna's study and the project's own records, kept in step.

A trial's end is recorded and told to Optuna in one transaction.

What drivers must agree on (places in the budget, who owns a trial, whether a candidate is new, the order of
events) is decided while holding the study's row. Such transactions begin with a write, because SQLite
cannot wait for its lock once a transaction has read.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb import models as optuna_tables  # the schema, which Optuna versions; it has no public name
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Row, Select, Table, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, aliased

from nas.confirm import ConfirmedRun
from nas.errors import LeaseLostError, StorageError, StudyError
from nas.pareto import Array, non_dominated
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
    ConfirmationRecord,
    DriverRecord,
    EpochRecord,
    ProbeRecord,
    StudyRecord,
    TrialRecord,
)
from studies.urls import masked_command

if TYPE_CHECKING:
    from studies.storage import Storage

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For this long a driver waits for a database that is gone before it gives up."""

RETRY_SECONDS = 1.0
"""Between its tries."""

SHARE = 32
"""A driver that reserves places ahead takes at most one of so many that are free, so that others find some too."""

P = ParamSpec("P")
T = TypeVar("T")
# As plain tables: SQLAlchemy writes to them at a fraction of what its mapped classes cost.
_STUDIES, _TRIALS, _EPOCHS = (cast(Table, each.__table__) for each in (StudyRecord, TrialRecord, EpochRecord))
_PARAMS = cast(Table, optuna_tables.TrialParamModel.__table__)
_VALUES = cast(Table, optuna_tables.TrialValueModel.__table__)
_SYSTEM_ATTRIBUTES = cast(Table, optuna_tables.TrialSystemAttributeModel.__table__)
_USER_ATTRIBUTES = cast(Table, optuna_tables.TrialUserAttributeModel.__table__)
_HOLD = update(_STUDIES).where(_STUDIES.c.study_id == bindparam("study")).values(tells=_STUDIES.c.tells)
_COUNT = update(_STUDIES).where(_STUDIES.c.study_id == bindparam("study")).values(tells=_STUDIES.c.tells + 1)
_EVENTS = select(_STUDIES.c.tells).where(_STUDIES.c.study_id == bindparam("study"))
_EPOCH_COLUMNS = ("epoch", "denoise_loss", "classify_loss", "psnr", "accuracy", "stability", "seconds")
_CURVES = ("psnr", "accuracy", "stability")  # objectives in the epochs table; costs are in the trial's record
_COSTS = ("params", "macs")
_OUTCOMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


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


@dataclass(slots=True)
class _Past:
    """What has been read of a study's oldest trials, all of which have ended, so that it is not read again.

    Attributes:
        up_to: Optuna's id of the last of them; trials: how many they are.
        counts: as `Counts` has them.
        started: digest of every trial of the study that is known to have begun, later ones among them.
    """

    up_to: int = -1
    trials: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    started: set[str] = field(default_factory=set)

    def note(self, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Takes in those of the next trials that follow without one that has not ended; returns the rest."""
        self.started.update(row.digest for row in rows if row.started is not None and row.digest is not None)
        ended = next((i for i, row in enumerate(rows) if not row.state.is_finished()), len(rows))
        for row in rows[:ended]:
            self.counts[_outcome(row.state, row.reason)] += 1
            self.up_to, self.trials = row.trial_id, row.number + 1
        return rows[ended:]


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
                time.sleep(RETRY_SECONDS)

    return call


class _Drawn:
    """In the place of Optuna's storage while a trial is drawn: keeps what it would write, one by one."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        self.rows.append(
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
        )


class _Trial(optuna.Trial):
    """Optuna's trial that was made a moment ago: nothing has to be read of it. Drawn values go to a `_Drawn`."""

    def __init__(self, study: optuna.Study, number: int, trial_id: int) -> None:
        self.study, self.storage, self._trial_id = study, study._storage, trial_id
        self._cached_frozen_trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=trial_id,
        )
        study.sampler.before_trial(study, self._cached_frozen_trial)
        self.relative_search_space: dict[str, BaseDistribution] | None = None
        self._relative_params: dict[str, Any] | None = None
        self._fixed_params: dict[str, Any] = {}


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
        self.command = masked_command(record.command)  # older versions kept passwords
        self.created = record.created
        self._id = record.study_id
        self._lease: Lease | None = None
        self._reserved = 0  # reservations that this driver knows of
        self._budget = 0  # the size of the study that they were made for
        self._held: set[int] = set()  # trials that this driver knows it owns
        self._asked: set[int] = set()  # those of them that took the place of a reservation
        self._waited = False  # whether the last reservation was refused
        self._fresh: int | None = None  # the trial that was just made, which has no hyperparameters yet
        self._making = False  # whether a trial was made of which the answer was lost
        self._ids: dict[int, int] = {}  # Optuna's, of the trials that this driver owns
        self._past = _Past()
        self._open_query = self._select_open()
        self._digests: dict[str, int] = {}
        self._digests_up_to = 0
        self._values: dict[int, tuple[float, ...]] = {}
        self._values_up_to = 0
        self._front: list[int] = []
        self._drawn: dict[int, Array] = {}
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
            held = session.execute(_HOLD, {"study": self._id})
            if not held.rowcount:  # type: ignore[attr-defined]
                raise StudyError(f"study {self.config.study!r} was deleted meanwhile; nothing can go on with it")
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
            self._ids.clear()
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
                Unfinished(
                    number=row.number,
                    epochs_done=row.epochs_done or 0,
                    driver=live.get(row.owner or ""),
                    dead=None if row.owner in live else session.get(DriverRecord, row.owner or ""),
                )
                for row in self._running(session)
                if row.reason is None
            ]

    @property
    def reserved(self) -> int:
        """Places that this driver holds for trials it has not asked for yet."""
        return self._reserved

    @_patient
    def reserve(self, trials: int, ahead: int = 1) -> bool:
        """Holds one more place in the budget for this driver; False, and nothing held, when `trials` are taken.

        Up to `ahead` of them at once while there are many, which spares transactions.
        """
        if self._waited and not self._room(trials):
            return False
        with self.storage.session() as session:
            self._lock(session)
            driver = self._driving().renew(session)
            # What is held but not known of, by a call whose answer was lost, is not held twice.
            driver.reserved = min(driver.reserved, self._reserved)
            session.flush()
            free = max(0, trials - self._taken(session))
            driver.reserved += min(free, ahead, 1 + free // SHARE)
            reserved = driver.reserved
        self._reserved, self._budget, self._waited = reserved, trials, not free
        return bool(free)

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
            number, ended = claimed
            if not ended:
                return number, dict(self._draw(number, self.distributions).params)
        return None

    def interrupt(self, number: int) -> None:
        """This driver trains a trial no longer, and may claim it again. Others may when this one has ended."""
        self._held.discard(number)

    @_patient
    def _claim_oldest(self) -> tuple[int, bool] | None:
        """The oldest trial whose driver is gone: its number, and whether all that it lacked was to be told."""
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
            ended = record.reason is not None
            if record.reason is not None:  # recorded by an older skipnas, which told Optuna in a second step
                session.flush()
                self._tell(session, number, record.reason, record.values)
        if not ended:
            self._held.add(number)
        return number, ended

    @_patient
    def _make_trial(self) -> int:
        """An Optuna trial without hyperparameters, owned by this driver; its number."""
        with self.storage.session() as session:
            self._lock(session)
            lease = self._lease if self._reserved else None
            driver = None if lease is None else lease.renew(session)
            made = self._made_unheard(session) if self._making else None
            self._making = True  # until it is known to be committed
            if made is None:
                if driver is not None:
                    self._take_place(session, driver)
                made = self._insert_trial(session)
            reserved = 0 if driver is None else driver.reserved
        self._making = False
        number, self._ids[number] = made
        self._held.add(number)
        if lease is not None:
            self._reserved = reserved
            self._asked.add(number)
        return number

    def _made_unheard(self, session: Session) -> tuple[int, int] | None:
        """Number and Optuna's id of the trial that a call made whose answer was lost."""
        if self._lease is None:
            return None
        made = select(TrialRecord.number).where(
            TrialRecord.study_id == self._id,
            TrialRecord.owner == self._lease.driver,
            TrialRecord.reason.is_(None),
            TrialRecord.started.is_(None),
            TrialRecord.number.not_in(list(self._held)),
        )
        number = session.scalar(made)
        return None if number is None else (number, self._trial_id(number, session))

    def _take_place(self, session: Session, driver: DriverRecord) -> None:
        """Gives up one reservation for the trial that is about to be made."""
        if driver.reserved:
            driver.reserved -= 1
        elif self._taken(session) >= self._budget:
            self._reserved = 0
            raise LeaseLostError(
                f"study {self.config.study}: the reservation ran out with its lease, and other drivers have the place"
            )

    def _insert_trial(self, session: Session) -> tuple[int, int]:
        """Takes the oldest enqueued trial or makes one, as Optuna does, under Optuna's own lock; number and id."""
        trials, study = optuna_tables.TrialModel, optuna_tables.StudyModel
        session.execute(select(study.study_id).where(study.study_id == self._id).with_for_update())
        rows = self._open(session)
        enqueued = next((row.trial_id for row in rows if row.state is TrialState.WAITING), None)
        if enqueued is None:
            trial: Any = trials(study_id=self._id, number=rows[-1].number + 1 if rows else self._past.trials)
            session.add(trial)
        else:
            trial = session.get_one(trials, enqueued)
        trial.state = TrialState.RUNNING
        trial.datetime_start = datetime.now()
        session.flush()
        number = int(trial.number)
        order = self._next_event(session)
        session.add(TrialRecord(study_id=self._id, number=number, owner=self._owner, ask_order=order))
        if enqueued is None:
            self._fresh = number
        return number, int(trial.trial_id)

    @_patient
    def _draw(self, number: int, distributions: Mapping[str, BaseDistribution]) -> optuna.Trial:
        """Draws the hyperparameters that a trial of this driver has not yet, and writes them in one transaction."""
        with self.storage.guard():
            study = self.study
            study._thread_local.cached_all_trials = None  # as Optuna's ask does
            fresh, self._fresh = number == self._fresh, None  # what a lost call wrote is read by the next
            if fresh:
                trial: optuna.Trial = _Trial(study, number, self._ids[number])
            else:
                trial = optuna.Trial(study, study._storage.get_trial_id_from_study_id_trial_number(self._id, number))
            store, trial.storage = trial.storage, (drawn := _Drawn())  # type: ignore[assignment]
            for name, distribution in distributions.items():
                trial._suggest(name, distribution)
            trial.storage = store
        if drawn.rows:
            with self.storage.session() as session:
                session.execute(insert(_PARAMS), drawn.rows)
        return trial

    def _trial_id(self, number: int, session: Session) -> int:
        """Optuna's id of a trial."""
        if number not in self._ids:
            trials = optuna_tables.TrialModel
            found = select(trials.trial_id).where(trials.study_id == self._id, trials.number == number)
            self._ids[number] = session.scalars(found).one()
        return self._ids[number]

    # What the engine asks

    @_patient
    def counts(self) -> Counts:
        """Trials by outcome; of those that have ended only what is new is read."""
        with self.storage.session() as session:
            rows = self._open(session)
        return Counts(**(self._past.counts + Counter(_outcome(row.state, row.reason) for row in rows)))

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
    def started_digests(self) -> Set[str]:
        """Digest of every trial that ever began to train, whatever became of it; the set grows with later calls.

        A failed candidate is among them: a search that goes on after its driver was lost must not propose
        what one that was not interrupted would not.
        """
        with self.storage.session() as session:
            self._open(session)
        return self._past.started

    @_patient
    def under_way(self) -> list[int]:
        """Numbers of the trials that have not ended, whichever driver trains them, ascending."""
        with self.storage.session() as session:
            return [row.number for row in self._running(session)]

    @_patient
    def ended(self) -> Set[int]:
        """Numbers of the trials that have ended."""
        with self.storage.session() as session:
            rows = self._open(session)
        return {*range(self._past.trials), *(row.number for row in rows if row.state.is_finished())}

    @_patient
    def drawn(self, numbers: Sequence[int]) -> Array:
        """Hyperparameters as Optuna stores them, shape (trials, hyperparameters); NaN where none was drawn yet."""
        unread = [number for number in numbers if number not in self._drawn]
        names = {name: column for column, name in enumerate(self.distributions)}
        found = {number: np.full(len(names), np.nan) for number in unread}
        with self.storage.session() as session:
            for first in range(0, len(unread), 500):
                for number, name, value in session.execute(self._select_drawn(unread[first : first + 500])):
                    if name in names:
                        found[number][names[name]] = value
        # One that is being drawn is read again.
        self._drawn.update((number, row) for number, row in found.items() if not np.isnan(row).any())
        rows = [found[number] if number in found else self._drawn[number] for number in numbers]
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))

    @_patient
    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""
        query = self._ended_since(TrialRecord.reason, TrialRecord.values, up_to=self._values_up_to)
        with self.storage.session() as session:
            rows = session.execute(query).all()
        new = {row.number: self._objectives(row.values) for row in rows if row.reason == ""}
        if rows:
            self._values_up_to = rows[-1].tell_order
        if new:
            self._values |= new
            rivals = [*self._front, *new]
            maximize = [objective.direction == "maximize" for objective in self.config.objectives]
            mask = non_dominated(np.array([self._values[number] for number in rivals]), maximize)
            self._front = [number for number, keep in zip(rivals, mask, strict=True) if keep]
        return MappingProxyType(self._values)

    def front(self) -> list[int]:
        """Numbers of the COMPLETE trials that no other dominates, in ascending order."""
        self.objective_values()
        return sorted(self._front)

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
        """Number -> last validated epoch and the objectives' values there, of every trained trial.

        NaN for an objective that a stopped trial does not have.
        """
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
                    self._judged[number] = self.config.epochs, self._objectives(measured)
                elif reason == "stopped" and epoch is not None:
                    known = dict(zip(names, map(float, values), strict=True))
                    self._judged[number] = epoch, tuple(known.get(o.name, math.nan) for o in self.config.objectives)
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
            record.started = record.started or time.time()
            record.worker = worker
            self._describe(session, record, candidate, cost)
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
            done = session.execute(
                update(_TRIALS)
                .where(_TRIALS.c.study_id == self._id, _TRIALS.c.number == number)
                .where(_TRIALS.c.owner.is_not_distinct_from(self._owner), _TRIALS.c.started.is_not(None))
                .values(epochs_done=max(row.epoch for row in rows))
            )
            if not done.rowcount and self._own(session, number).started is None:  # type: ignore[attr-defined]
                raise ValueError(f"trial {number} has epochs but was never started")
            session.execute(
                delete(_EPOCHS)
                .where(_EPOCHS.c.study_id == self._id, _EPOCHS.c.number == number)
                .where(_EPOCHS.c.epoch.in_([row.epoch for row in rows]))
            )
            session.execute(
                insert(_EPOCHS),
                [
                    {"study_id": self._id, "number": number}
                    | {name: _nullable(getattr(row, name)) for name in _EPOCH_COLUMNS}
                    for row in rows
                ],
            )

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """COMPLETE with the values of the study's objectives.

        With `strip` the trial has its picture (see `nas.checkpoint.strip_path`) as an artifact in Optuna.

        Raises:
            ValueError: a value is missing, NaN or infinite, or the trial is not being trained: a bug.
        """
        values = {name: float(value) for name, value in measurement.values.items()}
        if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(wrong)}")
        if missing := [o.name for o in self.config.objectives if o.name not in values]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(missing)} was not measured")
        self._end(number, "", values=values, measurement=measurement, probe=measurement.probe, strip=strip)

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

    def results(self, numbers: Sequence[int] | None = None) -> list[TrialResult]:
        """Every COMPLETE trial, or those of `numbers` that are, by number."""
        columns = (TrialRecord.number, TrialRecord.digest, TrialRecord.spec, TrialRecord.recipe, TrialRecord.values)
        query = select(*columns).where(self._complete()).order_by(TrialRecord.number)
        if numbers is not None:
            query = query.where(TrialRecord.number.in_(numbers))
        with self.storage.session() as session:
            return [TrialResult(**row._mapping) for row in session.execute(query)]

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
        return _measurement(record, self.probe(number))

    def measurements(self) -> dict[str, Measurement]:
        """Digest -> the measurement of every COMPLETE trial, in one query."""
        of_trial = and_(ProbeRecord.study_id == TrialRecord.study_id, ProbeRecord.number == TrialRecord.number)
        query = select(TrialRecord, ProbeRecord).outerjoin(ProbeRecord, of_trial).where(self._complete())
        with self.storage.session() as session:
            rows = session.execute(query).all()
        return {trial.digest or "": _measurement(trial, _curve(probe)) for trial, probe in rows}

    @_patient
    def confirmations(self) -> list[ConfirmedRun]:
        """Every run that confirms a candidate of this study, in the order in which they ended."""
        query = (
            select(ConfirmationRecord)
            .where(ConfirmationRecord.study_id == self._id)
            .order_by(ConfirmationRecord.ended, ConfirmationRecord.repeat, ConfirmationRecord.digest)
        )
        with self.storage.session() as session:
            return [
                ConfirmedRun(
                    digest=r.digest,
                    repeat=r.repeat,
                    seed=r.seed,
                    number=r.number,
                    reference=r.reference,
                    spec=r.spec,
                    recipe=r.recipe,
                    reason=r.reason,
                    detail=r.detail or "",
                    values=r.values or {},
                    gates=tuple(r.gates or ()),
                    seconds=r.seconds,
                )
                for r in session.scalars(query)
            ]

    @_patient
    def confirm(self, run: ConfirmedRun) -> None:
        """Keeps a run that confirms; one of the same candidate and seed that is there already stays."""
        with self.storage.session() as session:
            self._lock(session)
            if session.get(ConfirmationRecord, (self._id, run.digest, run.repeat)) is not None:
                return
            session.add(
                ConfirmationRecord(
                    study_id=self._id,
                    digest=run.digest,
                    repeat=run.repeat,
                    seed=run.seed,
                    number=run.number,
                    reference=run.reference,
                    spec=dict(run.spec),
                    recipe=dict(run.recipe),
                    reason=run.reason,
                    detail=_storable(run.detail) or None,
                    values={name: float(value) for name, value in run.values.items()} or None,
                    gates=[{name: float(value) for name, value in gate.items()} for gate in run.gates],
                    seconds=run.seconds,
                    ended=time.time(),
                )
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

    def epochs_tables(self) -> dict[int, list[EpochRow]]:
        """Number -> epochs in order, of every trial that has any, in one query."""
        query = (
            select(EpochRecord.number, *(getattr(EpochRecord, name) for name in _EPOCH_COLUMNS))
            .where(EpochRecord.study_id == self._id)
            .order_by(EpochRecord.number, EpochRecord.epoch)
        )
        tables: defaultdict[int, list[EpochRow]] = defaultdict(list)
        with self.storage.session() as session:
            for number, *values in session.execute(query):
                row = dict(zip(_EPOCH_COLUMNS, values, strict=True))
                tables[number].append(EpochRow(**row | {"denoise_loss": _loss(row["denoise_loss"])}))
        return dict(tables)

    def probe(self, number: int) -> ProbeCurve:
        """A trial's probe curve, to single precision; empty when it has none."""
        with self.storage.session() as session:
            return _curve(session.get(ProbeRecord, (self._id, number)))

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
        session.execute(_HOLD, {"study": self._id})

    def _next_event(self, session: Session) -> int:
        """The place of an ask or a tell among the study's events; holds the study as `_lock` does."""
        session.execute(_COUNT, {"study": self._id})
        order: int | None = session.scalar(_EVENTS, {"study": self._id})
        assert order is not None
        return order

    def _select_open(self) -> Select[Any]:
        trials = optuna_tables.TrialModel
        columns = (
            TrialRecord.owner,
            TrialRecord.reason,
            TrialRecord.digest,
            TrialRecord.started,
            TrialRecord.epochs_done,
        )
        return (
            select(trials.trial_id, trials.number, trials.state, *columns)
            .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
            .where(trials.study_id == self._id, trials.trial_id > bindparam("after"))
            .order_by(trials.trial_id)
        )

    def _open(self, session: Session) -> Sequence[Row[Any]]:
        """Every trial from the oldest on that has not ended, with what the records have of it.

        Trials are made in turns, so that none appears before one that was read already.
        """
        return self._past.note(session.execute(self._open_query, {"after": self._past.up_to}).all())

    def _select_drawn(self, numbers: Sequence[int]) -> Select[Any]:
        trials, params = optuna_tables.TrialModel, optuna_tables.TrialParamModel
        return (
            select(trials.number, params.param_name, params.param_value)
            .join(params, params.trial_id == trials.trial_id)
            .where(trials.study_id == self._id, trials.number.in_(numbers))
        )

    def _running(self, session: Session) -> list[Row[Any]]:
        """Every trial that Optuna has as RUNNING, with what the records have of it, oldest first."""
        return [row for row in self._open(session) if row.state is TrialState.RUNNING]

    def _orphans(self, session: Session) -> list[int]:
        """Numbers of RUNNING trials that no other driver trains, nor this one as far as it knows."""
        running = [row for row in self._running(session) if row.number not in self._held]
        if not running:
            return []
        others = live_drivers(session, self._id).keys() - {self._owner}
        return [row.number for row in running if row.owner not in others]

    def _room(self, trials: int) -> bool:
        """A look without the lock, which is enough for a driver that waits for a place."""
        with self.storage.session() as session:
            return self._taken(session) < trials

    def _taken(self, session: Session) -> int:
        """Places in the budget that are taken: trained trials, unfinished ones, reservations of live drivers."""
        open_ = sum(
            row.state in (TrialState.COMPLETE, TrialState.PRUNED)
            or (row.state is TrialState.RUNNING and (row.reason is None or row.reason in TRAINED_REASONS))
            for row in self._open(session)
        )
        ended = self._past.counts["complete"] + self._past.counts["pruned"]
        return ended + open_ + sum(driver.reserved for driver in live_drivers(session, self._id).values())

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
        again = record.digest is not None
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
        number, own = record.number, {"spec": canonical_json(spec)}
        self._set_attributes(session, _SYSTEM_ATTRIBUTES, number, constraints, again)
        self._set_attributes(session, _USER_ATTRIBUTES, number, own, again)

    def _set_attributes(
        self, session: Session, table: Table, number: int, attributes: Mapping[str, Any], again: bool
    ) -> None:
        """Writes Optuna's trial attributes within our own transaction: one commit instead of one each.

        With `again` they may be there, and are replaced.
        """
        trial_id = self._trial_id(number, session)
        if again:
            session.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()
        ]
        if rows:
            session.execute(insert(table), rows)

    @_patient
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
        strip: bool = False,
    ) -> None:
        """Records the end of a trial and tells Optuna, in one transaction."""
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
                self._set_attributes(session, _USER_ATTRIBUTES, number, {"reason": reason}, True)
            if strip:  # before Optuna is told: artifacts of a finished trial cannot be added
                artifact = strip_artifact(self._id, number)
                self._set_attributes(session, _SYSTEM_ATTRIBUTES, number, artifact, True)
            session.flush()
            self._tell(session, number, reason, values)
        self._reserved = reserved
        self._held.discard(number)
        self._asked.discard(number)
        self._ids.pop(number, None)

    def _tell(self, session: Session, number: int, reason: str, values: Mapping[str, float] | None) -> None:
        """Ends Optuna's trial as its `tell` does; nothing happens when it has ended."""
        trial_id = self._trial_id(number, session)
        trial: Any = session.get_one(optuna_tables.TrialModel, trial_id, with_for_update=True)
        if trial.state is not TrialState.RUNNING:
            return
        trial.state, trial.datetime_complete = STATES[reason], datetime.now()
        if values is not None:
            kind = optuna_tables.TrialValueModel.TrialValueType.FINITE
            rows = [
                {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}
                for objective, value in enumerate(self._objectives(values))
            ]
            session.execute(insert(_VALUES), rows)


def strip_artifact(study_id: int, number: int) -> dict[str, str]:
    """The attribute by which Optuna and its dashboard know a trial's picture."""
    # An id of an artifact is hexadecimal digits and dashes; this one says where the file is.
    artifact = f"{study_id:x}-{number:x}"
    facts = {"artifact_id": artifact, "filename": f"trial-{number}.png", "mimetype": "image/png", "encoding": None}
    return {f"artifacts:{artifact}": json.dumps(facts)}


def count_trials(session: Session) -> dict[int, Counts]:
    """Counts of each study in the database, in one query."""
    trials = optuna_tables.TrialModel
    query = (
        select(trials.study_id, trials.state, TrialRecord.reason, func.count())
        .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
        .group_by(trials.study_id, trials.state, TrialRecord.reason)
    )
    fields: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for study, state, reason, count in session.execute(query):
        fields[study][_outcome(state, reason)] += count
    return {study: Counts(**counter) for study, counter in fields.items()}


def _outcome(state: TrialState, reason: str | None) -> str:
    """The field of `Counts` that a trial is one of."""
    return str(reason) if state is TrialState.FAIL and reason in REJECTIONS else _OUTCOMES[state]


def _nullable(value: float | None) -> float | None:
    """SQLite turns NaN into NULL; doing it here gives every database the same."""
    return None if value is None or math.isnan(value) else value


def _loss(stored: float | None) -> float:
    return math.nan if stored is None else stored


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL refuses NUL, and no encoder takes a lone surrogate."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


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


def _probe_record(study_id: int, number: int, probe: ProbeCurve) -> ProbeRecord:
    with np.errstate(over="ignore"):  # the loss of a diverged trial may exceed float32: infinity says enough
        return ProbeRecord(
            study_id=study_id,
            number=number,
            steps=np.asarray(probe.steps, "<i4").tobytes(),
            denoise=np.asarray(probe.denoise, "<f4").tobytes(),
            classify=np.asarray(probe.classify, "<f4").tobytes(),
        )
