"""Databases of older versions open, read the same, and go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from study_samples import COST, Driver, claim, make_candidate, make_measurement, read, row

from nas.errors import StorageError, StudyError
from nas.search.sampler import proposer
from nas.training.version import TRAINING_VERSION
from nas.types import Counts
from studies.commands.replay import replay
from studies.reading.rows import study_rows
from studies.store import migrations
from studies.store.catalog import list_studies
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger
from studies.store.records import SCHEMA_VERSION, Base
from studies.store.urls import parse_url

ASSET = Path(__file__).parents[2] / "assets" / "studies-0.1.db"

DOWN = (
    "DROP TABLE skipnas_drivers",
    "DROP TABLE skipnas_confirmations",
    "ALTER TABLE skipnas_trials DROP COLUMN owner",
    "ALTER TABLE skipnas_trials DROP COLUMN asked_by",
    "ALTER TABLE skipnas_trials DROP COLUMN ask_order",
    "ALTER TABLE skipnas_trials DROP COLUMN training_version",
    "DROP INDEX ix_skipnas_epochs_epoch",
    "ALTER TABLE skipnas_epochs DROP COLUMN further",
    "ALTER TABLE skipnas_studies DROP COLUMN identity",
    "DELETE FROM study_user_attributes",
    "DELETE FROM skipnas_meta WHERE key = 'identity'",
    "UPDATE skipnas_meta SET value = '1'",
)


@pytest.fixture
def old(tmp_path: Path) -> str:
    """A copy of the database that the first version of the project made."""
    path = tmp_path / "old.db"
    shutil.copy(ASSET, path)
    return f"sqlite:///{path}"


def execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def schema(url: str) -> dict[str, Any]:
    """Columns and indexes of the project's tables, whatever their order."""
    inspector = inspect(create_engine(parse_url(url), poolclass=NullPool))
    return {
        table: (
            {
                (c["name"], str(c["type"]).replace(" PRECISION", "").replace("REAL", "DOUBLE"), c["nullable"])
                for c in inspector.get_columns(table)
            },
            {(index["name"], *index["column_names"]) for index in inspector.get_indexes(table)},
            set(inspector.get_pk_constraint(table)["constrained_columns"]),
        )
        for table in Base.metadata.tables
    }


def columns(url: str) -> dict[str, set[str]]:
    inspector = inspect(create_engine(parse_url(url), poolclass=NullPool))
    return {
        table: {column["name"] for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
        if table.startswith("skipnas_")
    }


def version(url: str) -> str:
    engine = create_engine(parse_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT value FROM skipnas_meta WHERE key = 'schema_version'")))


def test_there_is_a_step_to_each_version() -> None:
    assert sorted(migrations.STEPS) == list(range(2, SCHEMA_VERSION + 1))


def test_a_migrated_schema_is_that_of_a_new_database(url: str) -> None:
    new = schema(url)
    execute(url, *DOWN)
    assert version(url) == "1"
    for _ in range(2):
        open_storage(url).close()
        assert schema(url) == new
        assert version(url) == str(SCHEMA_VERSION)


def test_the_first_version_s_database_gets_the_new_schema(url: str, old: str) -> None:
    open_storage(old, must_exist=True).close()
    assert version(old) == str(SCHEMA_VERSION)
    if url.startswith("sqlite"):
        assert schema(old) == schema(url)


def test_the_first_version_s_study_reads_the_same(old: str) -> None:
    with open_storage(old, must_exist=True) as storage:
        (summary,) = list_studies(storage)
        assert (summary.name, summary.config.epochs, summary.config.seed) == ("first", 2, 0)
        assert summary.counts == Counts(complete=4)
        assert summary.best == {"psnr": 13.880074440381431, "accuracy": 15.366759517177345, "stability": 0.0}
        ledger = SqlLedger.open("first", storage)
        assert ledger.config == summary.config
        assert [o.name for o in ledger.config.objectives] == ["psnr", "accuracy", "stability"]
        assert ledger.front() == [2]
        results = read(ledger).results()
        assert [result.digest for result in results] == [
            "e975f13dc15048ae",
            "a1b7643a8a1e0ce4",
            "d57fe87085f76fe6",
            "99172eb7827cef76",
        ]
        assert results[1].values["psnr"] == 11.980497050750222
        assert results[3].spec["fusion"] == "concat"
        assert read(ledger).trained_digests() == {result.digest: result.number for result in results}
        assert (ledger.config.training_version, read(ledger).training_versions()) == (1, {1: 4})
        assert ledger.rung(2) == {}, "what this version trains is not compared with them"
        ledger.training_version = 1
        assert ledger.rung(2)[1] == (11.980497050750222, 12.627669452181985, 0.0)
        assert ledger.progress.judged()[0] == (2, (6.5102560194754, 10.027855153203342, 0.0))
        assert list(ledger.progress.judged()) == [1, 0, 2, 3]
        assert read(ledger).events() == [("tell", 1), ("tell", 0), ("tell", 2), ("tell", 3)]
        assert [len(ledger.epochs_table(number)) for number in range(4)] == [2] * 4
        assert read(ledger).measurement(2).probe.steps
        assert [row["state"] for row in study_rows(read(ledger))] == ["COMPLETE"] * 4
        assert read(ledger).unfinished() == []


def test_the_first_version_s_study_goes_on(old: str) -> None:
    with SqlLedger.open("first", old) as ledger, ledger.drive():
        propose = proposer("auto", 0, ledger.distributions, ledger.config.objectives, lambda params: True)
        assert ledger.claim(propose) is None
        assert not ledger.reserve(4)
        assert ledger.reserve(5)
        number, _ = ledger.ask(propose)
        assert number == 4
        assert ledger.start(number, make_candidate(), COST, "worker")
        ledger.epochs(number, [row(1), row(2)])
        ledger.complete(number, make_measurement(psnr=20.0, stability=0.5))
        assert read(ledger).events()[-2:] == [("ask", 4), ("tell", 4)]
        assert read(ledger).training_versions() == {1: 4, TRAINING_VERSION: 1}
        assert ledger.front() == [4]
    assert list_studies(open_storage(old))[0].counts == Counts(complete=5)


def test_a_trial_that_the_first_version_left_running_goes_on(old: str) -> None:
    execute(old, "UPDATE skipnas_trials SET reason = NULL, tell_order = NULL, ended = NULL WHERE number = 3")
    execute(old, "UPDATE trials SET state = 'RUNNING' WHERE number = 3", "DELETE FROM trial_values WHERE trial_id = 4")
    with SqlLedger.open("first", old) as ledger, ledger.drive():
        claimed = claim(ledger)
        assert claimed is not None
        assert claimed[0] == 3
        assert claimed[1].keys() == ledger.distributions.keys()
        assert ledger.start(3, make_candidate(), COST, "worker")
        assert read(ledger).trial(3).trained_by == TRAINING_VERSION
        assert (ledger.epochs_table(3), read(ledger).trial(3).epochs_done) == ([], 0), "it starts again"


def test_a_step_that_fails_leaves_everything_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(url, *DOWN)
    before = columns(url)
    broken = {**migrations.STEPS, 2: (*migrations.STEPS[2][:3], "ALTER TABLE nowhere ADD COLUMN x BIGINT")}
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", broken)
        with pytest.raises((StorageError, DBAPIError)):
            open_storage(url)
    assert (version(url), columns(url)) == ("1", before)
    open_storage(url).close()
    assert version(url) == str(SCHEMA_VERSION)


@pytest.mark.parametrize("change", ["name", "names of objectives", "neither"])
def test_records_of_an_older_version_are_not_given_to_another_study(
    url: str, new_study: Callable[..., SqlLedger], change: str
) -> None:
    Driver(new_study()).complete()
    execute(url, *DOWN)
    if change == "name":
        execute(url, "UPDATE studies SET study_name = 'theirs'")
    elif change == "names of objectives":  # a study that plain Optuna made under the id and the name
        execute(url, "DELETE FROM study_system_attributes")
    with open_storage(url) as storage:
        assert storage.identity
        assert [summary.name for summary in list_studies(storage)] == ["first"] * (change == "neither")


def test_a_database_is_migrated_once_when_many_open_it(url: str) -> None:
    execute(url, *DOWN)
    with ThreadPoolExecutor(4) as pool:
        for storage in pool.map(open_storage, [url] * 4):
            storage.close()
    assert version(url) == str(SCHEMA_VERSION)


def test_what_was_made_before_the_order_was_kept_cannot_be_replayed(old: str) -> None:
    with open_storage(old) as storage:
        name = list_studies(storage)[0].name
    with SqlLedger.open(name, old) as ledger, pytest.raises(StudyError, match="did not keep the order of proposals"):
        replay(read(ledger))
