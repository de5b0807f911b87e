"""Runs that lose their memory or their Ray: what can go on goes on, and else one line says how to continue."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import ray._private.worker as ray_worker
from command_samples import ROOT, Studied
from ray import tune
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RaySystemError

from nas.engine import presence, session
from nas.engine.executor import Pool, _going_on
from nas.engine.interrupts import Stopping
from nas.engine.job import Job
from nas.engine.presence import Presence, RayLost
from nas.engine.report import Report
from nas.engine.scheduler import short_memory
from nas.engine.searcher import JobSearcher
from nas.engine.session import _start_local, ray_session, scratch
from nas.errors import ClusterError
from nas.settings import Resources

SHORT = (
    "Caught unexpected exception: 2 worker(s) were killed due to the node running low on memory. Memory on the node "
    "(IP: 192.0.2.2, ID: 8c36) was 5.13GB used / 23.54GB limit (0.218048)\nOOM kill reason: ..."
)


class Jobs(JobSearcher):
    """Two jobs that workers have."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[Any] = []
        self.live = {"a": cast(Job, "first"), "b": cast(Job, "second")}

    def ask(self, trial_id: str) -> Job | None:
        return None

    def cut_off(self, job: Job) -> None:
        self.back.append(job)

    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        pass


class Ray:
    """A Ray that can be started again, or not."""

    def __init__(self, again: bool = True) -> None:
        self.again, self.starts = again, 0

    def lost(self) -> str:
        return ""

    def start_again(self) -> bool:
        self.starts += 1
        return self.again


def going_on(run: Callable[[int], None], ray: Ray | None = None) -> tuple[Jobs, Any]:
    """Runs `run` with 5 trials at a time; returns the searcher and the lines that were told.

    There is no time to wait for memory, and any time for a Ray that was lost.
    """
    told: list[str] = []
    jobs = Jobs()
    pool = Pool(
        space=cast(Any, None),
        data=cast(Any, None),
        settings=cast(Any, None),
        cpus=1,
        gpus=0,
        size=5,
        stopping=Stopping(threading.Event(), 0.0 if ray is None else None),
        session=cast(Any, ray or Ray()),
        tell=told.append,
    )
    _going_on(jobs, pool, run)
    return jobs, told


def test_short_memory_halves_the_number_at_a_time() -> None:
    sizes: list[int] = []

    def run(size: int) -> None:
        sizes.append(size)
        if len(sizes) < 4:
            raise RuntimeError(SHORT)

    jobs, told = going_on(run)
    assert sizes == [5, 2, 1, 1]
    assert jobs.back == ["first", "second"], "they go on, and lose none of their retries"
    assert not jobs.live
    assert told[0] == "memory is short (5.13GB of 23.54GB in use), and Ray ended workers; going on with 2 at a time"


def test_memory_that_stays_short_ends_the_run_in_one_line() -> None:
    def run(size: int) -> None:
        raise RuntimeError(SHORT)

    with pytest.raises(ClusterError, match=r"^memory is short on this machine \(5.13GB of 23.54GB in use\).*same comm"):
        going_on(run)


@pytest.mark.parametrize("kind", [RayLost, ConnectionError, RaySystemError])
def test_a_lost_ray_is_started_again_once(kind: type[BaseException]) -> None:
    ray, runs = Ray(), []

    def run(size: int) -> None:
        runs.append(size)
        if len(runs) < 2:
            raise kind("its raylet has ended")

    jobs, told = going_on(run, ray)
    assert (runs, ray.starts) == ([5, 5], 1)
    assert jobs.back == ["first", "second"]
    assert len(told) == 1
    assert re.match(
        r"Ray was lost \(.*its raylet has ended.*\), and was started again; trials under way go on", told[0]
    )

    def always(size: int) -> None:
        raise RayLost("its raylet has ended")

    with pytest.raises(ClusterError, match=r"Ray was lost .its raylet has ended.; give the same command again"):
        going_on(always, ray)
    assert ray.starts == 2
    with pytest.raises(ClusterError, match="give the same command again"):
        going_on(always, Ray(again=False))
    _, told = going_on(always)
    assert told == [], "who was told to stop starts no Ray"


def test_a_bug_is_no_lost_ray() -> None:
    def run(size: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        going_on(run)


@pytest.mark.parametrize("kind", [RuntimeError, OSError, tune.TuneError])
def test_no_room_for_ray_s_files_is_one_line(kind: type[Exception]) -> None:
    def run(size: int) -> None:
        raise kind("Traceback ...\n  File x\nOSError: [Errno 28] No space left on device: '/tmp/skipnas-x/state'")

    with pytest.raises(ClusterError, match=r"^there is no room for Ray's files \(No space left on device\); free some"):
        going_on(run)


@pytest.mark.parametrize("kind", [ObjectStoreFullError, OutOfDiskError])
def test_data_that_does_not_fit_is_one_line(kind: type[Exception]) -> None:
    def run(size: int) -> None:
        raise kind("Failed to put object 12 in object store.\nIt is full.")

    with pytest.raises(ClusterError, match=r"^the data does not fit into Ray's memory and files \(.*free some room"):
        going_on(run)


def test_what_ray_says_of_memory() -> None:
    assert short_memory(SHORT) == "5.13GB of 23.54GB in use"
    assert short_memory("the node running low on memory") == "nearly all in use"
    assert short_memory("The actor died because of an error") == ""


def test_ray_that_does_not_start_is_tried_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = []

    def refuse(*_: Any, **__: Any) -> None:
        starts.append(1)
        raise Exception("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ClusterError, match=r"^Ray cannot start on this machine \(The current node timed out.*again$"):
        _start_local(tmp_path, Resources(), None, None)
    assert len(starts) == 2
    [told] = [message for message in caplog.messages if message.startswith("Ray did not start (The current node timed")]
    assert told.endswith("it is started once more")


def test_a_place_for_ray_that_cannot_be_written() -> None:
    with pytest.raises(ClusterError, match="Ray's files cannot be written in /proc"), scratch(Path("/proc")):
        pass


def test_ray_has_stopped_before_its_folder_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Because it writes there until it has stopped, and would make the folder again."""
    folders: list[Path] = []

    def stop() -> None:
        (folders[0] / "session" / "logs").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", stop)
    monkeypatch.setattr(session, "_start_local", lambda folder, resources, most, cpus: folders.append(folder))
    monkeypatch.setattr(session, "Presence", lambda: None)
    with ray_session(Resources()):
        assert folders[0].exists()
    assert not folders[0].exists()


def test_what_ray_says_of_its_processes_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """It would stand among the results, which `--json` promises to be alone."""
    told = {"lines": ["Raylet is terminated. Last 20 lines ..."], "pid": "raylet", "is_err": False}
    ray_worker.print_to_stdstream(told, ignore_prefix=False)
    assert capsys.readouterr() == ("", "")


def test_a_process_that_ended_is_seen(make: Any) -> None:
    """On the Ray of these tests, which is whole."""
    found = Presence()
    assert found.lost() == ""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    found._processes["raylet"].append(ended)
    assert found.lost() == "its raylet has ended"


def test_a_head_that_answers_no_more(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.0)
    found = Presence()
    found._head = "127.0.0.1:1"
    assert [found.lost() for _ in range(presence.UNANSWERED)] == ["", "", "its head at 127.0.0.1:1 answers no more"]


HUNGRY = """
import os, subprocess, sys
from pathlib import Path

memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
used = memory["MemTotal"] - memory["MemAvailable"]
os.environ["RAY_memory_usage_threshold"] = str((used + 2 * 2**20) / memory["MemTotal"])
os.environ["RAY_memory_monitor_refresh_ms"] = "100"

from nas.data.splits import load
from toy_search import Search
from toy_space import ToySpace

folder = Path(sys.argv[1])
search = Search(folder, load("digits", subset=128), ToySpace(faults=("slow",), scratch=str(folder)), epochs=9)
hog = "import time; b = bytearray(5 * 2**29); b[::4096] = b'1' * len(b[::4096]); time.sleep(6)"
search.when_running = lambda: subprocess.Popen([sys.executable, "-c", hog])
print(search.run(4, concurrency=2).counts.complete, search.states())
"""


@pytest.mark.slow
def test_a_search_beside_a_program_that_takes_the_memory_ends_with_all_trials(tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "nas", ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.strip() == f"4 {['COMPLETE'] * 4}", done.stderr


SEARCH = "search --study s --trials 3 --epochs 27 --subset 400 --max-params 12000 --no-baselines --precision fp32"


UNDER_WAY = r"\b[1-9]\d* running"
"""The progress that tells of trials under way."""

BEFORE = r"^0/"
"""The first progress, before trials are handed to Ray. Ray ends the driver when it is lost then."""


def said_while_ray_is_killed(command: str, folder: Path, process: str, moment: str) -> str:
    """Runs a command, kills a process of its Ray at a moment, and returns what it said at its end."""
    from benchmarks.chaos import descendants, named

    words = [sys.executable, str(ROOT / "app_cli.py"), *command.split()]
    environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # a minute by default
    with (
        (folder / "out").open("w") as out,
        subprocess.Popen(words, cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, env=environment) as run,
    ):
        assert run.stderr is not None
        assert any(re.search(moment, line) for line in run.stderr), "the line of progress that tells of the moment"
        for pid in named(process, descendants(run.pid)):
            os.kill(pid, signal.SIGKILL)
        _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert "Ray was lost" in said
    assert "Traceback" not in said
    assert "raylet" not in (folder / "out").read_text()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("process", ["raylet/raylet", "gcs_server"])
def test_a_search_and_a_confirmation_whose_ray_is_killed_go_on(tmp_path: Path, process: str) -> None:
    assert "the study has 3 of 3" in said_while_ray_is_killed(SEARCH, tmp_path, process, UNDER_WAY)
    said = said_while_ray_is_killed("confirm s --seeds 2 --top 1", tmp_path, process, UNDER_WAY)
    # A kill that comes when both runs are done leaves nothing to go on with.
    assert "the confirmation has 2 of 2" in said or "all 2 runs are there" in said


@pytest.mark.slow
@pytest.mark.parametrize("process", ["raylet/raylet", "gcs_server"])
def test_a_confirmation_whose_ray_is_killed_before_its_first_run_goes_on(studied: Studied, process: str) -> None:
    said = said_while_ray_is_killed("confirm small --seeds 2 --top 0", studied.folder, process, BEFORE)
    assert "the confirmation has 2 of 2" in said


@pytest.mark.slow
def test_a_search_whose_ray_is_killed_before_its_first_trial_goes_on(tmp_path: Path) -> None:
    search = SEARCH.replace("--epochs 27", "--epochs 1")
    assert "the study has 3 of 3" in said_while_ray_is_killed(search, tmp_path, "raylet/raylet", BEFORE)
