"""Searches of made-up trials through sampler, Ray Tune and records, with the driver's pace and memory watched."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from benchmarks.lib.made_up import TASK, MadeUpTrainable, WorkingSpace, study_config
from nas.data.splits import Dataset
from nas.engine import executor
from nas.engine.search import Progress, run_search
from nas.settings import RunOptions
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

WORKERS = 2
NOTHING = WorkingSpace()
"""Trials that take no time."""


@dataclass(slots=True)
class Watch:
    """What was seen of a search.

    Attributes:
        ends: times at which the driver knew that a trial had ended, in seconds.
        memory: the driver's memory at these times, in MiB.
        spans: worker, begin and end of each trial.
    """

    ends: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    spans: list[tuple[float, float, float]] = field(default_factory=list)

    def note(self) -> None:
        """Notes that a trial has ended."""
        self.ends.append(time.perf_counter())
        self.memory.append(resident())

    def per_second(self) -> float:
        """Returns the trials a second from the first end to the last."""
        return (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])


def resident() -> float:
    """Returns the memory in MiB that this process has in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def made_up_workers() -> Iterator[None]:
    """Lets workers report made-up values while the block runs."""
    with mock.patch.object(executor, "CandidateTrainable", MadeUpTrainable):
        yield


@contextmanager
def empty_study(sampler: str, space: WorkingSpace) -> Iterator[tuple[SqlLedger, Path]]:
    """Makes a new study on SQLite in a folder of its own; yields it and its folder for weights."""
    with tempfile.TemporaryDirectory() as folder, open_storage(f"sqlite:///{folder}/studies.db") as storage:
        config = study_config("made-up", sampler)
        yield create_study(storage, config, space.distributions(TASK), {}, ""), Path(folder) / "made-up"


def search(
    data: Dataset,
    sampler: str,
    trials: int,
    *,
    space: WorkingSpace = NOTHING,
    workers: int = WORKERS,
    time_limit: float | None = None,
) -> Watch:
    """Runs a search of made-up trials from an empty study, as `skipnas search` would."""
    watch = Watch()

    def observe(progress: Progress) -> None:
        if progress.counts.trained > len(watch.ends):
            watch.note()

    with empty_study(sampler, space) as (ledger, files), made_up_workers():
        options = RunOptions(trials=trials, concurrency=workers, time_limit=time_limit)
        run_search(ledger.config, space, ledger, data, files, options, observe)
        results = StudyReader.open(ledger.config.study, ledger.storage).results()
        watch.spans = [(result.values["worker"], result.values["began"], result.values["ended"]) for result in results]
    return watch


def busy_share(spans: Sequence[tuple[float, float, float]], work: float) -> float:
    """Returns the share of the workers' time that the work of trials took, while all workers had trials.

    Args:
        spans: worker, begin and end of every trial, in seconds of one clock. The share is taken from the moment at
            which the last worker began its first trial to the moment at which the first worker ended its last.
        work: seconds of CPU time of a trial; it is spread evenly over the trial's span.
    """
    workers = {worker for worker, _, _ in spans}
    first = max(min(begin for worker, begin, _ in spans if worker == each) for each in workers)
    last = min(max(end for worker, _, end in spans if worker == each) for each in workers)
    inside = sum(work * max(0.0, min(end, last) - max(begin, first)) / (end - begin) for _, begin, end in spans)
    return inside / (len(workers) * (last - first))
