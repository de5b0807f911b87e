"""Searches through Ray Tune in which something goes wrong: in a trial, a worker, the database or on the disk."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.train._internal import storage as ray_storage
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from toy_search import Search
from toy_space import ToySpace

from nas.engine import searcher
from nas.errors import FailuresError, StorageError, StudyError
from studies.store import retries
from studies.store.database import open_storage
from studies.store.urls import parse_url


def test_each_fault_ends_as_the_design_says(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "RETRIES", 1)  # each starts a process, which takes seconds
    faults = ("kill", "exception", "none", "nan", "memory")
    space = ToySpace(faults=faults, scratch=str(tmp_path))
    search = make(space)
    for width, fault in enumerate(faults, start=1):
        search.ledger.optuna_study.enqueue_trial({"width": width, "fault": fault})
    search.run(3, concurrency=2)
    trials = search.ledger.optuna_study.get_trials(deepcopy=False)[: len(faults)]
    outcome = {t.params["fault"]: (t.state.name, search.study.trial(t.number).reason) for t in trials}
    assert outcome == {
        "none": ("COMPLETE", ""),
        "nan": ("PRUNED", "diverged"),
        "exception": ("FAIL", "exception"),
        "memory": ("PRUNED", "out_of_memory"),
        "kill": ("FAIL", "worker_lost"),
    }
    exception = next(t.number for t in trials if t.params["fault"] == "exception")
    assert "planted exception" in search.study.trial(exception).detail
    assert "Traceback" in search.study.trial(exception).detail
    assert all(t.values is None for t in trials if t.state.name != "COMPLETE")
    assert set(search.ledger.front()) <= {r.number for r in search.study.results()}


@pytest.mark.slow
def test_a_storm_of_failures_stops_the_search_which_goes_on_when_it_is_mended(make: Any, tmp_path: Path) -> None:
    space = ToySpace(faults=("exception",), widths=3, scratch=str(tmp_path))
    search = make(space, epochs=1)
    with pytest.raises(FailuresError, match=r"6 trials ended one after the other by exception \(RuntimeError: planted"):
        search.run(3, concurrency=2)
    failed = search.ledger.counts().failed
    assert 6 <= failed <= 8
    (tmp_path / "mended").touch()
    outcome = search.run(3)
    assert (outcome.reason, outcome.counts.trained, outcome.counts.failed) == ("complete", 3, failed)


@pytest.mark.slow
def test_a_hanging_trial_fails_with_where_it_hung(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("hang", "none"), scratch=str(tmp_path)))
    search.ledger.optuna_study.enqueue_trial({"width": 5, "fault": "hang"})
    search.ledger.optuna_study.enqueue_trial({"width": 6, "fault": "none"})
    outcome = search.run(1, trial_timeout=12)
    record = search.study.trial(0)
    assert (record.reason, search.states()[0]) == ("timeout", "FAIL")
    assert "_fault" in record.detail, "the traceback says where"
    assert (outcome.counts.trained, outcome.counts.failed) == (1, 1)
    assert not list(search.files.glob("*.hang"))


def test_a_lost_worker_s_trial_goes_on_from_its_checkpoint(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("kill_late",), scratch=str(tmp_path)), epochs=6)
    outcome = search.run(1)
    assert outcome.counts.complete == 1
    # Killed in its fifth epoch, it goes on after the third: epochs 1 to 4 begin once or twice, never thrice.
    begun = (tmp_path / "epochs").read_text().split()
    assert begun == ["1", "2", "3", "4", "5", "4", "5", "6"]
    assert [row.epoch for row in search.ledger.epochs_table(0)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_worker_killed_once_is_retried_under_its_number(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("kill_once",), scratch=str(tmp_path)))
    outcome = search.run(2, concurrency=2)
    assert (outcome.counts.complete, outcome.counts.failed) == (2, 0)
    assert search.states() == ["COMPLETE", "COMPLETE"]
    assert len(list(tmp_path.glob("killed-*"))) == 2


@contextmanager
def gone(search: Search) -> Iterator[Callable[[float], None]]:
    """Begins, when called, a while in which the database answers nothing."""
    until = 0.0

    def fail(*_: Any) -> None:
        if time.monotonic() < until:
            raise OperationalError("SELECT", None, Exception("server is gone"))

    def begin(seconds: float) -> None:
        nonlocal until
        until = time.monotonic() + seconds

    event.listen(search.ledger.storage.engine, "before_cursor_execute", fail)
    yield begin
    event.remove(search.ledger.storage.engine, "before_cursor_execute", fail)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_a_database_that_is_gone_for_a_while_costs_no_trial(make: Any, tmp_path: Path, seconds: float) -> None:
    search = make(epochs=9, early_stopping=True)
    with gone(search) as begin:
        search.when_running = lambda: begin(seconds)
        outcome = search.run(6, concurrency=2)
    assert (outcome.reason, outcome.counts.trained, outcome.counts.failed) == ("complete", 6, 0)
    for record in search.study.trials():
        assert [row.epoch for row in search.ledger.epochs_table(record.number)] == list(
            range(1, record.epochs_done + 1)
        )


@pytest.mark.slow
def test_a_database_that_stays_away_ends_the_search_which_goes_on_later(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=9)
    (tmp_path / "fast").touch()
    with gone(search) as begin, monkeypatch.context() as patch:
        patch.setattr(retries, "PATIENCE_SECONDS", 0.5)
        patch.setattr(retries, "RETRY_SECONDS", 0.05)
        search.when_running = lambda: begin(5.0)
        with pytest.raises(StorageError, match="server is gone"):
            search.run(4)
        time.sleep(5.0)
    outcome = search.run(4)
    assert (outcome.reason, outcome.counts.trained, outcome.counts.failed) == ("complete", 4, 0)


@pytest.mark.slow
def test_a_study_that_plain_optuna_deletes_ends_its_search(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=9)
    plain = optuna.storages.RDBStorage(str(search.ledger.storage.engine.url))
    search.when_running = lambda: optuna.delete_study(study_name="toy", storage=plain)
    with pytest.raises(StudyError, match="study 'toy' was deleted meanwhile; nothing can go on with it"):
        search.run(4, concurrency=2)


@pytest.mark.slow
def test_a_full_disk_ends_the_search_which_goes_on_later(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("full",), scratch=str(tmp_path)), epochs=1)
    with pytest.raises(StorageError, match=r"no room for weights in .*No space left.*the same command again"):
        search.run(3)
    assert set(search.states()) == {"RUNNING"}
    (tmp_path / "room").touch()
    outcome = search.run(3)
    assert (outcome.counts.complete, outcome.counts.failed) == (3, 0)


@pytest.mark.slow
def test_nobody_hears_of_tune_s_state_when_a_copy_of_it_fails(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy, copies = ray_storage._pyarrow_fs_copy_files, []

    def fail_once(*what: Any, **options: Any) -> None:
        copies.append(what)
        if len(copies) == 1:
            raise FileNotFoundError("a file that Tune was writing")
        copy(*what, **options)

    monkeypatch.setattr(ray_storage, "_pyarrow_fs_copy_files", fail_once)
    assert make().run(1).reason == "complete"
    assert len(copies) > 1
    assert caplog.messages == []


def test_a_database_that_is_deleted_under_a_search_ends_it(make: Any) -> None:
    search = make(epochs=9)
    search.when_running = lambda: Path(search.ledger.storage.url.database).unlink()
    with pytest.raises(StorageError, match="was deleted or replaced while it was in use"):
        search.run(4)


@pytest.mark.slow
@pytest.mark.postgres
def test_a_server_s_database_that_is_replaced_under_a_search_ends_it(make: Any) -> None:
    name = f"skipnas_{uuid.uuid4().hex[:12]}"
    server = make_url(os.environ["SKIPNAS_TEST_POSTGRES"])
    url = server.set(database=name).render_as_string(hide_password=False)
    engine = create_engine(
        parse_url(os.environ["SKIPNAS_TEST_POSTGRES"]), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )

    def execute(*statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def replace() -> None:
        execute(f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        open_storage(url).close()

    execute(f"CREATE DATABASE {name}")
    try:
        search = make(epochs=9, storage=url)
        search.when_running = replace
        with pytest.raises(StorageError, match=r"was deleted or replaced while it was in use.*put the database back"):
            search.run(4)
    finally:
        search.ledger.close()
        execute(f"DROP DATABASE {name} WITH (FORCE)")
