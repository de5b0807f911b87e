"""Databases and the studies in them: open, create, list, compare, delete and write out.

A database holds Optuna's tables and the project's own (`studies.records`) behind one SQLAlchemy engine, so
that plain Optuna and Optuna Dashboard read every study. SQLite is the default; PostgreSQL serves several
machines. Passwords never appear in a message.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as optuna_tables  # the schema, which Optuna versions; it has no public name
from optuna.trial import TrialState
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    Select,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from nas.checkpoint import drop_all, write_whole
from nas.errors import ConfigError, NoStudiesError, StorageError, StudyError
from nas.types import Constraint, Counts, Objective, StudyConfig
from studies.leases import live_drivers
from studies.ledger import SqlLedger, count_trials
from studies.migrations import migrate
from studies.records import SCHEMA_VERSION, Base, MetaRecord, StudyRecord, TrialRecord
from studies.urls import masked, masked_command, parse_url, sqlite_path

_OWNER = ".database"  # in a study's folder: whose it is
_LOCK_KEY = 0x736B6970  # "skip": PostgreSQL's advisory lock while tables are made


class Storage:
    """An open database; a context manager that closes its connections.

    Attributes:
        masked: the URL as it may be shown.
        engine: shared by Optuna and the project's records.
        in_memory: whether it is an SQLite database that only the thread that opened it can use.
        optuna: the same database as Optuna's functions take it.
    """

    def __init__(self, url: URL, optuna_storage: RDBStorage) -> None:
        self.url = url
        self.masked = masked(url)
        self.in_memory = url.get_backend_name() == "sqlite" and sqlite_path(url) is None
        self.optuna = optuna_storage
        self.engine: Engine = optuna_storage.engine

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
        """One transaction on the records; what it returns stays readable after it."""
        with self.guard(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction by plain tables, which costs a driver a fraction of what `session` does."""
        with self.guard(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turns a database that is gone, locked, full or damaged into a StorageError; bugs pass through."""
        with _storage_errors(self.url):
            yield


class _Optuna(RDBStorage):
    """Optuna's storage that deletes a study as `delete_study` does, also when Optuna Dashboard asks."""

    def delete_study(self, study_id: int) -> None:
        with Session(self.engine) as session, session.begin():
            if _hold(session, study_id):
                study: Any = session.get_one(optuna_tables.StudyModel, study_id)
                _delete(session, study_id, study.study_name)
                return
        super().delete_study(study_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One line of `studies list`.

    Attributes:
        updated: when the last trial ended, or the study was created; seconds since the epoch.
        best: the best value of each objective over the COMPLETE trials; empty when there are none.
    """

    name: str
    config: StudyConfig
    command: str
    created: float
    updated: float
    counts: Counts
    best: Mapping[str, float]


def open_storage(url: str | None = None, *, must_exist: bool = False) -> Storage:
    """Opens a database and creates what it lacks; one of an older version of skipnas is brought up to date.

    Args:
        url: any SQLAlchemy URL, or the path of an SQLite file; by default `runs/studies.db`, whose folder
            is created.
        must_exist: for commands that only read: a database without studies is an error and nothing is
            created.

    Raises:
        StorageError: it cannot be reached, read or written, or another version wrote it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line a trial, and the search has its own
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    if path is not None:
        with _path_errors(parsed):
            if must_exist and not path.exists():
                raise _no_studies(parsed)
            if url is None:
                path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.is_dir():
                raise StorageError(f"storage {masked(parsed)}: folder {path.parent} does not exist; create it first")
    options = _engine_options(parsed)
    prober = _probe_engine(parsed, options)
    with _storage_errors(parsed), _creation_lock(parsed, prober):
        version = _schema_version(prober)
        if version is None and must_exist:
            raise _no_studies(parsed)
        if version is not None and version > SCHEMA_VERSION:
            raise StorageError(
                f"storage {masked(parsed)} has schema {version}, this skipnas knows up to {SCHEMA_VERSION}; "
                "update skipnas or choose another storage"
            )
        if version is None and path is not None:
            with prober.connect() as connection:  # kept in the file: readers no longer block the writer
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        # Optuna fills {SCHEMA_VERSION} into its URL by str.format, which other braces would upset.
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
        # With WAL, NORMAL keeps the file consistent whatever is killed, and spares a sync per commit.
        event.listen(rdb.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        rdb.engine.dispose()  # connections made before the listener
    return Storage(parsed, rdb)


def files_dir(url: URL | str | None, study: str) -> Path:
    """Where a study's weights and checkpoints live: beside the SQLite file, or in `runs`. Absolute, not created."""
    path = sqlite_path(url if isinstance(url, URL) else parse_url(url))
    return (Path("runs") if path is None else path.parent).resolve() / study


def check_name(url: URL, name: str) -> None:
    """Raises ConfigError for a name that no study can have, StudyError where its folder is another database's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"study name {name!r} is not valid; use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    if files_dir(url, name).is_file():
        raise ConfigError(f"study name {name!r} is that of a file where the study keeps its weights; choose another")
    _check_folder(url, files_dir(url, name), name)


def is_missing(url: str | None) -> bool:
    """Whether the storage is an SQLite file that `open_storage` would make."""
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    with _path_errors(parsed):
        return path is not None and not path.exists() and (url is None or path.parent.is_dir())


def claim_files(storage: Storage, study: str) -> Path:
    """A study's `files_dir`, for writing: it belongs to this database from now on.

    Studies of one name may be in several databases of which the files would lie in one folder: SQLite files that are
    neighbours, databases on servers. The first that writes there keeps the folder, as long as its database is there.

    Raises:
        StudyError: the folder is another database's. StorageError: it cannot be written.
    """
    folder = files_dir(storage.url, study)
    _check_folder(storage.url, folder, study)
    if not storage.in_memory:
        with _path_errors(storage.url):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _OWNER).write_text(_owner(storage.url), "utf-8")
    return folder


def drop_files(storage: Storage, study: str) -> None:
    """Deletes what a study that is gone left in its folder, if the folder is this database's."""
    folder = files_dir(storage.url, study)
    if _another_owner(storage.url, folder) is None:
        (folder / _OWNER).unlink(missing_ok=True)
        drop_all(folder)


def create_study(
    storage: Storage,
    config: StudyConfig,
    distributions: Mapping[str, BaseDistribution],
    provenance: Mapping[str, Any],
    command: str,
) -> SqlLedger:
    """Creates a study.

    Args:
        config: fixed from now on; `config.study` is its name.
        distributions: of the search space; the study keeps them.
        provenance: versions, commit, hardware; JSON values.
        command: the command line that asked for it; passwords in its URLs are not kept.

    Raises:
        ConfigError: the name is not valid.
        StudyError: a study of that name exists, or has its files where this one's would lie.
    """
    check_name(storage.url, config.study)
    exists = StudyError(f"study {config.study!r} exists already in {storage.masked}; choose another name")
    if has_study(storage, config.study):
        raise exists
    _drop_orphans(storage)
    directions = [optuna.study.StudyDirection[o.direction.upper()] for o in config.objectives]
    with storage.guard():
        # An empty study of that name is one whose creation was cut off: it is taken over.
        study = optuna.create_study(
            study_name=config.study, storage=storage.optuna, directions=directions, load_if_exists=True
        )
        if study.directions != directions or study.get_trials(deepcopy=False):
            raise _foreign(storage, config.study)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([o.name for o in config.objectives])
    record = StudyRecord(
        study_id=study._study_id,
        config=config.to_dict(),
        distributions={name: distribution_to_json(d) for name, d in distributions.items()},
        provenance=dict(provenance),
        command=masked_command(command),
        created=time.time(),
    )
    try:
        with storage.session() as session:
            session.add(record)
    except IntegrityError:
        raise exists from None  # by another process, a moment ago
    return open_study(config.study, storage)


def open_study(name: str, storage: Storage | str | None = None) -> SqlLedger:
    """Opens a study that exists.

    Args:
        name: of the study.
        storage: an open storage, or the URL of one that must exist; the ledger closes either.

    Raises:
        StudyError: there is no such study, or skipnas did not make it.
    """
    if not isinstance(storage, Storage):
        opened = open_storage(storage, must_exist=True)
        try:
            return open_study(name, opened)
        except BaseException:
            opened.close()
            raise
    with storage.session() as session:
        record = _find(session, storage, name)
    with storage.guard():
        return SqlLedger(storage, name, record)


def has_study(storage: Storage, name: str) -> bool:
    """Whether skipnas made a study of that name."""
    with storage.session() as session:
        return session.scalar(_named(name)) is not None


def list_studies(storage: Storage) -> list[StudySummary]:
    """Every study that skipnas made, oldest first, in a handful of queries whatever their number."""
    studies, trials, values = optuna_tables.StudyModel, optuna_tables.TrialModel, optuna_tables.TrialValueModel
    extremes = (
        select(trials.study_id, values.objective, func.min(values.value), func.max(values.value))
        .join(values, values.trial_id == trials.trial_id)
        .where(trials.state == TrialState.COMPLETE)
        .group_by(trials.study_id, values.objective)
    )
    with storage.session() as session:
        rows = session.execute(
            select(studies.study_name, StudyRecord)
            .join(studies, studies.study_id == StudyRecord.study_id)
            .order_by(StudyRecord.created, StudyRecord.study_id)
        ).all()
        counts = count_trials(session)
        ended = {
            row.study_id: row.ended
            for row in session.execute(
                select(TrialRecord.study_id, func.max(TrialRecord.ended).label("ended")).group_by(TrialRecord.study_id)
            )
        }
        best: defaultdict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
        for study_id, objective, low, high in session.execute(extremes):
            best[study_id][objective] = low, high
    summaries = []
    for name, record in rows:
        config = StudyConfig.from_dict(record.config)
        summaries.append(
            StudySummary(
                name=name,
                config=config,
                command=masked_command(record.command),
                created=record.created,
                updated=ended.get(record.study_id) or record.created,
                counts=counts.get(record.study_id, Counts()),
                best={
                    objective.name: best[record.study_id][index][objective.direction == "maximize"]
                    for index, objective in enumerate(config.objectives)
                    if index in best[record.study_id]
                },
            )
        )
    return summaries


def delete_study(storage: Storage, name: str) -> None:
    """Deletes a study and everything recorded of it, in one transaction; its files are the caller's.

    Raises:
        StudyError: there is no such study, skipnas did not make it, or a live driver works on it.
    """
    studies = optuna_tables.StudyModel
    with storage.session() as session:
        _hold(session, select(studies.study_id).where(studies.study_name == name).scalar_subquery())
        _delete(session, _find(session, storage, name).study_id, name)


def _hold(session: Session, study_id: Any) -> bool:
    """Holds a study's row until the transaction ends, as its drivers do; False when skipnas made no such study."""
    held = session.execute(
        update(StudyRecord).where(StudyRecord.study_id == study_id).values(events=StudyRecord.events),
        execution_options={"synchronize_session": False},
    )
    return bool(held.rowcount)  # type: ignore[attr-defined]


def _delete(session: Session, study_id: int, name: str) -> None:
    """Deletes a study that the session holds; no driver can begin meanwhile."""
    if drivers := live_drivers(session.connection(), study_id).values():
        raise StudyError(
            f"study {name!r} is being worked on by {', '.join(d.label for d in drivers)}; "
            "stop that search or confirmation first (Ctrl-C), then delete the study"
        )
    # By table, because Optuna's own deletion loads every trial.
    _delete_records(session, Base.metadata, [study_id])
    _delete_records(session, optuna_tables.BaseModel.metadata, [study_id])


def _delete_records(session: Session, metadata: MetaData, study_ids: Any) -> None:
    """Deletes what the tables hold of these studies, children first."""
    trial_ids = select(optuna_tables.TrialModel.trial_id).where(optuna_tables.TrialModel.study_id.in_(study_ids))
    for table in reversed(metadata.sorted_tables):
        if "study_id" in table.c:
            session.execute(delete(table).where(table.c.study_id.in_(study_ids)))
        elif "trial_id" in table.c:
            session.execute(delete(table).where(table.c.trial_id.in_(trial_ids)))


def _drop_orphans(storage: Storage) -> None:
    """Deletes records whose study plain Optuna deleted: SQLite gives the study's id to the next one."""
    orphans = select(StudyRecord.study_id).where(StudyRecord.study_id.not_in(select(optuna_tables.StudyModel.study_id)))
    with storage.session() as session:
        if session.scalar(orphans.limit(1)) is None:
            return
    with storage.session() as session:
        _delete_records(session, Base.metadata, orphans)


def difference(stored: StudyConfig, wanted: StudyConfig) -> list[str]:
    """One line for each setting that a study fixes and a command asks to be otherwise; empty when none."""
    lines = []
    for label, has, asks in _settings(stored, wanted):
        if has != asks:
            left, right = _show(has), _show(asks)
            if left == right:  # the same names, other figures
                left, right = repr(has), repr(asks)
            lines.append(f"{label}: study has {left}, asked for {right}")
    return lines


def study_rows(ledger: SqlLedger) -> list[dict[str, Any]]:
    """One flat row per trial, for tables: outcome, objectives, size, cost, hyperparameters, digest."""
    with ledger.storage.guard():
        trials = ledger.study.get_trials(deepcopy=False)
    records = {record.number: record for record in ledger.trials()}
    nothing = TrialRecord()
    rows = []
    for trial in trials:
        record = records.get(trial.number, nothing)
        measured = record.values or {}
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name,
                "reason": record.reason,
                **{objective.name: measured.get(objective.name) for objective in ledger.config.objectives},
                "params": record.params,
                "macs": record.macs,
                "latency": record.latency,
                "seconds": record.seconds,
                **{name: trial.params.get(name) for name in ledger.distributions},
                "digest": record.digest,
            }
        )
    return rows


def to_csv(ledger: SqlLedger, path: Path) -> int:
    """Writes `study_rows` to a CSV file, whole or not at all; returns the number of trials.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = study_rows(ledger)

    def write(file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, rows[0] if rows else ["number", "state"])
            writer.writeheader()
            writer.writerows(rows)

    try:
        path.parent.stat()  # a folder that is mistyped is not made
        write_whole(path, write)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); name a file in a folder that exists") from None
    return len(rows)


@contextmanager
def _path_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"storage {masked(url)}: cannot use {error.filename} ({error.strerror}); choose another with --storage"
        ) from None


def _no_studies(url: URL) -> NoStudiesError:
    return NoStudiesError(f"no studies yet in {masked(url)}; run `skipnas search` first or name another --storage")


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        options["connect_args"] = {"connect_timeout": 10}
    return options


def _probe_engine(url: URL, options: dict[str, Any]) -> Engine:
    """An engine that keeps no connection, to look before Optuna writes."""
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
def _storage_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if not isinstance(cause, DBAPIError) or isinstance(cause, (IntegrityError, ProgrammingError, DataError)):
            raise
        reason = str(cause.orig).partition("\n")[0]
        fix = (
            "check the file and that its folder is writable"
            if url.get_backend_name() == "sqlite"
            else "check that the server runs, and host, user, password and database"
        )
        raise StorageError(f"storage {masked(url)} cannot be used ({reason}); {fix}") from error


@contextmanager
def _creation_lock(url: URL, prober: Engine) -> Iterator[None]:
    """One process at a time creates or migrates: Optuna's creation of tables fails when two overlap."""
    path = sqlite_path(url)
    if path is not None and sys.platform != "win32":
        import fcntl

        with _path_errors(url):
            folder = os.open(path.parent, os.O_RDONLY)  # a lock on the folder leaves no file behind
        try:
            with _path_errors(url):
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
    """The schema that the database was written with; None when it has none of our tables or not yet all."""
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
    # The version comes last: until it is there, whoever opens the database creates what is missing.
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(MetaRecord(key="schema_version", value=str(SCHEMA_VERSION)))


def _check_folder(url: URL, folder: Path, study: str) -> None:
    if owner := _another_owner(url, folder):
        raise StudyError(
            f"folder {folder} holds the files of study {study!r} of another database, {owner}; give another --study "
            f"name, or delete {folder / _OWNER} if that is this database's former name"
        )


def _owner(url: URL) -> str:
    """The database as the folders of its studies name it: an SQLite file by its name, as it lies beside them."""
    path = sqlite_path(url)
    return path.name if path is not None else masked(url.set(username=None, password=None, query={}))


def _another_owner(url: URL, folder: Path) -> str | None:
    """The database that a folder belongs to, if that is another one; an SQLite file that is gone owns nothing."""
    marker = folder / _OWNER
    owner = marker.read_text("utf-8").strip() if marker.exists() else ""
    if owner in ("", _owner(url)) or ("://" not in owner and not (folder.parent / owner).exists()):
        return None
    return owner


def _named(name: str) -> Select[StudyRecord]:
    studies = optuna_tables.StudyModel
    return select(StudyRecord).join(studies, studies.study_id == StudyRecord.study_id).where(studies.study_name == name)


def _find(session: Session, storage: Storage, name: str) -> StudyRecord:
    record: StudyRecord | None = session.scalar(_named(name))
    if record is not None:
        return record
    studies = optuna_tables.StudyModel
    if session.scalar(select(studies.study_id).where(studies.study_name == name)) is not None:
        raise _foreign(storage, name)
    names = session.scalars(
        select(studies.study_name)
        .join(StudyRecord, StudyRecord.study_id == studies.study_id)
        .order_by(StudyRecord.created.desc())
        .limit(11)
    ).all()
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise StudyError(
        f"no study {name!r} in {storage.masked}; "
        + (f"there are: {listed}" if names else "it holds none, run `skipnas search` first")
    )


def _foreign(storage: Storage, name: str) -> StudyError:
    return StudyError(f"study {name!r} in {storage.masked} was not made by skipnas; choose another name")


def _settings(stored: StudyConfig, wanted: StudyConfig) -> Iterator[tuple[str, Any, Any]]:
    """Label and both values of every setting; the task gives way to its fields."""
    for field in fields(StudyConfig):
        has, asks = getattr(stored, field.name), getattr(wanted, field.name)
        if field.name == "task":
            for part in fields(has):
                yield part.name, getattr(has, part.name), getattr(asks, part.name)
        elif field.name != "study":
            yield field.name.replace("_", " "), has, asks


def _show(value: Any) -> str:
    """A setting as the command line writes it."""
    match value:
        case None:
            return "all"
        case Objective():
            return value.name
        case Constraint():
            return f"{value.name}<={value.upper}"
        case tuple():
            return ",".join(map(_show, value)) or "none"
        case _:
            return str(value)
