"""Leases, by which drivers of one study, on one machine or several, know which of them are alive.

A driver renews its row in `DriverRecord` from a thread of its own. It is dead when its lease has run out by the
database's clock, or when its process is gone as far as this machine can see. Any driver may continue the trials of a
dead driver, and its reserved places in the budget are free.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    bindparam,
    case,
    cast,
    delete,
    extract,
    func,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from nas.errors import StorageError
from studies.store.records import DriverRecord, insert_missing
from studies.store.statements import DRIVERS

if TYPE_CHECKING:
    from studies.store.connection import Storage

log = logging.getLogger(__name__)
LEASE_SECONDS = 30.0
"""The seconds after which a driver without a renewal is dead. It renews its lease six times as often."""


@functools.cache
def clock(dialect: str) -> ColumnElement[float]:
    """Returns the time by the database's clock, which all drivers share, in seconds since the epoch."""
    if dialect == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()), Double)
    return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0


@functools.cache
def _select_live(dialect: str) -> Select[Any]:
    now = clock(dialect)
    # The database's clock may have been set back since a driver died, whose lease would seem to hold for hours.
    holds = DRIVERS.c.expires.between(now, now + bindparam("longest"))
    return select(DRIVERS).where(DRIVERS.c.study_id == bindparam("study"), holds)


@functools.cache
def _prolong(dialect: str) -> ReturningUpdate[Any]:
    now = clock(dialect)
    return (
        update(DRIVERS)
        .where(DRIVERS.c.driver == bindparam("own"))
        .values(
            expires=now + bindparam("seconds"),
            reserved=case((DRIVERS.c.expires >= now, DRIVERS.c.reserved), else_=0),
        )
        .returning(DRIVERS.c.reserved)
    )


def live_drivers(connection: Connection, study_id: int) -> dict[str, DriverRecord]:
    """Returns the living drivers of a study by their id."""
    rows = connection.execute(_select_live(connection.dialect.name), {"study": study_id, "longest": 2 * LEASE_SECONDS})
    records = [DriverRecord(**row._mapping) for row in rows]
    return {record.driver: record for record in records if _process_is_there(record)}


def drop_dead(connection: Connection, study_id: int) -> None:
    """Deletes the rows of dead drivers. A driver that was only slow to renew makes its row again."""
    live = live_drivers(connection, study_id)
    connection.execute(delete(DRIVERS).where(DRIVERS.c.study_id == study_id, DRIVERS.c.driver.not_in(list(live))))


class Lease:
    """The lease of this process as a driver of a study.

    Attributes:
        driver: its id, new with each lease.
    """

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.driver = uuid.uuid4().hex
        self._storage = storage
        self._study_id = study_id

    def renew(self, connection: Connection) -> int:
        """Prolongs the lease from now on and returns its reservations. A lease that had run out comes back without
        any."""
        dialect = connection.dialect.name
        reserved: int | None = connection.scalar(_prolong(dialect), {"own": self.driver, "seconds": LEASE_SECONDS})
        if reserved is not None:
            return reserved
        at = connection.scalar(select(clock(dialect)))
        assert at is not None
        pid = os.getpid()
        row = {
            "driver": self.driver,
            "study_id": self._study_id,
            "host": socket.gethostname(),
            "place": _place(),
            "pid": pid,
            "born": _born(pid),
            "started": at,
            "expires": at + LEASE_SECONDS,
            "reserved": 0,
        }
        # The lease's thread and the driver's own may both find it gone.
        connection.execute(insert_missing(dialect, DRIVERS), row)
        return 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renews the lease from a thread and a connection of its own until the block ends."""
        if self._storage.in_memory:  # one thread owns it, so nobody else could see the lease
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._keep, args=(stop,), name=f"lease-{self.driver[:8]}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(LEASE_SECONDS / 6)  # it may hang on a connection, and must not keep the driver

    def _keep(self, stop: threading.Event) -> None:
        lost = False
        while not stop.wait(LEASE_SECONDS / 6):
            try:
                with self._storage.transaction() as connection:
                    self.renew(connection)
            except StorageError as error:
                if not lost:
                    log.warning("%s; going on, and trying again", error)
                lost = True
            else:
                if lost:
                    log.warning("storage %s is back", self._storage.masked)
                lost = False


@functools.cache
def _place() -> str:
    """Returns the place within which process ids are comparable: one boot of one machine, and one namespace there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str | None:
    """Returns the start of a process in the kernel's ticks; None when it cannot be read, "" when the process has ended.

    Process ids are reused, so an id alone does not identify a process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may contain anything
    return "" if fields[0] in "ZX" else fields[19]


def _process_is_there(driver: DriverRecord) -> bool:
    """Returns False when the driver's process is certainly gone. A driver of another machine is known by its lease
    only."""
    if os.name != "posix" or driver.place != _place():
        return True
    try:
        os.kill(driver.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    born = _born(driver.pid)
    return born is None or driver.born is None or born == driver.born
