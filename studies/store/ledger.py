"""The `nas.protocols.Ledger` on SQL: Optuna's study and the project's own records, kept in step.

A trial's end is recorded and told to Optuna in one transaction.

What drivers must agree on (places in the budget, who owns a trial, whether a candidate is new, the order of
events) is decided while holding the study's row. Such transactions begin with a write, because SQLite
cannot wait for its lock once a transaction has read.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    delete,
    insert,
    select,
    update,
)

from nas.errors import LeaseLostError, StorageError, StudyError
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.search.objectives import metric_of
from nas.search.pareto import Array, non_dominated
from nas.search.past import Judged, Propose
from nas.settings import StudyConfig
from nas.training.version import FIRST_VERSION, TRAINING_VERSION
from nas.types import Candidate, Cost, Counts, EpochRow, Measurement, Objective, ProbeCurve, TrialResult, canonical_json
from studies.reading.study import stored_curve, stored_epoch, stored_measurement
from studies.store import statements as sql
from studies.store.leases import Lease, drop_dead, live_drivers
from studies.store.optuna_bridge import (
    PARAMS,
    SYSTEM_ATTRIBUTES,
    USER_ATTRIBUTES,
    VALUES,
    attribute_rows,
    constraint_attributes,
    enqueued_params,
    forget_trials,
    now,
    param_row,
    picture_attribute,
    stored_trial,
    value_rows,
)
from studies.store.patience import patient
from studies.store.progress import Past
from studies.store.records import (
    ConfirmationRecord,
    DriverRecord,
    EpochRecord,
    ProbeRecord,
    StudyRecord,
    TrialRecord,
    epoch_columns,
    group_of,
    insert_missing,
)
from studies.store.urls import masked_command

if TYPE_CHECKING:
    from studies.store.connection import Storage

log = logging.getLogger(__name__)
SHARE = 32
"""A driver that reserves places ahead takes at most one of so many that are free, so that others find some too."""


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


class SqlLedger:
    """One study of an open `Storage`; see `nas.protocols.Ledger` for what each method promises.

    As a context manager it closes the storage it came from.

    Attributes:
        provenance: versions, commit, hardware and the like, as given when the study was created.
        command: the command line that created the study.
        created: when, in seconds since the epoch.
        training_version: of the training code that trains what is asked for here. Figures of different versions do not
            compare, so that trials of another one are neither rivals at a rung nor originals of a duplicate.
    """

    def __init__(self, storage: Storage, name: str, record: StudyRecord) -> None:
        self.storage = storage
        self.study = optuna.load_study(study_name=name, storage=storage.optuna)
        self.config = StudyConfig.from_dict(record.config)
        self.distributions: dict[str, BaseDistribution] = {
            name: json_to_distribution(text) for name, text in record.distributions.items()
        }
        self.provenance: Mapping[str, Any] = record.provenance
        self.command = masked_command(record.command)  # older versions kept passwords
        self.created = record.created
        self.training_version = TRAINING_VERSION
        self.study_id = self._id = record.study_id
        self._lease: Lease | None = None
        self._reserved = 0  # reservations that this driver knows of
        self._budget = 0  # the size of the study that they were made for
        self._held: set[int] = set()  # trials that this driver knows it owns
        self._asked: set[int] = set()  # those of them that took the place of a reservation
        self._waited = False  # whether the last reservation was refused
        self._making = False  # whether a trial was made of which the answer was lost
        self._ids: dict[int, int] = {}  # Optuna's, of the trials that this driver owns
        self._past = Past()
        at_rungs = [objective.name for objective in self.rung_objectives()]
        self._rung_query, self._judged_query = sql.at_rung(at_rungs), sql.judged(at_rungs)
        self._digests: dict[str, int] = {}
        self._digests_up_to = 0
        self._values: dict[int, tuple[float, ...]] = {}
        self._values_up_to = 0
        self._front: list[int] = []
        self._drawn: dict[int, Array] = {}
        self._judged: dict[int, tuple[int, tuple[float, ...]]] = {}
        self._judged_up_to = 0
        self._rungs: dict[tuple[int, int], tuple[dict[int, tuple[float, ...]], int]] = {}

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
        with self.storage.transaction() as connection:
            if not connection.execute(sql.HOLD, {"study": self._id}).rowcount:
                raise StudyError(f"study {self.config.study!r} was deleted meanwhile; nothing can go on with it")
            drop_dead(connection, self._id)
            lease.renew(connection)
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
            with self.storage.transaction() as connection:
                self._lock(connection)
                connection.execute(
                    update(sql.TRIALS)
                    .where(sql.TRIALS.c.study_id == self._id, sql.TRIALS.c.owner == lease.driver)
                    .where(sql.TRIALS.c.reason.is_(None))
                    .values(owner=None)
                )
                connection.execute(delete(sql.DRIVERS).where(sql.DRIVERS.c.driver == lease.driver))
        except StorageError as error:
            log.warning("%s; the lease runs out by itself", error)

    def unfinished(self) -> list[Unfinished]:
        """Every trial that has not ended, and who trains it, by number."""
        with self.storage.session() as session:
            live = live_drivers(session.connection(), self._id)
            return [
                Unfinished(
                    number=row.number,
                    epochs_done=row.epochs_done or 0,
                    driver=live.get(row.owner or ""),
                    dead=None if row.owner in live else session.get(DriverRecord, row.owner or ""),
                )
                for row in self._running(session.connection())
                if row.reason is None
            ]

    @property
    def drives(self) -> bool:
        """Whether this process is a driver of the study now."""
        return self._lease is not None

    @property
    def reserved(self) -> int:
        """Places that this driver holds for trials it has not asked for yet."""
        return self._reserved

    @patient
    def reserve(self, trials: int, ahead: int = 1) -> bool:
        """Holds one more place in the budget for this driver; False, and nothing held, when `trials` are taken.

        Up to `ahead` of them at once while there are many, which spares transactions.
        """
        if self._waited and not self._room(trials):
            return False
        with self.storage.transaction() as connection:
            self._lock(connection)
            # What is held but not known of, by a call whose answer was lost, is not held twice.
            held = self._driving().renew(connection)
            reserved = min(held, self._reserved)
            free = max(0, trials - (self._taken(connection) - (held - reserved)))
            reserved += min(free, ahead, 1 + free // SHARE)
            self._keep(connection, reserved)
        self._reserved, self._budget, self._waited = reserved, trials, not free
        return bool(free)

    def ask(self, propose: Propose) -> tuple[int, dict[str, Any]]:
        """Takes the oldest enqueued trial or makes one: its number and hyperparameters.

        A reservation, if the driver holds any, becomes the trial's place in the budget.

        Raises:
            LeaseLostError: the lease ran out since the reservation, and the budget is full by now.
        """
        number, blank = self._make_trial()
        return number, self._complete_params(number, propose, {} if blank else None)

    def claim(self, propose: Propose) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial whose driver is gone: number and hyperparameters, or None.

        A trial whose end is in the records is told on the way.
        """
        while (claimed := self._claim_oldest()) is not None:
            number, ended = claimed
            if not ended:
                return number, self._complete_params(number, propose)
        return None

    def interrupt(self, number: int) -> None:
        """This driver trains a trial no longer, and may claim it again. Others may when this one has ended."""
        self._held.discard(number)

    @patient
    def _claim_oldest(self) -> tuple[int, bool] | None:
        """The oldest trial whose driver is gone: its number, and whether all that it lacked was to be told."""
        with self.storage.transaction() as connection:
            if not self._orphans(connection):
                return None
        with self.storage.transaction() as connection:
            self._lock(connection)
            if self._lease is not None:
                self._lease.renew(connection)
            orphans = self._orphans(connection)
            if not orphans:
                return None
            number = orphans[0]
            key = {"study": self._id, "trial": number}
            record = connection.execute(sql.TRIAL, key).one_or_none()
            if record is None:  # asked for by plain Optuna
                connection.execute(insert(sql.TRIALS), {"study_id": self._id, "number": number, "owner": self._owner})
            else:
                connection.execute(sql.CHANGE_TRIAL, key | {"owner": self._owner})
            ended = record is not None and record.reason is not None
            if ended:  # recorded by an older skipnas, which told Optuna in a second step
                reason, values = connection.execute(sql.END_OF_TRIAL, key).one()
                self._tell(connection, number, Outcome.read(reason), values)
        if not ended:
            self._held.add(number)
        return number, ended

    @patient
    def _make_trial(self) -> tuple[int, bool]:
        """An Optuna trial, owned by this driver: its number, and whether nothing is known of it yet."""
        with self.storage.transaction() as connection:
            self._lock(connection)
            lease = self._lease if self._reserved else None
            reserved = 0 if lease is None else lease.renew(connection)
            unheard = self._made_unheard(connection) if self._making else None
            self._making = True  # until it is known to be committed
            if unheard is None and lease is not None:
                reserved = self._take_place(connection, reserved)
            number, blank = self._insert_trial(connection) if unheard is None else (unheard, False)
        self._making = False
        self._held.add(number)
        if lease is not None:
            self._reserved = reserved
            self._asked.add(number)
        return number, blank

    def _made_unheard(self, connection: Connection) -> int | None:
        """The number of the trial that a call made whose answer was lost."""
        if self._lease is None:
            return None
        made = select(sql.TRIALS.c.number).where(
            sql.TRIALS.c.study_id == self._id,
            sql.TRIALS.c.owner == self._lease.driver,
            sql.TRIALS.c.reason.is_(None),
            sql.TRIALS.c.started.is_(None),
            sql.TRIALS.c.number.not_in(list(self._held)),
        )
        number: int | None = connection.scalar(made)
        return number

    def _take_place(self, connection: Connection, reserved: int) -> int:
        """Gives up one of the reservations for the trial that is about to be made; returns how many are left."""
        if reserved:
            self._keep(connection, reserved - 1)
            return reserved - 1
        if self._taken(connection) >= self._budget:
            self._reserved = 0
            raise LeaseLostError(
                f"study {self.config.study}: the reservation ran out with its lease, and other drivers have the place"
            )
        return 0

    def _insert_trial(self, connection: Connection) -> tuple[int, bool]:
        """Takes the oldest enqueued trial or makes one, as Optuna does, under Optuna's own lock.

        Returns its number, and whether it was made.
        """
        connection.execute(sql.HOLD_OPTUNAS, {"study": self._id})
        rows = self._open(connection)
        enqueued = next((row for row in rows if row.state is TrialState.WAITING), None)
        begun = {"state": TrialState.RUNNING, "datetime_start": now()}
        if enqueued is None:
            number = rows[-1].number + 1 if rows else self._past.trials
            made = {"study_id": self._id, "number": number} | begun
            self._ids[number] = connection.execute(sql.MAKE_OPTUNAS, made).scalar_one()
        else:
            number = enqueued.number
            self._ids[number] = enqueued.trial_id
            connection.execute(sql.CHANGE_OPTUNAS, {"id": enqueued.trial_id} | begun)
        order = self._next_event(connection)
        row = {"study_id": self._id, "number": number, "owner": self._owner, "ask_order": order}
        connection.execute(insert(sql.TRIALS), row)
        return number, enqueued is None

    def _complete_params(self, number: int, propose: Propose, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All hyperparameters of a trial of this driver; `propose` gives those that it lacks, and they are written.

        Args:
            number: of the trial.
            propose: see `nas.search.past`.
            known: hyperparameters that the trial has, by name; None when they are to be read.
        """
        enqueued: Mapping[str, Any] = {}
        if known is None:
            known, enqueued = self._read_params(number)
        params = {**enqueued, **known}
        if not params.keys() >= self.distributions.keys():
            params = {**self._proposed(number, propose), **params}
        params = {name: params[name] for name in self.distributions}
        self._write_params(number, {name: value for name, value in params.items() if name not in known})
        return params

    @patient
    def _read_params(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Hyperparameters that a trial has, and those that it was enqueued with."""
        _, trial = self.as_optuna(number)
        return trial.params, enqueued_params(trial)

    @patient
    def _proposed(self, number: int, propose: Propose) -> dict[str, Any]:
        with self.storage.guard():
            return propose(number, self)

    @patient
    def _write_params(self, number: int, params: Mapping[str, Any]) -> None:
        """Writes hyperparameters in one transaction; those that a lost call wrote are there already."""
        if not params:
            return
        with self.storage.transaction() as connection:
            trial_id = self._trial_id(number, connection)
            rows = [
                param_row(trial_id, name, self.distributions[name].to_internal_repr(value), self.distributions[name])
                for name, value in params.items()
            ]
            connection.execute(insert_missing(connection.dialect.name, PARAMS), rows)

    def as_optuna(self, number: int) -> tuple[optuna.Study, FrozenTrial]:
        """The study and one of its trials as Optuna's own samplers take them; trials are read anew."""
        with self.storage.guard():
            forget_trials(self.study)
            return self.study, stored_trial(self.storage.optuna, self._id, number)

    def _trial_id(self, number: int, connection: Connection) -> int:
        """Optuna's id of a trial."""
        if number not in self._ids:
            self._ids[number] = connection.execute(sql.ID_OF_OPTUNAS, {"study": self._id, "trial": number}).scalar_one()
        return self._ids[number]

    # What the engine asks

    @patient
    def counts(self) -> Counts:
        """Trials by outcome; of those that have ended only what is new is read."""
        with self.storage.transaction() as connection:
            rows = self._open(connection)
        return Counts(**(self._past.counts + Counter(group_of(row.state, row.reason) for row in rows)))

    @patient
    def trained_digests(self) -> Mapping[str, int]:
        """Digest -> number of every trial that was trained to an end; a digest's first trial stands."""
        # Ends are committed in their order, by this process or another, so reading on from the last is enough.
        with self.storage.transaction() as connection:
            for row in connection.execute(sql.ENDED, {"study": self._id, "after": self._digests_up_to}):
                self._digests.setdefault(row.digest, row.number)
                self._digests_up_to = row.tell_order
        return MappingProxyType(self._digests)

    @patient
    def started_digests(self) -> Set[str]:
        """Digest of every trial that this version began to train, whatever became of it; the set grows by later calls.

        A failed candidate is among them: a search that goes on after its driver was lost must not propose
        what one that was not interrupted would not.
        """
        with self.storage.transaction() as connection:
            self._open(connection)
        return self._past.started[self.training_version]

    @patient
    def under_way(self) -> list[int]:
        """Numbers of the trials that have not ended, whichever driver trains them, ascending."""
        with self.storage.transaction() as connection:
            return [row.number for row in self._running(connection)]

    @patient
    def ended(self) -> Set[int]:
        """Numbers of the trials that have ended."""
        with self.storage.transaction() as connection:
            rows = self._open(connection)
        return {*range(self._past.trials), *(row.number for row in rows if row.state.is_finished())}

    @patient
    def drawn(self, numbers: Sequence[int]) -> Array:
        """Hyperparameters as Optuna stores them, shape (trials, hyperparameters); NaN where none was drawn yet."""
        unread = [number for number in numbers if number not in self._drawn]
        names = {name: column for column, name in enumerate(self.distributions)}
        found = {number: np.full(len(names), np.nan) for number in unread}
        with self.storage.transaction() as connection:
            for first in range(0, len(unread), 500):
                some = {"study": self._id, "trials": unread[first : first + 500]}
                for number, name, value in connection.execute(sql.DRAWN, some):
                    if name in names:
                        found[number][names[name]] = value
        # One that is being drawn is read again.
        self._drawn.update((number, row) for number, row in found.items() if not np.isnan(row).any())
        rows = [found[number] if number in found else self._drawn[number] for number in numbers]
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))

    @patient
    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""
        with self.storage.transaction() as connection:
            rows = connection.execute(sql.ENDED, {"study": self._id, "after": self._values_up_to}).all()
        new = {row.number: self._objectives(row.measured) for row in rows if row.reason == ""}
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
        """The study's objectives that are known wherever trials are validated (see `Metric.at_rungs`)."""
        return tuple(o for o in self.config.objectives if metric_of(o.name).at_rungs)

    @patient
    def rung(self, epoch: int) -> dict[int, tuple[float, ...]]:
        """Number -> values of `rung_objectives` at `epoch` of every trial that was validated there, by number.

        Trials of another version of the training code are left out, because their figures do not compare. What the
        study's oldest trials showed, all of which have ended, is read once.
        """
        key = {"study": self._id, "rung": epoch, "version": self.training_version}
        ended = self._past.trials
        known, read = self._rungs.get((epoch, self.training_version), ({}, 0))
        with self.storage.transaction() as connection:
            rows = connection.execute(self._rung_query, key | {"from": read})
            found = {number: tuple(map(float, values)) for number, *values in rows}
        known |= {number: values for number, values in found.items() if number < ended}
        self._rungs[epoch, self.training_version] = known, ended
        return known | found

    @patient
    def judged(self) -> Judged:
        """Number -> last validated epoch and the objectives' values there, of every trained trial.

        NaN for an objective that a stopped trial does not have.
        """
        names = [o.name for o in self.rung_objectives()]
        with self.storage.transaction() as connection:
            rows = connection.execute(self._judged_query, {"study": self._id, "after": self._judged_up_to})
            for number, tell_order, reason, measured, epoch, *values in rows:
                if (outcome := Outcome.read(reason)) is Outcome.COMPLETE:
                    self._judged[number] = self.config.epochs, self._objectives(measured)
                elif outcome is Outcome.STOPPED and epoch is not None:
                    known = dict(zip(names, map(float, values), strict=True))
                    self._judged[number] = epoch, tuple(known.get(o.name, math.nan) for o in self.config.objectives)
                else:
                    self._judged[number] = 0, ()
                self._judged_up_to = tell_order
        return MappingProxyType(self._judged)

    # What the engine writes

    @patient
    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """A trial begins to train, or goes on: the first start time stays.

        False, and nothing happens, when this version of the training code has trained another trial of the same
        digest to an end, or one was started and has not ended, whoever has it: an interrupted one will go on. A trial
        that another version began starts again, so that its epochs go.
        """
        with self.storage.transaction() as connection:
            self._lock(connection)
            record = self._own(connection, number)
            if record.reason is not None:
                raise ValueError(f"trial {number} has ended already ({Outcome.read(record.reason)})")
            twin = {"study": self._id, "twin": candidate.digest, "trial": number, "version": self.training_version}
            if connection.scalar(sql.TWIN, twin) is not None:
                return False
            changes = self._describe(connection, record, number, candidate, cost)
            changes |= {"started": record.started or time.time(), "worker": worker}
            changes["training_version"] = self.training_version
            if record.started is not None and record.training_version != self.training_version:
                connection.execute(sql.DROP_ALL_EPOCHS, {"study": self._id, "trial": number})
                changes["epochs_done"] = 0
            if record.ask_order is None:
                changes["ask_order"] = self._next_event(connection)
            connection.execute(sql.CHANGE_TRIAL, {"study": self._id, "trial": number} | changes)
        self._held.add(number)
        self._asked.discard(number)
        return True

    @patient
    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""
        if not rows:
            return
        with self.storage.transaction() as connection:
            # The write holds the trial until the commit, so that it is not claimed meanwhile.
            key = {"study": self._id, "trial": number}
            last = max(row.epoch for row in rows)
            done = connection.execute(sql.CHANGE_EPOCHS_DONE, key | {"own": self._owner, "last": last})
            if not done.rowcount and self._own(connection, number).started is None:
                raise ValueError(f"trial {number} has epochs but was never started")
            connection.execute(sql.DROP_EPOCHS, key | {"epochs": [row.epoch for row in rows]})
            connection.execute(
                insert(sql.EPOCHS),
                [{"study_id": self._id, "number": number} | epoch_columns(row) for row in rows],
            )

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """COMPLETE with the values of the study's objectives.

        With `strip` the trial has its picture (see `nas.training.checkpoint.strip_path`) as an artifact in Optuna.

        Raises:
            ValueError: a value is missing, NaN or infinite, or the trial is not being trained: a bug.
        """
        values = {name: float(value) for name, value in measurement.values.items()}
        if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(wrong)}")
        if missing := [o.name for o in self.config.objectives if o.name not in values]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(missing)} was not measured")
        self._end(
            number, Outcome.COMPLETE, values=values, measurement=measurement, probe=measurement.probe, strip=strip
        )

    def prune(self, number: int, outcome: Outcome, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """Ends a trial that was trained without values: an outcome whose state is PRUNED."""
        if outcome.state != "PRUNED":
            raise ValueError(f"{outcome.value!r} is no outcome to prune with")
        self._end(number, outcome, detail=detail, probe=probe)

    def fail(self, number: int, outcome: Outcome, *, detail: str = "") -> None:
        """Ends a trial that says nothing of its candidate: an outcome whose state is FAIL."""
        if outcome.state != "FAIL":
            raise ValueError(f"{outcome.value!r} is no outcome to fail with")
        self._end(number, outcome, detail=detail)

    def reject(self, number: int, candidate: Candidate, cost: Cost, outcome: Outcome) -> None:
        """Ends a trial before training, a duplicate or one over a limit, with what was proposed.

        The reservation that the trial was asked with is one again.
        """
        if not outcome.rejected:
            raise ValueError(f"{outcome.value!r} is no outcome to reject with")
        self._end(number, outcome, proposed=(candidate, cost))

    # What people read

    def results(self, numbers: Sequence[int] | None = None) -> list[TrialResult]:
        """Every COMPLETE trial, or those of `numbers` that are, by number."""
        columns = (TrialRecord.number, TrialRecord.digest, TrialRecord.spec, TrialRecord.recipe, TrialRecord.values)
        query = select(*columns, sql.TRAINED_BY).where(self._complete()).order_by(TrialRecord.number)
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
        return stored_measurement(record, self.probe(number))

    def measurements(self) -> dict[str, Measurement]:
        """Digest -> the measurement of every COMPLETE trial of this version of the training code, in one query."""
        of_trial = and_(ProbeRecord.study_id == TrialRecord.study_id, ProbeRecord.number == TrialRecord.number)
        query = select(TrialRecord, ProbeRecord).outerjoin(ProbeRecord, of_trial)
        query = query.where(self._complete(), sql.OF_VERSION)
        with self.storage.session() as session:
            rows = session.execute(query, {"version": self.training_version}).all()
        return {trial.digest or "": stored_measurement(trial, stored_curve(probe)) for trial, probe in rows}

    @patient
    def training_versions(self) -> dict[int, int]:
        """Version of the training code -> how many trials it trained to an end, oldest version first."""
        with self.storage.transaction() as connection:
            rows = connection.execute(sql.TRAINING_VERSIONS, {"study": self._id}).all()
        return dict(sorted((version, count) for version, count in rows))

    @patient
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
                    outcome=Outcome.read(r.reason),
                    detail=r.detail or "",
                    values=r.values or {},
                    gates=tuple(r.gates or ()),
                    seconds=r.seconds,
                    training_version=r.training_version or FIRST_VERSION,
                )
                for r in session.scalars(query)
            ]

    @patient
    def confirm(self, run: ConfirmedRun) -> None:
        """Keeps a run that confirms; one of the same candidate, seed and training code that is there already stays.

        One of another version of the training code gives way.
        """
        with self.storage.session() as session:
            self._lock(session.connection())
            there = session.get(ConfirmationRecord, (self._id, run.digest, run.repeat))
            if there is not None:
                if (there.training_version or FIRST_VERSION) == run.training_version:
                    return
                session.delete(there)
                session.flush()
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
                    reason=run.outcome,
                    detail=_storable(run.detail) or None,
                    values={name: float(value) for name, value in run.values.items()} or None,
                    gates=[{name: float(value) for name, value in gate.items()} for gate in run.gates],
                    seconds=run.seconds,
                    ended=time.time(),
                    training_version=run.training_version,
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
            return [stored_epoch(record) for record in session.scalars(query)]

    def epochs_tables(self) -> dict[int, list[EpochRow]]:
        """Number -> epochs in order, of every trial that has any, in one query."""
        query = (
            select(sql.EPOCHS).where(EpochRecord.study_id == self._id).order_by(EpochRecord.number, EpochRecord.epoch)
        )
        tables: defaultdict[int, list[EpochRow]] = defaultdict(list)
        with self.storage.session() as session:
            for record in session.execute(query):
                tables[record.number].append(stored_epoch(record))
        return dict(tables)

    def probe(self, number: int) -> ProbeCurve:
        """A trial's probe curve, to single precision; empty when it has none."""
        with self.storage.session() as session:
            return stored_curve(session.get(ProbeRecord, (self._id, number)))

    # Inside

    def _trials(self) -> Select[TrialRecord]:
        return select(TrialRecord).where(TrialRecord.study_id == self._id)

    def _complete(self) -> ColumnElement[bool]:
        return and_(TrialRecord.study_id == self._id, TrialRecord.reason == "")

    def _objectives(self, values: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(values[objective.name] for objective in self.config.objectives)

    @property
    def _owner(self) -> str | None:
        return None if self._lease is None else self._lease.driver

    def _driving(self) -> Lease:
        if self._lease is None:
            raise RuntimeError("only a driver holds reservations; call this within drive()")
        return self._lease

    def _lock(self, connection: Connection) -> None:
        """Holds the study until the transaction ends."""
        connection.execute(sql.HOLD, {"study": self._id})

    def _keep(self, connection: Connection, reserved: int) -> None:
        """Sets how many places this driver, which renewed its lease a moment ago, holds."""
        connection.execute(sql.CHANGE_DRIVER, {"own": self._driving().driver, "reserved": reserved})

    def _next_event(self, connection: Connection) -> int:
        """The place of an ask or a tell among the study's events; holds the study as `_lock` does."""
        order: int = connection.execute(sql.COUNT, {"study": self._id}).scalar_one()
        return order

    def _open(self, connection: Connection) -> Sequence[Row[Any]]:
        """Every trial from the oldest on that has not ended, with what the records have of it.

        Trials are made in turns, so that none appears before one that was read already.
        """
        return self._past.note(connection.execute(sql.OPEN, {"study": self._id, "after": self._past.up_to}).all())

    def _running(self, connection: Connection) -> list[Row[Any]]:
        """Every trial that Optuna has as RUNNING, with what the records have of it, oldest first."""
        return [row for row in self._open(connection) if row.state is TrialState.RUNNING]

    def _orphans(self, connection: Connection) -> list[int]:
        """Numbers of RUNNING trials that no other driver trains, nor this one as far as it knows."""
        running = [row for row in self._running(connection) if row.number not in self._held]
        if not running:
            return []
        others = live_drivers(connection, self._id).keys() - {self._owner}
        return [row.number for row in running if row.owner not in others]

    def _room(self, trials: int) -> bool:
        """A look without the lock, which is enough for a driver that waits for a place."""
        with self.storage.transaction() as connection:
            return self._taken(connection) < trials

    def _taken(self, connection: Connection) -> int:
        """Places in the budget that are taken: trained trials, unfinished ones, reservations of live drivers."""
        open_ = sum(
            row.state in (TrialState.COMPLETE, TrialState.PRUNED)
            # One that has a reason was recorded by an older skipnas, which told Optuna in a second step.
            or (row.state is TrialState.RUNNING and Outcome.read(row.reason).takes_place)
            for row in self._open(connection)
        )
        ended = self._past.counts["complete"] + self._past.counts["pruned"]
        return ended + open_ + sum(driver.reserved for driver in live_drivers(connection, self._id).values())

    def _own(self, connection: Connection, number: int) -> Row[Any]:
        """What `sql.TRIAL` reads of a trial of this driver; it has a record from now on if plain Optuna asked for it.

        Raises:
            LeaseLostError: the trial is another driver's, or has to be claimed first.
        """
        key = {"study": self._id, "trial": number}
        record = connection.execute(sql.TRIAL, key).one_or_none()
        if record is None:
            connection.execute(insert(sql.TRIALS), {"study_id": self._id, "number": number, "owner": self._owner})
            record = connection.execute(sql.TRIAL, key).one()
        if record.owner != self._owner:
            self._held.discard(number)
            self._asked.discard(number)
            raise LeaseLostError(f"trial {number} of study {self.config.study} belongs to another driver")
        return record

    def _describe(
        self, connection: Connection, record: Row[Any], number: int, candidate: Candidate, cost: Cost
    ) -> dict[str, Any]:
        """Columns of what a trial proposes; tells Optuna of it, and whether it keeps the study's limits."""
        again = record.digest is not None
        spec = candidate.spec.to_dict()
        constraints = constraint_attributes({c.name: c.violation(cost) for c in self.config.constraints})
        self._set_attributes(connection, SYSTEM_ATTRIBUTES, number, constraints, again)
        self._set_attributes(connection, USER_ATTRIBUTES, number, {"spec": canonical_json(spec)}, again)
        return {
            "digest": candidate.digest,
            "spec": spec,
            "recipe": candidate.recipe.to_dict(),
            "params": cost.params,
            "macs": cost.macs,
        }

    def _set_attributes(
        self, connection: Connection, table: Table, number: int, attributes: Mapping[str, Any], again: bool
    ) -> None:
        """Writes Optuna's trial attributes within our own transaction: one commit instead of one each.

        With `again` they may be there, and are replaced.
        """
        trial_id = self._trial_id(number, connection)
        if again:
            connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
        if attributes:
            connection.execute(insert(table), attribute_rows(trial_id, attributes))

    @patient
    def _end(
        self,
        number: int,
        outcome: Outcome,
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
        with self.storage.transaction() as connection:
            self._lock(connection)
            record = self._own(connection, number)
            if record.reason is not None:
                if record.reason == outcome.stored and number in self._held:
                    return  # done by a call whose answer was lost
                raise ValueError(f"trial {number} has ended already ({Outcome.read(record.reason)})")
            if record.started is None and outcome.trained:
                raise ValueError(f"trial {number} was never started")
            changes: dict[str, Any] = {
                "reason": outcome.stored,
                "detail": _storable(detail) or None,
                "ended": time.time(),
            }
            if proposed is not None:
                changes |= self._describe(connection, record, number, *proposed)
                if self._lease is not None and number in self._asked:
                    reserved = self._lease.renew(connection) + 1
                    self._keep(connection, reserved)
            changes["tell_order"] = self._next_event(connection)
            if measurement is not None:
                changes |= {
                    "values": values,
                    "latency": measurement.values.get("latency"),
                    "gates": [{name: float(value) for name, value in gate.items()} for gate in measurement.gates],
                    "seconds": measurement.seconds,
                    "peak_memory": measurement.peak_memory,
                    "seed": measurement.seed,
                }
            connection.execute(sql.CHANGE_TRIAL, {"study": self._id, "trial": number} | changes)
            if probe is not None:
                connection.execute(insert(sql.PROBES), {"study_id": self._id, "number": number} | _probe_columns(probe))
            if outcome.stored:
                self._set_attributes(connection, USER_ATTRIBUTES, number, {"reason": outcome.stored}, True)
            if strip:  # before Optuna is told: artifacts of a finished trial cannot be added
                artifact = picture_attribute(self._id, number)
                self._set_attributes(connection, SYSTEM_ATTRIBUTES, number, artifact, True)
            self._tell(connection, number, outcome, values)
        self._reserved = reserved
        self._held.discard(number)
        self._asked.discard(number)
        self._ids.pop(number, None)

    def _tell(self, connection: Connection, number: int, outcome: Outcome, values: Mapping[str, float] | None) -> None:
        """Ends Optuna's trial as its `tell` does; nothing happens when it has ended."""
        trial_id = self._trial_id(number, connection)
        if connection.execute(sql.STATE_OF_OPTUNAS, {"id": trial_id}).scalar_one() is not TrialState.RUNNING:
            return
        ended = {"id": trial_id, "state": TrialState[outcome.state], "datetime_complete": now()}
        connection.execute(sql.CHANGE_OPTUNAS, ended)
        if values is not None:
            connection.execute(insert(VALUES), value_rows(trial_id, self._objectives(values)))


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL refuses NUL, and no encoder takes a lone surrogate."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _probe_columns(probe: ProbeCurve) -> dict[str, bytes]:
    with np.errstate(over="ignore"):  # the loss of a diverged trial may exceed float32: infinity says enough
        return {
            "steps": np.asarray(probe.steps, "<i4").tobytes(),
            "denoise": np.asarray(probe.denoise, "<f4").tobytes(),
            "classify": np.asarray(probe.classify, "<f4").tobytes(),
        }
