"""The connection to a database.

A database has Optuna's tables and the project's own (`studies.store.records`) behind one SQLAlchemy engine, so that
plain Optuna and Optuna Dashboard read every study. SQLite is the default; PostgreSQL serves several machines. Passwords
never appear in a message.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    select,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from nas.errors import StorageError, in_short
from studies.store.records import MetaRecord
from studies.store.urls import masked, sqlite_path

FIXES = {
    "42501": "let its owner GRANT this role USAGE and CREATE on the schema, and ALL on the tables and sequences in it",
    "25006": "it can only be read here: use a command that reads, or another role or server",
    "3F000": "name a schema that is there (?options=-csearch_path%3DNAME)",
    "42P01": "another program deleted its tables: restore them, or give another `storage`",
    "22021": "create a database with ENCODING 'UTF8'",
    "22P05": "create a database with ENCODING 'UTF8'",
}
"""What to do about the errors of PostgreSQL that a person can mend, by their SQLSTATE."""


class Storage:
    """An open database, and a context manager that closes its connections.

    Attributes:
        url: the database's URL.
        identity: identity of the database, which no other one has, whatever its URL; "" for a database of an older
            version that cannot be written.
        masked: the URL without passwords, which may be shown.
        engine: the SQL engine that Optuna and the project's records share.
        read_only: whether it may only be read.
        in_memory: whether it is an SQLite database that only the thread that opened it can use.
        optuna: the same database for Optuna's functions.
    """

    def __init__(self, url: URL, optuna_storage: RDBStorage, identity: str, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self.url = url
        self.identity = identity
        self.masked = masked(url)
        self.in_memory = url.get_backend_name() == "sqlite" and sqlite_path(url) is None
        self.optuna = optuna_storage
        self.engine: Engine = optuna_storage.engine
        self._path = sqlite_path(url)
        self._file = None if self._path is None else _file_of(self._path)

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.optuna.remove_session()
        self.engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Provides one transaction on the records. Its results stay readable after it."""
        with self.guard(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            self._recognise(session.connection())
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Provides one transaction on plain tables, at a fraction of the cost of `session`."""
        with self.guard(), self.engine.begin() as connection:
            self._recognise(connection)
            yield connection

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turns a database that is gone, locked, full or damaged into a StorageError; bugs pass through."""
        # SQLite would go on writing to a file that was deleted, and nobody would find it again.
        if self._path is not None and _file_of(self._path) != self._file:
            raise self._replaced("file")
        with storage_errors(self.url):
            yield

    def _recognise(self, connection: Connection) -> None:
        """Raises StorageError when a server's database is no longer the one that was opened.

        A server has another database under the old name for every session that begins later, and for those under way
        when only its tables were made anew. So each transaction looks first; a file is recognised by `guard`.
        """
        if self.url.get_backend_name() == "sqlite" or not self.identity:
            return
        if connection.scalar(select(MetaRecord.value).where(MetaRecord.key == "identity")) != self.identity:
            raise self._replaced("database")

    def _replaced(self, kind: str) -> StorageError:
        return StorageError(
            f"storage {self.masked} was deleted or replaced while it was in use, and what was written to it since is "
            f"lost; put the {kind} back, or begin a study in a new one"
        )


def _file_of(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another one of its name: its device and its number there.

    None without a file, and for a folder or a device, which may have got the number of a file that was deleted.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


@contextmanager
def path_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"storage {masked(url)}: cannot use {error.filename} ({error.strerror}); choose another `storage`"
        ) from None


@contextmanager
def storage_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        if type(error) is not LookupError:
            raise
        # By which SQLAlchemy tells that a column has a word that is none of its words.
        raise StorageError(
            f"storage {masked(url)} holds a value that is none of its column's ({in_short(error)}): another program "
            "wrote it; restore the database, or give another `storage`"
        ) from None
    except (DBAPIError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        fix = FIXES.get(getattr(getattr(cause, "orig", None), "sqlstate", None) or "")
        bug = isinstance(cause, (IntegrityError, ProgrammingError, DataError)) and fix is None
        if not isinstance(cause, DBAPIError) or bug:
            raise
        reason = str(cause.orig).partition("\n")[0]
        fix = fix or (
            "check the file and that its folder is writable"
            if url.get_backend_name() == "sqlite"
            else "check that the server runs, and host, user, password and database"
        )
        raise StorageError(f"storage {masked(url)} cannot be used ({reason}); {fix}") from error
