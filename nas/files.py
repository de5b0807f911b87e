"""Files that are written whole or not at all, and small files that are read whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `target`, and then moves it into its place.

    A link stays, and the file that it leads to is replaced. A file that is replaced keeps its mode, and a new one
    has that which the umask gives, also where a library makes files that are private. A device, a pipe
    and what lies in /dev or /proc are written to, because others would not see what takes their place.

    Raises:
        OSError: the file cannot be written, or is a pipe that nobody reads.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    found = _found(target)
    if _is_written_through(target, found):
        _write_through(target, write)
        return
    place, partial = _places(target)
    try:
        partial.touch()
        rights = stat.S_IMODE(partial.stat().st_mode)
        write(partial)
        partial.chmod(rights if found is None else stat.S_IMODE(found.st_mode))
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(target: Path) -> None:
    """Finds out whether `write_whole` can write a file in a folder that is there. It leaves nothing behind.

    Raises:
        OSError: it cannot.
    """
    found = _found(target)
    if not _is_written_through(target, found):
        _, partial = _places(target)
        partial.touch()
        partial.unlink()
    elif not os.access(target, os.W_OK):
        code = errno.ENOENT if found is None else errno.EACCES
        raise OSError(code, os.strerror(code), str(target))


def _found(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _is_written_through(target: Path, found: os.stat_result | None) -> bool:
    special = found is not None and not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)
    return special or target.is_relative_to("/dev") or target.is_relative_to("/proc")


def _places(target: Path) -> tuple[Path, Path]:
    """Returns the place that a file is moved to, and the place where it is made."""
    place = Path(os.path.realpath(target)) if target.is_symlink() else target
    return place, place.with_name(f"{place.name}.{os.getpid()}.partial")


def _write_through(target: Path, write: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory(prefix="skipnas-out-") as folder:
        made = Path(folder, target.name)
        write(made)
        # Opening a pipe that nobody reads would wait for ever; with O_NONBLOCK it is an error.
        opened = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(opened, True)
        with os.fdopen(opened, "wb") as file, made.open("rb") as content:
            shutil.copyfileobj(content, file)


def drop_partials(folder: Path, pattern: str) -> None:
    """Deletes files and folders of processes that were killed while they wrote them.

    Args:
        folder: the folder that they lie in.
        pattern: the names of ``partial`` files; a process id is the last word but one. A process of this machine that
            lives keeps its own, and of other machines' files only those that are older than an hour are deleted.
    """
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            pid = path.name.split(".")[-2]
            if pid == str(os.getpid()) or (not _lives(pid) and time.time() - path.stat().st_mtime > OLD_SECONDS):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


OLD_SECONDS = 3600.0
SMALL = 2**20
"""The limit in bytes of a file of settings: a spec, a card, a record of a run."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading. A pipe or a device, which may never end, is not read.

    Raises:
        OSError: it cannot be read, or is no regular file; `strerror` says so.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(opened, "rb")


def read_small(path: Path, most: int = SMALL) -> str:
    """Returns the text of a small regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes; `strerror` says so.
        UnicodeDecodeError: it is not in UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return content.decode("utf-8")
