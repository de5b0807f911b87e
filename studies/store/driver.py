"""A process as a driver of a study: its lease, its places in the budget, and the trials that it owns.

What drivers must agree on (places in the budget, who owns a trial, whether a candidate is new, the order of
events) is decided while holding the study's row. Such transactions begin with a write, because SQLite
cannot wait for its lock once a transaction has read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Row, delete, insert, select, update

from nas.errors import LeaseLostError, StorageError, StudyError
from nas.outcome import Outcome
from studies.store import statements as sql
from studies.store.by_hand import record_ends
from studies.store.disks import refuse_shared_disk
from studies.store.leases import Lease, drop_dead, live_drivers
from studies.store.opened import OpenedStudy
from studies.store.optuna_bridge import begin_trial, end_trial, find_trial, hold_study, make_trial, trial_state
from studies.store.progress import Progress
from studies.store.retries import patient

log = logging.getLogger(__name__)
SHARE = 32
"""A driver that reserves places ahead takes at most one of so many that are free, so that others find some too."""


class Driver:
    """Decides, together with the other drivers of a study, what this process may train and write.

    Outside of `drive` it owns the trials that nobody else does, which is what commands and tests write to.
    """

    def __init__(self, study: OpenedStudy, progress: Progress) -> None:
        self._study, self._progress, self._id = study, progress, study.study_id
        self.patience = study.patience
        self._lease: Lease | None = None
        self._reserved = 0  # reservations that this driver knows of
        self._budget = 0  # the size of the study that they were made for
        self._waited = False  # whether the last reservation was refused
        self._held: set[int] = set()  # trials that this driver knows it owns
        self._asked: set[int] = set()  # those of them that took the place of a reservation
        self._making = False  # whether a trial was made of which the answer was lost
        self._optuna_ids: dict[int, int] = {}  # of trials that this driver owns

    # The lease

    @property
    def owner(self) -> str | None:
        """The id of this driver, which the records of its trials bear; None outside of `drive`."""
        return None if self._lease is None else self._lease.driver

    @contextmanager
    def drive(self) -> Iterator[None]:
        """Makes this process a driver of the study while the block runs.

        Its lease is renewed in the background. At the end its reservations are given back and its
        unfinished trials are anyone's to claim; if it is killed, as soon as others see that it is dead.
        Meanwhile a database that is gone is waited for, `PATIENCE_SECONDS` long at each call.
        """
        if self._lease is not None:
            raise RuntimeError("this ledger drives its study already")
        refuse_shared_disk(self._study.storage.url)
        lease = Lease(self._study.storage, self._id)
        with self._study.storage.transaction() as connection:
            self.hold(connection)
            record_ends(connection, self._id, self._study.config)
            drop_dead(connection, self._id)
            lease.renew(connection)
        self._lease, self.patience.waits = lease, True
        try:
            with lease.kept():
                yield
        finally:
            self._lease, self.patience.waits = None, False
            self._reserved = 0
            self._held.clear()
            self._asked.clear()
            self._optuna_ids.clear()
            self._abandon(lease)

    def _abandon(self, lease: Lease) -> None:
        try:
            with self._study.storage.transaction() as connection:
                self.hold(connection)
                record_ends(connection, self._id, self._study.config)
                connection.execute(
                    update(sql.TRIALS)
                    .where(sql.TRIALS.c.study_id == self._id, sql.TRIALS.c.owner == lease.driver)
                    .where(sql.TRIALS.c.reason.is_(None))
                    .values(owner=None)
                )
                connection.execute(delete(sql.DRIVERS).where(sql.DRIVERS.c.driver == lease.driver))
        except StorageError as error:
            log.warning("%s; the lease runs out by itself", error)
        except StudyError:  # deleted, with its drivers and trials
            pass

    # Turns

    def hold(self, connection: Connection) -> None:
        """Holds the study until the transaction ends: other drivers wait for their turn.

        Raises:
            StudyError: the study was deleted, also if another one has its name and number by now.
        """
        own = {"study": self._id, "own_identity": self._study.identity}
        if not connection.execute(sql.HOLD, own).rowcount:
            raise self._deleted()

    def _deleted(self) -> StudyError:
        return StudyError(f"study {self._study.config.study!r} was deleted meanwhile; nothing can go on with it")

    def next_event(self, connection: Connection) -> int:
        """The place of an ask or a tell among the study's events; holds the study as `hold` does."""
        order: int = connection.execute(sql.COUNT, {"study": self._id}).scalar_one()
        return order

    # Places in the budget

    @property
    def reserved(self) -> int:
        """Places that this driver holds for trials it has not asked for yet."""
        return self._reserved

    @patient
    def reserve(self, trials: int, ahead: int = 1) -> bool:
        """Holds one more place in the budget for this driver; False, and nothing held, when `trials` are taken.

        Up to `ahead` of them at once while there are many, which spares transactions.
        """
        lease = self._lease
        if lease is None:
            raise RuntimeError("only a driver holds reservations; call this within drive()")
        if self._waited and not self._room(trials):
            return False
        with self._study.storage.transaction() as connection:
            self.hold(connection)
            # What is held but not known of, by a call whose answer was lost, is not held twice.
            held = lease.renew(connection)
            reserved = min(held, self._reserved)
            free = max(0, trials - (self._taken(connection) - (held - reserved)))
            reserved += min(free, ahead, 1 + free // SHARE)
            self._keep(connection, lease, reserved)
        self._reserved, self._budget, self._waited = reserved, trials, not free
        return bool(free)

    def _room(self, trials: int) -> bool:
        """A look without the lock, which is enough for a driver that waits for a place."""
        with self._study.storage.transaction() as connection:
            return self._taken(connection) < trials

    def _taken(self, connection: Connection) -> int:
        """Places in the budget that are taken: by trials, and by reservations of live drivers."""
        reserved = sum(driver.reserved for driver in live_drivers(connection, self._id).values())
        return self._progress.places_taken(connection) + reserved

    def _keep(self, connection: Connection, lease: Lease, reserved: int) -> None:
        """Sets how many places this driver, which renewed its lease a moment ago, holds."""
        connection.execute(sql.CHANGE_DRIVER, {"own": lease.driver, "reserved": reserved})

    def _take_place(self, connection: Connection, lease: Lease, reserved: int) -> int:
        """Gives up one of the reservations for the trial that is about to be made; returns how many are left."""
        if reserved:
            self._keep(connection, lease, reserved - 1)
            return reserved - 1
        if self._taken(connection) >= self._budget:
            self._reserved = 0
            raise LeaseLostError(
                f"study {self._study.config.study}: the reservation ran out with its lease, and other drivers have "
                "the place"
            )
        return 0

    @patient
    def others(self) -> list[str]:
        """The other drivers of the study that live, in words for people."""
        with self._study.storage.transaction() as connection:
            found = live_drivers(connection, self._id)
        return [each.label for driver, each in found.items() if driver != self.owner]

    # New trials

    @patient
    def make_trial(self) -> tuple[int, bool]:
        """Takes the oldest enqueued trial or makes one: its number, and whether nothing is known of it yet.

        A reservation, if the driver holds any, becomes the trial's place in the budget.

        Raises:
            LeaseLostError: the lease ran out since the reservation, and the budget is full by now.
        """
        with self._study.storage.transaction() as connection:
            self.hold(connection)
            lease = self._lease if self._reserved else None
            reserved = 0 if lease is None else lease.renew(connection)
            unheard = self._made_unheard(connection) if self._making else None
            self._making = True  # until it is known to be committed
            if unheard is None and lease is not None:
                reserved = self._take_place(connection, lease, reserved)
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

    def _insert_trial(self, connection: Connection) -> tuple[int, bool]:
        """Takes the oldest enqueued trial or makes one, as Optuna does; its number, and whether it was made."""
        hold_study(connection, self._id)
        rows = self._progress.open_trials(connection)
        enqueued = next((row for row in rows if row.state is TrialState.WAITING), None)
        if enqueued is None:
            number = self._progress.next_number
            self._optuna_ids[number] = make_trial(connection, self._id, number)
        else:
            number, self._optuna_ids[enqueued.number] = enqueued.number, enqueued.trial_id
            begin_trial(connection, enqueued.trial_id)
        order = self.next_event(connection)
        row = {"study_id": self._id, "number": number, "owner": self.owner, "asked_by": self.owner, "ask_order": order}
        connection.execute(insert(sql.TRIALS), row)
        return number, enqueued is None

    # Trials of others

    @patient
    def claim_oldest(self) -> tuple[int, bool] | None:
        """Takes over the oldest trial whose driver is gone: its number, and whether it had ended; None without one.

        The end of a trial that is in the records but was not told to Optuna is told on the way.
        """
        with self._study.storage.transaction() as connection:
            orphans = self._orphans(connection)
            if not self._progress.take_unrecorded() and not orphans:
                return None
        with self._study.storage.transaction() as connection:
            self.hold(connection)
            record_ends(connection, self._id, self._study.config)
            if self._lease is not None:
                self._lease.renew(connection)
            orphans = self._orphans(connection)
            if not orphans:
                return None
            number = orphans[0]
            key = {"study": self._id, "trial": number}
            record = connection.execute(sql.TRIAL, key).one_or_none()
            if record is None:  # asked for by plain Optuna
                connection.execute(insert(sql.TRIALS), {"study_id": self._id, "number": number, "owner": self.owner})
            else:
                connection.execute(sql.CHANGE_TRIAL, key | {"owner": self.owner})
            ended = record is not None and record.reason is not None
            if ended:  # recorded by an older skipnas, which told Optuna in a second step
                reason, values = connection.execute(sql.END_OF_TRIAL, key).one()
                told = () if values is None else self._study.config.in_order(values)
                state = TrialState[Outcome.read(reason).state]
                end_trial(connection, self.optuna_id(connection, number), state, told)
        if not ended:
            self._held.add(number)
        return number, ended

    def _orphans(self, connection: Connection) -> list[int]:
        """Numbers of RUNNING trials that no other driver trains, nor this one as far as it knows."""
        running = [row for row in self._progress.running(connection) if row.number not in self._held]
        if not running:
            return []
        others = live_drivers(connection, self._id).keys() - {self.owner}
        return [row.number for row in running if row.owner not in others]

    def interrupt(self, number: int) -> None:
        """This driver trains a trial no longer, and may claim it again. Others may when this one has ended."""
        self._held.discard(number)

    # Trials of this driver, for whoever writes to them

    def owns(self, number: int) -> bool:
        """Whether this driver knows a trial to be its own."""
        return number in self._held

    def optuna_id(self, connection: Connection, number: int) -> int:
        """Optuna's id of a trial. Raises StudyError when it was deleted with its study."""
        if number not in self._optuna_ids:
            found = find_trial(connection, self._id, number)
            if found is None:
                raise self._deleted()
            self._optuna_ids[number] = found
        return self._optuna_ids[number]

    def record_of(self, connection: Connection, number: int) -> Row[Any]:
        """What `sql.TRIAL` reads of a trial of this driver; it has a record from now on if plain Optuna asked for it.

        Raises:
            LeaseLostError: the trial is another driver's, has to be claimed first, or was ended by a person.
            StudyError: the study was deleted.
        """
        key = {"study": self._id, "trial": number}
        record = connection.execute(sql.TRIAL, key).one_or_none()
        if record is None:
            self.hold(connection)  # which tells if the study was deleted
            connection.execute(insert(sql.TRIALS), {"study_id": self._id, "number": number, "owner": self.owner})
            record = connection.execute(sql.TRIAL, key).one()
        if record.owner != self.owner:
            self._held.discard(number)
            self._asked.discard(number)
            raise LeaseLostError(f"trial {number} of study {self._study.config.study} belongs to another driver")
        state = trial_state(connection, self.optuna_id(connection, number))
        if state is None or (record.reason is None and state.is_finished()):
            self.hold(connection)  # which tells if the study was deleted, and the trial is of another one
            raise LeaseLostError(f"trial {number} of study {self._study.config.study} was ended by hand")
        return record

    def began(self, number: int) -> None:
        """A trial has begun to train: it keeps its place."""
        self._held.add(number)
        self._asked.discard(number)

    def place_back(self, connection: Connection, number: int) -> int:
        """The reservation that a trial was asked with is one again; returns how many the driver holds then."""
        if self._lease is None or number not in self._asked:
            return self._reserved
        reserved = self._lease.renew(connection) + 1
        self._keep(connection, self._lease, reserved)
        return reserved

    def let_go(self, number: int, reserved: int) -> None:
        """A trial has ended, and the driver holds so many reservations."""
        self._reserved = reserved
        self._held.discard(number)
        self._asked.discard(number)
        self._optuna_ids.pop(number, None)
