"""Whole searches through Ray Tune, over a toy space that plants every fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import ray
from ray.train._internal import storage as ray_storage
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from toy_space import ToySpace

from nas import executor
from nas.checkpoint import load_weights, weights_path
from nas.confirm import Member, confirmation_seed, run_confirmation, summarize
from nas.data import Dataset
from nas.errors import ClusterError, ConfigError, StorageError, StudyError
from nas.executor import ray_session, scratch, slots
from nas.search import Outcome, Progress, Resources, RunOptions, _Busy, run_search
from nas.types import Constraint, EpochRow, Objective, StudyConfig, Task
from studies import ledger as ledger_module
from studies.ledger import SqlLedger
from studies.storage import create_study, open_storage

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
OBJECTIVES = (
    Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
    Objective(name="accuracy", direction="maximize", unit="%", reference=10.0),
    Objective(name="stability", direction="maximize", unit="", reference=0.0),
)


@pytest.fixture(scope="module", autouse=True)
def _one_ray() -> Iterator[None]:
    """One Ray for all tests: starting it takes seconds. It claims 2 GPUs, which nothing checks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the toy space
        ray.init("local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


class Search:
    """A study of toy networks in a folder of its own."""

    def __init__(self, folder: Path, digits: Dataset, space: ToySpace, **changes: Any) -> None:
        self.files = folder / "files"
        self.digits = digits
        self.space = space
        settings: dict[str, Any] = {
            "study": "toy",
            "space": "toy",
            "space_version": 1,
            "data": "digits",
            "fingerprint": digits.fingerprint,
            "task": TASK,
            "epochs": 3,
            "objectives": OBJECTIVES,
            "constraints": space.limits(TASK),
            "sampler": "random",
        }
        config = StudyConfig(**settings | changes)
        storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
        self.ledger: SqlLedger = create_study(storage, config, space.distributions(TASK), {}, "test")
        self.when_running: Callable[[], None] | None = None

    def run(self, trials: int, **options: Any) -> Outcome:
        options = {"concurrency": 2, "cpus_per_trial": 1} | options
        return run_search(
            self.ledger.config,
            self.space,
            self.ledger,
            self.digits,
            self.files,
            RunOptions(trials=trials, **options),
            self._observe,
        )

    def _observe(self, progress: Progress) -> None:
        if progress.running and self.when_running is not None:
            call, self.when_running = self.when_running, None
            call()

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.ledger.study.get_trials(deepcopy=False)]


@pytest.fixture
def make(tmp_path: Path, digits: Dataset) -> Iterator[Any]:
    made: list[Search] = []

    def build(space: ToySpace | None = None, **changes: Any) -> Search:
        made.append(Search(tmp_path, digits, space or ToySpace(scratch=str(tmp_path)), **changes))
        return made[-1]

    yield build
    for search in made:
        search.ledger.close()


def test_a_search_fills_the_study_and_continues_it(make: Any) -> None:
    search = make()
    first = search.run(3)
    assert (first.reason, first.new, first.counts.complete) == ("complete", 3, 3)
    again = search.run(3)
    assert (again.reason, again.new, again.workers) == ("complete", 0, 0)
    more = search.run(5)
    assert (more.new, more.counts.trained) == (2, 5)
    for result in search.ledger.results():
        assert {"psnr", "accuracy", "stability", "params", "macs", "latency"} == set(result.values)
        rows = search.ledger.epochs_table(result.number)
        assert [row.epoch for row in rows] == [1, 2, 3]
        assert rows[-1].psnr == result.values["psnr"]
        assert len(search.ledger.probe(result.number).steps) > 3
        assert search.ledger.trial(result.number).gates


def test_a_long_search_has_several_tuners_and_loses_nothing_between_them(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuners: list[float] = []
    fit = executor._fit

    def noting(searcher: Any, *given: Any) -> None:
        tuners.append(searcher.left)
        fit(searcher, *given)

    monkeypatch.setattr(executor, "_fit", noting)
    monkeypatch.setattr(executor, "TRIALS_OF_A_TUNER", 3)
    monkeypatch.setattr(executor, "AND_OF_A_WORKER", 1)
    search = make(epochs=1)
    outcome = search.run(4)
    assert tuners == [3, 3]
    assert (outcome.reason, outcome.counts.complete, outcome.counts.proposals) == ("complete", 4, 4)
    assert search.states() == ["COMPLETE"] * 4


def test_weights_are_kept_for_the_front_alone(make: Any) -> None:
    search = make()
    search.run(6)
    kept = sorted(int(path.stem.split("-")[1]) for path in search.files.glob("*.safetensors"))
    assert kept == search.ledger.front()
    (shown,) = search.ledger.results(kept[:1])
    network = search.space.build(search.space.spec(shown.spec), TASK)
    load_weights(network, search.files, kept[0], shown.digest)
    off = next((n for n in range(6) if n not in kept), None)
    if off is not None:
        with pytest.raises(StudyError, match=f"trial {off} has no weights"):
            load_weights(network, search.files, off, "")
    assert not list(search.files.glob("*.partial"))


def test_each_fault_ends_as_the_design_says(make: Any, tmp_path: Path) -> None:
    faults = ("kill", "exception", "none", "nan", "memory")
    space = ToySpace(faults=faults, scratch=str(tmp_path))
    search = make(space)
    for width, fault in enumerate(faults, start=1):
        search.ledger.study.enqueue_trial({"width": width, "fault": fault})
    search.run(3, concurrency=5)
    trials = search.ledger.study.get_trials(deepcopy=False)[: len(faults)]
    outcome = {t.params["fault"]: (t.state.name, search.ledger.trial(t.number).reason) for t in trials}
    assert outcome == {
        "none": ("COMPLETE", ""),
        "nan": ("PRUNED", "diverged"),
        "exception": ("FAIL", "exception"),
        "memory": ("PRUNED", "out_of_memory"),
        "kill": ("FAIL", "worker_lost"),
    }
    exception = next(t.number for t in trials if t.params["fault"] == "exception")
    assert "planted exception" in search.ledger.trial(exception).detail
    assert "Traceback" in search.ledger.trial(exception).detail
    assert all(t.values is None for t in trials if t.state.name != "COMPLETE")
    assert set(search.ledger.front()) <= {r.number for r in search.ledger.results()}


def test_weak_candidates_are_stopped_at_rungs(make: Any, tmp_path: Path) -> None:
    search = make(epochs=9, early_stopping=True)
    outcome = search.run(9)
    assert outcome.counts.trained == 9
    stopped = [r for r in search.ledger.trials() if r.reason == "stopped"]
    assert stopped, "of nine, six at least are not among the best third"
    for record in stopped:
        assert record.epochs_done in (1, 3)
        assert record.detail == f"not among the best at epoch {record.epochs_done}"
        assert search.ledger.epochs_table(record.number)[-1].epoch == record.epochs_done
        trial = search.ledger.study.trials[record.number]
        assert trial.state.name == "PRUNED"
        assert trial.values is None
        assert not trial.intermediate_values
    assert not set(search.ledger.front()) & {r.number for r in stopped}
    assert not list(search.files.glob("*.checkpoint"))
    judged = search.ledger.judged()
    assert {judged[r.number][0] for r in stopped} <= {1, 3}


def test_a_hanging_trial_fails_with_where_it_hung(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("hang", "none"), scratch=str(tmp_path)))
    search.ledger.study.enqueue_trial({"width": 5, "fault": "hang"})
    search.ledger.study.enqueue_trial({"width": 6, "fault": "none"})
    outcome = search.run(1, trial_timeout=12, concurrency=1)
    record = search.ledger.trial(0)
    assert (record.reason, search.states()[0]) == ("timeout", "FAIL")
    assert "_fault" in record.detail, "the traceback says where"
    assert (outcome.counts.trained, outcome.counts.failed) == (1, 1)
    assert not list(search.files.glob("*.hang"))


def test_a_lost_worker_s_trial_goes_on_from_its_checkpoint(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("kill_late",), scratch=str(tmp_path)), epochs=6)
    outcome = search.run(1, concurrency=1)
    assert outcome.counts.complete == 1
    # Killed in its fifth epoch, it goes on after the third: epochs 1 to 4 begin once or twice, never thrice.
    begun = (tmp_path / "epochs").read_text().split()
    assert begun == ["1", "2", "3", "4", "5", "4", "5", "6"]
    assert [row.epoch for row in search.ledger.epochs_table(0)] == [1, 2, 3, 4, 5, 6]


def test_a_worker_killed_once_is_retried_under_its_number(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("kill_once",), scratch=str(tmp_path)))
    outcome = search.run(2)
    assert (outcome.counts.complete, outcome.counts.failed) == (2, 0)
    assert search.states() == ["COMPLETE", "COMPLETE"]
    assert len(list(tmp_path.glob("killed-*"))) == 2


def test_nothing_over_a_limit_is_trained(make: Any) -> None:
    limits = (Constraint(name="params", upper=400), Constraint(name="macs", upper=10_000_000))
    search = make(constraints=limits)
    search.run(5)
    for record in search.ledger.trials():
        assert record.params <= 400 or record.reason == "over_limit"
    assert all(result.values["params"] <= 400 for result in search.ledger.results())


def test_an_enqueued_candidate_over_a_limit_is_told_and_asked_again(make: Any) -> None:
    search = make(constraints=(Constraint(name="params", upper=400), Constraint(name="macs", upper=10_000_000)))
    search.ledger.study.enqueue_trial({"width": 64, "fault": "none"})
    outcome = search.run(2)
    assert (outcome.counts.trained, outcome.counts.over_limit, outcome.counts.failed) == (2, 1, 0)
    assert search.ledger.trial(0).reason == "over_limit"


def test_a_finite_space_is_never_trained_twice_and_ends_exhausted(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(widths=3, scratch=str(tmp_path)), epochs=1)
    outcome = search.run(4)
    assert outcome.reason == "exhausted"
    assert outcome.counts.trained == 3
    digests = [search.ledger.trial(r.number).digest for r in search.ledger.results()]
    assert len(set(digests)) == 3
    assert outcome.counts.proposals <= 20 * 4


def test_a_time_limit_keeps_what_runs_for_the_next_call(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=60)
    # 12 seconds a trial: none ends within the limit.
    stopped = search.run(2, time_limit=4)
    assert stopped.reason == "time_limit"
    before = search.states()
    assert set(before) <= {"RUNNING"}
    (tmp_path / "fast").touch()
    done = search.run(2)
    assert done.counts.trained == 2
    assert len(search.states()) == 2, "interrupted trials go on under their own numbers"


def test_an_interrupt_before_anything_was_trained_stops_cleanly(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("exception",), scratch=str(tmp_path)))
    search.when_running = lambda: os.kill(os.getpid(), signal.SIGINT)  # at the report of what failed
    outcome = search.run(2, concurrency=1)
    assert (outcome.reason, outcome.counts.trained, outcome.busy) == ("interrupted", 0, None)


def test_workers_are_busy_with_epochs_of_this_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("nas.search.time.monotonic", lambda: clock[0])

    def rows(*seconds: float) -> list[EpochRow]:
        fields = {"denoise_loss": 1.0, "classify_loss": None, "psnr": None, "accuracy": None, "stability": None}
        return [EpochRow(epoch=n, seconds=took, **fields) for n, took in enumerate(seconds, start=1)]

    busy = _Busy((7, row) for row in rows(50.0, 60.0))
    assert busy.share(1) is None
    busy.add(3, [])
    assert busy.share(1) is None, "a trial that fails before its first epoch"
    clock[0] = 110.0
    busy.add(7, rows(50.0, 4.0))  # it went on from a checkpoint after epoch 1
    assert busy.share(1) == pytest.approx(4 / 10)
    busy.add(7, rows(50.0, 4.0))  # a worker that was lost tells all once more
    assert busy.share(1) == pytest.approx(4 / 10)
    busy.add(8, rows(4.0))
    assert busy.share(2) == pytest.approx(8 / 20)


def test_an_interrupt_stops_cleanly(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=1000)
    search.when_running = lambda: os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    outcome = search.run(2)
    assert outcome.reason == "interrupted"
    assert set(search.states()) == {"RUNNING"}
    assert signal.getsignal(signal.SIGINT) is before


def test_nobody_hears_of_tune_s_state_when_a_copy_of_it_fails(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy, copies = ray_storage._pyarrow_fs_copy_files, []

    def fail_once(*what: Any, **options: Any) -> None:
        copies.append(what)
        if len(copies) == 1:
            raise FileNotFoundError("a file that Tune was writing")
        copy(*what, **options)

    monkeypatch.setattr(ray_storage, "_pyarrow_fs_copy_files", fail_once)
    assert make().run(1).reason == "complete"
    assert len(copies) > 1
    assert caplog.messages == []


def test_a_second_interrupt_ends_the_search_the_hard_way(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=1000)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    search.when_running = twice
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        search.run(2)
    assert set(search.states()) == {"RUNNING"}
    assert all(trial.driver is None for trial in search.ledger.unfinished()), "they are anyone's to go on with"
    assert signal.getsignal(signal.SIGINT) is before


@contextmanager
def gone(search: Search) -> Iterator[Callable[[float], None]]:
    """Begins, when called, a while in which the database answers nothing."""
    until = 0.0

    def fail(*_: Any) -> None:
        if time.monotonic() < until:
            raise OperationalError("SELECT", None, Exception("server is gone"))

    def begin(seconds: float) -> None:
        nonlocal until
        until = time.monotonic() + seconds

    event.listen(search.ledger.storage.engine, "before_cursor_execute", fail)
    yield begin
    event.remove(search.ledger.storage.engine, "before_cursor_execute", fail)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_database_that_is_gone_for_a_while_costs_no_trial(make: Any, tmp_path: Path, seconds: float) -> None:
    search = make(epochs=9, early_stopping=True)
    with gone(search) as begin:
        search.when_running = lambda: begin(seconds)
        outcome = search.run(6)
    assert (outcome.reason, outcome.counts.trained, outcome.counts.failed) == ("complete", 6, 0)
    for record in search.ledger.trials():
        assert [row.epoch for row in search.ledger.epochs_table(record.number)] == list(
            range(1, record.epochs_done + 1)
        )


@pytest.mark.slow
def test_a_database_that_stays_away_ends_the_search_which_goes_on_later(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=9)
    (tmp_path / "fast").touch()
    with gone(search) as begin, monkeypatch.context() as patch:
        patch.setattr(ledger_module, "PATIENCE_SECONDS", 0.5)
        patch.setattr(ledger_module, "RETRY_SECONDS", 0.05)
        search.when_running = lambda: begin(5.0)
        with pytest.raises(StorageError, match="server is gone"):
            search.run(4)
        time.sleep(5.0)
    outcome = search.run(4)
    assert (outcome.reason, outcome.counts.trained, outcome.counts.failed) == ("complete", 4, 0)


@pytest.mark.slow
def test_a_full_disk_ends_the_search_which_goes_on_later(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("full",), scratch=str(tmp_path)), epochs=1)
    with pytest.raises(StorageError, match=r"no room for weights in .*No space left.*the same command again"):
        search.run(3)
    assert set(search.states()) == {"RUNNING"}
    (tmp_path / "room").touch()
    outcome = search.run(3)
    assert (outcome.counts.complete, outcome.counts.failed) == (3, 0)


def test_fractions_of_made_up_gpus_run_four_at_a_time(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("meet",), scratch=str(tmp_path)), epochs=3)
    outcome = search.run(8, gpus_per_trial=0.5, concurrency=None)
    assert outcome.workers == 4
    assert outcome.counts.complete == 8
    assert len(list(tmp_path.glob("alive-*"))) >= 4, "four had to be there at once for any to go on"


def test_slots_count_whole_devices() -> None:
    with ray_session(None):
        assert slots(1, 0, None) == 8
        assert slots(1, 0.5, None) == 4
        assert slots(1, 0.4, None) == 4  # twice on each of two, not five times
        assert slots(1, 0, 3) == 3
        with pytest.raises(ConfigError, match="a trial asks for 3 GPU, Ray has 2; lower --gpus-per-trial"):
            slots(1, 3, None)
        with pytest.raises(ConfigError, match="a trial asks for 9 CPU, Ray has 8; lower --cpus-per-trial"):
            slots(9, 0, None)


def test_the_same_seed_proposes_the_same_one_at_a_time(make: Any, tmp_path: Path, digits: Dataset) -> None:
    proposals = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        search = Search(folder, digits, ToySpace(scratch=str(folder)), sampler="tpe", epochs=1, seed=3)
        if name == "a":
            search.run(14, concurrency=1)
        else:  # in three goes
            for trials in (4, 11, 14):
                search.run(trials, concurrency=1)
        proposals.append([(t.params, t.values) for t in search.ledger.study.get_trials(deepcopy=False)])
        search.ledger.close()
    assert proposals[0] == proposals[1]


def test_scratch_folders_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from nas.executor import scratch\n"
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


def test_a_plain_script_reads_the_study(make: Any, tmp_path: Path) -> None:
    search = make()
    search.run(2)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert study.metric_names == ["psnr", "accuracy", "stability"]
    assert np.isfinite([t.values for t in study.trials]).all()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("nonsense", "cluster address 'nonsense' is not one"),
        ("ray://127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=message), ray_session(address):
        pass


def test_weights_path_is_keyed_by_number(tmp_path: Path) -> None:
    assert weights_path(tmp_path, 7).name == "trial-7.safetensors"


# Confirmation


def confirm(search: Search, seeds: int, *widths: int, faults: tuple[str, ...] = ("none",), **options: Any) -> Any:
    """Confirms toy candidates of these widths, one for each fault."""
    params = [{"width": width, "fault": fault} for width in widths for fault in faults]
    members = [
        Member(candidate=search.space.decode(one, TASK, search.ledger.config.epochs), number=number)
        for number, one in enumerate(params)
    ]
    resources = Resources(**{"concurrency": 2} | options)
    return run_confirmation(
        search.ledger.config, search.space, search.ledger, search.digits, search.files, members, seeds, resources
    )


def test_a_confirmation_trains_each_member_under_each_seed_once(make: Any) -> None:
    search = make()
    first = confirm(search, 2, 4, 8)
    assert (first.reason, first.new, first.total, first.done) == ("complete", 4, 4, 4)
    again = confirm(search, 2, 4, 8)
    assert (again.reason, again.new, again.seconds) == ("complete", 0, 0.0)
    more = confirm(search, 3, 4, 8)
    assert (more.reason, more.new, more.total) == ("complete", 2, 6)
    runs = search.ledger.confirmations()
    assert {(run.number, run.repeat) for run in runs} == {(n, r) for n in range(2) for r in range(3)}
    seeds = {run.repeat: run.seed for run in runs if run.number == 0}
    assert seeds == {repeat: confirmation_seed(0, repeat) for repeat in range(3)}
    for run in runs:
        names = {"psnr", "accuracy", "stability", "params", "macs", "latency", "test_psnr", "test_accuracy"}
        assert set(run.values) == names
        assert run.values["test_psnr"] != run.values["psnr"]
        assert run.gates == ({"mean": run.gates[0]["mean"], "min": run.gates[0]["min"], "max": run.gates[0]["max"]},)
    for member in summarize(runs):
        assert (member.sound, member.values["psnr"].n) == (True, 3)
        assert member.values["psnr"].sd > 0, "seeds make different runs"
    assert not list(search.files.rglob("*")), "nothing is left on disk"
    assert search.states() == [], "the search is untouched"


@pytest.mark.slow
def test_runs_that_diverge_are_kept_and_those_with_a_bug_are_not(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("none", "nan", "exception"), scratch=str(tmp_path)))
    found = confirm(search, 2, 4, faults=("none", "nan", "exception"))
    assert (found.reason, found.done, found.total) == ("failed", 4, 6)
    assert {(run.number, run.reason) for run in search.ledger.confirmations()} == {(0, "complete"), (1, "diverged")}
    (line,) = [line for line in found.messages if "trial 2, seed 1: exception, RuntimeError: planted" in line]
    kept = Path(line.rpartition(" is in ")[2])
    assert kept.read_text().startswith("Traceback (most recent call last)")
    assert confirm(search, 2, 4, faults=("none", "nan")).reason == "complete"
    assert confirm(search, 2, 4, faults=("none", "nan", "exception")).new == 0


@pytest.mark.slow
def test_a_confirmation_stops_at_its_time_limit_and_goes_on(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=300)
    stopped = confirm(search, 2, 4, faults=("slow",), time_limit=3)
    assert (stopped.reason, stopped.done) == ("time_limit", 0)
    (tmp_path / "fast").touch()
    done = confirm(search, 2, 4, faults=("slow",))
    assert (done.reason, done.new) == ("complete", 2)
