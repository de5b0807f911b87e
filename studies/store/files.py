"""The folder of a study's files beside its database, and the database that owns it."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import (
    URL,
)

from nas.errors import ConfigError, StudyError
from nas.training.checkpoint import drop_all
from studies.store.connection import Storage, path_errors
from studies.store.urls import masked, sqlite_path, storage_url

_OWNER = ".database"  # the file in a study's folder that names its database


def files_dir(url: URL | str | None, study: str) -> Path:
    """Returns the folder of a study's weights and checkpoints: beside the SQLite file, or in `runs`.

    The path is absolute, and the folder is not created.
    """
    path = sqlite_path(url if isinstance(url, URL) else storage_url(url))
    return (Path("runs") if path is None else path.parent).resolve() / study


def check_name(url: URL, name: str) -> None:
    """Refuses a study name.

    Raises:
        ConfigError: no study can have the name.
        StudyError: its folder belongs to another database.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"study name {name!r} is not valid; use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    if files_dir(url, name).is_file():
        raise ConfigError(
            f"study name {name!r} cannot have a folder for weights, because a file has this name; choose another"
        )
    _check_folder(url, files_dir(url, name), name)


def claim_files(storage: Storage, study: str) -> Path:
    """Returns a study's `files_dir` for writing. From now on it belongs to this database.

    Studies of one name in several databases may have one folder: the databases may be neighbouring SQLite files, or on
    servers. The first database that writes there keeps the folder for as long as it exists.

    Raises:
        StudyError: the folder belongs to another database.
        StorageError: the folder cannot be written.
    """
    folder = files_dir(storage.url, study)
    _check_folder(storage.url, folder, study)
    if not storage.in_memory:
        with path_errors(storage.url):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _OWNER).write_text(_owner(storage.url), "utf-8")
    return folder


def drop_files(storage: Storage, study: str) -> None:
    """Deletes the files of a deleted study from its folder, if the folder belongs to this database."""
    folder = files_dir(storage.url, study)
    if _another_owner(storage.url, folder) is None:
        (folder / _OWNER).unlink(missing_ok=True)
        drop_all(folder)


def _check_folder(url: URL, folder: Path, study: str) -> None:
    if owner := _another_owner(url, folder):
        raise StudyError(
            f"folder {folder} holds the files of study {study!r} of another database, {owner}; give another `study` "
            f"name, or delete {folder / _OWNER} if that is this database's former name"
        )


def _owner(url: URL) -> str:
    """Returns the database's name in the folders of its studies. An SQLite file lies beside them, so its file name
    suffices."""
    path = sqlite_path(url)
    return path.name if path is not None else masked(url.set(username=None, password=None, query={}))


def _another_owner(url: URL, folder: Path) -> str | None:
    """Returns another database that owns a folder, if there is one. An SQLite file that is gone owns nothing."""
    marker = folder / _OWNER
    owner = marker.read_text("utf-8").strip() if marker.exists() else ""
    if owner in ("", _owner(url)) or ("://" not in owner and not (folder.parent / owner).exists()):
        return None
    return owner
