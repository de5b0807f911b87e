"""Whose records and whose database these are: what other programs did meanwhile, and what skipnas makes of it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from study_samples import DISTRIBUTIONS, Driver, fresh_postgres, make_config, make_measurement, read, row

from nas.errors import StorageError, StudyError
from nas.outcome import Outcome
from nas.types import Counts
from studies.commands.doctor import examine
from studies.pages.dashboard import Pictures
from studies.reading.study import StudyReader
from studies.store.catalog import create_study, list_studies, lost_studies
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.deletion import delete_study
from studies.store.files import claim_files, files_dir
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger
from studies.store.optuna_bridge import picture_attribute
from studies.store.urls import parse_url


@contextmanager
def plain(url: str) -> Iterator[RDBStorage]:
    """The same database as a program sees it that knows Optuna alone."""
    storage = RDBStorage(parse_url(url).render_as_string(hide_password=False))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


# What plain Optuna does to the study "first", which has one complete trial


def deletes(storage: RDBStorage) -> None:
    optuna.delete_study(study_name="first", storage=storage)


def replaces(storage: RDBStorage) -> None:
    """A person's own study gets the id, and another name."""
    deletes(storage)
    optuna.create_study(study_name="theirs", storage=storage, directions=["maximize", "minimize"])


def replaces_by_name(storage: RDBStorage) -> None:
    """A person's own study gets the id and the name."""
    deletes(storage)
    study = optuna.create_study(study_name="first", storage=storage, directions=["maximize", "minimize"])
    study.add_trial(optuna.trial.create_trial(values=[99.0, 1.0]))


def copies(storage: RDBStorage) -> None:
    optuna.copy_study(from_study_name="first", from_storage=storage, to_study_name="copied", to_storage=storage)


def nothing(storage: RDBStorage) -> None:
    pass


WHOSE: list[tuple[Callable[[RDBStorage], None], list[str], dict[str, str]]] = [
    (nothing, ["first"], {"first": "", "theirs": "no study 'theirs'"}),
    (deletes, [], {"first": "no study 'first'"}),
    (replaces, [], {"first": "no study 'first'", "theirs": "'theirs' .* was not made by skipnas"}),
    (replaces_by_name, [], {"first": "'first' .* was not made by skipnas"}),
    (copies, ["first"], {"first": "", "copied": "'copied' .* was not made by skipnas"}),
]
"""What happens -> the studies that skipnas lists, and what it says of each name that is asked for or deleted."""


@pytest.mark.parametrize(("happens", "listed", "said"), WHOSE, ids=[case[0].__name__ for case in WHOSE])
def test_records_are_of_their_study_alone(
    url: str,
    new_study: Callable[..., SqlLedger],
    happens: Callable[[RDBStorage], None],
    listed: list[str],
    said: dict[str, str],
) -> None:
    Driver(new_study()).complete()
    with plain(url) as storage:
        happens(storage)
        before = optuna.get_all_study_names(storage)
    with open_storage(url, must_exist=True) as storage:
        assert [summary.name for summary in list_studies(storage)] == listed
        for name, refusal in said.items():
            assert has_study(storage, name) is not bool(refusal)
            if refusal:
                for ask in (StudyReader.open, SqlLedger.open, lambda name, storage: delete_study(storage, name)):
                    with pytest.raises(StudyError, match=refusal):
                        ask(name, storage)
            else:
                assert StudyReader.open(name, storage).progress.counts() == Counts(complete=1)
        assert optuna.get_all_study_names(storage.optuna) == before
        again = create_study(storage, make_config("next"), DISTRIBUTIONS, {}, "")
        assert read(again).trials() == []
        assert has_study(storage, "first") is ("first" in listed), "the records of the deleted study are gone at most"


@pytest.mark.parametrize("happens", [deletes, replaces, replaces_by_name])
def test_a_driver_of_a_deleted_study_says_so_and_writes_nothing(
    url: str, ledger: SqlLedger, happens: Callable[[RDBStorage], None]
) -> None:
    with ledger.drive():
        number = Driver(ledger).start()
        with plain(url) as storage:
            happens(storage)
            before = [study.get_trials() for study in map(_load(storage), optuna.get_all_study_names(storage))]
        for write in (
            lambda: ledger.reserve(9),
            lambda: Driver(ledger).ask(),
            lambda: Driver(ledger).start(),
            lambda: ledger.fail(number, Outcome.EXCEPTION),
            lambda: ledger.epochs(number, [row(1)]),
        ):
            with pytest.raises(StudyError, match="study 'first' was deleted meanwhile; nothing can go on with it"):
                write()
    with plain(url) as storage:
        assert before == [study.get_trials() for study in map(_load(storage), optuna.get_all_study_names(storage))]


def _load(storage: RDBStorage) -> Callable[[str], optuna.Study]:
    return lambda name: optuna.load_study(study_name=name, storage=storage)


def test_the_doctor_finds_what_a_deleted_study_left(url: str, storage: Storage, ledger: SqlLedger) -> None:
    folder = claim_files(storage, "first")
    assert [finding for finding in examine(url) if finding.subject == "studies"] == []
    with plain(url) as theirs:
        deletes(theirs)
    (found,) = [finding for finding in examine(url) if finding.subject == "studies"]
    assert found.text == "records of first are left, which another program deleted"
    assert found.advice == f"the next new study clears them away; delete {folder} by hand"
    create_study(storage, make_config("next"), DISTRIBUTIONS, {}, "")
    assert lost_studies(storage) == []


# Renaming


def rename_in_dashboard(storage: RDBStorage, study_id: int) -> None:
    """What the dashboard's own request does."""
    said: list[str] = []
    body = b'{"study_name": "better"}'
    environment = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/api/studies/{study_id}/rename",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        "wsgi.errors": BytesIO(),
    }
    b"".join(wsgi(storage)(environment, lambda status, headers, *_: said.append(status)))
    assert said[0].startswith("201"), said


@pytest.mark.parametrize("through_ours", [True, False], ids=["our dashboard", "plain dashboard"])
def test_records_and_files_follow_a_renamed_study(url: str, storage: Storage, through_ours: bool) -> None:
    ledger = create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
    driver = Driver(ledger)
    number = driver.start()
    ledger.epochs(number, [row(1)])
    ledger.complete(number, make_measurement(psnr=21.0), strip=True)
    running = driver.start()
    folder = claim_files(storage, "first")
    (folder / "trial-0.safetensors").touch()
    (folder / "trial-0.png").touch()
    before = (read(ledger).results(), ledger.epochs_table(number), read(ledger).events(), read(ledger).probe(number))
    if through_ours:
        rename_in_dashboard(storage.optuna, ledger.study_id)
    else:
        with plain(url) as theirs:
            rename_in_dashboard(theirs, ledger.study_id)
    with open_storage(url, must_exist=True) as again, SqlLedger.open("better", again) as renamed:
        assert [summary.name for summary in list_studies(again)] == ["better"]
        assert (renamed.config.study, renamed.optuna_study.metric_names) == ("better", ["psnr", "latency"])
        stored = read(renamed)
        assert before == (stored.results(), renamed.epochs_table(number), stored.events(), stored.probe(number))
        assert files_dir(again.url, "better").joinpath("trial-0.safetensors").exists()
        assert not folder.exists()
        (artifact,) = picture_attribute(renamed.study_id, number)
        assert artifact in renamed.optuna_study.get_trials()[number].system_attrs
        with Pictures(again).open_reader(artifact.removeprefix("artifacts:")) as picture:
            assert picture.read() == b""
        with renamed.drive():
            claimed = renamed.driver.claim_oldest()
            assert claimed == (running, False)
            Driver(renamed).complete()
        assert renamed.counts() == Counts(complete=2, running=1)
        with pytest.raises(StudyError, match="no study 'first'"):
            SqlLedger.open("first", again)


# Databases of other programs


def photos(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE albums (id INTEGER PRIMARY KEY, title TEXT)")


def clinic(path: Path) -> None:
    """Its tables have the names of Optuna's."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (id INTEGER PRIMARY KEY, sponsor TEXT)")
        connection.execute("CREATE TABLE trials (id INTEGER PRIMARY KEY, phase INTEGER)")


def mlflow(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("CREATE TABLE experiments (id INTEGER PRIMARY KEY)")


FOREIGN: list[tuple[Callable[[Path], None], str]] = [
    (photos, "albums"),
    (clinic, "studies, trials"),
    (mlflow, "experiments"),
]


@pytest.mark.parametrize("must_exist", [False, True])
@pytest.mark.parametrize(("make", "tables"), FOREIGN, ids=[make.__name__ for make, _ in FOREIGN])
def test_a_database_of_another_program_is_refused_and_stays_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], tables: str, must_exist: bool
) -> None:
    path = tmp_path / "other.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=rf"is the database of another program \(its tables: {tables}\); give an"):
        open_storage(str(path), must_exist=must_exist)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


def test_tables_beside_optuna_s_are_nobody_s_business(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/both.db"
    with plain(url):
        photos(tmp_path / "both.db")
    with open_storage(url) as storage:
        assert list_studies(storage) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user:hunter2@host/db", "unknown kind of database 'mysql'; give a file's path for SQLite, or postgre"),
        ("mysql+pymysql://user:hunter2@host/db", "unknown kind of database 'mysql+pymysql'"),
        ("mssql+pyodbc://user:hunter2@host/db", "unknown kind of database 'mssql+pyodbc'"),
        ("postgresql+asyncpg://user:hunter2@host/db", "unknown driver 'postgresql+asyncpg'"),
        ("sqlite+aiosqlite:///x.db", "unknown driver 'sqlite+aiosqlite'"),
    ],
)
def test_databases_that_are_not_supported_are_refused_before_anything_is_made(
    tmp_path: Path, url: str, said: str
) -> None:
    with pytest.raises(StorageError) as refused:
        open_storage(url)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert not list(tmp_path.iterdir())


# Folders of databases


def test_a_copy_of_a_database_beside_it_does_not_get_its_folder(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "a.db")) as storage:
        claim_files(storage, "first")
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    with open_storage(str(tmp_path / "b.db")) as copied, pytest.raises(StudyError, match=r"another database, a\.db"):
        claim_files(copied, "first")


@pytest.mark.postgres
def test_one_database_is_one_whatever_its_url_and_two_schemas_are_two() -> None:
    with fresh_postgres() as url:
        execute(url, "CREATE SCHEMA other", "DROP ROLE IF EXISTS skipnas_other", "CREATE ROLE skipnas_other LOGIN")
        execute(url, "GRANT ALL ON SCHEMA public TO skipnas_other")
        with open_storage(url) as storage:
            folder = claim_files(storage, "first")
            execute(url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO skipnas_other")
        parsed = make_url(url)
        role = parsed.set(username="skipnas_other").render_as_string(hide_password=False)
        with open_storage(role) as same:
            assert claim_files(same, "first") == folder
        schema = parsed.update_query_dict({"options": "-csearch_path=other"}).render_as_string(hide_password=False)
        with open_storage(schema) as other, pytest.raises(StudyError, match="holds the files of study 'first' of anot"):
            claim_files(other, "first")
        # As an older version left it: the first that comes keeps it, whatever its user.
        (folder / ".database").write_text(parse_url(url).set(username="somebody").render_as_string())
        with open_storage(role) as same:
            assert claim_files(same, "first") == folder
        execute(url, "DROP OWNED BY skipnas_other", "DROP ROLE skipnas_other")
