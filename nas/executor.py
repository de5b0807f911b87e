"""Ray: started quietly, asked for resources, and handed the trials. The only place that configures it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nas.errors import ClusterError, ConfigError

# Read by Ray when it is imported: no usage report, no log files of its own, no second progress display,
# no snapshots of a state that the study keeps better, and signals left to `nas.search`.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="86400",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)

import ray
from ray import tune

from nas.data import Dataset
from nas.early_stopping import RungScheduler
from nas.protocols import SearchSpace
from nas.searcher import LivesInDriver, Recorder, StudySearcher
from nas.trainable import CandidateTrainable, WorkerSettings

RETRIES = 2
"""Times a trial is started again after its worker or node was lost."""


@contextlib.contextmanager
def ray_session(address: str | None, *, cpus: int | None = None) -> Iterator[None]:
    """A running Ray: the one this process is already connected to, a cluster at `address`, or a new local one.

    A local one and its files are gone afterwards; only what this function started is stopped.

    Raises:
        ClusterError: nobody answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is not None:
        _connect(address, quiet)
        try:
            yield
        finally:
            ray.shutdown()
        return
    # Ray never cleans its session folders; a short path, because it holds Unix sockets.
    folder = tempfile.mkdtemp(prefix="skipnas-", dir="/tmp" if os.name == "posix" else None)
    try:
        ray.init(include_dashboard=False, num_cpus=cpus, _temp_dir=folder, **quiet)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str, quiet: dict[str, Any]) -> None:
    rule = "give host:port of a Ray head, ray://host:port of its client server, or auto"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        if not host or not port.isdigit():
            raise ClusterError(f"cluster address {address!r} is not one; {rule}")
        try:
            # Ray itself keeps trying for half a minute and then prints pages.
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"no Ray cluster answers at {address!r} ({error}); {rule}") from None
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ClusterError(f"cannot join the Ray cluster at {address!r} ({first}); {rule}") from None


def slots(cpus_per_trial: float, gpus_per_trial: float, concurrency: int | None) -> int:
    """How many trials run at a time: what the connected Ray holds, or fewer when `concurrency` says so.

    Raises:
        ConfigError: not even one trial fits.
    """
    have = ray.cluster_resources()
    fits = []
    for name, wanted in (("CPU", cpus_per_trial), ("GPU", gpus_per_trial)):
        if wanted > 0:
            # Trials do not span devices: 0.4 of a GPU fits twice on each, not five times on two.
            total = have.get(name, 0.0)
            each = int(1 / wanted + 1e-9) if wanted < 1 else 1 / wanted
            fits.append(int(total * each + 1e-9))
            if fits[-1] < 1:
                raise ConfigError(
                    f"a trial asks for {wanted:g} {name}, Ray has {total:g}; lower --{name.lower()}s-per-trial"
                )
    return min([*fits, concurrency or fits[0]])


def run_trials(
    searcher: StudySearcher,
    recorder: Recorder,
    *,
    early_stopping: bool,
    space: SearchSpace,
    data: Dataset,
    settings: WorkerSettings,
    cpus_per_trial: float,
    gpus_per_trial: float,
    concurrency: int,
    stopping: Callable[[], bool],
) -> None:
    """Runs what `searcher` proposes until it has finished or `stopping` answers True.

    The data set goes into Ray's object store once and is read from there by every worker of a machine.
    """
    trainable = tune.with_resources(
        tune.with_parameters(CandidateTrainable, data=data, space=space, settings=settings),
        {"cpu": cpus_per_trial, "gpu": gpus_per_trial},
    )
    with tempfile.TemporaryDirectory(prefix="skipnas-tune-") as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=RungScheduler(searcher) if early_stopping else None,
                num_samples=-1,
                max_concurrent_trials=concurrency,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(Path(folder)),
                verbose=0,
                callbacks=[recorder],
                stop=_StopWhen(stopping),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()


class _StopWhen(LivesInDriver, tune.Stopper):
    """Stops the whole run, not single trials."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopping()
