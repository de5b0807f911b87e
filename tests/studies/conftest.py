"""Databases for the tests of what is kept: SQLite files always, PostgreSQL when a server is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from study_samples import DISTRIBUTIONS, POSTGRES, Driver, fresh_postgres, make_config

from studies.store.catalog import create_study
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

DATABASES = ["sqlite", *[pytest.param("postgresql", marks=pytest.mark.postgres)] * bool(POSTGRES)]


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written outside the test's folder, and Optuna does not log."""
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with every table and no study, made once and copied."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    open_storage(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """An empty database, once per kind."""
    if request.param == "sqlite":
        path = tmp_path / "studies.db"
        shutil.copy(empty_database, path)
        yield f"sqlite:///{path}"
    else:
        with fresh_postgres() as postgres:
            open_storage(postgres).close()
            yield postgres


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    with open_storage(url) as opened:
        yield opened


@pytest.fixture
def new_study(storage: Storage) -> Callable[..., SqlLedger]:
    def create(name: str = "first", **changes: Any) -> SqlLedger:
        config = make_config(name, **changes)
        return create_study(storage, config, DISTRIBUTIONS, {"python": "3.11"}, f"skipnas search --study {name}")

    return create


@pytest.fixture
def ledger(new_study: Callable[..., SqlLedger]) -> SqlLedger:
    return new_study()


@pytest.fixture
def driver(ledger: SqlLedger) -> Driver:
    return Driver(ledger)
