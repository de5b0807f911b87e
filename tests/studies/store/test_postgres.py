"""PostgreSQL as it is: roles with few rights, other encodings, and locks that somebody left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from study_samples import (
    COST,
    DISTRIBUTIONS,
    Driver,
    at_random,
    fresh_postgres,
    make_candidate,
    make_config,
    make_measurement,
    row,
)

from nas.errors import StorageError, StudyError
from nas.outcome import Outcome
from nas.types import Counts
from studies.reading.study import StudyReader
from studies.store import database, retries
from studies.store.catalog import create_study, list_studies
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger
from studies.store.urls import parse_url

pytestmark = pytest.mark.postgres


def execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def server() -> Iterator[str]:
    with fresh_postgres() as url:
        yield url


@contextmanager
def role(url: str, *grants: str) -> Iterator[str]:
    """The URL of a role that has been granted so much and no more."""
    execute(url, "CREATE ROLE skipnas_guest LOGIN", *(f"{grant} TO skipnas_guest" for grant in grants))
    try:
        yield make_url(url).set(username="skipnas_guest").render_as_string(hide_password=False)
    finally:
        execute(url, "DROP OWNED BY skipnas_guest", "DROP ROLE skipnas_guest")


def test_a_role_without_rights_on_the_schema(server: str) -> None:
    with role(server) as guest, pytest.raises(StorageError) as refused:
        open_storage(guest)
    assert "permission denied for schema public; let its owner GRANT this role USAGE and CREATE" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_role_that_may_only_read(server: str) -> None:
    with open_storage(server) as storage:
        Driver(create_study(storage, make_config(), DISTRIBUTIONS, {}, "")).complete()
    with role(server, "GRANT SELECT ON ALL TABLES IN SCHEMA public") as guest:
        with open_storage(guest, must_exist=True) as storage:
            assert [summary.name for summary in list_studies(storage)] == ["first"]
            assert StudyReader.open("first", storage).progress.counts() == Counts(complete=1)
        with (
            SqlLedger.open("first", guest) as ledger,
            pytest.raises(StorageError, match=r"permission denied for table skipnas_studies\); let its owner GRANT"),
            ledger.drive(),
        ):
            pass


def test_a_session_that_may_only_read(server: str) -> None:
    open_storage(server).close()
    options = {"options": "-cdefault_transaction_read_only=on"}
    standby = make_url(server).update_query_dict(options).render_as_string(hide_password=False)
    with open_storage(standby, must_exist=True) as storage:
        assert list_studies(storage) == []
        with pytest.raises(StorageError, match=r"in a read-only transaction\); it can only be read here: use a"):
            create_study(storage, make_config(), DISTRIBUTIONS, {}, "")


def test_a_schema_that_is_not_there(server: str) -> None:
    options = {"options": "-csearch_path=nowhere"}
    url = make_url(server).update_query_dict(options).render_as_string(hide_password=False)
    with pytest.raises(StorageError, match="there is no schema to make tables in; name a schema that is there"):
        open_storage(url)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_of_another_encoding(server: str, encoding: str) -> None:
    name = f"{make_url(server).database}_other"
    execute(server, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        with pytest.raises(StorageError, match=f"keeps texts in {encoding}, must keep them in UTF8; create it"):
            open_storage(url)
        engine = create_engine(parse_url(url), poolclass=NullPool, connect_args={"client_encoding": "utf8"})
        with engine.connect() as connection:
            count = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
        assert count == 0
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def test_tables_that_another_program_deleted(server: str) -> None:
    with open_storage(server) as storage:
        execute(server, "DROP TABLE skipnas_studies CASCADE")
        with pytest.raises(StorageError, match=r"\"skipnas_studies\" does not exist\); another program deleted"):
            list_studies(storage)


def dropped(url: str) -> None:
    """The database is gone, and its sessions are ended."""
    name = make_url(url).database
    execute(maintenance(url), f"DROP DATABASE {name} WITH (FORCE)")


def empty(url: str) -> None:
    """Another database of that name is made, without tables."""
    dropped(url)
    execute(maintenance(url), f"CREATE DATABASE {make_url(url).database}")


def another(url: str) -> None:
    """Another database of that name is made, and a skipnas begins a study of that name in it."""
    empty(url)
    with open_storage(url) as storage:
        Driver(create_study(storage, make_config(), DISTRIBUTIONS, {}, "")).complete()


def made_anew(url: str) -> None:
    """The tables are made anew while the sessions go on."""
    execute(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    open_storage(url).close()


def emptied(url: str) -> None:
    """Every study is deleted by hand, without skipnas."""
    execute(url, "TRUNCATE studies, skipnas_studies CASCADE")


def maintenance(url: str) -> str:
    return make_url(url).set(database="postgres").render_as_string(hide_password=False)


WRITES: dict[str, Callable[[SqlLedger, int, int], object]] = {
    "reserve": lambda ledger, begun, asked: ledger.reserve(99),
    "ask": lambda ledger, begun, asked: ledger.ask(at_random(ledger)),
    "start": lambda ledger, begun, asked: ledger.start(asked, make_candidate(77), COST, "worker"),
    "epochs": lambda ledger, begun, asked: ledger.epochs(begun, [row(1)]),
    "complete": lambda ledger, begun, asked: ledger.complete(begun, make_measurement()),
    "fail": lambda ledger, begun, asked: ledger.fail(begun, Outcome.EXCEPTION),
}
READS: dict[str, Callable[[SqlLedger, int, int], object]] = {
    "claim": lambda ledger, begun, asked: ledger.claim(at_random(ledger)),
    "counts": lambda ledger, begun, asked: ledger.counts(),
    "front": lambda ledger, begun, asked: ledger.front(),
    "list": lambda ledger, begun, asked: list_studies(ledger.storage),
}


@pytest.mark.parametrize("change", [dropped, empty, another, made_anew, emptied])
def test_a_database_that_is_deleted_or_replaced_under_a_driver(
    server: str, change: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.0)
    says = {
        dropped: "does not exist",
        empty: "does not exist.*another program deleted its tables",
        another: "was deleted or replaced while it was in use.*put the database back",
        made_anew: "was deleted or replaced while it was in use.*put the database back",
        emptied: "study 'first' was deleted meanwhile; nothing can go on with it",
    }[change]
    with open_storage(server) as storage:
        ledger = create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
        with ledger.drive():
            begun, asked = Driver(ledger).start(), Driver(ledger).ask()
            change(server)
            for name, call in (WRITES if change is emptied else WRITES | READS).items():
                with pytest.raises((StorageError, StudyError), match=says) as told:
                    call(ledger, begun, asked)
                assert "\n" not in str(told.value), name
    if change is dropped:
        execute(maintenance(server), f"CREATE DATABASE {make_url(server).database}")


@contextmanager
def locked(url: str, lock: str) -> Iterator[None]:
    """Somebody's session holds the lock of those who make tables."""
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"SELECT {lock}({database._LOCK_KEY})"))
        yield
        connection.rollback()


def test_a_lock_that_a_session_keeps_stops_no_command_that_makes_no_tables(server: str) -> None:
    open_storage(server).close()
    # As an older version left it in a pool of sessions.
    with locked(server, "pg_advisory_lock"), open_storage(server, must_exist=True) as storage:
        assert list_studies(storage) == []


def test_whoever_waits_for_tables_says_so_and_not_for_ever(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(database, "WAIT_SECONDS", 1.5)
    with locked(server, "pg_advisory_xact_lock"), pytest.raises(StorageError, match="another process has been making"):
        open_storage(server)
    assert "waiting for another process that makes or changes its tables" in caplog.text


def test_whoever_waits_for_tables_holds_no_session_of_a_pool(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through pgbouncer with three sessions, two that waited kept the third from making the tables."""
    monkeypatch.setattr(database, "WAIT_SECONDS", 3.0)
    held: list[int] = []

    def look() -> None:
        open_transactions = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND state LIKE 'idle in trans%'"
        )
        engine = create_engine(parse_url(server), poolclass=NullPool)
        with engine.connect() as connection:
            held.append(connection.scalar(text(open_transactions), {"name": make_url(server).database}) or 0)

    monkeypatch.setattr(database.time, "sleep", lambda seconds: look())
    with locked(server, "pg_advisory_xact_lock"), pytest.raises(StorageError, match="another process has been making"):
        open_storage(server)
    assert set(held) == {1}, "the transaction of the one that makes the tables"


def test_no_lock_outlives_its_transaction(server: str) -> None:
    """What a pool of sessions between us and the server would keep."""
    with open_storage(server):
        engine = create_engine(parse_url(server), poolclass=NullPool)
        with engine.connect() as connection:
            # The server's other databases belong to tests that run beside this one.
            own = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            locks = connection.scalar(text(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {own}"))
            prepared = connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
    assert (locks, prepared) == (0, 0)


def test_two_threads_of_one_pool_do_not_wait_for_each_other(server: str) -> None:
    made: list[object] = []
    threads = [threading.Thread(target=lambda: made.append(open_storage(server).close())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 2
