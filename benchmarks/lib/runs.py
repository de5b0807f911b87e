"""Many training runs in worker processes, each finished run kept as one line of a file (`benchmarks.lib.records`).

A run that is in the file is not made again. Ctrl-C lets the runs under way end and keeps them.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.lib.records import Record, append, key_of, read
from nas.data.splits import Dataset, Split, load
from nas.types import Candidate, Task, canonical_json, digest_of
from search_spaces import get_space

if TYPE_CHECKING:
    from torch import nn

    from nas.training.evaluation import Evaluation

WORKERS = 2
TIMED_STEPS = 12
"""The number of training steps that are timed together."""
PRECISION = "bf16"
"""The precision of every run. With AVX512-bf16 it is 5 % faster than fp32 over all networks, 15 % for AddUNet."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The data, the noise and the length of a run.

    Attributes:
        data: the source, as ``--data`` takes it.
        subset: number of training images; None for all.
        noise: the noise, as ``--noise`` takes it.
        epochs: epochs of every run.
        root: the folder in which the files of `data` are.
    """

    data: str
    subset: int | None
    noise: str
    epochs: int
    root: Path | None = None

    @property
    def name(self) -> str:
        """Data and noise, for people."""
        return f"{self.data}, {self.noise}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training run: a candidate in a setting under a seed."""

    setting: Setting
    candidate: Candidate
    seed: int

    @property
    def key(self) -> str:
        """The identity of the run: equal keys give equal results, whatever the network is called."""
        setting = self.setting
        return digest_of(
            canonical_json(
                {
                    "data": setting.data,
                    "subset": setting.subset,
                    "noise": setting.noise,
                    "candidate": self.candidate.digest,
                    "seed": self.seed,
                    "precision": PRECISION,
                }
            )
        )


J = TypeVar("J", bound=Job)
T = TypeVar("T")


def missing(jobs: Sequence[J], path: Path) -> list[J]:
    """Returns the jobs that the file lacks, each once."""
    done = read(path)
    return list({job.key: job for job in jobs if job.key not in done}.values())


def perform_all(jobs: Sequence[T], path: Path, work: Callable[[T], Record], workers: int = WORKERS) -> bool:
    """Does the jobs in worker processes and appends the record of each as it ends. Returns False when it was stopped.

    After Ctrl-C the jobs under way are finished and kept; when a worker is killed, the jobs in the workers are lost.

    Args:
        jobs: the jobs, in the order in which they begin.
        path: the file of records.
        work: makes the record of a job, in a worker: `perform` for a `Job`, or a function of the experiment.
        workers: the number of processes, of one thread each.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.perf_counter()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    kept: set[Future[Record]] = set()
    futures: list[Future[Record]] = []
    handler = signal.signal(signal.SIGINT, _interrupt_once)
    try:
        futures += [pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            append(path, future.result())
            kept.add(future)
            _progress(len(kept), len(jobs), time.perf_counter() - started)
    except KeyboardInterrupt:
        log.info("stopping; the %d runs under way are finished and kept", workers)
        pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            if future not in kept and future.done() and not future.cancelled() and future.exception() is None:
                append(path, future.result())
        return False
    except BrokenProcessPool:
        log.warning("a worker was killed, perhaps for memory")
        return False
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
    pool.shutdown()
    return True


def records_of(
    asked: Sequence[Mapping[str, Any]], path: Path, work: Callable[[Mapping[str, Any]], Record], workers: int
) -> tuple[list[Record], bool]:
    """Does what the file lacks of an experiment whose records have the keys `benchmarks.lib.records.key_of`.

    Returns:
        the records that are there now, in the order of `asked`, and whether it was not stopped.
    """
    done = read(path)
    finished = perform_all([what for what in asked if key_of(what) not in done], path, work, workers)
    done = read(path)
    return [done[key] for what in asked if (key := key_of(what)) in done], finished


def _interrupt_once(number: int, frame: object) -> None:
    """Raises KeyboardInterrupt at the first SIGINT and lets later ones pass.

    A second one, however soon, would leave workers behind that the process then waits for at its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _progress(done: int, of: int, seconds: float) -> None:
    if done == of or done % 10 == 0:
        minutes = seconds / 60
        log.info("%d of %d runs, %.1f min, about %.0f min to go", done, of, minutes, minutes * (of / done - 1))


def _start_worker() -> None:
    """Gives torch one thread, and leaves Ctrl-C to the parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def task_of(setting: Setting) -> Task:
    """Returns the task of a setting's data."""
    data = _dataset(setting)
    return data.task(setting.noise)


def trained(
    job: Job,
    change: Callable[[nn.Module], None] = lambda network: None,
    after_epoch: Callable[[Evaluation], None] = lambda evaluation: None,
) -> tuple[Evaluation, str]:
    """Trains one run in this process.

    Args:
        job: the run.
        change: changes the fresh network before it is trained.
        after_epoch: is called after each epoch.

    Returns:
        the training as far as it came, and the reason for which it diverged, or an empty text.
    """
    import torch

    from nas.training.batches import DeviceData
    from nas.training.evaluation import Evaluation
    from nas.training.loop import Diverged

    # Jobs come setting by setting, so a worker keeps the data of one setting.
    if _device.get("for") != job.setting:
        task = task_of(job.setting)
        data = DeviceData.of(_dataset(job.setting), task, torch.device("cpu"))
        _device.update({"for": job.setting, "task": task, "data": data})
    task, data = _device["task"], _device["data"]
    space, spec = get_space("unet"), job.candidate.spec

    def build() -> nn.Module:
        network = space.build(spec, task)
        change(network)
        return network

    evaluation = Evaluation(
        build, task, job.candidate.recipe, data, space.cost(spec, task), seed=job.seed, precision=PRECISION
    )
    try:
        while not evaluation.done:
            evaluation.advance()
            after_epoch(evaluation)
    except Diverged as reason:
        return evaluation, str(reason)
    return evaluation, ""


def perform(job: Job) -> dict[str, Any]:
    """Trains and judges one run in this process. The record of a run that diverged has the reason and stability 0."""
    return record_of(job, *trained(job))


def record_of(job: Job, evaluation: Evaluation, diverged: str) -> dict[str, Any]:
    """Returns the record of a run (see `trained`)."""
    record: dict[str, Any] = {
        "key": job.key,
        "data": job.setting.data,
        "noise": job.setting.noise,
        "seed": job.seed,
        "candidate": job.candidate.digest,
        "params": evaluation.cost.params,
        "macs": evaluation.cost.macs,
    }
    if diverged:
        return {**record, "diverged": diverged, "stability": 0.0, "seconds": round(evaluation.seconds, 2)}
    measured = evaluation.measurement()
    return {
        **record,
        **{name: measured.values[name] for name in ("psnr", "accuracy", "stability") if name in measured.values},
        "gates": [gate["mean"] for gate in measured.gates],
        "seconds": round(measured.seconds, 2),
    }


def short(values: Sequence[float]) -> list[float]:
    """Rounds values to five digits; values that are not finite are left out, because JSON cannot hold them."""
    return [float(f"{value:.5g}") for value in values if math.isfinite(value)]


def estimate(jobs: Sequence[Job]) -> float:
    """Returns the hours that `jobs` take on `WORKERS` free cores, from a few timed steps of each network."""
    per_image: dict[tuple[str, str], float] = {}
    total = 0.0
    for job in jobs:
        shape = (job.setting.data, job.candidate.digest)
        if shape not in per_image:
            per_image[shape] = image_seconds(job)
        total += per_image[shape] * len(_dataset(job.setting).train.images) * job.candidate.recipe.epochs
    return total / WORKERS / 3600


def image_seconds(job: Job, rounds: int = 1) -> float:
    """Returns the seconds of CPU time of one thread in which a job trains on one image.

    It is the least of some rounds of a few steps each, because a busy machine makes steps slower and never faster.
    """
    import torch

    from nas.training.batches import DeviceData
    from nas.training.loop import Training

    torch.set_num_threads(1)
    data = _dataset(job.setting)
    few = _first(data, TIMED_STEPS * job.candidate.recipe.batch_size)
    # As many steps as in a real run, so that probes are as rare; at rate 0, so that nothing diverges.
    epochs = job.candidate.recipe.epochs * len(data.train.images) // len(few.train.images)
    recipe = replace(job.candidate.recipe, epochs=max(1 + rounds, epochs), learning_rate=0.0)
    task = task_of(job.setting)
    network = get_space("unet").build(job.candidate.spec, task)
    images = DeviceData.of(few, task, torch.device("cpu"))
    training = Training(network, task, recipe, images, seed=0, precision=PRECISION)
    training.run_epoch()
    seconds = []
    for _ in range(rounds):
        started = time.process_time()  # other processes do not count
        training.run_epoch()
        seconds.append(time.process_time() - started)
    return min(seconds) / len(few.train.images)


_device: dict[str, Any] = {}


def _dataset(setting: Setting) -> Dataset:
    return _load(setting.data, setting.root, setting.subset)


@lru_cache(maxsize=2)
def _load(source: str, root: Path | None, subset: int | None) -> Dataset:
    return load(source, root=root, subset=subset)


def _first(data: Dataset, size: int) -> Dataset:
    def cut(split: Split) -> Split:
        return Split(split.images[:size], None if split.labels is None else split.labels[:size])

    return replace(data, train=cut(data.train), validation=cut(data.validation))
