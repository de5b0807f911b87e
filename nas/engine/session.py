"""Ray, started quietly or joined, and the trials that it has room for. Only this module starts Ray."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import ray
import ray._private.worker as ray_worker
from ray._private import services
from ray._private.node import Node
from ray.job_config import JobConfig

from nas.engine.guardian import connected
from nas.engine.presence import Presence
from nas.errors import ClusterError, ConfigError, in_short
from nas.files import OLD_SECONDS
from nas.machine import processors, temporary_folder
from nas.parsing import ADDRESSES
from nas.settings import Resources

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


def _unsaid(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Takes what Ray prints about its processes, pages where one of them is lost, and leaves it to the log."""
    log.debug("Ray: %s", data)


ray_worker.print_to_stdstream = _unsaid  # it writes to stdout, which belongs to results

QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


class Session:
    """The Ray of a run, which can be started again when it is lost.

    Args:
        start: starts a local Ray or joins a cluster; None where this process was connected before.
    """

    current: ClassVar[Session | None] = None
    """The session of the `ray_session` block that runs."""

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
def ray_session(resources: Resources, *, most: int | None = None, cpus: int | None = None) -> Iterator[Session]:
    """Provides a running Ray: the one that this process is connected to, a cluster at an address, or a new local one.

    A local one and its files are gone afterwards. Only a Ray that this function started is stopped. A block within
    another one has the session of the outer one.

    Args:
        resources: the address, and what decides how many trials a local Ray has at a time.
        most: the number of trials that there are; None for any number.
        cpus: processors of a local Ray; None for those of this machine that the trials can use.

    Raises:
        ClusterError: nobody answers at `address`, or Ray does not start on this machine.
    """
    address = resources.address
    if Session.current is not None or ray.is_initialized():
        yield Session.current or Session(None)
        return
    with scratch() as folder, connected():  # Ray never cleans its session folders
        try:
            Session.current = Session(
                lambda: _start_local(folder, resources, most, cpus) if address is None else _connect(address)
            )
            yield Session.current
        finally:
            Session.current = None
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


PRELOADED = ("torch", "ray.tune")
"""The modules that a worker process imports when it starts, and not only when it has a trial.

They take two seconds of a core. Modules of this project are none of them, as a process learns only with its first work
whose code it has to run.
"""


def _start_local(folder: Path, resources: Resources, most: int | None, cpus: int | None) -> None:
    """Starts a local Ray, at the second try where the first one found the machine too busy.

    Ray starts an idle worker for each of its processors at once. So it has no more of them than trials can use, and
    starts none ahead where trials have several each, because some would then stay idle.
    """
    have_token()
    each = resources.cpus_per_trial
    trials = expected_slots(resources) if most is None else min(expected_slots(resources), most)
    cpus = cpus or min(processors(), max(1, math.ceil(each * trials)))
    system = {
        "preload_python_modules": list(PRELOADED),
        "prestart_worker_first_driver": each <= 1,
        "num_workers_soft_limit": cpus,  # otherwise Ray ends idle workers when Tune reserves the processors for them
    }
    for last in (False, True):
        try:
            with _without_helpers():
                _init("local", include_dashboard=False, num_cpus=cpus, _temp_dir=str(folder), _system_config=system)
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
    have = ray.cluster_resources() if ray.is_initialized() else _of_this_machine(resources)
    try:
        return _fitting(have, resources.cpus_per_trial, resources.gpus_per_trial, resources.concurrency)
    except ConfigError:  # a cluster may have more
        return 1


def _of_this_machine(resources: Resources) -> dict[str, float]:
    have: dict[str, float] = {"CPU": processors()}
    if resources.gpus_per_trial > 0:
        import torch  # which takes a second, and no CPU trial waits for it here

        have["GPU"] = torch.cuda.device_count()
    return have


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
