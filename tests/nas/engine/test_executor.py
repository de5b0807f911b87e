"""Ray: what runs on it at a time, clusters that are not there, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from toy_space import ToySpace

from nas.engine.executor import ray_session, scratch, slots
from nas.errors import ClusterError, ConfigError


def test_slots_count_whole_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 5.0, "GPU": 2.0})
    assert slots(1, 0, None) == 5
    assert slots(1, 0.5, None) == 4
    assert slots(1, 0.4, None) == 4  # twice on each of two, not five times
    assert slots(1, 0, 3) == 3
    with pytest.raises(ConfigError, match="a trial asks for 3 GPU, Ray has 2; lower `gpus_per_trial`"):
        slots(1, 3, None)
    with pytest.raises(ConfigError, match="a trial asks for 9 CPU, Ray has 5; lower `cpus_per_trial`"):
        slots(9, 0, None)


@pytest.mark.slow
def test_fractions_of_made_up_gpus_run_four_at_a_time(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("meet",), scratch=str(tmp_path)), epochs=3)
    outcome = search.run(8, gpus_per_trial=0.5, concurrency=None)
    assert outcome.workers == 4
    assert outcome.counts.complete == 8
    assert len(list(tmp_path.glob("alive-*"))) >= 4, "four had to be there at once for any to go on"


def test_scratch_folders_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from nas.engine.executor import scratch\n"
        "with scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    (dead,) = tmp_path.iterdir()
    with scratch(tmp_path) as first:
        assert not dead.exists()
        with scratch(tmp_path) as second:
            assert first.exists()
        assert not second.exists()
    assert not list(tmp_path.iterdir())


def test_scratch_folders_without_a_lock_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    for name in ("skipnas-abcd_123", "skipnas-new_0000", "skipnas-int8-abcdefgh", "skipnas-files"):
        (tmp_path / name).mkdir()
        if name != "skipnas-new_0000":
            os.utime(tmp_path / name, (0, 0))
    with scratch(tmp_path):
        pass
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["skipnas-files", "skipnas-int8-abcdefgh", "skipnas-new_0000"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("nonsense", "'nonsense' is no address of a cluster"),
        ("ray://127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=message), ray_session(address):
        pass
