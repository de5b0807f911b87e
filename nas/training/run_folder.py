"""The folder of one long training. It belongs to one configuration, and to one process at a time."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.files import read_small, write_whole
from nas.training.version import TRAINING_VERSION

RUN, LOCK = "run.json", "lock"


@contextmanager
def claimed(folder: Path, configuration: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Provides a training folder while the block runs: a new one, or one of the same configuration.

    Yields:
        The content that `write_run` last kept there, with the configuration.

    Raises:
        ConfigError: the folder belongs to something else, or another process trains in it.
    """
    file, lock_file = folder / RUN, folder / LOCK
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not lock_file.exists():  # a folder of something else gets no lock
                refuse_foreign(folder)
            lock = held.enter_context(lock_file.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # No other process reads or writes from here on: of two that begin at once, one is refused.
            refuse_foreign(folder)
            for partial in folder.glob("*.partial"):  # of a process that was killed, as this one holds the lock
                if partial.is_file():
                    partial.unlink()
            if not file.exists():
                write_run(folder, {"configuration": dict(configuration), "training_version": TRAINING_VERSION})
        except BlockingIOError:
            raise ConfigError(f"`to` {folder} is being trained in by another process; wait for it") from None
        except FileExistsError:
            raise ConfigError(f"`to` {folder} is a file; choose a folder") from None
        except OSError as error:
            raise ConfigError(f"`to` {folder} cannot be written ({error.strerror}); choose another folder") from error
        content = _read_run(file)
        stored = content["configuration"]
        # In today's order, which begins with what decides the rest.
        for name in dict.fromkeys((*configuration, *stored)):
            there, asked = stored.get(name), configuration.get(name)
            if there != asked:
                raise ConfigError(
                    f"`to` {folder} holds another training: {name} is {there!r} there, asked for {asked!r}; "
                    "choose another folder"
                )
        yield content


def refuse_foreign(folder: Path) -> None:
    """Refuses a folder of something else. What a training leaves that was killed while it began is no such thing.

    Raises:
        ConfigError: there is something else in it.
    """
    own = re.compile(rf"{re.escape(LOCK)}|{re.escape(RUN)}\.\d+\.partial")
    entries = folder.iterdir() if folder.is_dir() else ()
    if not (folder / RUN).exists() and any(own.fullmatch(entry.name) is None for entry in entries):
        raise ConfigError(f"`to` {folder} exists and is not an empty folder; choose another")


def write_run(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the facts that a training folder knows about itself."""
    write_whole(folder / RUN, lambda file: file.write_text(json.dumps(content, indent=2) + "\n", "utf-8"))


def _read_run(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(read_small(file))
        content["configuration"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} cannot be read; remove its folder, or choose another `to`") from None
    return content
