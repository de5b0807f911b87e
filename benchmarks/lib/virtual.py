"""Searches on a virtual clock, with any number of workers that answer from known values.

A `Method` proposes candidates, is told values at the epochs that it wants to see, and says which trials go on. `run`
gives its trials to workers whose epochs last as long as the answers say. `Skipnas` is the project's own method: the
real
searcher, the real scheduler and the real records, without Ray.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from nas.engine.report import Report
from nas.engine.scheduler import RungScheduler
from nas.engine.searcher import StudySearcher
from nas.outcome import Outcome
from nas.protocols import SearchSpace
from nas.search.early_stopping import is_milestone
from nas.search.objectives import DEFAULT
from nas.types import Candidate, EpochRow, Measurement, ProbeCurve
from studies.store.ledger import SqlLedger

T = TypeVar("T")
Values = tuple[float, ...]
"""PSNR in dB, accuracy in percent, stability in 0..1."""


class Answers(Protocol):
    """The values and times that trainings would have."""

    def values(self, candidate: Candidate, epoch: int) -> Values | None:
        """Returns the values after an epoch, from 1; None once the run has diverged."""

    def seconds(self, candidate: Candidate) -> float:
        """Returns the seconds of an epoch."""


class Method(Protocol):
    """A search method. It knows trials by a name."""

    @property
    def looks(self) -> Collection[int]:
        """The epochs at which `after` is called, the last one among them."""

    def ask(self, name: str) -> Candidate | None:
        """Returns the candidate that the trial `name` is to train; None when there is nothing to train for now."""

    def after(self, name: str, epoch: int, values: Values) -> bool:
        """Tells whether a trial goes on after an epoch. It is not called at the last epoch."""

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        """Ends a trial: it was trained to the end with these values, or diverged (None), or did not go on."""


@dataclass(slots=True)
class Trace:
    """The course of a search.

    Attributes:
        finished: (epochs trained in all until then, candidate) of each trial that was trained to the end, in order.
        epochs: epochs trained in all.
        asked: trials begun.
        clock: virtual seconds.
        busy: virtual seconds of all workers in training.
        took: the real seconds of each of the method's answers, in order, with the name of the question: ``ask``,
            ``after`` or ``end``.
        waited: virtual seconds that workers waited for answers.
    """

    finished: list[tuple[float, Candidate]] = field(default_factory=list)
    epochs: int = 0
    asked: int = 0
    clock: float = 0.0
    busy: float = 0.0
    took: list[tuple[str, float]] = field(default_factory=list)
    waited: float = 0.0


def run(
    method: Method,
    answers: Answers,
    *,
    workers: int,
    epochs: int,
    budget: float = math.inf,
    trials: float = math.inf,
    deciding_takes_time: bool = False,
    observe: Callable[[Trace], None] = lambda trace: None,
) -> Trace:
    """Searches until `budget` epochs are given out, `trials` are begun or the method has nothing more to train.

    Args:
        method: the search method.
        answers: values and times of its trials.
        workers: number of trials at a time.
        epochs: epochs of a full training.
        budget: epochs that are given out at most.
        trials: trials that are begun at most.
        deciding_takes_time: whether the clock goes on by the real time that the method takes to answer, one worker
            after
            the other.
        observe: called whenever a trial has begun.
    """
    trace, names, order = Trace(), itertools.count(), itertools.count()
    looks = sorted({epoch for epoch in method.looks if epoch < epochs} | {epochs})
    # The time at which it ends, order, the time at which it began, epochs, trial, candidate, the epoch that it reaches.
    events: list[tuple[float, int, float, int, str, Candidate, int]] = []
    given = 0
    free_since = deque([0.0] * workers)
    answered = 0.0  # the time at which the driver has given all answers so far

    def timed(question: str, answer: Callable[[], T]) -> T:
        nonlocal answered
        begun = time.perf_counter()
        result = answer()
        took = time.perf_counter() - begun
        trace.took.append((question, took))
        answered = max(answered, trace.clock) + (took if deciding_takes_time else 0.0)
        return result

    def train(name: str, candidate: Candidate, since: int, until: int) -> None:
        nonlocal given
        given += until - since
        took = answers.seconds(candidate) * (until - since)
        trace.busy += took
        ends = answered + took
        heapq.heappush(events, (ends, next(order), answered, until - since, name, candidate, until))

    def under_way() -> float:
        """Counts the epochs of the trials that are being trained, as far as they are."""
        shares = ((trace.clock - begun) / (ends - begun) * count for ends, _, begun, count, *_ in events)
        return sum(max(0.0, share) for share in shares)

    while True:
        while free_since and given < budget and trace.asked < trials:
            name = str(next(names))
            proposed = timed("ask", partial(method.ask, name))
            if proposed is None:
                break
            trace.asked += 1
            trace.waited += answered - free_since.popleft()
            train(name, proposed, 0, looks[0])
            observe(trace)
        if not events:
            return trace
        trace.clock, _, _, count, name, candidate, epoch = heapq.heappop(events)
        trace.epochs += count
        values = answers.values(candidate, epoch)
        if values is not None and epoch < epochs and timed("after", partial(method.after, name, epoch, values)):
            trace.waited += answered - trace.clock
            train(name, candidate, epoch, next(look for look in looks if look > epoch))
            continue
        timed("end", partial(method.end, name, epoch, values))
        if values is not None and epoch == epochs:
            trace.finished.append((trace.epochs + under_way(), candidate))
        free_since.append(trace.clock)


class Skipnas:
    """The project's own search in a study of its own (see `Method`).

    Args:
        ledger: the ledger of an empty study, of which this is the driver.
        space: the space of the study.
        trials: the size that the study should have.
        first: candidates to begin with.
    """

    def __init__(self, ledger: SqlLedger, space: SearchSpace, *, trials: int, first: Sequence[Candidate] = ()) -> None:
        self._searcher = StudySearcher(
            ledger, space, trials=trials, stopping=lambda: False, on_end=lambda number, outcome: None
        )
        self._scheduler = RungScheduler(self._searcher) if ledger.config.early_stopping else None
        self._space, self._epochs = space, ledger.config.epochs
        self._running: dict[str, tuple[int, int]] = {}
        self.looks = [epoch for epoch in range(1, self._epochs + 1) if is_milestone(epoch, self._epochs)]
        for candidate in first:
            params = space.encode(candidate)
            ledger.optuna_study.enqueue_trial({name: params[name] for name in ledger.distributions})

    def ask(self, name: str) -> Candidate | None:
        job = self._searcher.ask(name)
        if job is None:
            return None
        self._running[name] = job.number, 0
        return Candidate(spec=self._space.spec(job.spec), recipe=job.recipe)

    def after(self, name: str, epoch: int, values: Values) -> bool:
        report = self._report(name, epoch, values)
        trial: Any = SimpleNamespace(trial_id=name)
        if self._scheduler is not None and self._scheduler.on_trial_result(None, trial, {"report": report}) == "STOP":
            return False
        self._searcher.record(name, report)
        return True

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        if values is None:
            report = Report(number=self._running[name][0], outcome=Outcome.DIVERGED)
        else:
            report = self._report(name, epoch, values, last=epoch == self._epochs)
        if values is not None and epoch == self._epochs:
            self._searcher.record(name, report)
        self._searcher.on_trial_complete(name, {"report": report})
        del self._running[name]

    def _report(self, name: str, epoch: int, values: Values, last: bool = False) -> Report:
        number, before = self._running[name]
        self._running[name] = number, epoch
        rows = tuple(
            _row(each, values if each == epoch else (None, None, None)) for each in range(before + 1, epoch + 1)
        )
        if not last:
            return Report(number=number, rows=rows)
        psnr, accuracy, stability = values
        measurement = Measurement(
            values={"psnr": psnr, "accuracy": accuracy, "stability": stability},
            probe=ProbeCurve(steps=(0,), denoise=(1.0,), classify=(1.0,)),
            gates=(),
            seconds=1.0,
            peak_memory=1.0,
            seed=0,
        )
        return Report(number=number, rows=rows, outcome=Outcome.COMPLETE, measurement=measurement)


def _row(epoch: int, values: Sequence[float | None]) -> EpochRow:
    known = {name: value for name, value in zip(DEFAULT, values, strict=True) if value is not None}
    return EpochRow(epoch=epoch, denoise_loss=0.5, classify_loss=0.5, seconds=1.0, values=known)
