"""Disks that several machines share, on which an SQLite file must not be written."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import URL

from nas.errors import StorageError
from studies.store.urls import masked, sqlite_path

SHARED = (
    *("afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "ocfs2", "orangefs", "panfs"),
    *("pvfs2", "smb", "smb3", "smbfs", "wekafs"),
)
"""File systems of the network, as Linux calls them; versions and FUSE variants have the same beginnings."""


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Returns the kind of the file system on which a path lies; "" where it cannot be known."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if path.resolve().is_relative_to(mounted) and len(mounted) >= longest:  # the last of several hides the others
            found, longest = after.split()[0], len(mounted)
    return found


def refuse_shared_disk(url: URL) -> None:
    """Refuses to write to an SQLite file that other machines can reach.

    In the mode in which readers do not block the writer, SQLite shares memory between its processes, which two machines
    cannot do; and locks of network file systems do not always hold.

    Raises:
        StorageError: the file lies on a file system of the network.
    """
    path = sqlite_path(url)
    if path is None:
        return
    kind = file_system(path.parent)
    if re.match(rf"(fuse\.)?({'|'.join(SHARED)}|sshfs|s3fs|davfs)", kind):
        raise StorageError(
            f"storage {masked(url)} lies on a file system of the network ({kind}), where SQLite loses data; name a "
            "file on this machine's disk, or PostgreSQL"
        )
