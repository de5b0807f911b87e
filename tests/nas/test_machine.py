"""What this process may use: processors by affinity and control groups, and a folder for Ray's files."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nas
from nas import machine
from nas.errors import ClusterError

# Groups of the process -> files of the groups -> the processors that they allow.
QUOTAS: dict[str, tuple[str, dict[str, str], float]] = {
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "one and a half": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "a half": ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "of the group": ("0::/job/step\n", {"job/step/cpu.max": "300000 100000", "job/cpu.max": "max 100000"}, 3.0),
    "of a group above": ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "200000 100000"}, 2.0),
    "the least": ("0::/job/step\n", {"job/step/cpu.max": "900000 100000", "job/cpu.max": "400000 100000"}, 4.0),
    "of another group": ("0::/job\n", {"other/cpu.max": "100000 100000"}, math.inf),
    "the first version": (
        "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "the first version without a limit": (
        "3:cpu,cpuacct:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "no files": ("0::/\n", {}, math.inf),
    "nonsense": ("0::/\n", {"cpu.max": "many\n"}, math.inf),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_control_groups_allow_so_many_processors(tmp_path: Path, case: str) -> None:
    groups, files, allowed = QUOTAS[case]
    (tmp_path / "membership").write_text(groups)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert machine.quota(tmp_path / "root", tmp_path / "membership") == allowed


@pytest.mark.parametrize(
    ("affinity", "quota", "processors"),
    [(8, math.inf, 8), (8, 3.5, 3), (1, math.inf, 1), (8, 0.5, 1), (2, 16.0, 2)],
)
def test_a_process_has_whole_processors_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float, processors: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(machine, "quota", lambda: quota)
    assert machine.processors() == processors


def test_an_affinity_is_that_of_the_process() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.processors() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_ray_s_files_go_where_tmpdir_says_if_they_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SOCKET", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert machine.temporary_folder() == tmp_path.resolve()
    for useless in (tmp_path / "missing", tmp_path / ("x" * 120)):
        monkeypatch.setenv("TMPDIR", str(useless))
        assert machine.temporary_folder() == Path("/tmp").resolve()
    monkeypatch.delenv("TMPDIR")
    assert machine.temporary_folder() == Path("/tmp").resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("TMPDIR", "/scratch/me")
    with pytest.raises(ClusterError, match=r"TMPDIR /scratch/me and /tmp cannot be used; set TMPDIR to a folder that"):
        machine.temporary_folder()


def test_threads_of_torch_wait_without_spinning_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for given, used in ((None, "passive"), ("active", "active")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given is not None:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        importlib.reload(nas)
        assert os.environ["OMP_WAIT_POLICY"] == used


MEMORY = """
import os
from pathlib import Path
from nas import machine

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

size = 2**26
machine.keep_memory()
machine.return_memory()
before = held()
piece = b"x" * size
del piece
assert held() - before > 0.9 * size
machine.return_memory()
assert held() - before < 0.1 * size
"""


@pytest.mark.skipif(machine._glibc() is None, reason="another C library keeps and returns memory by its own rules")
def test_memory_that_is_freed_is_kept_until_it_is_returned() -> None:
    # What a process that ran other tests has freed before would be used again.
    subprocess.run([sys.executable, "-c", MEMORY], check=True, timeout=60)
