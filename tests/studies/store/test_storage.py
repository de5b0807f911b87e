"""Opening, creating, listing, deleting; every way a storage can be wrong is one line without a password."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard import get_note
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from study_samples import DISTRIBUTIONS, POSTGRES, Driver, fresh_postgres, make_config, read, spawn

from nas.errors import ConfigError, SkipnasError, StorageError, StudyError
from nas.outcome import Outcome
from nas.types import Counts
from studies.commands.show import study_facts, study_lines, summary_facts
from studies.pages.notes import annotate
from studies.pages.report import write_report
from studies.reading.rows import study_rows, to_csv
from studies.store.catalog import create_study, list_studies
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.deletion import delete_study
from studies.store.files import claim_files, drop_files, files_dir
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger
from studies.store.urls import masked, masked_command, masked_text, masked_words, parse_url

ROOT = Path(__file__).parents[3]
SECRET = "hunter2"


def execute(url: str, statement: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(statement))


# Opening


def test_the_default_is_a_file_in_runs() -> None:
    with open_storage() as storage:
        assert Path("runs/studies.db").is_file()
        assert storage.masked == "sqlite:///runs/studies.db"


def test_a_bare_path_is_sqlite(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "x.db")):
        assert (tmp_path / "x.db").read_bytes()[:15] == b"SQLite format 3"


def test_sqlite_writes_ahead_and_syncs_less() -> None:
    with open_storage() as storage, storage.engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert pragmas == ["wal", 1, 60_000]


def test_a_path_with_braces_is_taken_as_it_is(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "{x}.db")):
        assert (tmp_path / "{x}.db").exists()


def test_a_database_in_memory_serves_one_process() -> None:
    with open_storage("sqlite://") as storage:
        Driver(create_study(storage, make_config(), DISTRIBUTIONS, {}, "")).complete()
        assert list_studies(storage)[0].counts == Counts(complete=1)


def test_a_database_that_optuna_made_gains_our_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    backend = optuna.storages.RDBStorage(url)
    optuna.create_study(storage=backend, study_name="theirs")
    backend.engine.dispose()
    with pytest.raises(StorageError, match="no studies yet"):
        open_storage(url, must_exist=True)
    with open_storage(url) as storage:
        assert list_studies(storage) == []
        with pytest.raises(StudyError, match=r"'theirs' .* was not made by skipnas; choose another name"):
            SqlLedger.open("theirs", storage)
        optuna.load_study(study_name="theirs", storage=storage.optuna).ask()
        with pytest.raises(StudyError, match="was not made by skipnas"):
            create_study(storage, make_config("theirs"), DISTRIBUTIONS, {}, "")


@pytest.mark.parametrize("postgres", [False, *[pytest.param(True, marks=pytest.mark.postgres)] * bool(POSTGRES)])
def test_eight_processes_create_one_database_at_once(tmp_path: Path, postgres: bool) -> None:
    script = (
        "import sys\n"
        "from studies.store.database import open_storage\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "open_storage(sys.argv[1]).close()\n"
    )

    def create(url: str) -> None:
        processes = [spawn(script, url) for _ in range(8)]
        assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 8
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
        assert [process.returncode for process in processes] == [0] * 8
        with open_storage(url, must_exist=True) as storage:
            assert list_studies(storage) == []

    if postgres:
        with fresh_postgres() as url:
            create(url)
    else:
        create(f"sqlite:///{tmp_path}/fresh.db")


def test_a_creation_that_was_cut_off_is_finished(url: str) -> None:
    execute(url, "DELETE FROM skipnas_meta")
    execute(url, "DROP TABLE skipnas_probes")
    with open_storage(url) as storage:
        Driver(create_study(storage, make_config(), DISTRIBUTIONS, {}, "")).complete()


# Opening what cannot be opened


def refused(call: Callable[[], Any], kind: type[SkipnasError] = StorageError) -> str:
    """The message of the error: one line, without the password."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_reading_creates_nothing(tmp_path: Path) -> None:
    for url in (None, "sqlite:///runs/studies.db", str(tmp_path / "x.db")):
        assert "no studies yet in sqlite:///" in refused(lambda url=url: open_storage(url, must_exist=True))
        assert "run `skipnas search` first" in refused(lambda url=url: SqlLedger.open("x", url))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_has_no_studies(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert "no studies yet" in refused(lambda: open_storage(str(path), must_exist=True))
    assert path.stat().st_size == 0


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be one " * 10)
    for must_exist in (False, True):
        message = refused(lambda must_exist=must_exist: open_storage(str(path), must_exist=must_exist))
        assert "notes.txt cannot be used (file is not a database); check the file" in message
    assert path.read_text().startswith("not a database")


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    message = refused(lambda: open_storage(str(tmp_path / "no" / "x.db")))
    assert message.endswith("no does not exist; create it first")


def test_a_folder_that_cannot_be_written() -> None:
    assert "(unable to open database file); check" in refused(lambda: open_storage("sqlite:////proc/x.db"))


def test_a_default_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    assert "cannot use runs (File exists); choose another `storage`" in refused(open_storage)


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    assert "is no file of a database; give the name of a file" in refused(lambda: open_storage(str(tmp_path)))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "storage URL cannot be parsed; write a file's path or postgresql://"),
        (f"postgres//user:{SECRET}@host/db", "cannot be parsed"),
        (f"user:{SECRET}@host", "cannot be parsed"),
        (f"postgresql://user:pass@{SECRET}@host/db", "with %40 for an @"),
        (f"postgresql:/user:{SECRET}@host/db", "cannot be parsed"),
        (f"://user:{SECRET}@host/db", "cannot be parsed"),
        (f"postgresql://user:{SECRET}@host:port/db", "cannot be parsed"),
        (f"nosuch://user:{SECRET}@host/db", "nosuch://user:***@host/db: unknown kind of database 'nosuch'"),
        (f"oracle+oracledb://user:{SECRET}@host/db", "oracle+oracledb://user:***@host/db: unknown kind of database"),
        (f"postgresql://user:{SECRET}@127.0.0.1:9/db", "postgresql+psycopg://user:***@127.0.0.1:9/db cannot be used"),
        (f"postgresql://127.0.0.1:9/db?user=u&password={SECRET}", "check that the server runs"),
    ],
)
def test_a_url_that_leads_nowhere(url: str, expected: str) -> None:
    assert expected in refused(lambda: open_storage(url))


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = refused(lambda: open_storage(f"postgresql://user:{SECRET}@localhost/db"))
    assert message.endswith("driver 'psycopg' is not installed; pip install skipnas[postgres]")


def test_a_newer_schema_is_refused_untouched(url: str) -> None:
    execute(url, "UPDATE skipnas_meta SET value = '99' WHERE key = 'schema_version'")
    for must_exist in (False, True):
        message = refused(lambda must_exist=must_exist: open_storage(url, must_exist=must_exist))
        assert "has schema 99, this skipnas knows up to 6; update skipnas" in message


@pytest.mark.parametrize(
    ("revision", "fix"), [("v2.6.0.a", "run `optuna storage upgrade`"), ("v99.0.0.a", "pip install -U optuna")]
)
def test_tables_of_another_optuna_are_refused(url: str, revision: str, fix: str) -> None:
    execute(url, f"UPDATE alembic_version SET version_num = '{revision}'")
    message = refused(lambda: open_storage(url))
    assert f"another version of Optuna wrote its tables ({revision})" in message
    assert message.endswith(fix)


@pytest.mark.postgres
def test_a_database_that_the_server_does_not_have() -> None:
    wrong = parse_url(POSTGRES).set(password=SECRET, database="nowhere").render_as_string(hide_password=False)
    assert 'database "nowhere" does not exist' in refused(lambda: open_storage(wrong))


SECRET_URLS = {
    f"postgresql://user:{SECRET}@host/db": "postgresql+psycopg://user:***@host/db",
    f"postgresql://host/db?user=u&password={SECRET}": "postgresql+psycopg://host/db?password=...&user=u",
    f"postgresql://user:{SECRET}@host:many/db": "...",
}


@pytest.mark.parametrize("given", SECRET_URLS)
def test_a_command_line_loses_passwords_and_nothing_else(given: str) -> None:
    shown = SECRET_URLS[given]
    assert masked_words(["--storage", given, f"--storage={given}", "--data=folder:x"]) == [
        *("--storage", shown),
        *(f"--storage={shown}", "--data=folder:x"),
    ]
    for harmless in (
        "postgresql://user@host/db",
        "sqlite:///a@b.db",
        "skipnas search --storage 'sqlite:///my studies.db' --noise gaussian:50",
        "it's no command line",
    ):
        assert masked_command(harmless) == harmless
    assert SECRET not in masked_command(f"it's --storage={given}")


@pytest.mark.parametrize("given", SECRET_URLS)
@pytest.mark.parametrize("old", [False, True])
def test_the_command_of_a_study_holds_no_password(storage: Storage, given: str, old: bool) -> None:
    command = shlex.join(["skipnas", "search", "--storage", given, f"--storage={given}"])
    create_study(storage, make_config(), DISTRIBUTIONS, {}, command)
    if old:  # as older versions stored it
        with storage.session() as session:
            session.execute(text("UPDATE skipnas_studies SET command = :command"), {"command": command})
    else:
        with storage.session() as session:
            assert SECRET not in str(session.execute(text("SELECT * FROM skipnas_studies")).all())
    ledger = SqlLedger.open("first", storage)
    assert ledger.command == masked_command(command)
    annotate(read(ledger))
    facts = study_facts(read(ledger))
    shown = [ledger.command, str(facts), *study_lines(read(ledger), facts), get_note(ledger.optuna_study)]
    shown += [str(summary_facts(summary)) for summary in list_studies(storage)]
    write_report(read(ledger), Path("report.html"))
    assert SECRET not in "".join([*shown, Path("report.html").read_text()])


def test_passwords_are_masked_wherever_they_stand() -> None:
    url = parse_url(f"postgresql://user:{SECRET}@host/db?sslpassword={SECRET}&sslmode=require")
    assert masked(url) == "postgresql+psycopg://user:***@host/db?sslmode=require&sslpassword=..."


# Studies


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a b", "a/b", "../up", "ü", "a\n", "x" * 65])
def test_names_that_are_not_valid(storage: Storage, name: str) -> None:
    message = refused(lambda: create_study(storage, make_config(name), DISTRIBUTIONS, {}, ""), ConfigError)
    assert f"study name {name!r} is not valid; use 1 to 64 letters" in message
    assert not has_study(storage, name)


def test_a_study_is_not_named_like_the_database_file(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "first")) as storage:
        assert "because a file has this name" in refused(
            lambda: create_study(storage, make_config("first"), DISTRIBUTIONS, {}, ""), ConfigError
        )


def test_an_unknown_study_names_those_there_are(
    url: str, storage: Storage, new_study: Callable[..., SqlLedger]
) -> None:
    for where in (storage, url):
        message = refused(lambda where=where: SqlLedger.open("x", where), StudyError)
        assert message.endswith("it holds none, run `skipnas search` first")
    for index in range(12):
        new_study(f"s{index}")
    message = refused(lambda: SqlLedger.open("x", storage), StudyError)
    assert message.startswith("no study 'x' in ")
    assert message.endswith("there are: s11, s10, s9, s8, s7, s6, s5, s4, s3, s2, ...")


def test_a_name_is_given_once(ledger: SqlLedger, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_study(storage, "first")
    assert "exists already" in refused(lambda: create_study(storage, make_config(), DISTRIBUTIONS, {}, ""), StudyError)
    monkeypatch.setattr(
        "studies.store.finding.has_study", lambda *_: False
    )  # another process is between check and insert
    assert "exists already" in refused(lambda: create_study(storage, make_config(), DISTRIBUTIONS, {}, ""), StudyError)


def test_a_study_whose_creation_was_cut_off_is_created(storage: Storage) -> None:
    optuna.create_study(study_name="first", storage=storage.optuna, directions=["maximize", "minimize"])
    ledger = create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
    assert ledger.optuna_study.metric_names == ["psnr", "latency"]


def test_studies_are_listed_with_counts_and_bests(storage: Storage, new_study: Callable[..., SqlLedger]) -> None:
    first, _ = new_study("a"), new_study("b", data="photos")
    driver = Driver(first)
    driver.complete(psnr=21.0, latency=3.0)
    driver.complete(psnr=20.0, latency=2.0)
    driver.reject(depth=1)
    a, b = list_studies(storage)
    assert (a.name, a.config, a.command) == ("a", first.config, "skipnas search --study a")
    assert a.counts == Counts(complete=2, duplicate=1)
    assert a.best == {"psnr": 21.0, "latency": 2.0}
    assert a.updated > a.created
    assert (b.name, b.config.data, b.counts, b.best, b.updated) == ("b", "photos", Counts(), {}, b.created)


def test_what_optuna_alone_deleted_leaves_nothing_to_the_next_study(
    url: str, new_study: Callable[..., SqlLedger]
) -> None:
    Driver(new_study("a", seed=1)).complete()
    plain = optuna.storages.RDBStorage(parse_url(url).render_as_string(hide_password=False))
    optuna.delete_study(study_name="a", storage=plain)
    plain.engine.dispose()
    again = new_study("a", seed=2)
    assert again.config.seed == 2
    Driver(again).complete()
    assert again.counts() == Counts(complete=1)
    assert [record.number for record in read(again).trials()] == [0]


def test_the_folder_of_a_study_is_one_databases(tmp_path: Path) -> None:
    first, second = (open_storage(str(tmp_path / name)) for name in ("a.db", "b.db"))
    with first, second:
        folder = files_dir(second.url, "first")
        for storage in (second, first):  # studies of older versions are in both, and nobody's mark is there
            create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
        assert claim_files(first, "first") == claim_files(first, "first") == folder
        (folder / "trial-0.safetensors").touch()
        told = refused(lambda: claim_files(second, "first"), StudyError)
        assert f"folder {folder} holds the files of study 'first' of another database, a.db; give another `s" in told
        delete_study(second, "first")
        drop_files(second, "first")
        assert (folder / "trial-0.safetensors").exists(), "another database's"
        assert refused(lambda: create_study(second, make_config(), DISTRIBUTIONS, {}, ""), StudyError) == told
        delete_study(first, "first")
        drop_files(first, "first")
        assert not folder.exists()
        assert claim_files(second, "first") == folder
    (tmp_path / "b.db").rename(tmp_path / "c.db")
    with open_storage(str(tmp_path / "c.db")) as renamed:
        assert claim_files(renamed, "first") == folder, "of a file that is gone"


def test_a_database_in_memory_keeps_no_folder() -> None:
    with open_storage("sqlite://") as storage, open_storage() as kept:
        claim_files(storage, "first")
        claim_files(kept, "first")
        refused(lambda: claim_files(storage, "first"), StudyError)


def test_deleting_takes_everything_and_only_that(storage: Storage, new_study: Callable[..., SqlLedger]) -> None:
    for name in ("a", "b"):
        driver = Driver(new_study(name))
        driver.ledger.prune(driver.start(), Outcome.STOPPED)
        driver.complete()
    delete_study(storage, "a")
    assert [s.name for s in list_studies(storage)] == ["b"]
    assert optuna.get_all_study_names(storage.optuna) == ["b"]
    assert SqlLedger.open("b", storage).counts() == Counts(complete=1, pruned=1)
    with storage.engine.connect() as connection:
        for table in ("skipnas_trials", "skipnas_probes", "trials", "trial_params", "trial_user_attributes"):
            owners = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
            assert owners == {"trial_params": 6, "trial_user_attributes": 3}.get(table, 1 + ("trials" in table))
    refused(lambda: delete_study(storage, "a"), StudyError)
    assert new_study("a").counts() == Counts()


def test_files_live_beside_the_database(tmp_path: Path) -> None:
    assert files_dir("sqlite:////data/x.db", "s") == Path("/data/s")
    for url in (None, "postgresql://host/db", "sqlite://"):
        assert files_dir(url, "s") == tmp_path / "runs" / "s"


# Tables


def test_rows_hold_one_trial_each(ledger: SqlLedger, driver: Driver) -> None:
    driver.complete(psnr=21.0, latency=3.0)
    ledger.prune(driver.start(), Outcome.DIVERGED)
    driver.ask()
    complete, pruned, asked = study_rows(read(ledger))
    assert list(complete) == [
        *("number", "state", "reason", "psnr", "latency", "params", "macs", "seconds", "training_version"),
        *DISTRIBUTIONS,
        "digest",
    ]
    assert (complete["psnr"], complete["latency"], complete["params"]) == (21.0, 3.0, 1_000_000)
    assert (pruned["state"], pruned["reason"], pruned["psnr"]) == ("PRUNED", "diverged", None)
    assert (asked["state"], asked["reason"], asked["digest"]) == ("RUNNING", None, None)
    assert asked["fusion"] in ("none", "concat", "add")


def test_a_csv_file_reads_back(ledger: SqlLedger, driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert to_csv(read(ledger), path) == 0
    driver.complete(psnr=21.0)
    assert to_csv(read(ledger), path) == 1
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {name: str(value) for name, value in study_rows(read(ledger))[0].items()}
    assert [p.name for p in tmp_path.glob("*out.csv*")] == ["out.csv"]


def test_a_csv_file_that_cannot_be_written_leaves_nothing(ledger: SqlLedger, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "No such file or directory" in refused(lambda: to_csv(read(ledger), tmp_path / "no" / "x.csv"), ConfigError)
    assert "Is a directory" in refused(lambda: to_csv(read(ledger), folder), ConfigError)
    assert sorted(p.name for p in tmp_path.iterdir() if "folder" in p.name) == ["folder"]


# Costs


def test_importing_studies_brings_neither_torch_nor_ray() -> None:
    code = (
        "import sys, studies.store.connection\nprint(sorted({'torch', 'ray', 'plotly', 'typer'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("change", ["deleted", "replaced", "by a link"])
def test_a_file_that_is_deleted_or_replaced_under_an_open_storage(tmp_path: Path, change: str) -> None:
    file, aside = tmp_path / "studies.db", tmp_path / "aside.db"
    with open_storage(str(file)) as storage:
        file.rename(aside)
        if change == "replaced":
            open_storage(str(file)).close()
        if change == "by a link":
            file.symlink_to(tmp_path / "nowhere.db")
        with pytest.raises(StorageError, match=r"was deleted or replaced while it was in use.*put the file back"):
            list_studies(storage)
        aside.replace(file)
        assert list_studies(storage) == [], "it is as it was"


@pytest.mark.parametrize(
    "text",
    [
        f"Got unexpected extra argument (postgresql://u:{SECRET}@h/db)",
        f"postgresql:/u:{SECRET}@h, postgres//u:{SECRET}@h",
        f"x postgresql://u:p@{SECRET}@h/db",
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    assert SECRET not in masked_text(text)


@pytest.mark.parametrize(
    "line", ["a@b.c: no such file", "folder:a@b", "storage postgresql+psycopg://u:***@h/db is gone"]
)
def test_a_line_without_a_password_stays(line: str) -> None:
    assert masked_text(line) == line
