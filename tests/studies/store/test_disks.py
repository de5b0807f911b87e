"""SQLite files on disks that several machines share."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_samples import DISTRIBUTIONS, make_config

from nas.errors import StorageError
from studies.store import disks
from studies.store.catalog import create_study, list_studies
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/me/local rw - xfs /dev/vdb rw
32 22 0:28 / /scratch\040space rw - lustre mds:/scratch rw
33 22 0:29 / /mnt/box rw - fuse.sshfs me@box:/ rw
34 22 0:30 / /home rw - cifs //server/home rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/data/runs", "ext4"),
        ("/homestead", "ext4"),
        ("/home/me", "cifs"),
        ("/home/me/local/runs", "xfs"),
        ("/scratch space/me", "lustre"),
        ("/mnt/box/runs", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_path(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert disks.file_system(Path(path), tmp_path / "mounts") == kind
    assert disks.file_system(Path(path), tmp_path / "no file") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "lustre", "fuse.sshfs", "fuse.glusterfs", "beegfs_nodev"])
def test_sqlite_is_refused_on_a_disk_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "here.db"
    with open_storage(str(path)) as storage:
        create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
    monkeypatch.setattr(disks, "file_system", lambda folder: kind)
    said = rf"lies on a file system of the network \({kind}\), where SQLite loses data; name a file on this machine"
    with pytest.raises(StorageError, match=said):
        open_storage(str(tmp_path / "new.db"))
    assert not (tmp_path / "new.db").exists()
    with open_storage(str(path), must_exist=True) as storage:  # to copy it from there
        assert [summary.name for summary in list_studies(storage)] == ["first"]
        with SqlLedger.open("first", storage) as ledger, pytest.raises(StorageError, match=said), ledger.drive():
            pass


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "9p", "virtiofs", ""])
def test_sqlite_is_used_on_a_disk_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(disks, "file_system", lambda folder: kind)
    open_storage(str(tmp_path / "new.db")).close()
