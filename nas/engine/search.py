"""`run_search` brings a study to its size on the available resources."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.splits import Dataset
from nas.errors import FailuresError, StorageError
from nas.outcome import Outcome
from nas.protocols import Ledger, SearchSpace
from nas.search.growth import Growth
from nas.search.pareto import hypervolume
from nas.settings import RunOptions, StudyConfig
from nas.training.checkpoint import drop_checkpoint, drop_weights, tidy
from nas.types import Counts, EpochRow, Measurement


@dataclass(slots=True, kw_only=True)
class Progress:
    """The state of a search, for a display. The same object is passed at every change.

    Attributes:
        trials: the size that the study should have; None for as many as another limit allows.
        counts: trials that the study has, by outcome.
        done_before: number of trials that were trained before.
        concurrency: number of trials at a time.
        running: trial number -> (epochs done, epochs in all).
        best: objective -> best value of a complete trial so far.
        hypervolume: hypervolume of the front, from the study's fixed reference.
        growth: the hypervolume over the minutes of this run.
        messages: lines about trials that failed, oldest first.
        started: `time.monotonic` at the start.
        deadline: `time.monotonic` at the end of the time limit; infinite without one.
    """

    trials: int | None
    counts: Counts
    done_before: int
    concurrency: int = 0
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    hypervolume: float = 0.0
    growth: Growth = field(default_factory=Growth)
    messages: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    deadline: float = math.inf

    def seconds_left(self) -> float | None:
        """Returns the expected seconds to the end: of the time limit, or of the trials at the pace so far.

        It is None while neither is known: without a time limit, before the first trial has ended.
        """
        limit = max(0.0, self.deadline - time.monotonic())
        done = self.counts.trained - self.done_before
        if self.trials is None or done < 1:
            return None if math.isinf(limit) else limit
        # A trial under way counts for its share of epochs.
        done_now = done + sum(epoch / epochs for epoch, epochs in self.running.values())
        left = self.trials - self.counts.trained - (done_now - done)
        return min(limit, max(0.0, left) * (time.monotonic() - self.started) / done_now)

    def share(self) -> float:
        """Returns the share of the search that is over, in [0, 1]: of its trials or, without a size, of its time."""
        if self.trials is not None:
            return min(1.0, self.counts.trained / self.trials)
        return min(1.0, (time.monotonic() - self.started) / (self.deadline - self.started))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEnd:
    """The end of a search.

    Attributes:
        reason: ``complete``, ``time_limit``, ``flat``, ``interrupted`` or ``exhausted`` (of proposals).
        counts: trials that the study has now, by outcome.
        new: number of trials that this run trained.
        seconds: wall time.
        workers: number of trials at a time.
        busy: share of the workers' time, between the first and the last trial of this run, in which they trained or
            judged; None when none was trained.
        promise: what as much time as this run took would probably add to the hypervolume; None where nothing can be
            said.
    """

    reason: str
    counts: Counts
    new: int
    seconds: float = 0.0
    workers: int = 0
    busy: float | None = None
    promise: float | None = None


def run_search(
    config: StudyConfig,
    space: SearchSpace,
    ledger: Ledger,
    data: Dataset,
    files: Path,
    options: RunOptions,
    observe: Callable[[Progress], None] = lambda progress: None,
    known: Mapping[str, Measurement] | None = None,
    hint: Callable[[int], str] = lambda number: "",
) -> SearchEnd:
    """Trains candidates until the study has `options.size` of them, or the search is stopped.

    Without a size it ends with its time limit, and begins no trial that would hardly end within it. With
    `options.until_flat` it begins none once the hypervolume is expected to grow by less.

    It returns at once, without starting Ray, when the study is that large already. A stop (time limit, SIGINT, SIGTERM)
    leaves the trials under way RUNNING in the study, and the next call continues them.

    Args:
        config: the study's configuration, as stored in the ledger.
        space: the study's space.
        ledger: keeps everything.
        data: the data set that `config` names; its test split is not used.
        files: folder for weights of the trials on the front, or on the front of all that are no larger.
        options: resources and limits of this run.
        observe: called with the progress at every change, in this thread.
        known: measurements by digest from elsewhere; these candidates are not trained again.
        hint: ends the line about a trial that failed, given its number: how a person finds out why.

    Raises:
        ConfigError: a trial asks for more than there is.
        ClusterError: no cluster answers.
        StorageError: the database is gone for good, or the disk of `files` is full.
        FailuresError: trials ended one after the other for one reason. The trials under way are kept.
    """
    _tidy(files, ledger)
    counts = ledger.counts()
    size = options.size
    progress = Progress(trials=size, counts=counts, done_before=counts.trained)
    if size is not None and counts.trained >= size:
        return SearchEnd(reason="complete", counts=counts, new=0)

    # Ray is slow to import and not needed above.
    from nas.engine.executor import run_trials, worker_pool
    from nas.engine.report import Report
    from nas.engine.searcher import FAILURES_IN_A_ROW, Recorder, StudySearcher

    # A trial that goes on reports its epochs of earlier searches again.
    busy = _Busy((number, row) for number in ledger.under_way() for row in ledger.epochs_table(number))
    front, kept = set(ledger.front()), set(ledger.kept())

    def on_report(report: Report) -> None:
        epoch = progress.running.get(report.number, (0, 0))[0]
        progress.running[report.number] = (report.rows[-1].epoch if report.rows else epoch, config.epochs)
        busy.add(report.number, report.rows)
        progress.messages += [f"trial {report.number}: {warning}" for warning in report.warnings]
        observe(progress)

    failed: list[int] = []

    def on_end(number: int, outcome: Outcome) -> None:
        if outcome.at_fault:
            failed.append(number)
        progress.running.pop(number, None)
        drop_checkpoint(files, number)
        progress.counts = ledger.counts()
        if outcome is Outcome.COMPLETE:
            nonlocal front, kept
            before, kept = kept, set(ledger.kept())
            drop_weights(files, {*before, number} - kept)
            before, front = front, set(ledger.front())
            if front != before:
                _update_quality(progress, ledger, front)
        elif outcome is not Outcome.STOPPED:  # a stopped trial needs no explanation
            progress.messages.append(f"trial {number} ended: {outcome.words}{hint(number)}")
        if outcome.trained:
            progress.growth.add((time.monotonic() - progress.started) / 60, progress.hypervolume)
        observe(progress)

    def flat() -> bool:
        pace = progress.growth.pace()
        return options.until_flat is not None and pace is not None and pace < options.until_flat

    def tell(line: str) -> None:
        progress.messages.append(line)
        observe(progress)

    def on_wait(drivers: Sequence[str]) -> None:
        tell(f"waiting for the last trials, which {' and '.join(drivers) or 'others'} train")

    _update_quality(progress, ledger, front)
    progress.growth.begun = progress.hypervolume
    lacking = None if size is None else size - counts.trained
    with worker_pool(config, space, data, files, options, most=lacking, tell=tell) as pool, ledger.drive():
        progress.concurrency, progress.deadline = pool.size, pool.stopping.deadline
        observe(progress)
        searcher = StudySearcher(
            ledger,
            space,
            trials=size,
            stopping=pool.stopping,
            on_end=on_end,
            known=known,
            on_wait=on_wait,
            # A study that should have a size begins its trials all the same, as the next search goes on with them.
            deadline=pool.stopping.deadline if size is None else math.inf,
            enough=flat,
        )
        run_trials(searcher, Recorder(searcher, on_report), pool, early_stopping=config.early_stopping)
    _tidy(files, ledger)
    if searcher.disk_full:
        raise StorageError(
            f"no room for weights in {files} ({searcher.disk_full}); free some and give the same command again: "
            "the trials under way go on"
        )
    if searcher.failing:
        raise FailuresError(
            f"{FAILURES_IN_A_ROW} trials ended one after the other by {searcher.failing}; mend the cause, and give the "
            f"same command again, which counts none of them{hint(failed[-1])}"
        )
    counts = ledger.counts()
    if size is not None and counts.trained >= size:
        reason = "complete"
    elif searcher.exhausted:
        reason = "exhausted"
    elif searcher.had_enough and not pool.stopping():
        reason = "flat"
    else:
        reason = pool.stopping.reason
    return SearchEnd(
        reason=reason,
        counts=counts,
        new=counts.trained - progress.done_before,
        seconds=time.monotonic() - progress.started,
        workers=pool.size,
        busy=busy.share(pool.size),
        promise=progress.growth.promise(),
    )


def _tidy(files: Path, ledger: Ledger) -> None:
    tidy(files, ledger.ended(), ledger.kept())


def _update_quality(progress: Progress, ledger: Ledger, front: Collection[int]) -> None:
    """Updates the best values and the hypervolume from the front, which has the best value of each objective."""
    if not front:
        return
    found = ledger.objective_values()
    results = [found[number] for number in sorted(front)]
    objectives = ledger.config.objectives
    values = np.array(results)
    maximize = [o.direction == "maximize" for o in objectives]
    for column, (objective, up) in enumerate(zip(objectives, maximize, strict=True)):
        progress.best[objective.name] = float((max if up else min)(values[:, column]))
    progress.hypervolume = hypervolume(values, [o.reference for o in objectives], maximize)


class _Busy:
    """The share of worker time spent on trials, between the first report's start and the last report.

    Args:
        known: trials' numbers with epochs that are not counted. Every epoch is counted once.
    """

    def __init__(self, known: Iterable[tuple[int, EpochRow]] = ()) -> None:
        self._known = {(number, row.epoch, row.seconds) for number, row in known}
        self._seconds = 0.0
        self._first: float | None = None
        self._last = 0.0

    def add(self, number: int, rows: Iterable[EpochRow]) -> None:
        """Adds the epochs that a trial reports now. An epoch that was trained again after a loss took other seconds."""
        new = {(number, row.epoch, row.seconds) for row in rows} - self._known
        self._known |= new
        seconds = sum(took for _, _, took in new)
        now = time.monotonic()
        self._first = now - seconds if self._first is None else min(self._first, now - seconds)
        self._last = now
        self._seconds += seconds

    def share(self, workers: int) -> float | None:
        """Returns the share in [0, 1]; None when nothing was trained."""
        if self._first is None or not self._seconds:
            return None
        return min(1.0, self._seconds / (workers * (self._last - self._first)))
