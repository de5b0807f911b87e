"""What this process may use of its machine, which may be less than there is."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from pathlib import Path

from nas.errors import ClusterError

SOCKET_BYTES = 107
"""The longest path of a Unix socket."""

SOCKET = "/skipnas-12345678/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The path of Ray's longest socket, below the folder for temporary files."""

NEVER_TRIM, MOST_MAPPED = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h: the free memory beyond which some is returned, where -1 stands
for never, and the largest number of pieces that are mapped one by one and returned when they are freed."""

CGROUPS = Path("/sys/fs/cgroup")


def processors() -> int:
    """Returns the number of processors that this process may use: whole ones, and at least one.

    The limits are those of the system, of the process's affinity (taskset, SLURM, the cpusets of docker), and of the
    quotas of its control groups (docker, Kubernetes).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(affinity, quota())))


def temporary_folder() -> Path:
    """Returns the folder for Ray's files: TMPDIR, or /tmp where TMPDIR cannot be used.

    Raises:
        ClusterError: neither can be written, with a path that leaves room for the names of Ray's sockets.
    """
    room = SOCKET_BYTES - len(SOCKET)
    given = os.environ.get("TMPDIR")
    for place in [*([given] if given else []), "/tmp"]:
        folder = Path(place).resolve()
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and len(os.fsencode(folder)) <= room:
            return folder
    raise ClusterError(
        f"Ray has no folder for its files: {f'TMPDIR {given} and ' if given else ''}/tmp cannot be used; set TMPDIR to "
        f"a folder that can be written, whose path has at most {room} characters"
    )


def keep_memory() -> None:
    """Lets this process keep the memory that it frees for its next use, until `return_memory`.

    Each step of a training frees what the next one needs again. glibc returns large pieces to the system at once, and
    the system fills every page with zeros before it is used again, which takes up to a quarter of a step. Other C
    libraries are left as they are.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(NEVER_TRIM, -1)
        libc.mallopt(MOST_MAPPED, 0)


def return_memory() -> None:
    """Returns the memory that is free in this process to the system, where its C library is glibc."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def quota(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """Returns the processors that control groups allow, fractions too; infinity without a limit.

    Every group above the process's own limits it too. Both versions of control groups are read.

    Args:
        root: folder under which the groups are mounted.
        membership: file with the groups of the process.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return math.inf
    found = math.inf
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # The first version has a tree for each set of controllers. A container sees its own group as the root.
        for tree in [root / controllers, root / "cpu"] if controllers else [root]:
            place = tree / group.lstrip("/")
            for folder in {place, *place.parents, tree}:
                if folder.is_relative_to(tree):
                    found = min(found, _quota_of(folder))
    return found


def _quota_of(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            most, period = (group / "cpu.max").read_text().split()
        else:
            most, period = ((group / f"cpu.cfs_{part}_us").read_text().strip() for part in ("quota", "period"))
        allowed = float(most) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # there is no such file, or its limit is "max"
        return math.inf
    return allowed if allowed > 0 else math.inf
