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
from studies.store.urls import masked, parse_url, sqlite_path, storage_url

_OWNER = ".database"  # the file in a study's folder that names its database


def files_dir(url: URL | str | None, study: str) -> Path:
    """Returns the folder of a study's weights and checkpoints: beside the SQLite file, or in `runs`.

    The path is absolute, and the folder is not created.
    """
    path = sqlite_path(url if isinstance(url, URL) else storage_url(url))
    return (Path("runs") if path is None else path.parent).resolve() / study


def check_name(url: URL, name: str, identity: str = "") -> None:
    """Refuses a study name.

    Args:
        url: the database's URL.
        name: name of the study.
        identity: identity of the database; "" while it is not open.

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
    _check_folder(url, identity, files_dir(url, name), name)


def claim_files(storage: Storage, study: str) -> Path:
    """Returns a study's `files_dir` for writing. From now on it belongs to this database.

    Studies of one name in several databases may have one folder: the databases may be neighbouring SQLite files, or on
    servers. The first database that writes there keeps the folder for as long as it exists.

    Raises:
        StudyError: the folder belongs to another database.
        StorageError: the folder cannot be written.
    """
    folder = files_dir(storage.url, study)
    _check_folder(storage.url, storage.identity, folder, study)
    if not storage.in_memory:
        with path_errors(storage.url):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _OWNER).write_text(f"{_name(storage.url)}\n{storage.identity}\n", "utf-8")
    return folder


def drop_files(storage: Storage, study: str) -> None:
    """Deletes the files of a deleted study from its folder, if the folder belongs to this database."""
    folder = files_dir(storage.url, study)
    if _another_owner(storage.url, storage.identity, folder) is None:
        (folder / _OWNER).unlink(missing_ok=True)
        drop_all(folder)


def move_files(url: URL, identity: str, old: str, new: str) -> None:
    """Moves the folder of a renamed study, if it is here and belongs to this database, and its new name is free."""
    source, target = files_dir(url, old), files_dir(url, new)
    owned = (source / _OWNER).exists() and _another_owner(url, identity, source) is None
    if owned and not target.exists():
        with path_errors(url):
            source.rename(target)


def _check_folder(url: URL, identity: str, folder: Path, study: str) -> None:
    if owner := _another_owner(url, identity, folder):
        raise StudyError(
            f"folder {folder} holds the files of study {study!r} of another database, {owner}; give another `study` "
            f"name, or delete {folder / _OWNER} if that is this database's former name"
        )


def _name(url: URL) -> str:
    """Returns the database's name in the folders of its studies, for people.

    An SQLite file lies beside them, so its file name suffices. The name of a server's database is the same for every
    user.
    """
    path = sqlite_path(url)
    return path.name if path is not None else masked(URL.create(url.drivername, None, None, *_place(url)))


def _place(url: URL) -> tuple[str | None, int | None, str | None]:
    return url.host, url.port, url.database


def _another_owner(url: URL, identity: str, folder: Path) -> str | None:
    """Returns the name of another database that owns a folder, if there is one.

    A server's database is known by its identity: two schemas of one database have the same name, and one database has
    several. An SQLite file is known by its name, because a copy of it has its identity. A file that is gone owns
    nothing.
    """
    marker = folder / _OWNER
    lines = marker.read_text("utf-8").splitlines() if marker.exists() else []
    owner, known = [*lines, "", ""][:2]
    path = sqlite_path(url)
    if not owner:
        return None
    if path is not None:
        there = "://" in owner or (folder.parent / owner).exists()
        return owner if owner != path.name and there else None
    if known:
        return owner if identity and known != identity else None
    # Older versions wrote no identity, and the user into the name.
    same = "://" in owner and _place(parse_url(owner)) == _place(url)
    return None if same else owner
