"""Ray: what runs on it at a time, in which processes, clusters that are not there, and what it leaves behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import ray._private.worker as ray_worker
from ray import tune
from toy_space import ToySpace

from nas.engine import session
from nas.engine.ahead import Ahead
from nas.engine.carried import Carried
from nas.engine.interrupts import Stopping, stop_signals
from nas.engine.session import ray_session, scratch, slots
from nas.errors import ClusterError, ConfigError
from nas.settings import Resources


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
        "from nas.engine.session import scratch\n"
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
        ("ray://127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=message), ray_session(Resources(address=address)):
        pass


def test_auto_finds_the_cluster_and_says_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster answers at '[0-9.]+:1' \("),
        ray_session(Resources(address="auto")),
    ):
        pass
    monkeypatch.delenv("RAY_ADDRESS")

    def nothing(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(session.services, "canonicalize_bootstrap_address", nothing)
    with (
        pytest.raises(ClusterError, match="no Ray cluster is to be found here"),
        ray_session(Resources(address="auto")),
    ):
        pass


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray is started with; it takes SIGTERM over, as the real one does."""
    given: dict[str, Any] = {}

    def init(address: str, **options: Any) -> None:
        given.update(options)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return given


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_cleanly_though_ray_wants_it(started: dict[str, Any], number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as signalled, ray_session(Resources()):
        stopping = Stopping(signalled, None)
        assert not stopping()
        os.kill(os.getpid(), number)
        assert (stopping(), stopping.reason) == (True, "interrupted")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_ray_gets_what_the_process_may_use(started: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(session, "processors", lambda: 3)
    with ray_session(Resources()):
        assert started["num_cpus"] == 3
    signal.signal(signal.SIGTERM, before)


def test_places_of_the_driver_s_modules_come_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    carried = pickle.dumps(Carried({"depth": 3}))
    there = sys.path[1:]
    monkeypatch.setattr(sys, "path", list(there))
    assert pickle.loads(carried) == {"depth": 3}
    assert sys.path == [*there, str(tmp_path)]


@pytest.mark.slow
def test_a_file_of_the_working_folder_hides_no_module_from_workers(tmp_path: Path) -> None:
    for name in ("random", "statistics", "queue", "types", "json"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden')")
    code = (
        "import ray\n"
        "from nas.engine.session import ray_session\n"
        "from nas.settings import Resources\n"
        "@ray.remote\n"
        "def found():\n"
        "    import importlib, sys, nas\n"
        "    [importlib.reload(__import__(name)) for name in ('random', 'statistics', 'queue', 'json')]\n"
        "    return nas.__file__\n"
        "with ray_session(Resources(), cpus=1):\n"
        "    print(ray.get(found.remote(), timeout=60))\n"
    )
    root = Path(__file__).parents[3]
    script = tmp_path / "bin" / "run.py"
    script.parent.mkdir()
    script.write_text(f"import sys\nsys.path.append({str(root)!r})\n{code}")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(root / "nas" / "__init__.py"), done.stderr


def test_workers_have_imported_what_takes_long_before_they_have_work() -> None:
    @ray.remote
    class Worker:
        def imported(self) -> set[str]:
            return {*sys.modules} & {*session.PRELOADED}

    with ray_session(Resources(concurrency=1)):
        assert ray.cluster_resources()["CPU"] == 1, "so that no idle worker is started for nothing"
        assert ray.get(Worker.remote().imported.remote(), timeout=60) == {"torch", "ray.tune"}


def test_trials_take_the_processes_that_ray_has_started_ahead(tmp_path: Path) -> None:
    class Telling(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"process": os.getpid(), "done": True}

    with ray_session(Resources(concurrency=1)):
        begun = time.monotonic()
        while not (idle := _idle_workers()):
            assert time.monotonic() - begun < 60
            time.sleep(0.1)
        time.sleep(1.5)  # after a second Ray ends idle workers that it thinks are too many
        found = tune.Tuner(Telling, run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0)).fit()
    assert [result.metrics["process"] for result in found] == idle


def _idle_workers() -> list[int]:
    """Returns the workers of this process's Ray that have had no work."""
    [raylet] = ray_worker._global_node.all_processes["raylet"]
    children = Path(f"/proc/{raylet.process.pid}/task/{raylet.process.pid}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_text().startswith("ray::IDLE")]


def test_a_session_within_a_session_is_the_outer_one() -> None:
    resources = Resources(concurrency=1)
    with Ahead(resources) as ahead:
        assert not ray.is_initialized()
        ahead.begin()
        with ray_session(resources) as outer, ray_session(resources) as inner:
            assert outer is inner
            assert outer.lost() == ""
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_a_ray_that_was_started_ahead_is_stopped_by_an_error() -> None:
    def refused() -> None:
        with Ahead(Resources(concurrency=1)) as ahead:
            ahead.begin()
            raise ConfigError("refused after all")

    with pytest.raises(ConfigError):
        refused()
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("resources", "most", "cpus", "ahead"),
    [
        (Resources(), None, 8, True),
        (Resources(), 24, 8, True),
        (Resources(), 2, 2, True),
        (Resources(concurrency=3), None, 3, True),
        (Resources(cpus_per_trial=0.5), None, 8, True),
        (Resources(cpus_per_trial=0.5, concurrency=5), None, 3, True),
        (Resources(cpus_per_trial=3.0), None, 6, False),
        (Resources(cpus_per_trial=3.0), 1, 3, False),
        (Resources(cpus_per_trial=16.0), None, 8, False),
    ],
)
def test_a_local_ray_has_the_processors_that_trials_can_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resources: Resources, most: int | None, cpus: int, ahead: bool
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: asked.update(options))
    monkeypatch.setattr(session, "processors", lambda: 8)
    session._start_local(tmp_path, resources, most, None)
    assert asked["num_cpus"] == cpus
    assert asked["_system_config"]["prestart_worker_first_driver"] is ahead
