"""The SQL engine behind a storage, and the tables of Optuna and of the project in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from nas.errors import NoStudiesError, StorageError
from studies.store.connection import Storage, path_errors, storage_errors
from studies.store.deletion import delete_held, hold_study
from studies.store.migrations import migrate
from studies.store.optuna_bridge import OPTUNA_STUDIES
from studies.store.records import SCHEMA_VERSION, Base, MetaRecord
from studies.store.urls import masked, sqlite_path, storage_url

_LOCK_KEY = 0x736B6970  # "skip": PostgreSQL's advisory lock while tables are made


class _Optuna(RDBStorage):
    """Optuna's storage, which deletes a study as `delete_study` does, even when Optuna Dashboard asks for it."""

    def delete_study(self, study_id: int) -> None:
        with Session(self.engine) as session, session.begin():
            if hold_study(session, study_id):
                named = select(OPTUNA_STUDIES.c.study_name).where(OPTUNA_STUDIES.c.study_id == study_id)
                delete_held(session, study_id, session.scalars(named).one())
                return
        super().delete_study(study_id)


def open_storage(url: str | None = None, *, must_exist: bool = False) -> Storage:
    """Opens a database, creates missing tables, and brings a database of an older skipnas up to date.

    Args:
        url: any SQLAlchemy URL, or the path of an SQLite file; by default `runs/studies.db`, whose folder is created.
        must_exist: for commands that only read: a database without studies is an error, and nothing is created.

    Raises:
        StorageError: the database cannot be reached, read or written, or another version wrote it.
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
    options = _engine_options(parsed)
    prober = _probe_engine(parsed, options)
    with storage_errors(parsed), _creation_lock(parsed, prober):
        version = _schema_version(prober)
        if version is None and must_exist:
            raise _no_studies(parsed)
        if version is not None and version > SCHEMA_VERSION:
            raise StorageError(
                f"storage {masked(parsed)} has schema {version}, this skipnas knows up to {SCHEMA_VERSION}; "
                "update skipnas or choose another storage"
            )
        if version is None and path is not None:
            with prober.connect() as connection:  # the file keeps this mode, in which readers do not block the writer
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        # Optuna fills {SCHEMA_VERSION} into its URL by str.format, so other braces are escaped.
        text = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        rdb = _Optuna(
            text, engine_kwargs=options, skip_compatibility_check=True, skip_table_creation=version is not None
        )
        try:
            _check_optuna_schema(rdb, parsed)
            if version is None:
                _create_tables(rdb.engine)
            else:
                migrate(rdb.engine, version)
        except BaseException:
            rdb.engine.dispose()
            raise
    if path is not None:
        # With WAL, NORMAL keeps the file consistent whatever is killed, and saves a sync for each commit.
        event.listen(rdb.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        rdb.engine.dispose()  # closes connections made before the listener
    return Storage(parsed, rdb)


def is_missing(url: str | None) -> bool:
    """Tells whether the storage is an SQLite file that `open_storage` would make."""
    parsed = storage_url(url)
    path = sqlite_path(parsed)
    with path_errors(parsed):
        return path is not None and not path.exists() and (url is None or path.parent.is_dir())


def _no_studies(url: URL) -> NoStudiesError:
    return NoStudiesError(f"no studies yet in {masked(url)}; run `skipnas search` first or name another `storage`")


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        options["connect_args"] = {"connect_timeout": 10}
    return options


def _probe_engine(url: URL, options: dict[str, Any]) -> Engine:
    """Returns an engine that keeps no connection, for a look at the database before Optuna writes to it."""
    try:
        return create_engine(url, poolclass=NullPool, **{k: v for k, v in options.items() if k != "pool_pre_ping"})
    except ArgumentError:
        raise StorageError(
            f"storage {masked(url)}: unknown kind of database {url.drivername!r}; use sqlite or postgresql"
        ) from None
    except ImportError as error:
        fix = "skipnas[postgres]" if url.get_backend_name() == "postgresql" else error.name
        raise StorageError(
            f"storage {masked(url)}: its driver {error.name!r} is not installed; pip install {fix}"
        ) from None


@contextmanager
def _creation_lock(url: URL, prober: Engine) -> Iterator[None]:
    """Lets one process at a time create or migrate, because Optuna's creation of tables fails when two overlap."""
    path = sqlite_path(url)
    if path is not None and sys.platform != "win32":
        import fcntl

        with path_errors(url):
            folder = os.open(path.parent, os.O_RDONLY)  # a lock on the folder leaves no file behind
        try:
            with path_errors(url):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    elif prober.dialect.name == "postgresql":
        with prober.connect() as connection:  # closing it releases the lock
            connection.execute(select(func.pg_advisory_lock(_LOCK_KEY)))
            yield
    else:
        yield


def _schema_version(engine: Engine) -> int | None:
    """Returns the schema that the database was written with; None when it has none or not all of our tables."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(MetaRecord.__tablename__):
            return None
        value = connection.scalar(select(MetaRecord.value).where(MetaRecord.key == "schema_version"))
    return None if value is None else int(value)


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
        session.add(MetaRecord(key="schema_version", value=str(SCHEMA_VERSION)))
