"""Ray, started quietly, asked for resources, and given the trials. Only this module configures it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import signal
import site
import socket
import tempfile
import threading
import time
import unittest.mock
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import ray
import ray._private.worker as ray_worker
from ray import tune
from ray._private import services
from ray._private.node import Node
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError, RayTaskError
from ray.job_config import JobConfig

from nas.data.splits import Dataset
from nas.engine.carried import Carried
from nas.engine.guardian import connected
from nas.engine.interrupts import Stopping, stop_signals
from nas.engine.job import Job
from nas.engine.presence import Presence, RayLost
from nas.engine.report import LivesInDriver, Report
from nas.engine.scheduler import LossScheduler, RungScheduler, short_memory
from nas.engine.searcher import JobSearcher, Recorder, StudySearcher
from nas.engine.trainable import CandidateTrainable, WorkerSettings
from nas.errors import ClusterError, ConfigError, in_short
from nas.files import OLD_SECONDS
from nas.machine import processors, temporary_folder
from nas.parsing import ADDRESSES, read_address
from nas.protocols import SearchSpace
from nas.settings import Resources, StudyConfig, checked_command

# Ray reads these when it is imported: no usage report, no log files of its own, no second progress display, no
# snapshots of a state that the study keeps better, and signals left to this module.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # each loss of a worker; the search says how a trial ended
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="86400",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)


log = logging.getLogger(__name__)

# Tune copies its state at the end of a run even if it has not written it, and logs the stack trace when that fails. It
# also lists the trials of a run that did not complete.
for _name in ("ray.tune.execution.experiment_state", "ray.train._internal.syncer", "ray.tune.tune"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def _unsaid(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Takes what Ray prints about its processes, pages where one of them is lost, and leaves it to the log."""
    log.debug("Ray: %s", data)


ray_worker.print_to_stdstream = _unsaid  # it writes to stdout, which belongs to results

QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}

SHORTAGES = 6
"""The number of times in a row that memory may run short, without a trial that ends meanwhile, before a run ends."""

TRIALS_OF_A_TUNER, AND_OF_A_WORKER = 500, 20
"""The smallest number of trials of a Tuner, and of a Tuner for each of its workers. Tune remembers every trial of a
Tuner, so a long search has several of them, one after the other. Between two of them workers wait for the last trial of
the first, and are started anew."""


class Session:
    """The Ray of a run, which can be started again when it is lost.

    Args:
        start: starts a local Ray or joins a cluster; None where this process was connected before.
    """

    def __init__(self, start: Callable[[], None] | None) -> None:
        self._start = start
        if start is not None:
            start()
        self._presence = Presence()

    def lost(self) -> str:
        """Returns what is gone of this Ray, in words; "" while all is there."""
        return self._presence.lost()

    def start_again(self) -> bool:
        """Starts a lost Ray again; False where another program started it. Raises ClusterError."""
        if self._start is None:
            return False
        ray.shutdown()
        self._start()
        self._presence = Presence()
        return True


@contextlib.contextmanager
def ray_session(address: str | None, *, cpus: int | None = None) -> Iterator[Session]:
    """Provides a running Ray: the one that this process is connected to, a cluster at `address`, or a new local one.

    A local one and its files are gone afterwards. Only a Ray that this function started is stopped.

    Raises:
        ClusterError: nobody answers at `address`, or Ray does not start on this machine.
    """
    if ray.is_initialized():
        yield Session(None)
        return
    with scratch() as folder, connected():  # Ray never cleans its session folders
        try:
            yield Session(lambda: _start_local(folder, cpus) if address is None else _connect(address))
        finally:
            ray.shutdown()  # before its folder is deleted, because it writes to it until it has stopped


def _init(address: str, **options: Any) -> None:
    """Starts or joins Ray, and gives SIGTERM back to its handler, because Ray takes this signal over."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, job_config=_job(), **options, **QUIET)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


TOKEN = secrets.token_hex(32)


def have_token() -> None:
    """Gives the Ray that this process starts a token, because Ray would write one into the user's home.

    A person's own token stays. It is one token for as long as the process lives, because Ray reads it only once.
    """
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)


def _start_local(folder: Path, cpus: int | None) -> None:
    """Starts a local Ray, at the second try where the first one found the machine too busy."""
    have_token()
    for last in (False, True):
        try:
            with _without_helpers():
                _init("local", include_dashboard=False, num_cpus=cpus or processors(), _temp_dir=str(folder))
        except Exception as error:  # Ray raises all kinds, plain exceptions among them
            ray.shutdown()
            if last:
                raise ClusterError(
                    f"Ray cannot start on this machine ({in_short(error)}); see that there is memory, room in /tmp and "
                    "time for it, and give the same command again"
                ) from error
            log.warning("Ray did not start (%s); it is started once more", in_short(error))
        else:
            return


def _job() -> JobConfig:
    """Returns a job whose workers find Python's modules before files of the working folder.

    Ray puts the working folder first, so that a file such as random.py in it stops every worker. As for jobs of Ray's
    own clients it is left out here; `Carried` names the places of the driver's modules to the workers. A checkout of
    this project goes first, so that workers run its code and not that of an installed version.
    """
    here = Path(__file__).resolve().parents[2]
    installed = here in {Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())}
    return JobConfig(_client_job=True, _py_driver_sys_path=[] if installed else [str(here)])


@contextlib.contextmanager
def scratch(place: Path | None = None) -> Iterator[Path]:
    """Provides a folder for as long as this process needs it, after deleting the folders of processes that were killed.

    A process that lives holds a lock on a file in its folder.

    Raises:
        ClusterError: there is no place for it.
    """
    place = place or temporary_folder()
    for lock in place.glob("skipnas-*/lock"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    for old in place.glob(f"skipnas-{8 * '[a-z0-9_]'}"):  # of a process that was killed before it had its lock
        with contextlib.suppress(OSError):
            if not (old / "lock").exists() and time.time() - old.stat().st_mtime > OLD_SECONDS:
                shutil.rmtree(old)
    try:
        folder = Path(tempfile.mkdtemp(prefix="skipnas-", dir=place))
    except OSError as error:
        raise ClusterError(f"Ray's files cannot be written in {place} ({error.strerror}); make room for them") from None
    try:
        with (folder / "lock.new").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / "lock.new").rename(folder / "lock")  # so it is never seen unlocked
            yield folder
    finally:
        for _ in range(10):  # the processes of a Ray that was just stopped may still write
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.2)


HELPERS = ("start_api_server", "start_monitor", "start_log_monitor")
"""Methods of Ray's `Node` that start processes which a run on one machine has no use for.

The server of the dashboard, which Ray starts even without one, asks for the cloud that it runs in, at hosts of Google,
Amazon and Microsoft (findings/ray-looks-up-hosts.sh). The other two start machines of a cloud, and bring what workers
print to the driver, which has no use for it; each takes a second of a core and 80 MB.
"""


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """Keeps Ray from starting its `HELPERS`."""
    with contextlib.ExitStack() as patches:
        for name in HELPERS:
            patches.enter_context(unittest.mock.patch.object(Node, name))
        yield


def _connect(address: str) -> None:
    try:
        read_address(address)
    except ValueError as error:
        raise ClusterError(f"{address!r} is no address of a cluster; {error}") from None
    if address == "auto":
        try:
            address = services.canonicalize_bootstrap_address("auto") or ""
        except (ConnectionError, ValueError):
            raise ClusterError(f"no Ray cluster is to be found here; {ADDRESSES}") from None
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            # Ray itself keeps trying for half a minute and then prints pages.
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise ClusterError(f"no Ray cluster answers at {address!r} ({error}); {ADDRESSES}") from None
    try:
        _init(address or "auto")
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ClusterError(f"cannot join the Ray cluster at {address!r} ({first}); {ADDRESSES}") from None


def slots(cpus_per_trial: float, gpus_per_trial: float, concurrency: int | None) -> int:
    """Returns the number of trials at a time: as many as the connected Ray has room for, at most `concurrency`.

    Raises:
        ConfigError: not even one trial fits.
    """
    return _fitting(ray.cluster_resources(), cpus_per_trial, gpus_per_trial, concurrency)


def expected_slots(resources: Resources) -> int:
    """Returns the number of trials at a time, at least 1, that a run will have.

    It is as many as the connected Ray has room for or, before Ray is started, this machine.
    """
    have = ray.cluster_resources() if ray.is_initialized() else _of_this_machine()
    try:
        return _fitting(have, resources.cpus_per_trial, resources.gpus_per_trial, resources.concurrency)
    except ConfigError:  # a cluster may have more
        return 1


def _of_this_machine() -> dict[str, float]:
    import torch

    return {"CPU": joblib.cpu_count(), "GPU": torch.cuda.device_count()}


def _fitting(have: Mapping[str, float], cpus_per_trial: float, gpus_per_trial: float, concurrency: int | None) -> int:
    fits = []
    for name, wanted in (("CPU", cpus_per_trial), ("GPU", gpus_per_trial)):
        if wanted > 0:
            # Trials do not span devices: 0.4 of a GPU fits twice on each GPU, not five times on two.
            total = have.get(name, 0.0)
            each = int(1 / wanted + 1e-9) if wanted < 1 else 1 / wanted
            fits.append(int(total * each + 1e-9))
            if fits[-1] < 1:
                raise ConfigError(
                    f"a trial asks for {wanted:g} {name}, Ray has {total:g}; lower `{name.lower()}s_per_trial`"
                )
    return min([*fits, concurrency or fits[0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The workers of a run.

    Attributes:
        space: builds the networks.
        data: goes into Ray's object store once, from where every worker of a machine reads it.
        settings: settings that all workers share.
        cpus, gpus: resources of each worker, fractions too.
        size: number of workers.
        stopping: when it answers True, running trials are cut off and no more are started.
        session: the Ray that they run on.
        tell: called with lines for people about what the run had to go on from.
    """

    space: SearchSpace
    data: Dataset
    settings: WorkerSettings
    cpus: float
    gpus: float
    size: int
    stopping: Stopping
    session: Session
    tell: Callable[[str], None]


@contextlib.contextmanager
def worker_pool(
    config: StudyConfig,
    space: SearchSpace,
    data: Dataset,
    files: Path,
    resources: Resources,
    *,
    most: int | None = None,
    confirming: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Pool]:
    """Provides the workers of a study's run. While the block runs, Ray runs, and signals ask for a stop.

    Args:
        config: the study's configuration, which fixes how its candidates are trained.
        space: builds the networks.
        data: the study's data.
        files: folder for the files that trials leave.
        resources: resources of the run.
        most: number of workers that have work; None for as many as fit.
        confirming: see `WorkerSettings`.
        tell: see `Pool`.

    Raises:
        ConfigError: a trial asks for more than there is.
        StudyError: the study measures latency by a command that was not given for this run.
        ClusterError: no cluster answers.
    """
    checked_command(config, resources.latency_command)
    with stop_signals() as signalled, ray_session(resources.address) as session:
        size = slots(resources.cpus_per_trial, resources.gpus_per_trial, resources.concurrency)
        yield Pool(
            space=space,
            data=data,
            settings=WorkerSettings.of(config, files, resources, confirming=confirming),
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            size=size if most is None else min(size, most),
            stopping=Stopping(signalled, resources.time_limit),
            session=session,
            tell=tell,
        )


def run_trials(searcher: StudySearcher, recorder: Recorder, pool: Pool, *, early_stopping: bool) -> None:
    """Runs the proposals of `searcher` until it has finished or the pool is stopping."""
    most = max(TRIALS_OF_A_TUNER, AND_OF_A_WORKER * pool.size)

    def run(size: int) -> None:
        searcher.left = 0
        while not searcher.left:  # it has handed out its share, and there may be more
            searcher.left = most
            _fit(searcher, recorder, pool, size, RungScheduler(searcher) if early_stopping else None)

    try:
        _going_on(searcher, pool, run)
    except tune.TuneError:  # Tune keeps the error as a text only
        if searcher.error is not None:
            raise searcher.error from None
        raise


def run_jobs(
    jobs: Sequence[Job], pool: Pool, *, on_end: Callable[[Report], None], on_report: Callable[[Report], None]
) -> None:
    """Runs jobs in their order until all are done or the pool is stopping.

    Args:
        jobs: the jobs.
        pool: the workers.
        on_end: called in the driver with the last report of each job that ended; the outcome of a job whose worker was
            lost for good is `Outcome.WORKER_LOST`.
        on_report: called with every report.
    """
    searcher = _ListSearcher(jobs, pool.stopping, on_end)
    _going_on(searcher, pool, lambda size: _fit(searcher, _Reports(on_report), pool, size))


def _going_on(searcher: JobSearcher, pool: Pool, run: Callable[[int], None]) -> None:
    """Calls `run` with a number of trials at a time, and calls it again after a loss that a run can go on from.

    When the machine's memory is short, Ray ends workers, whoever takes the memory, and Tune then ends the run. It goes
    on with half as many trials at a time, after a while. A Ray that was lost is started again once.

    Raises:
        ClusterError: memory stays short, there is no room for Ray's files, or Ray was lost for the second time.
    """
    size, short, ended, again = pool.size, 0, 0, False
    while True:
        try:
            run(size)
            return
        except (RayLost, ConnectionError, RayError) as lost:  # a client of a cluster raises the second
            if isinstance(lost, (BrokenPipeError, RayTaskError)):  # of our own output, or of our own code
                raise
            searcher.take_back()
            if isinstance(lost, (ObjectStoreFullError, OutOfDiskError)):
                raise ClusterError(
                    f"the data does not fit into Ray's memory and files ({in_short(lost)}); free some room, and give "
                    "the same command again"
                ) from None
            if pool.stopping():  # whoever stops a whole job stops Ray's processes too
                return
            if again or not pool.session.start_again():
                raise ClusterError(
                    f"Ray was lost ({in_short(lost)}); give the same command again: what was under way goes on"
                ) from None
            again = True
            pool.tell(f"Ray was lost ({in_short(lost)}), and was started again; trials under way go on")
        except (RuntimeError, OSError, tune.TuneError) as error:
            if searcher.error is None and (full := os.strerror(errno.ENOSPC)) in str(error):
                raise ClusterError(
                    f"there is no room for Ray's files ({full}); free some, and give the same command again: what was "
                    "under way goes on"
                ) from None
            used = searcher.short or short_memory(str(error))
            if not used:
                raise
            searcher.short = ""
            searcher.take_back()
            short = short + 1 if searcher.ended == ended else 1
            size, ended = max(1, size // 2), searcher.ended
            if short > SHORTAGES:
                raise ClusterError(
                    f"memory is short on this machine ({used}), and Ray ended the workers {short} times in a row; free "
                    "some, and give the same command again: what was under way goes on"
                ) from None
            pool.tell(f"memory is short ({used}), and Ray ended workers; going on with {size} at a time")
            until = time.monotonic() + 2**short
            while time.monotonic() < until and not pool.stopping():
                time.sleep(0.2)


def _fit(
    searcher: JobSearcher, callback: tune.Callback, pool: Pool, size: int, scheduler: LossScheduler | None = None
) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(CandidateTrainable, data=pool.data, space=Carried(pool.space), settings=pool.settings),
        {"cpu": pool.cpus, "gpu": pool.gpus},
    )
    with scratch() as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler or LossScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=size,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(folder),
                verbose=0,
                callbacks=[callback],
                stop=_StopWhen(searcher, pool),
            ),
        ).fit()


class _ListSearcher(JobSearcher):
    """Hands out a list of jobs, each once."""

    def __init__(self, jobs: Sequence[Job], stopping: Callable[[], bool], on_end: Callable[[Report], None]) -> None:
        super().__init__()
        self._waiting, self._stopping, self._on_end = deque(jobs), stopping, on_end

    def ask(self, trial_id: str) -> Job | None:
        self.over = self._stopping() or not self._waiting
        return None if self.over else self.hand_out(trial_id, self._waiting.popleft())

    def cut_off(self, job: Job) -> None:
        self._waiting.appendleft(job)

    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        if report is not None and report.outcome is not None:
            self._on_end(report)
        else:
            self.cut_off(job)


class _Reports(LivesInDriver, tune.Callback):
    """Passes every report on."""

    def __init__(self, observe: Callable[[Report], None]) -> None:
        self._observe = observe

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._observe(result["report"])


class _StopWhen(LivesInDriver, tune.Stopper):
    """Stops the whole run, not single trials."""

    def __init__(self, searcher: JobSearcher, pool: Pool) -> None:
        self._searcher, self._pool = searcher, pool

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        # Tune asks several times a second.
        if lost := self._pool.session.lost():
            raise RayLost(lost)
        if self._searcher.short:
            raise RuntimeError("memory is short")  # which ends this Tuner with all of its workers
        return self._pool.stopping() or bool(self._searcher.failing)
