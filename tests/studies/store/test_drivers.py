"""Several drivers on one study: leases, the budget, who owns a trial, and what they judge by."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import Connection, event, insert, select, update
from sqlalchemy.exc import OperationalError
from study_samples import (
    COST,
    DISTRIBUTIONS,
    Driver,
    at_random,
    claim,
    make_candidate,
    make_config,
    make_measurement,
    read,
    row,
    spawn,
)

from nas.errors import LeaseLostError, StorageError, StudyError
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.search.objectives import METRICS
from nas.search.past import Past
from nas.training.checkpoint import save_checkpoint
from nas.training.version import TRAINING_VERSION
from nas.types import Counts, Objective
from studies.commands.doctor import examine
from studies.store import deletion, leases, retries, writer
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.deletion import delete_study
from studies.store.files import files_dir
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger
from studies.store.records import DriverRecord, EpochRecord, TrialRecord, insert_missing


@contextmanager
def opened(url: str) -> Iterator[SqlLedger]:
    """The study "first" as another process has it."""
    with SqlLedger.open("first", url) as ledger:
        yield ledger


@pytest.fixture
def other(url: str, ledger: SqlLedger) -> Iterator[SqlLedger]:
    with opened(url) as second:
        yield second


def lapse(ledger: SqlLedger) -> None:
    """The lease of this ledger's driver runs out, as if it had not been heard of for long."""
    with ledger.storage.session() as session:
        session.execute(update(DriverRecord).where(DriverRecord.driver == ledger.driver.owner).values(expires=0.0))


def begin(ledger: SqlLedger, **params: Any) -> int:
    """A driver makes a trial, and is cut off when it has written some of its hyperparameters."""
    number, _ = ledger.driver.make_trial()
    storage = ledger.storage.optuna
    trial_id = storage.get_trial_id_from_study_id_trial_number(ledger.study_id, number)
    for name, value in params.items():
        storage.set_trial_param(trial_id, name, DISTRIBUTIONS[name].to_internal_repr(value), DISTRIBUTIONS[name])
    return number


def state(ledger: SqlLedger, number: int) -> TrialState:
    return ledger.optuna_study.get_trials()[number].state


# The budget


def test_places_are_held_by_all_drivers_together(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        assert ledger.reserve(3)
        assert ledger.reserve(3)
        assert other.reserve(3)
        assert not ledger.reserve(3)
        assert not other.reserve(3)
        Driver(ledger).give_back()
        assert other.reserve(3)
        for _ in range(2):
            Driver(other).give_back()
        assert (ledger.reserved, other.reserved) == (1, 0)
        assert [ledger.reserve(3) for _ in range(3)] == [True, True, False]


def test_a_reservation_becomes_a_trial_and_its_end_counts(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        for outcome, again in ((Outcome.EXCEPTION, True), (Outcome.DIVERGED, False)):
            assert ledger.reserve(1)
            number = Driver(ledger).start()
            assert not other.reserve(1)
            (ledger.fail if again else ledger.prune)(number, outcome)
            assert other.reserve(1) is again
            if again:
                Driver(other).give_back()


def test_a_rejected_proposal_leaves_its_reservation(ledger: SqlLedger, other: SqlLedger) -> None:
    Driver(ledger).complete(depth=1)
    with ledger.drive(), other.drive():
        assert ledger.reserve(2)
        for outcome in (Outcome.DUPLICATE, Outcome.OVER_LIMIT):
            number = Driver(ledger).reject(1, outcome)
            record = read(ledger).trial(number)
            assert (record.reason, record.digest, record.params) == (
                outcome.value,
                make_candidate(1).digest,
                COST.params,
            )
            assert (record.started, state(ledger, number)) == (None, TrialState.FAIL)
            assert not other.reserve(2)
        Driver(ledger).complete()
        assert not ledger.reserve(2)
    assert ledger.counts() == Counts(complete=2, duplicate=1, over_limit=1)


def test_only_what_was_proposed_is_rejected(ledger: SqlLedger, driver: Driver) -> None:
    with pytest.raises(ValueError, match="'exception' is no outcome to reject with"):
        driver.reject(1, Outcome.EXCEPTION)


def test_interrupted_trials_keep_their_place(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive():
        assert ledger.reserve(1)
        number = Driver(ledger).start()
    with other.drive():
        assert not other.reserve(1)
        assert claim(other) is not None
        assert not other.reserve(1)
        other.fail(number, Outcome.EXCEPTION)
        assert other.reserve(1)


def test_a_claimed_proposal_that_is_rejected_leaves_no_reservation(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive():
        assert ledger.reserve(1)
        number = Driver(ledger).ask()
    with other.drive():
        assert claim(other) is not None
        other.reject(number, make_candidate(), COST, Outcome.OVER_LIMIT)
        assert [other.reserve(1), other.reserve(1)] == [True, False]


def test_reservations_are_of_drivers_alone(ledger: SqlLedger) -> None:
    with pytest.raises(RuntimeError, match="within drive"):
        ledger.reserve(1)
    with ledger.drive(), pytest.raises(RuntimeError, match="drives its study already"), ledger.drive():
        pass


def test_an_enqueued_trial_is_asked_for_once(ledger: SqlLedger, other: SqlLedger) -> None:
    ledger.optuna_study.enqueue_trial({"depth": 4, "fusion": "add", "learning_rate": 1e-3})
    with ledger.drive(), other.drive():
        number, params = ledger.ask(at_random(ledger))
        assert params == {"depth": 4, "fusion": "add", "learning_rate": 1e-3}
        assert Driver(other).ask() == number + 1
        assert claim(other) is None


def test_a_database_in_memory_is_driven() -> None:
    with open_storage("sqlite://") as storage:
        ledger = create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
        with ledger.drive():
            assert ledger.reserve(1)
            Driver(ledger).complete()
            assert not ledger.reserve(1)


# Claims


def test_trials_of_a_live_driver_are_not_claimed(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        Driver(ledger).start()
        Driver(ledger).ask()
        assert claim(other) is None
        assert claim(ledger) is None
        assert [trial.driver is not None for trial in read(other).unfinished()] == [True, True]


def test_interrupted_trials_are_claimed_once_oldest_first(ledger: SqlLedger, other: SqlLedger, url: str) -> None:
    with ledger.drive():
        Driver(ledger).complete()
        asked, started = Driver(ledger).ask(), Driver(ledger).start(depth=3)
        ledger.epochs(started, [row(1)])
        begun = read(ledger).trial(started).started
    params = [trial.params for trial in ledger.optuna_study.get_trials()]
    assert set(params[asked]) == set(DISTRIBUTIONS)
    with other.drive(), opened(url) as third, third.drive():
        assert claim(other) == (asked, params[asked])
        assert claim(third) == (started, params[started])
        assert claim(other) is claim(third) is None
        assert third.start(started, make_candidate(3), COST, "worker-2")
        assert (read(third).trial(started).started, read(third).trial(started).worker) == (begun, "worker-2")
        assert third.epochs_table(started) == [row(1)]
        third.complete(started, make_measurement())
        assert other.start(asked, make_candidate(4), COST, "worker-3")
        other.complete(asked, make_measurement())
    assert ledger.counts() == Counts(complete=3)


def test_a_proposal_that_was_cut_off_is_drawn_to_its_end(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive():
        begun, bare = begin(ledger, depth=3), begin(ledger)
    with other.drive():
        for number, params in ((begun, {"depth": 3}), (bare, {})):
            claimed = claim(other)
            assert claimed is not None
            assert claimed[0] == number
            assert claimed[1].keys() == DISTRIBUTIONS.keys()
            assert params.items() <= claimed[1].items()
            assert {**at_random(other)(number, other.progress), **params} == claimed[1], "as if it had not been cut off"
            assert other.optuna_study.get_trials()[number].params == claimed[1]


def test_what_plain_optuna_left_running_is_claimed(ledger: SqlLedger) -> None:
    number = optuna.load_study(study_name="first", storage=ledger.storage.optuna).ask(DISTRIBUTIONS).number
    with ledger.drive():
        claimed = claim(ledger)
        assert claimed is not None
        assert claimed[0] == number
        assert ledger.start(number, make_candidate(), COST, "")
        ledger.complete(number, make_measurement())
    assert read(ledger).events() == [("ask", 0), ("tell", 0)]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.DIVERGED, Outcome.EXCEPTION])
def test_an_end_that_was_recorded_but_not_told_is_told_by_the_next(
    ledger: SqlLedger, other: SqlLedger, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    ends: dict[Outcome, Callable[[int], None]] = {
        Outcome.COMPLETE: lambda number: ledger.complete(number, make_measurement(psnr=22.0)),
        Outcome.DIVERGED: lambda number: ledger.prune(number, Outcome.DIVERGED),
        Outcome.EXCEPTION: lambda number: ledger.fail(number, Outcome.EXCEPTION),
    }

    with monkeypatch.context() as patch, ledger.drive():
        number = Driver(ledger).start()
        patch.setattr(writer, "end_trial", lambda *_: None)  # as an older skipnas, killed between the two
        ends[outcome](number)
    assert ledger.counts().running == 1
    assert read(ledger).unfinished() == []
    with other.drive():
        assert other.reserve(1) is (outcome is Outcome.EXCEPTION)
        assert claim(other) is None
    assert state(ledger, number).name == outcome.state
    assert ledger.optuna_study.get_trials()[number].values == ([22.0, 2.0] if outcome is Outcome.COMPLETE else None)


def test_an_end_is_recorded_and_told_or_neither(
    ledger: SqlLedger, other: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, ledger.drive():
        number = Driver(ledger).start()
        patch.setattr(writer, "end_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.complete(number, make_measurement())
    assert read(ledger).trial(number).reason is None
    with other.drive():
        claimed = claim(other)
        assert claimed is not None
        assert claimed[0] == number


def test_what_has_ended_is_read_once_whatever_ends_first(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        first, second, third = (Driver(ledger).start() for _ in range(3))
        ledger.complete(second, make_measurement())
        assert (ledger.ended(), other.under_way()) == ({second}, [first, third])
        ledger.fail(first, Outcome.EXCEPTION)
        fourth = Driver(other).reject(depth=7)
        for each in (ledger, other):
            assert each.ended() == {first, second, fourth}
            assert each.under_way() == [third]
            assert each.counts() == Counts(complete=1, failed=1, duplicate=1, running=1)
            assert len(each.started_digests()) == 3
        assert [*(ledger.progress._ended.open or {})] == [
            ledger.driver._optuna_ids[third]
        ]  # the others are not read again
        ledger.prune(third, Outcome.STOPPED)
        assert other.ended() == {first, second, third, fourth}
        assert not other.progress._ended.open
        last = Driver(other).ask()
        assert last == 4
        assert ledger.under_way() == [last]


def test_trials_are_as_they_were_read_last_where_that_is_asked_for(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        first, second = (Driver(ledger).start() for _ in range(2))
        assert other.under_way(reread=False) == [first, second]  # nothing was read before
        ledger.complete(first, make_measurement())
        assert other.under_way(reread=False) == [first, second]
        assert other.counts(reread=False) == Counts(running=2)
        assert other.counts() == Counts(complete=1, running=1)
        assert other.under_way(reread=False) == [second]
        assert claim(other) is None
        third = Driver(other).start()
        assert ledger.under_way() == [second, third]


def test_a_proposal_knows_the_trials_that_were_under_way_when_its_own_was_made(
    ledger: SqlLedger, other: SqlLedger
) -> None:
    seen: list[list[int]] = []

    def propose(number: int, past: Past) -> dict[str, Any]:
        seen.append(past.under_way(reread=False))
        return at_random(ledger)(number, past)

    with ledger.drive(), other.drive():
        first, second = (Driver(other).start() for _ in range(2))
        other.complete(first, make_measurement())
        number, _ = ledger.ask(propose)
        assert seen == [[second]]
        assert ledger.under_way() == [second, number]


def test_hyperparameters_are_read_as_they_are_stored(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive():
        whole, params = ledger.ask(at_random(ledger))
        begun = begin(ledger, depth=3)
        stored = [params["depth"], params["learning_rate"]]
        choice = DISTRIBUTIONS["fusion"].to_internal_repr(params["fusion"])
        for each in (ledger, other, ledger):
            rows = each.progress.drawn([begun, whole])
            assert rows[1].tolist() == [*stored, choice]
            assert rows[0, 0] == 3
            assert np.isnan(rows[0, 1:]).all()
    with other.drive():
        claimed = claim(other), claim(other)
        assert [one[0] for one in claimed if one] == [whole, begun]
        assert not np.isnan(ledger.progress.drawn([begun])).any()  # it was not whole, so it is read again


def test_places_are_held_ahead_while_there_are_many(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        assert ledger.reserve(200, ahead=4)
        assert ledger.reserved == 4
        assert other.reserve(36, ahead=8)
        assert other.reserved == 2  # 32 of 36 places were free
        assert other.reserve(7, ahead=8)
        assert other.reserved == 3  # one at a time near the end
        assert not ledger.reserve(7, ahead=8)
        for _ in range(4):
            Driver(ledger).ask()
        assert ledger.reserved == 0


def test_a_lease_that_a_clock_put_hours_ahead_holds_nothing_up(ledger: SqlLedger, other: SqlLedger) -> None:
    """The database's clock was set back after a driver on another machine had died."""
    with ledger.drive():
        number = Driver(ledger).start()
        with ledger.storage.session() as session:
            lease = session.get_one(DriverRecord, ledger.driver.owner)
            ahead = DriverRecord(**{c.name: getattr(lease, c.name) for c in DriverRecord.__table__.columns})
        ahead.driver, ahead.place, ahead.reserved, ahead.expires = "f" * 32, "another machine", 5, ahead.expires + 7200
    with ledger.storage.session() as session:
        session.add(ahead)
        session.execute(update(TrialRecord).values(owner=ahead.driver))
    assert [trial.driver for trial in read(other).unfinished()] == [None]
    with other.drive():
        assert other.reserve(2), "what it had reserved is free"
        claimed = claim(other)
        assert claimed is not None
        assert claimed[0] == number
    delete_study(ledger.storage, "first")


# Who lost a trial


def test_a_driver_that_lost_its_trial_cannot_write_to_it(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        number = Driver(ledger).start()
        asked = Driver(ledger).ask()
        lapse(ledger)
        assert [claimed[0] for claimed in (claim(other), claim(other)) if claimed] == [number, asked]
        writes: list[Callable[[], Any]] = [
            lambda: ledger.start(number, make_candidate(9), COST, "worker-9"),
            lambda: ledger.epochs(number, [row(1)]),
            lambda: ledger.complete(number, make_measurement()),
            lambda: ledger.prune(number, Outcome.STOPPED),
            lambda: ledger.fail(number, Outcome.WORKER_LOST),
            lambda: ledger.reject(asked, make_candidate(9), COST, Outcome.DUPLICATE),
        ]
        before = read(other).events()
        for write in writes:
            with pytest.raises(LeaseLostError, match="belongs to another driver"):
                write()
        assert (read(other).events(), other.epochs_table(number)) == (before, [])
        other.complete(number, make_measurement())
        for write in writes:
            with pytest.raises(LeaseLostError):
                write()
        assert state(ledger, number) is TrialState.COMPLETE
        other.fail(asked, Outcome.EXCEPTION)
    assert ledger.counts() == Counts(complete=1, failed=1)


def test_a_lease_that_ran_out_goes_on_when_nobody_took_the_trials(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        number = Driver(ledger).start()
        lapse(ledger)
        ledger.epochs(number, [row(1)])
        assert claim(ledger) is None
        assert ledger.reserve(2)
        assert claim(other) is None
        ledger.complete(number, make_measurement())


def test_a_reservation_that_ran_out_is_used_only_if_its_place_is_free(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        assert ledger.reserve(1)
        lapse(ledger)
        number = Driver(ledger).ask()
        ledger.reject(number, make_candidate(), COST, Outcome.OVER_LIMIT)
        lapse(ledger)
        assert other.reserve(1)
        with pytest.raises(LeaseLostError, match="other drivers have the place"):
            Driver(ledger).ask()
        assert not ledger.reserve(1)
        Driver(other).give_back()
        assert ledger.reserve(1)


# Who is alive


def test_a_lease_is_renewed_while_its_driver_lives(
    ledger: SqlLedger, other: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.2)
    with ledger.drive():
        number = Driver(ledger).start()
        time.sleep(2)
        assert claim(other) is None
    with monkeypatch.context() as patch, other.drive():
        patch.setattr(leases.Lease, "_keep", lambda self, stop: None)
        with ledger.drive():
            assert claim(ledger) is not None
            assert claim(other) is None
            time.sleep(1.5)
            claimed = claim(other)
            assert claimed is not None
            assert claimed[0] == number


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the state of a process")
def test_a_killed_process_is_dead_at_once(url: str, ledger: SqlLedger) -> None:
    code = (
        "import sys, time\n"
        "from study_samples import Driver, SqlLedger\n"
        "ledger = SqlLedger.open('first', sys.argv[1])\n"
        "with ledger.drive():\n"
        "    ledger.reserve(9), Driver(ledger).start(), ledger.reserve(9)\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = spawn(code, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    with ledger.drive():
        (trial,) = read(ledger).unfinished()
        assert trial.driver is not None
        assert trial.driver.pid == process.pid
        assert claim(ledger) is None
        assert not ledger.reserve(2)
        process.kill()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert claim(ledger) is not None  # even before its parent has waited for it
        assert ledger.reserve(2)
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the start time of a process")
def test_a_process_id_that_was_given_again_is_another_process(ledger: SqlLedger, other: SqlLedger) -> None:
    changes: list[tuple[dict[str, Any], bool]] = [
        ({"born": "1"}, False),
        ({"born": "1", "place": "another machine"}, True),
        ({"born": None}, True),
        ({"pid": 2**22 + 1}, False),
        ({"pid": 1, "born": None}, True),
    ]
    for change, alive in changes:
        with ledger.drive(), other.drive():
            with ledger.storage.session() as session:
                session.execute(update(DriverRecord).where(DriverRecord.driver == ledger.driver.owner).values(**change))
            number = Driver(ledger).start()
            assert (claim(other) is None) is alive
            (ledger if alive else other).fail(number, Outcome.EXCEPTION)


def test_rows_of_dead_drivers_are_dropped(url: str, ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        lapse(ledger)
        dead = ledger.driver.owner
        with opened(url) as third, third.drive(), third.storage.session() as session:
            assert dead not in leases.live_drivers(session.connection(), 1)
            assert session.get(DriverRecord, dead) is None
        assert ledger.reserve(1)  # it comes back
    with ledger.storage.session() as session:
        assert leases.live_drivers(session.connection(), 1) == {}


# A database that goes away and comes back


@contextmanager
def away(ledger: SqlLedger, seconds: float) -> Iterator[None]:
    """Every statement fails for so long, as with a server that restarts."""
    gone = threading.Event()
    gone.set()
    timer = threading.Timer(seconds, gone.clear)

    def fail(*_: Any) -> None:
        if gone.is_set():
            raise OperationalError("SELECT", None, Exception("server is gone"))

    event.listen(ledger.storage.engine, "before_cursor_execute", fail)
    timer.start()
    yield
    timer.join()
    event.remove(ledger.storage.engine, "before_cursor_execute", fail)


def test_a_driver_outlives_its_database(
    ledger: SqlLedger, other: SqlLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.2)
    with ledger.drive():
        number = Driver(ledger).start()
        with away(ledger, 1.0):
            ledger.epochs(number, [row(1)])
        with away(ledger, 0.3):
            assert ledger.reserve(2)
        with away(ledger, 0.3):
            asked = Driver(ledger).ask()
        with away(ledger, 0.3):
            ledger.complete(number, make_measurement())
        time.sleep(0.3)
        assert claim(other) is None
        ledger.fail(asked, Outcome.EXCEPTION)
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records][:1] == ["going on, and trying again"]
    assert any("is back" in record.getMessage() for record in caplog.records)
    assert ledger.counts().complete == 1


def test_a_confirmation_outlives_its_database(ledger: SqlLedger) -> None:
    run = ConfirmedRun(
        digest="d",
        repeat=0,
        seed=1,
        number=None,
        reference="unet",
        spec={},
        recipe={},
        outcome=Outcome.COMPLETE,
        training_version=TRAINING_VERSION,
    )
    with ledger.drive():
        with away(ledger, 0.3):
            ledger.confirm(run)
        with away(ledger, 0.3):
            assert [found.digest for found in ledger.confirmations()] == ["d"]


def test_patience_ends(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    with away(ledger, 0.2), pytest.raises(StorageError, match="server is gone"):
        ledger.counts()  # no driver, no patience
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.01)
    with ledger.drive(), away(ledger, 0.5), pytest.raises(StorageError, match="server is gone"):
        ledger.counts()


def test_a_call_whose_answer_was_lost_is_not_carried_out_twice(
    ledger: SqlLedger, other: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, lost = ledger.storage.transaction, 0

    @contextmanager
    def losing() -> Iterator[Any]:
        nonlocal lost
        with transaction() as inner:
            yield inner
        if lost:
            lost -= 1
            with ledger.storage.guard():
                raise OperationalError("COMMIT", None, Exception("connection lost"))

    monkeypatch.setattr(ledger.storage, "transaction", losing)
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.01)
    with other.drive():
        orphan = Driver(other).start(depth=5)
    with ledger.drive():
        lost = 2  # of the look, and of the claim
        claimed = claim(ledger)
        assert claimed is not None
        assert claimed[0] == orphan
        lost = 1
        assert ledger.start(orphan, make_candidate(5), COST, "")
        for outcome in (Outcome.EXCEPTION, Outcome.DIVERGED):
            lost = 2
            assert ledger.reserve(2)
            lost = 1
            number, blank = ledger.driver.make_trial()
            assert not blank, "whether anything was written of it is not known"
            lost = 1
            params = ledger.fill(number, at_random(ledger), {})
            assert ledger.optuna_study.get_trials()[number].params == params
            assert not ledger.reserve(2)
            assert claim(ledger) is None
            lost = 1
            assert ledger.start(number, make_candidate(), COST, "")
            lost = 1
            (ledger.fail if outcome is Outcome.EXCEPTION else ledger.prune)(number, outcome)
        lost = 1
        ledger.epochs(orphan, [row(1)])
        lost = 1
        ledger.complete(orphan, make_measurement())
    assert lost == 0
    assert ledger.epochs_table(orphan) == [row(1)]
    assert ledger.counts() == Counts(complete=1, pruned=1, failed=1)
    orders = [order for r in read(ledger).trials() for order in (r.ask_order, r.tell_order) if order is not None]
    assert sorted(orders) == [1, 2, 3, 4, 5, 6]


# Duplicates


def test_no_candidate_is_started_twice(ledger: SqlLedger, other: SqlLedger) -> None:
    def starts(who: SqlLedger, depth: int) -> bool:
        number = Driver(who).ask()
        started = who.start(number, make_candidate(depth), COST, "")
        if not started:
            assert read(who).trial(number).started is None
            who.reject(number, make_candidate(depth), COST, Outcome.DUPLICATE)
        return started

    with ledger.drive(), other.drive():
        Driver(ledger).complete(depth=1)
        ledger.prune(Driver(ledger).start(depth=2), Outcome.STOPPED)
        ledger.fail(Driver(ledger).start(depth=3), Outcome.EXCEPTION)
        Driver(ledger).start(depth=4)
        Driver(ledger).reject(5)
        for who in (ledger, other):
            assert [depth for depth in range(1, 7) if starts(who, depth)] == ([3, 5, 6] if who is ledger else [])
    # Interrupted ones go on, so nobody begins them anew; the one that goes on is no duplicate of itself.
    with other.drive():
        assert not starts(other, 4)
        claimed = claim(other)
        assert claimed is not None
        assert other.start(claimed[0], make_candidate(4), COST, "")


# Many at once


def test_threads_share_one_budget(url: str, ledger: SqlLedger) -> None:
    def work(seed: int) -> int:
        done = 0
        with opened(url) as mine, mine.drive():
            while mine.reserved or mine.reserve(12):
                number = Driver(mine).ask()
                if mine.start(number, make_candidate(done), COST, ""):
                    mine.complete(number, make_measurement())
                else:
                    mine.reject(number, make_candidate(done), COST, Outcome.DUPLICATE)
                done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, range(2))) >= 12
    assert ledger.counts().complete == len(read(ledger).trained_digests()) == 12


def test_eight_drivers_reach_the_number_together_though_three_are_killed(url: str, ledger: SqlLedger) -> None:
    code = (
        "import sys\n"
        "from study_samples import driver_until\n"
        "driver_until(sys.argv[1], 40, int(sys.argv[2]), int(sys.argv[3]))\n"
    )
    processes = [spawn(code, url, seed, int(seed < 4)) for seed in range(1, 9)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        if process in processes[:3]:  # has its trial, whatever the others are quick to take
            assert process.stdout is not None
            assert process.stdout.readline() == "dying\n"
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3 + [0] * 5
    with opened(url) as last, last.drive():
        assert claim(last) is None
    counts = ledger.counts()
    assert (counts.complete, counts.running, counts.failed) == (40, 0, 0)
    assert len(read(ledger).trained_digests()) == 40
    started = [record for record in read(ledger).trials() if record.started is not None]
    assert len(started) == len({record.digest for record in started}) == 40
    events = read(ledger).events()
    assert len(events) == len(set(events)) == 2 * counts.proposals
    assert all(events.index(("ask", r.number)) < events.index(("tell", r.number)) for r in read(ledger).trials())
    orders = [order for r in read(ledger).trials() for order in (r.ask_order, r.tell_order)]
    assert sorted(orders) == list(range(1, len(orders) + 1))  # type: ignore[type-var]


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_32_writers_on_sqlite_wait_for_each_other(url: str, ledger: SqlLedger) -> None:
    code = (
        "import sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from nas.outcome import Outcome\n"
        "from study_samples import Driver, SqlLedger, row\n"
        "def work(seed):\n"
        "    with SqlLedger.open('first', sys.argv[1]) as ledger, ledger.drive():\n"
        "        for _ in range(2):\n"
        "            assert ledger.reserve(1000)\n"
        "            number = Driver(ledger).start()\n"
        "            ledger.epochs(number, [row(1)])\n"
        "            ledger.prune(number, Outcome.STOPPED)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(work, range(8)))\n"
    )
    processes = [spawn(code, url) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0] * 4
    assert ledger.counts() == Counts(pruned=64)


# What the engine judges by


@pytest.fixture
def rungs(new_study: Callable[..., SqlLedger]) -> SqlLedger:
    names = {"psnr": "maximize", "latency": "minimize", "params": "minimize", "stability": "maximize"}
    objectives = tuple(Objective(name=n, direction=d, unit="", reference=0.0) for n, d in names.items())  # type: ignore[arg-type]
    return new_study("rungs", objectives=objectives)


def test_a_rung_has_every_trial_that_was_validated_there(rungs: SqlLedger) -> None:
    assert [o.name for o in rungs.rung_objectives()] == ["psnr", "params", "stability"]
    driver = Driver(rungs)
    first, second, third, fourth, fifth = (driver.start() for _ in range(5))
    for number in (first, second, third):
        rungs.epochs(number, [row(1, psnr=10.0 + number), row(2, psnr=None, accuracy=None, stability=None)])
    rungs.epochs(first, [row(3, stability=0.75)])
    rungs.epochs(fourth, [row(1, stability=None)])
    rungs.prune(second, Outcome.STOPPED)
    rungs.fail(third, Outcome.EXCEPTION)
    assert rungs.rung(1) == {number: (10.0 + number, 1e6, 0.5) for number in (first, second, third)}
    assert rungs.rung(2) == {}
    assert rungs.rung(3) == {first: (23.0, 1e6, 0.75)}
    with SqlLedger.open("rungs", rungs.storage) as again:
        again.epochs(fifth, [row(1)])
    assert rungs.rung(1).keys() == {first, second, third, fifth}


def test_a_rung_that_is_read_again_and_again_lacks_nobody(rungs: SqlLedger) -> None:
    driver, order = Driver(rungs), np.random.default_rng(0)
    under_way: list[int] = []
    for _ in range(60):
        under_way.append(driver.start())
        number = int(order.choice(under_way[:4]))
        rungs.epochs(number, [row(1, psnr=10.0 + number)])
        if order.random() < 0.5:
            rungs.prune(number, Outcome.STOPPED)
            under_way.remove(number)
        rungs.counts()  # by which it learns who has ended
        with SqlLedger.open("rungs", rungs.storage) as fresh:
            assert rungs.rung(1) == fresh.rung(1)
    assert len(rungs.rung(1)) > 30
    assert rungs.progress._rungs[1, TRAINING_VERSION].up_to > 5, "some were not read again"


def test_a_rung_finds_what_others_write_between_own_epochs(rungs: SqlLedger) -> None:
    """What this process wrote is read by number, and all later trials only where somebody else wrote some."""
    driver = Driver(rungs)
    first, second, third = (driver.start() for _ in range(3))
    asked: list[str] = []
    event.listen(rungs.storage.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    rungs.epochs(first, [row(1)])
    assert list(rungs.rung(1)) == [first]
    rungs.epochs(third, [row(1)])
    with SqlLedger.open("rungs", rungs.storage) as other:
        other.epochs(second, [row(1)])
        asked.clear()
        assert list(rungs.rung(1)) == [first, second, third]
    assert sum("number >= " in text for text in asked) == 1
    rungs.epochs(first, [row(2)])
    rungs.epochs(first, [row(1), row(3)])
    asked.clear()
    assert list(rungs.rung(1)) == [first, second, third], "one that was written again stays where it was"
    assert list(rungs.rung(3)) == [first]
    assert not [text for text in asked if "number >= " in text]


def test_trained_trials_are_judged_by_their_last_validated_epoch(rungs: SqlLedger) -> None:
    driver = Driver(rungs)
    assert rungs.progress.judged() == {}
    stopped, diverged, complete, memory, failed, running = (driver.start() for _ in range(6))
    for number in (stopped, diverged, complete, failed, running):
        rungs.epochs(number, [row(1), row(3), row(4, psnr=None, accuracy=None, stability=None)])
    rungs.prune(stopped, Outcome.STOPPED)
    rungs.prune(diverged, Outcome.DIVERGED)
    assert rungs.progress.judged() == {stopped: (3, (23.0, math.nan, 1e6, 0.5)), diverged: (0, ())}
    with SqlLedger.open("rungs", rungs.storage) as again:
        again.complete(complete, make_measurement(psnr=30.0, params=1e6, stability=0.25))
        again.prune(memory, Outcome.OUT_OF_MEMORY)
    rungs.fail(failed, Outcome.EXCEPTION)
    rungs.prune(running, Outcome.STOPPED)
    expected = {
        stopped: (3, (23.0, math.nan, 1e6, 0.5)),
        diverged: (0, ()),
        complete: (27, (30.0, 2.0, 1e6, 0.25)),
        memory: (0, ()),
        running: (3, (23.0, math.nan, 1e6, 0.5)),
    }
    assert rungs.progress.judged() == expected
    assert list(rungs.progress.judged()) == list(expected)
    with SqlLedger.open("rungs", rungs.storage) as again:
        assert again.progress.judged() == expected


def test_rungs_judge_by_any_metric_that_validations_find(
    new_study: Callable[..., SqlLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "made_up", dataclasses.replace(METRICS["accuracy"], name="made_up"))  # type: ignore[arg-type]
    ledger = new_study(
        objectives=(
            Objective(name="made_up", direction="maximize", unit="%", reference=0.0),
            Objective(name="latency", direction="minimize", unit="ms", reference=100.0),
            Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
        )
    )
    assert [o.name for o in ledger.rung_objectives()] == ["made_up", "psnr"]
    driver = Driver(ledger)
    first, second, lacks = (driver.start() for _ in range(3))
    for number in (first, second):
        ledger.epochs(number, [row(1, made_up=0.1 + number), row(3, made_up=70.25 + number)])
    ledger.epochs(lacks, [row(1)])
    assert ledger.epochs_table(first)[1] == row(3, made_up=70.25)
    assert read(ledger).epochs_tables()[second][0].values["made_up"] == 1.1
    assert ledger.rung(1) == {first: (0.1, 21.0), second: (1.1, 21.0)}
    ledger.prune(first, Outcome.STOPPED)
    ledger.complete(second, make_measurement(made_up=99.5))
    assert ledger.progress.judged() == {first: (3, (70.25, math.nan, 23.0)), second: (27, (99.5, 2.0, 20.0))}


def test_what_a_large_study_was_judged_by_is_read_once(rungs: SqlLedger) -> None:
    trials = [
        {
            "study_id": rungs.study_id,
            "number": number,
            "digest": f"{number:016x}",
            "started": 1.0,
            "params": number,
            "reason": "stopped",
            "tell_order": number + 1,
            "epochs_done": 9,
            "training_version": TRAINING_VERSION,
        }
        for number in range(5000)
    ]
    epochs = [
        {"study_id": rungs.study_id, "number": number, "epoch": epoch, "seconds": 1.0}
        | ({"psnr": 20.0, "accuracy": 90.0, "stability": 0.5} if epoch in (1, 3, 9) else {})
        for number in range(5000)
        for epoch in (1, 2, 3, 9)
    ]
    with rungs.storage.session() as session:
        session.execute(insert(TrialRecord), trials)
        session.execute(insert(EpochRecord), epochs)

    read: list[Any] = []
    with SqlLedger.open("rungs", rungs.storage) as again:
        assert len(again.rung(9)) == len(again.progress.judged()) == 5000
        event.listen(rungs.storage.engine, "before_cursor_execute", lambda *call: read.append(call[2:4]))
        assert again.progress.judged()[7] == (9, (20.0, math.nan, 7.0, 0.5))
    ((_, asked),) = [call for call in read if EpochRecord.__tablename__ in call[0]]
    asked = asked.values() if isinstance(asked, dict) else asked
    assert 5000 in asked, "only what was told after the last one"


# Events, and what people see


def test_asks_and_tells_have_one_order(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), other.drive():
        first, second = Driver(ledger).start(), Driver(other).start()
        Driver(ledger).reject(first)
        other.complete(second, make_measurement())
        ledger.fail(first, Outcome.EXCEPTION)
    assert read(ledger).events() == [("ask", 0), ("ask", 1), ("ask", 2), ("tell", 2), ("tell", 1), ("tell", 0)]


def test_a_measurement_reads_back(ledger: SqlLedger, driver: Driver) -> None:
    assert read(ledger).measurement(driver.complete()) == make_measurement()


def test_doctor_says_who_trains_what_and_what_goes_on(url: str, ledger: SqlLedger, other: SqlLedger) -> None:
    folder = files_dir(url, "first")
    folder.mkdir(parents=True)
    with ledger.drive():
        with other.drive():
            for _ in range(3):
                Driver(other).start()
            Driver(ledger).start()
            other.epochs(1, [row(1), row(2)])
            save_checkpoint({"rows": [{}]}, folder, 1, digest="", seed=0)
            (folder / "trial-2.checkpoint").touch()
            gone = uuid.uuid4().hex
            with other.storage.session() as session:
                session.execute(insert(DriverRecord), [dead_driver(gone)])
                session.execute(update(TrialRecord).where(TrialRecord.number == 2).values(owner=gone))
        said = [finding.line() for finding in examine(url) if finding.subject == "trials"]
    # All four: the command that made the study says no number, and one that says fewer would do nothing.
    command = f"skipnas search --study first --trials 4 --storage {shlex.quote(ledger.storage.masked)}"
    host = os.uname().nodename
    assert said == [
        f"ok    trials      study first: trial 3 is being trained by process {os.getpid()} on {host}",
        "note  trials      study first: trial 0 is interrupted at epoch 0, its search was stopped"
        f" -> the next search goes on with it from the beginning: {command}",
        "note  trials      study first: trial 1 is interrupted at epoch 2, its search was stopped"
        f" -> the next search goes on with it from its checkpoint after epoch 1: {command}",
        "note  trials      study first: trial 2 is interrupted at epoch 0, process 7 on elsewhere is dead"
        f" -> the next search goes on with it from the beginning: {command}",
    ]


def test_doctor_looks_at_the_disk_of_the_storage_and_at_what_ray_shares(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    found = {f.subject: f.text for f in examine(str(tmp_path / "studies" / "s.db"))}
    assert found["disk"].endswith(f" free in {tmp_path / 'studies'}")
    assert ("shared" in found) == Path("/dev/shm").exists()


def dead_driver(driver: str) -> dict[str, Any]:
    """The row of a driver on another machine whose lease has run out."""
    fixed = {"study_id": 1, "host": "elsewhere", "place": "", "pid": 7, "started": 0.0, "expires": 1.0, "reserved": 0}
    return {"driver": driver, **fixed}


def test_a_study_with_a_live_driver_is_not_deleted(url: str, ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive():
        number = Driver(ledger).start()
        with pytest.raises(StudyError, match=f"'first' is being worked on by process {os.getpid()} on .*; stop that"):
            delete_study(other.storage, "first")
        ledger.complete(number, make_measurement())
        lapse(ledger)
        delete_study(other.storage, "first")
    assert not has_study(other.storage, "first")


def test_a_study_with_a_live_driver_is_not_deleted_by_optuna_either(ledger: SqlLedger, other: SqlLedger) -> None:
    with ledger.drive(), pytest.raises(StudyError, match="'first' is being worked on by"):
        optuna.delete_study(study_name="first", storage=other.storage.optuna)
    assert has_study(other.storage, "first")
    optuna.delete_study(study_name="first", storage=other.storage.optuna)
    with pytest.raises(StudyError, match="'first' was deleted meanwhile"), ledger.drive():
        pass
    with other.storage.session() as session:
        assert session.scalars(select(DriverRecord)).all() == []


def test_deleting_and_driving_take_turns(url: str, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for drivers before it deletes holds the study: none begins between the look and the deletion."""
    began = threading.Event()

    def drive() -> None:
        with contextlib.suppress(StudyError), SqlLedger.open("first", url) as mine:
            waiting.set()
            with mine.drive():
                began.set()

    def look(connection: Connection, study_id: int) -> dict[str, DriverRecord]:
        found = leases.live_drivers(connection, study_id)
        thread.start()
        assert waiting.wait(10)
        assert not began.wait(1), "a driver began while the study was being deleted"
        return found

    waiting = threading.Event()
    thread = threading.Thread(target=drive)
    monkeypatch.setattr(deletion, "live_drivers", look)
    delete_study(ledger.storage, "first")
    thread.join(10)
    assert not began.is_set()


def test_a_lease_that_two_threads_find_gone_is_made_once(ledger: SqlLedger) -> None:
    lease, twin = (leases.Lease(ledger.storage, ledger.study_id) for _ in range(2))
    twin.driver = lease.driver
    with ledger.storage.transaction() as connection:

        def late(*args: Any) -> Any:  # the other thread comes between this one's look and its INSERT
            with patch.object(leases, "insert_missing", insert_missing):
                twin.renew(connection)
            return insert_missing(*args)

        with patch.object(leases, "insert_missing", late):
            assert lease.renew(connection) == 0
        assert len(connection.execute(select(DriverRecord)).all()) == 1
