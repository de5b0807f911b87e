"""The SQL engine behind a storage, and the tables of Optuna and of the project in it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import (
    URL,
    Engine,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy import text as text_of
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from nas.errors import NoStudiesError, StorageError, in_short
from studies.store.connection import FIXES, Storage, path_errors, storage_errors
from studies.store.deletion import delete_held, hold_study, refuse_driven
from studies.store.disks import refuse_shared_disk
from studies.store.files import move_files
from studies.store.identity import follow, is_borne_by_another, new_identity, renamed
from studies.store.migrations import migrate
from studies.store.optuna_bridge import ALEMBIC_TABLE, OPTUNA_METADATA, OPTUNA_STUDIES, OPTUNA_TRIALS
from studies.store.records import SCHEMA_VERSION, Base, MetaRecord
from studies.store.urls import masked, sqlite_path, storage_url

log = logging.getLogger(__name__)
_LOCK_KEY = 0x736B6970  # "skip": PostgreSQL's advisory lock while tables are made
WAIT_SECONDS = 60.0
"""The seconds for which a process waits for another one that makes or changes the tables."""

DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg", "postgresql+psycopg2")
"""The databases that are supported, with the drivers by which SQLAlchemy may reach them."""


class _Optuna(RDBStorage):
    """Optuna's storage, which deletes a study as `delete_study` does, even when Optuna Dashboard asks for it.

    To the dashboard a renamed study is a new one, after which it deletes the old one. The records follow then.
    """

    def delete_study(self, study_id: int) -> None:
        with Session(self.engine) as session, session.begin():
            if not hold_study(session, study_id):
                super().delete_study(study_id)
                return
            named = select(OPTUNA_STUDIES.c.study_name).where(OPTUNA_STUDIES.c.study_id == study_id)
            if not is_borne_by_another(session.connection(), study_id):
                delete_held(session, study_id, session.scalars(named).one())
                return
            refuse_driven(session.connection(), study_id, session.scalars(named).one(), "rename")
        super().delete_study(study_id)
        for old, new in follow_renamed(self):
            move_files(self.engine.url, _identity(self.engine), old, new)


def open_storage(url: str | None = None, *, must_exist: bool = False) -> Storage:
    """Opens a database, creates missing tables, and brings a database of an older skipnas up to date.

    Records of a study that was renamed meanwhile follow it. An SQLite file that may not be written is opened to be
    read.

    Args:
        url: any SQLAlchemy URL, or the path of an SQLite file; by default `runs/studies.db`, whose folder is created.
        must_exist: for commands that only read: a database without studies is an error, and nothing is created.

    Raises:
        StorageError: the database cannot be reached, read or written; another version or another program wrote it; or
            its kind is not supported.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna logs a line for each trial; the search has its own
    parsed = storage_url(url)
    path = sqlite_path(parsed)
    if path is not None:
        with path_errors(parsed):
            if must_exist and not path.exists():
                raise _no_studies(parsed)
            if url is None:
                path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.is_dir():
                raise StorageError(f"storage {masked(parsed)}: folder {path.parent} does not exist; create it first")
            if not path.exists():
                refuse_shared_disk(parsed)
    used = parsed if path is None else for_reading(parsed)
    read_only = used is not parsed
    options = _engine_options(parsed)
    prober = _probe_engine(used, options)
    with storage_errors(parsed), ExitStack() as held:
        version = _schema_version(prober)
        if version is None or (version < SCHEMA_VERSION and not read_only):
            if version is None:  # looked at before anything is made, and before anybody is waited for
                refuse_shared_disk(parsed)
                _refuse_foreign(prober, parsed)
            if version is None and (must_exist or read_only):
                raise _no_studies(parsed)
            held.enter_context(_creation_lock(parsed, prober))
            version = _schema_version(prober)  # another process may have been at work
        _check_version(version, parsed, read_only=read_only)
        if version is None:
            _prepare(prober, parsed)
        # Optuna fills {SCHEMA_VERSION} into its URL by str.format, so other braces are escaped.
        text = used.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        rdb = _Optuna(
            text, engine_kwargs=options, skip_compatibility_check=True, skip_table_creation=version is not None
        )
        try:
            _check_optuna_schema(rdb, parsed)
            if version is None:
                _create_tables(rdb.engine)
            elif version < SCHEMA_VERSION:
                migrate(rdb.engine, version)
            identity = _identity(rdb.engine)
            if not read_only:
                for old, new in follow_renamed(rdb):
                    move_files(parsed, identity, old, new)
        except BaseException:
            rdb.engine.dispose()
            raise
    if path is not None and not read_only:
        # With WAL, NORMAL keeps the file consistent whatever is killed, and saves a sync for each commit.
        event.listen(rdb.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        rdb.engine.dispose()  # closes connections made before the listener
    return Storage(parsed, rdb, identity, read_only=read_only)


def is_missing(url: str | None) -> bool:
    """Tells whether the storage is an SQLite file that `open_storage` would make."""
    parsed = storage_url(url)
    path = sqlite_path(parsed)
    with path_errors(parsed):
        return path is not None and not path.exists() and (url is None or path.parent.is_dir())


def follow_renamed(storage: RDBStorage) -> list[tuple[str, str]]:
    """Lets the records of renamed studies follow them. Returns the old and new names of these studies."""
    with storage.engine.connect() as connection:
        if not any(renamed(connection)):
            return []
    with storage.engine.begin() as connection:
        moves = list(renamed(connection))
        for old, _, new, name in moves:
            refuse_driven(connection, old, name, "rename")
            follow(connection, old, new, name)
    return [(before, name) for _, before, _, name in moves]


def _no_studies(url: URL) -> NoStudiesError:
    return NoStudiesError(f"no studies yet in {masked(url)}; run `skipnas search` first or name another `storage`")


def for_reading(url: URL) -> URL:
    """Returns the URL by which an SQLite file is opened: its own, or one for reading when it may not be written."""
    path = sqlite_path(url)
    assert path is not None
    effective = os.access in os.supports_effective_ids
    if not path.exists() or all(os.access(each, os.W_OK, effective_ids=effective) for each in (path, path.parent)):
        return url
    query = {"mode": "ro", "uri": "true"}
    if not path.with_name(f"{path.name}-wal").exists():
        query["immutable"] = "1"  # nobody writes to it, and SQLite would make a file beside it all the same
    return url.set(database=f"file:{quote(str(path.resolve()))}", query=query)


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == "postgresql+psycopg":
        # Statements that are prepared in a session are lost where a pool shares sessions between transactions. Texts
        # are Unicode, whatever the server was set up for.
        wanted = {"connect_timeout": 10, "prepare_threshold": None, "client_encoding": "utf8"}
        options["connect_args"] = {name: value for name, value in wanted.items() if name not in url.query}
    return options


def _probe_engine(url: URL, options: dict[str, Any]) -> Engine:
    """Returns an engine that keeps no connection, for a look at the database before Optuna writes to it."""
    if url.drivername not in DRIVERS:
        known = url.get_backend_name() in ("sqlite", "postgresql")
        kind = f"driver {url.drivername!r}" if known else f"kind of database {url.drivername!r}"
        raise StorageError(
            f"storage {masked(url)}: unknown {kind}; give a file's path for SQLite, or postgresql://USER@HOST/NAME"
        )
    try:
        return create_engine(url, poolclass=NullPool, **{k: v for k, v in options.items() if k != "pool_pre_ping"})
    except ImportError as error:
        fix = "skipnas[postgres]" if url.drivername == "postgresql+psycopg" else "psycopg2-binary"
        raise StorageError(
            f"storage {masked(url)}: its driver {error.name!r} is not installed; pip install {fix}"
        ) from None


@contextmanager
def _creation_lock(url: URL, prober: Engine) -> Iterator[None]:
    """Lets one process at a time create or migrate, because Optuna's creation of tables fails when two overlap.

    PostgreSQL's lock ends with its transaction, because a session may stay in a pool when this process has ended.
    """
    path = sqlite_path(url)
    if path is not None and sys.platform != "win32":
        import fcntl

        def lock() -> bool:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        with path_errors(url):
            folder = os.open(path.parent, os.O_RDONLY)  # a lock on the folder leaves no file behind
        try:
            with path_errors(url):
                _wait_for(lock, url)
            yield
        finally:
            os.close(folder)
    elif prober.dialect.name == "postgresql":
        with prober.connect() as connection:

            def locked() -> bool:
                if connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK_KEY))):
                    return True
                connection.rollback()  # whoever waits leaves its session to others: a pool has few
                return False

            _wait_for(locked, url)
            yield
    else:
        yield


def _wait_for(lock: Callable[[], bool], url: URL) -> None:
    """Waits until `lock` has succeeded, and says so when it takes longer."""
    begun, told = time.monotonic(), False
    while not lock():
        waited = time.monotonic() - begun
        if waited > WAIT_SECONDS:
            raise StorageError(
                f"storage {masked(url)}: another process has been making or changing its tables for {waited:.0f} s; "
                "end it, and give the same command again"
            )
        if waited > 1 and not told:
            log.warning("storage %s: waiting for another process that makes or changes its tables", masked(url))
            told = True
        time.sleep(0.1)


def _schema_version(engine: Engine) -> int | None:
    """Returns the schema that the database was written with; None when it has none or not all of our tables."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(MetaRecord.__tablename__):
            return None
        value = connection.scalar(select(MetaRecord.value).where(MetaRecord.key == "schema_version"))
    if value is not None and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise StorageError(
            f"the database has schema {in_short(repr(value))}, must have a number: another program wrote it; give "
            "another `storage`"
        )
    return None if value is None else int(value)


def _check_version(version: int | None, url: URL, *, read_only: bool) -> None:
    if version is None or version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"storage {masked(url)} has schema {version}, this skipnas knows up to {SCHEMA_VERSION}; "
            "update skipnas or choose another storage"
        )
    if read_only:
        raise StorageError(
            f"storage {masked(url)} has schema {version}, must have {SCHEMA_VERSION} and cannot be written; let its "
            "owner run `skipnas studies list` on it once, or copy it to a folder of yours"
        )


def _refuse_foreign(engine: Engine, url: URL) -> None:
    """Refuses a database that another program made. Tables beside all of Optuna's are somebody's own business."""
    with engine.connect() as connection:
        found = inspect(connection)
        tables = {name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()}
    optunas = OPTUNA_METADATA.tables
    whole = optunas.keys() <= tables.keys()
    foreign = [] if whole else sorted(tables.keys() - optunas.keys() - Base.metadata.tables.keys() - {ALEMBIC_TABLE})
    # A program may have called a table of its own as Optuna does.
    keys = {OPTUNA_STUDIES: {"study_id", "study_name"}, OPTUNA_TRIALS: {"trial_id", "study_id", "number"}}
    foreign += [table.name for table, names in keys.items() if table.name in tables and not names <= tables[table.name]]
    if foreign:
        raise StorageError(
            f"storage {masked(url)} is the database of another program (its tables: {in_short(', '.join(foreign))}); "
            "give another `storage`"
        )


def _prepare(engine: Engine, url: URL) -> None:
    """Checks a database in which tables will be made, and sets what it keeps."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            # The file keeps this mode, in which readers do not block the writer.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        encoding = connection.scalar(text_of("SHOW server_encoding"))
        if encoding != "UTF8":
            raise StorageError(
                f"storage {masked(url)} keeps texts in {encoding}, must keep them in UTF8; create it with: "
                "CREATE DATABASE NAME ENCODING 'UTF8' TEMPLATE template0"
            )
        # Optuna would leave its connection open when it cannot make its tables.
        schema = connection.scalar(select(func.current_schema()))
        if schema is None:
            raise StorageError(f"storage {masked(url)}: there is no schema to make tables in; {FIXES['3F000']}")
        if not connection.scalar(select(func.has_schema_privilege(schema, "CREATE"))):
            raise StorageError(f"storage {masked(url)}: permission denied for schema {schema}; {FIXES['42501']}")


def _identity(engine: Engine) -> str:
    with engine.connect() as connection:
        return connection.scalar(select(MetaRecord.value).where(MetaRecord.key == "identity")) or ""


def _check_optuna_schema(rdb: RDBStorage, url: URL) -> None:
    current = rdb.get_current_version()
    if current == rdb.get_head_version():
        return
    fix = (
        "back it up and run `optuna storage upgrade`" if current in rdb.get_all_versions() else "pip install -U optuna"
    )
    raise StorageError(f"storage {masked(url)}: another version of Optuna wrote its tables ({current}); {fix}")


def _create_tables(engine: Engine) -> None:
    # The version comes last. Until it is there, any process that opens the database creates the missing tables.
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.merge(MetaRecord(key="identity", value=new_identity()))
        session.add(MetaRecord(key="schema_version", value=str(SCHEMA_VERSION)))
