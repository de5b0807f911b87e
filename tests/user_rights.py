"""Tests of what may be read and written, run by root, have a user's rights here."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two words of 32 bits a set
PASSES_RIGHTS_BY = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: both ignore rights


@contextmanager
def rights_of_a_user() -> Iterator[None]:
    """The rights of files hold for this thread while the block runs, also when the tests are run by root.

    Root keeps its identity and gives up two of its capabilities, so that an installation in a private folder
    of root's can still be read. Nothing is done for any other user.
    """
    if os.geteuid() != 0:
        yield
        return
    effective, *others = _capabilities()
    _set_capabilities(effective & ~PASSES_RIGHTS_BY, *others)
    try:
        yield
    finally:
        _set_capabilities(effective, *others)


def _call(name: str, sets: ctypes.Array[ctypes.c_char]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", VERSION_3, 0))
    if getattr(libc, name)(header, sets) != 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")


def _capabilities() -> tuple[int, int, int]:
    """The first 32 capabilities of this thread: effective, permitted, inheritable."""
    sets = ctypes.create_string_buffer(24)
    _call("capget", sets)
    return struct.unpack("6I", sets.raw)[:3]


def _set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    sets = ctypes.create_string_buffer(24)
    _call("capget", sets)
    further = struct.unpack("6I", sets.raw)[3:]
    _call("capset", ctypes.create_string_buffer(struct.pack("6I", effective, permitted, inheritable, *further), 24))
