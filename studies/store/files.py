"""The folder of a study's files beside its database, and whose it is."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import (
    URL,
)

from nas.errors import ConfigError, StudyError
from nas.training.checkpoint import drop_all
from studies.store.connection import Storage, path_errors
from studies.store.urls import masked, parse_url, sqlite_path

_OWNER = ".database"  # in a study's folder: whose it is


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
        with path_errors(storage.url):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _OWNER).write_text(_owner(storage.url), "utf-8")
    return folder


def drop_files(storage: Storage, study: str) -> None:
    """Deletes what a study that is gone left in its folder, if the folder is this database's."""
    folder = files_dir(storage.url, study)
    if _another_owner(storage.url, folder) is None:
        (folder / _OWNER).unlink(missing_ok=True)
        drop_all(folder)


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
