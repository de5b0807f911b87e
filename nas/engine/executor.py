"""The workers of a run, and the trials that Ray Tune gives them. Only this module configures Tune."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError, RayTaskError
from ray.tune.execution import class_cache

from nas.data.splits import Dataset
from nas.engine.carried import Carried
from nas.engine.interrupts import Stopping, stop_signals
from nas.engine.job import Job
from nas.engine.presence import RayLost
from nas.engine.report import LivesInDriver, Report
from nas.engine.scheduler import LossScheduler, RungScheduler, short_memory
from nas.engine.searcher import JobSearcher, Recorder, StudySearcher
from nas.engine.session import Session, ray_session, scratch, slots
from nas.engine.trainable import CandidateTrainable, WorkerSettings
from nas.errors import ClusterError, in_short
from nas.protocols import SearchSpace
from nas.settings import Resources, StudyConfig, checked_command

# Tune copies its state at the end of a run even if it has not written it, and logs the stack trace when that fails. It
# also lists the trials of a run that did not complete.
for _name in ("ray.tune.execution.experiment_state", "ray.train._internal.syncer", "ray.tune.tune"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# Tune gives its workers a variable for PyTorch Lightning. With variables of their own they would be other processes
# than those that Ray starts ahead (findings/tune-leaves-started-workers-idle.sh).
class_cache.DEFAULT_ENV_VARS.clear()

SHORTAGES = 6
"""The number of times in a row that memory may run short, without a trial that ends meanwhile, before a run ends."""

TRIALS_OF_A_TUNER, AND_OF_A_WORKER = 500, 20
"""The smallest number of trials of a Tuner, and of a Tuner for each of its workers. Tune remembers every trial of a
Tuner, so a long search has several of them, one after the other. Between two of them workers wait for the last trial of
the first, and are started anew."""


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
    with stop_signals() as signalled, ray_session(resources, most=most) as session:
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
