"""Studies of somebody else, which may be read and not written."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from study_samples import DISTRIBUTIONS, Driver, make_config
from user_rights import rights_of_a_user

from nas.errors import StorageError
from nas.files import write_whole
from nas.training.checkpoint import load_weights, save_weights, weights_path
from nas.types import Counts
from studies.reading.rows import study_rows
from studies.reading.study import StudyReader
from studies.store.catalog import create_study, list_studies
from studies.store.database import open_storage
from studies.store.files import claim_files
from studies.store.ledger import SqlLedger


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may read and nobody may write, with the study "first"."""
    folder = tmp_path / "shared"
    folder.mkdir()
    with open_storage(str(folder / "studies.db")) as storage:
        ledger = create_study(storage, make_config(), DISTRIBUTIONS, {"hardware": {}}, "")
        Driver(ledger).complete()
        save_weights(torch.nn.Linear(1, 1), claim_files(storage, "first"), 0, "d")
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, folder / "first"):
        path.chmod(0o755)  # pytest deletes it


def test_a_study_in_a_folder_that_cannot_be_written_is_read(shared: Path) -> None:
    before = sorted(path.name for path in shared.iterdir())
    with rights_of_a_user(), open_storage(str(shared / "studies.db"), must_exist=True) as storage:
        assert [summary.name for summary in list_studies(storage)] == ["first"]
        study = StudyReader.open("first", storage)
        assert study.progress.counts() == Counts(complete=1)
        assert [row["state"] for row in study_rows(study)] == ["COMPLETE"]
        load_weights(torch.nn.Linear(1, 1), shared / "first", 0, "d")
        with pytest.raises(StorageError, match="cannot be used"):
            create_study(storage, make_config("mine"), DISTRIBUTIONS, {}, "")
        with pytest.raises(StorageError, match=r"cannot use .*first"):
            claim_files(storage, "first")
    assert sorted(path.name for path in shared.iterdir()) == before


def test_a_study_that_its_owner_writes_to_is_read(shared: Path) -> None:
    shared.chmod(0o755)
    (shared / "studies.db").chmod(0o644)
    with open_storage(str(shared / "studies.db")) as owners:
        Driver(SqlLedger.open("first", owners)).complete()
        for path in shared.glob("studies.db*"):
            path.chmod(0o444)
        shared.chmod(0o555)
        with rights_of_a_user(), open_storage(str(shared / "studies.db"), must_exist=True) as storage:
            assert StudyReader.open("first", storage).progress.counts() == Counts(complete=2)


def test_a_database_of_an_older_version_that_cannot_be_written_says_what_to_do(shared: Path) -> None:
    shared.chmod(0o755)
    (shared / "studies.db").chmod(0o644)
    with sqlite3.connect(shared / "studies.db") as connection:
        connection.execute("UPDATE skipnas_meta SET value = '5' WHERE key = 'schema_version'")
    connection.close()
    shared.chmod(0o555)
    (shared / "studies.db").chmod(0o444)
    with (
        rights_of_a_user(),
        pytest.raises(StorageError, match=r"has schema 5, must have .* let its owner run `skipnas stu"),
    ):
        open_storage(str(shared / "studies.db"), must_exist=True)


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        save_weights(torch.nn.Linear(1, 1), tmp_path / "study", 7, "d")
        write_whole(tmp_path / "text", lambda file: file.write_text("x"))
    finally:
        os.umask(before)
    for path in (weights_path(tmp_path / "study", 7), tmp_path / "text"):
        assert stat.S_IMODE(path.stat().st_mode) == rights
