"""What do searches find on the device, and how many trials does it bear?"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.processes import ON_ONE_CORE, environment, search_command
from benchmarks.gpu.setting import CPU, NOISE, Setting
from benchmarks.gpu.trials import evaluation_of, finished
from benchmarks.lib.checks import Finding, Room, needs

if TYPE_CHECKING:
    from nas.data.splits import Dataset
    from nas.engine.report import Report
    from nas.types import Candidate, TrialResult

SPREAD = 3.0
"""Standard errors by which the mean difference from the CPU may be off, by the spread of seeds on the CPU."""
SLACK: Mapping[str, float] = {"psnr": 0.02, "accuracy": 0.2, "stability": 0.002}
"""What it may be off anyway: dB, percentage points, and of the score's 0..1."""

TRIAL_EPOCHS = 27

WHOLE: Mapping[str, str] = {"fashion-mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py"}
"""Data set -> the folder in which torchvision has it."""


def front(on: Setting, room: Room) -> Iterator[Finding]:
    """Runs a small search, four trials on the GPU at a time, and trains its candidates on the CPU too.

    There each is trained under the search's seed and under others, whose spread says what a difference may be: for each
    objective, the mean over candidates of the GPU's value minus the mean of the CPU's is compared with its standard
    error. The members of the fronts are listed.
    """
    needs("ray", "optuna", "sqlalchemy")
    from studies.reading.study import StudyReader

    scale = on.scale
    storage = f"sqlite:///{room.folder / 'studies.db'}"
    options = ["--study", "card", "--storage", storage, "--data", "digits", "--noise", NOISE, "--seed", "0"]
    options += ["--trials", str(scale.trials), "--epochs", str(scale.epochs), "--max-params", "200000"]
    options += ["--no-baselines", "--precision", "fp32", "--gpus-per-trial", "0.25" if on.gpu else "0"]
    options += [] if scale.subset is None else ["--subset", str(scale.subset)]
    found = search_command(options, room, share=0.6)
    yield Finding(
        text=f"a search of {scale.trials} trials on the device: {_counts(found)}, workers busy "
        f"{100 * (found['busy'] or 0):.0f} %",
        values={name: found[name] for name in ("reason", "complete", "pruned", "failed", "seconds", "busy")},
        right=found["failed"] == 0 and found["complete"] > 0,
    )
    with StudyReader.open("card", storage) as study:
        objectives, results = study.config.objectives, study.results()
    there = {result.number: [result.values[each.name] for each in objectives] for result in results}
    here = _on_cpu(results, [each.name for each in objectives], on, room)
    yield Finding(
        text=f"of {len(there)} complete candidates {len(here)} were trained on the CPU under {scale.seeds} seeds each",
        values={"device": there, "cpu": here},
    )
    for column, objective in enumerate(objectives if here else ()):
        runs = {number: [values[column] for values in found] for number, found in here.items()}
        differences = [there[number][column] - statistics.fmean(values) for number, values in runs.items()]
        spread = math.sqrt(statistics.fmean(statistics.variance(values) for values in runs.values()))
        error = spread * math.sqrt((1 + 1 / scale.seeds) / len(runs))
        mean = statistics.fmean(differences)
        yield Finding(
            text=f"{objective.name}: on the device {mean:+.4f} off the CPU, with a standard error of {error:.4f} (a "
            f"candidate's seeds spread by {spread:.4f})",
            values={"objective": objective.name, "mean": mean, "error": error, "differences": differences},
            right=abs(mean) <= SPREAD * error + SLACK[objective.name],
        )
    maximize = [objective.direction == "maximize" for objective in objectives]
    fronts = {"device": _front({number: there[number] for number in here}, maximize)}
    for run in range(scale.seeds):
        fronts[f"CPU, seed {run + 1}"] = _front({number: values[run] for number, values in here.items()}, maximize)
    yield Finding(text="fronts: " + "; ".join(f"{place} {members}" for place, members in fronts.items()), values=fronts)


def _counts(found: Mapping[str, Any]) -> str:
    return (
        f"{found['complete']} complete, {found['pruned']} pruned, {found['failed']} failed in {found['seconds']:.0f} s "
        f"({found['reason']})"
    )


def _front(values: Mapping[int, Sequence[float]], maximize: Sequence[bool]) -> list[int]:
    """Numbers of the trials that no other dominates."""
    import numpy as np

    from nas.search.pareto import non_dominated

    if not values:
        return []
    kept = non_dominated(np.array(list(values.values())), maximize)
    return [number for number, stays in zip(values, kept, strict=True) if stays]


def _on_cpu(
    results: Sequence[TrialResult], names: Sequence[str], on: Setting, room: Room
) -> dict[int, list[list[float]]]:
    """Number -> values of its runs on the CPU, one for each seed.

    A trial is left out when one of its runs diverged, or when there was no time for it.
    """
    from nas.types import candidate_seed

    jobs = {
        (result.number, run): (result.spec, result.recipe, candidate_seed(run, result.digest))
        for run in range(on.scale.seeds)
        for result in results
    }
    found = {}
    with environment(**ON_ONE_CORE):
        pool = ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn"))
        futures = {pool.submit(_values_on_cpu, *job, on.scale.subset, names): key for key, job in jobs.items()}
        try:
            for future in as_completed(futures, timeout=room.left()):
                if (values := future.result()) is not None:
                    found[futures[future]] = values
        except TimeoutError:
            pass
        pool.shutdown(wait=False, cancel_futures=True)
    whole = [r.number for r in results if all((r.number, run) in found for run in range(on.scale.seeds))]
    return {number: [found[number, run] for run in range(on.scale.seeds)] for number in whole}


def _values_on_cpu(
    spec: Mapping[str, Any], recipe: Mapping[str, Any], seed: int, subset: int | None, names: Sequence[str]
) -> list[float] | None:
    """Trains one candidate in this process, on one thread; None when it diverges."""
    from nas.training.loop import Diverged

    torch.set_num_threads(1)
    try:
        values = finished(evaluation_of(spec, recipe, seed, subset, CPU))
    except Diverged:
        return None
    return [values[name] for name in names]


def at_a_time(on: Setting, room: Room) -> Iterator[Finding]:
    """Counts the epochs that several trials on the device train together in a while: trials per hour.

    A trial is a U-Net on digits for `TRIAL_EPOCHS` epochs, with all that a search does with one: validation,
    checkpoints, weights. Epochs count from the moment at which all workers have reported.
    """
    needs("ray", "optuna")
    from benchmarks.lib.loops import candidate
    from nas.data.splits import load
    from nas.engine.session import ray_session
    from nas.settings import Resources

    made = candidate("unet", 16, TRIAL_EPOCHS)
    data = load("digits", subset=on.scale.subset)
    with ray_session(Resources(), cpus=max(on.scale.at_a_time)):
        for count in on.scale.at_a_time:
            pace = Pace(count, on.scale.window)
            _train_jobs(made, data, count, pace, on, room)
            if pace.began is None:
                yield Finding(text=f"{count} at a time: there was no time until all of them had reported")
                return
            hourly = 3600 * pace.per_second() / TRIAL_EPOCHS
            yield Finding(
                text=f"{count} at a time: {hourly:,.0f} trials an hour, {pace.per_second():.1f} epochs a second; all "
                f"had reported {pace.began:.0f} s after the start{''.join(f'; {end}' for end in pace.failed)}",
                values={"at_a_time": count, "hourly": hourly, "began": pace.began, "failed": pace.failed},
                right=not pace.failed,
            )


class Pace:
    """Epochs by the time at which their report came.

    Args:
        workers: so many trials must have reported before epochs count.
        window: seconds for which they count.

    Attributes:
        began: seconds from the start until all workers had reported; None until then.
        failed: how trials ended that did not end as they should.
        stop: is set when enough was seen.
    """

    def __init__(self, workers: int, window: float) -> None:
        self.workers, self.window = workers, window
        self.began: float | None = None
        self.failed: list[str] = []
        self.stop = threading.Event()
        self._started = time.monotonic()
        self._seen: set[int] = set()
        self._epochs = 0
        self._last = 0.0

    def report(self, report: Report) -> None:
        """Counts the epochs of a report."""
        now = time.monotonic() - self._started
        if self.began is not None:
            self._epochs += len(report.rows)
            self._last = now
            if now > self.began + self.window:
                self.stop.set()
        self._seen.add(report.number)
        if self.began is None and len(self._seen) >= self.workers:
            self.began = self._last = now

    def end(self, report: Report) -> None:
        """Notes how a trial ended."""
        if report.outcome != "complete":
            self.failed.append(f"trial {report.number}: {report.outcome}, {report.detail.strip()[-200:]}")

    def per_second(self) -> float:
        """Epochs a second, up to the last report."""
        return self._epochs / max(1e-9, self._last - (self.began or 0.0))


def _train_jobs(made: Candidate, data: Dataset, count: int, pace: Pace, on: Setting, room: Room) -> None:
    """Trains a candidate under ever new seeds, `count` at a time, until the pace is known."""
    from nas.engine.executor import Pool, run_jobs
    from nas.engine.interrupts import Stopping
    from nas.engine.job import Job
    from nas.engine.session import Session
    from nas.engine.trainable import WorkerSettings
    from nas.types import Task
    from search_spaces import get_space

    settings = WorkerSettings(
        task=Task(channels=1, classes=10, height=8, width=8, noise=NOISE),
        device=on.device.type,
        precision="fp32",
        threads=1,
        files=room.folder / f"{count}-at-a-time",
        trial_timeout=None,
    )
    pool = Pool(
        space=get_space("unet"),
        data=data,
        settings=settings,
        cpus=1.0,
        gpus=1 / count if on.gpu else 0.0,
        size=count,
        stopping=Stopping(pace.stop, room.left()),
        session=Session(None),
        tell=print,
    )
    jobs = [Job.of(made, number=number, seed=number) for number in range(1000)]
    run_jobs(jobs, pool, on_end=pace.end, on_report=pace.report)


def search(on: Setting, room: Room) -> Iterator[Finding]:
    """Runs a search on the whole of Fashion-MNIST or CIFAR-10, if their files are there, for the time that is left.

    On a CPU it is a search on digits.
    """
    needs("ray", "optuna", "sqlalchemy")
    there = [name for name, folder in WHOLE.items() if (on.data_root / folder).exists()] if on.gpu else ["digits"]
    if not there:
        names = " or ".join(WHOLE.values())
        yield Finding(text=f"there is no {names} in {on.data_root}; give the folder that has it as --data-root")
        return
    storage = f"sqlite:///{room.folder / 'studies.db'}"
    options = ["--study", "whole", "--storage", storage, "--data", there[0], "--data-root", str(on.data_root)]
    found = search_command([*options, *on.scale.search], room)
    members = [
        ", ".join(f"{name} {value:.4g}" for name, value in member["values"].items()) for member in found["front"]
    ]
    yield Finding(
        text=f"{there[0]}: {_counts(found)}, hypervolume {found['hypervolume']:.4g}; front: {'; '.join(members)}",
        values=found,
        right=found["failed"] == 0,
    )
