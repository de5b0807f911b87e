"""Files that are written whole or not at all, and small files that are read whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `target`, and then moves it into its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


SMALL = 2**20
"""The limit in bytes of a file of settings: a spec, a card, a record of a run."""


def read_small(path: Path, most: int = SMALL) -> str:
    """Returns the text of a small regular file. A pipe or a device, which may never end, is not read.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes; `strerror` says so.
        UnicodeDecodeError: it is not in UTF-8.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
        return file.read(most).decode("utf-8")
