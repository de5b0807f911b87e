"""A study's proposals behind Ray Tune's `Searcher`; Tune's callbacks carry curves into the records.

Ray's own OptunaSearch tells a stopped trial COMPLETE with partial values and leaves others RUNNING for ever. Here every
trial ends as its worker says, and a trial that was cut off stays RUNNING to be continued.
"""

from __future__ import annotations

import math
import statistics
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from nas.engine.job import Job
from nas.engine.report import LivesInDriver, Report
from nas.errors import LeaseLostError, ProposalError, SkipnasError, SpecError, cause, in_short
from nas.outcome import Outcome
from nas.protocols import Ledger, SearchSpace, prior_of, sketched
from nas.search.past import Sketch
from nas.search.sampler import proposer
from nas.settings import MANY, TRIALS
from nas.types import Candidate, Cost, Measurement, candidate_seed

WAIT_SECONDS = 0.2
"""The pause between looks at a study whose remaining trials are under way at other drivers."""

PROPOSALS_PER_TRIAL = 20
"""The largest number of proposals for each trial that a search should have. A search without a size is given up as one
that should have `nas.settings.TRIALS` more than it has."""

IN_VAIN = PROPOSALS_PER_TRIAL * TRIALS
"""The number of proposals in a row of which none can be trained, after which a search is given up whatever its size.
Without it, a search of 600 trials in a space of 100 candidates would make thousands of proposals after the last one."""

SKETCHES = 20_000
"""The largest number of candidates whose costs are kept between proposals."""

RESERVED_AHEAD = 8
"""The largest number of places in the budget that are held for proposals to come."""


FAILURES_IN_A_ROW = 6
"""The number of trials that end one after the other for one reason before a search is stopped."""

RETRIES = 4
"""The number of times that a job goes on after its worker or node was lost.

Tune's own retries cannot be used, because Tune gives up at once on a trial that it hands to a worker which died between
two trials. A lost node may cost two retries, because a trial may be started there once more until its death is noticed.
"""


class JobSearcher(LivesInDriver, Searcher):
    """Hands jobs to Tune's workers and receives their ends. A job whose worker was lost goes on, `RETRIES` times.

    Attributes:
        live: the jobs that workers have, by Tune's name of the trial.
        over: whether there is no further job, now or later, as the last call of `ask` found.
        failing: why the run is given up, because its jobs fail one after the other; "" while it goes on.
        ended: number of jobs that have ended.
        error: a user's error that was raised while a job's report was handled; None while there is none.
        short: how much memory was in use when Ray ended a worker for want of it; "" while none was. Whoever runs the
            jobs empties it again. Such a loss does not count against the job.
    """

    def __init__(self) -> None:
        super().__init__(metric=None, mode=None)
        self.failing = ""
        self.live: dict[str, Job] = {}
        self.over = False
        self.ended = 0
        self.error: SkipnasError | None = None
        self.short = ""
        self._starved: set[str] = set()
        self._losses: Counter[int] = Counter()

    @abstractmethod
    def ask(self, trial_id: str) -> Job | None:
        """Returns the next job, noted by `hand_out`; None when there is none now. `over` then tells whether one may
        follow."""

    @abstractmethod
    def cut_off(self, job: Job) -> None:
        """Takes back a job whose worker was lost, so that `ask` gives it out again."""

    @abstractmethod
    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        """Receives the last report of a job that has ended.

        A job that was cut off when the run was stopped has a report without an outcome, or none.
        """

    def hand_out(self, trial_id: str, job: Job) -> Job:
        """Notes that a worker has the job from now on, and returns the job as the worker is to do it."""
        self.live[trial_id] = job = replace(job, retried=self._losses[job.number] > 0)
        return job

    def suggest(self, trial_id: str) -> Any:
        """Returns the next job as Tune's configuration of a trial, None to wait, or FINISHED. Tune calls this."""
        job = self.ask(trial_id)
        if job is not None:
            return {"job": job}
        return Searcher.FINISHED if self.over and not self.live else None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Passes on a job's end. Tune calls this once for each trial, and also when the run is stopped."""
        job = self.live.pop(trial_id, None)
        if job is None:
            return
        report: Report | None = (result or {}).get("report")
        if trial_id in self._starved:
            self.cut_off(job)
            return
        if error:
            self._losses[job.number] += 1
            if self._losses[job.number] <= RETRIES:
                self.cut_off(job)
                return
            detail = "its worker or node was lost, and so were those that retried it"
            report = Report(number=job.number, outcome=Outcome.WORKER_LOST, detail=detail)
        self.ended += report is not None and report.outcome is not None
        self.tell(trial_id, job, report)

    def memory_short(self, trial_id: str, used: str) -> None:
        """Notes that Ray ended a trial's worker for want of memory; Tune will then call `on_trial_complete`."""
        self._starved.add(trial_id)
        self.short = used

    def take_back(self) -> None:
        """Takes back every job that a worker has, when all workers were lost at once."""
        for trial_id in list(self.live):
            self.cut_off(self.live.pop(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: ended jobs are in the records, and Tune's file would contain the database's password."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: the next run begins with the jobs that are left."""


class StudySearcher(JobSearcher):
    """Proposes candidates from the study until it has `trials` trained ones.

    Trials whose driver is gone are taken over first, under their own number. Duplicates and candidates over a limit are
    rejected and asked again; they never reach a worker. Several drivers may work on one study. Each holds a reservation
    for its next proposal, so that together they reach `trials` exactly.

    Args:
        ledger: the study; only this object and the scheduler write to it while the search runs.
        space: decodes hyperparameters and computes costs.
        trials: the size that the study should have; None for no limit.
        stopping: when it answers True, no new trial is proposed.
        on_end: called with a trial's number and outcome after it was told.
        known: measurements by digest of candidates that need not be trained, and are complete at once.
        on_wait: called once when all places are taken by trials of other drivers, with words for these drivers.
        deadline: `time.monotonic` after which no trial goes on. None is begun when less time is left than trials of
            this run took, in the median. Interrupted trials go on all the same, because they may be near their end.
        enough: when it answers True, no new trial is begun, and those under way go on to their ends.

    Attributes:
        left: number of trials that it may still hand out before it finishes; its owner may raise it again.
        patience: number of trials that may end one after the other for one reason before it gives up.
        endurance: number of proposals in a row of which none can be trained before it gives up.
        had_enough: whether `enough` answered True; what ends later changes nothing.
        tried: digests of the candidates that it handed out, which it does not propose again even if they failed.
            Candidates that failed in an earlier search may be proposed again, because their cause may be mended.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        *,
        trials: int | None,
        stopping: Callable[[], bool],
        on_end: Callable[[int, Outcome], None],
        known: Mapping[str, Measurement] | None = None,
        on_wait: Callable[[Sequence[str]], None] = lambda drivers: None,
        deadline: float = math.inf,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.on_wait, self._waits = on_wait, False
        self.ledger, self.space, self.trials = ledger, space, trials
        self.deadline, self.enough = deadline, enough
        self._begun: dict[int, float] = {}
        self._took: list[float] = []
        self.stopping, self.on_end, self.known = stopping, on_end, known or {}
        self.left: float = math.inf
        self.patience: float = FAILURES_IN_A_ROW
        self.endurance: float = IN_VAIN
        self.tried: set[str] = set()
        self.exhausted = self.had_enough = False
        self._row: tuple[str, int] = ("", 0)  # the cause of the last failures, and their number
        self._failed_before = ledger.counts().failed
        self._in_vain = 0
        self.disk_full = ""
        self._stopped: dict[str, int] = {}
        self._lost: set[str] = set()
        self._started = ledger.started_digests()  # it grows as the ledger reads
        config = ledger.config
        self._sketches: dict[str, Sketch | None] = {}
        self._propose = proposer(
            config.sampler,
            config.seed,
            ledger.distributions,
            config.objectives,
            self._acceptable,
            sketch=self._sketch,
            prior=prior_of(space, config, ledger.distributions),
            max_macs=config.max_macs,
        )

    def ask(self, trial_id: str) -> Job | None:
        self.over = bool(self.stopping() or self.disk_full or self.failing or not self.left)
        if self.over:
            return None
        try:
            claimed = self.ledger.claim(self._propose)
            if claimed is not None:
                return self._begin(trial_id, *claimed)
        except ProposalError as error:
            self._refuse(error)
            return None
        late = bool(self._took) and time.monotonic() + statistics.median(self._took) > self.deadline
        self.had_enough = self.had_enough or self.enough()
        if late or self.had_enough:
            self.over = True
            return None
        reread = False  # claiming has just read the trials
        while not self.failing:
            counts = self.ledger.counts(reread=reread)
            reread = True
            size = MANY if self.trials is None else self.trials
            wanted = counts.trained + TRIALS if self.trials is None else self.trials
            if counts.trained >= size:
                self.over = True
                return None
            many = counts.proposals - self._failed_before >= PROPOSALS_PER_TRIAL * wanted
            if many or self._in_vain >= self.endurance:
                self.over = self.exhausted = True
                return None
            if not self.ledger.reserved and not self.ledger.reserve(size, RESERVED_AHEAD):
                # The rest is under way here, or at another driver, whose trials are taken over if it dies.
                if not self.live:
                    if not self._waits:
                        self._waits = True
                        self.on_wait(self.ledger.other_drivers())
                    time.sleep(WAIT_SECONDS)
                return None
            try:
                job = self._begin(trial_id, *self.ledger.ask(self._propose))
            except LeaseLostError:  # the lease ran out, and others filled the budget meanwhile
                return None
            except ProposalError as error:
                self._refuse(error)
                continue
            if job is not None:
                self._begun[job.number] = time.monotonic()
                self._in_vain = 0
                return job
            self._in_vain += 1
        return None

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Keeps a user's error for the driver, because Tune turns an error that is raised while it handles a result
        into text."""
        try:
            yield
        except SkipnasError as error:
            self.error = error
            raise

    def stop(self, trial_id: str, epoch: int) -> None:
        """Notes that a trial did not pass its rung at `epoch`; Tune will then call `on_trial_complete`."""
        self._stopped[trial_id] = epoch

    def record(self, trial_id: str, report: Report) -> bool:
        """Writes the epochs of a report. Returns False when another driver has taken the trial over."""
        try:
            self.ledger.epochs(report.number, report.rows)
        except LeaseLostError:
            self._lost.add(trial_id)
        return trial_id not in self._lost

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study a trial's end, unless another driver has taken it over. Tune calls this."""
        if trial_id in self._lost:
            self.live.pop(trial_id, None)
            return
        with self.noting_errors(), suppress(LeaseLostError):
            super().on_trial_complete(trial_id, result, error)

    def cut_off(self, job: Job) -> None:
        self.ledger.interrupt(job.number)

    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        outcome = self._tell(trial_id, job.number, report)
        begun = self._begun.pop(job.number, None)
        if outcome is not None:
            if begun is not None and outcome.trained:
                self._took.append(time.monotonic() - begun)
            self._note_end(job.number, outcome, "" if report is None else report.detail)

    def _refuse(self, error: ProposalError) -> None:
        """Fails a trial that cannot be trained. Without this the next search would claim it, and meet it again."""
        try:
            self.ledger.fail(error.number, Outcome.INVALID, detail=error.detail)
        except LeaseLostError:  # another driver has taken the trial over
            return
        self._note_end(error.number, Outcome.INVALID, error.detail)

    def _note_end(self, number: int, outcome: Outcome, detail: str) -> None:
        place = cause(detail)
        why = f"{outcome.value} {place}" if outcome.at_fault else ""
        self._row = why, 1 + (self._row[1] if self._row[0] == why else 0)
        if why and self._row[1] >= self.patience:
            last = [in_short(line) for line in detail.strip().splitlines()[-1:]]
            told = ", ".join([*last, *filter(None, [place.partition(" in ")[2]])])
            self.failing = outcome.words + (f" ({told})" if told else "")
        self.on_end(number, outcome)

    def _tell(self, trial_id: str, number: int, report: Report | None) -> Outcome | None:
        """Tells the study a trial's end and returns it; None when it was cut off, to be continued by the next
        search."""
        ledger = self.ledger
        if trial_id in self._stopped:
            ledger.prune(number, Outcome.STOPPED, detail=f"not among the best at epoch {self._stopped[trial_id]}")
            return Outcome.STOPPED
        if report is None or report.outcome is None:
            ledger.interrupt(number)
            return None
        if report.outcome is Outcome.DISK_FULL:
            self.disk_full = report.detail
            return None
        if report.measurement is not None:
            ledger.complete(number, report.measurement, strip=report.strip)
        elif report.outcome.trained:
            ledger.prune(number, report.outcome, detail=report.detail, probe=report.probe)
        else:
            ledger.fail(number, report.outcome, detail=report.detail)
        return report.outcome

    def _begin(self, trial_id: str, number: int, params: Mapping[str, Any]) -> Job | None:
        try:
            candidate = self._candidate(params)
            cost = self._cost(candidate)
        except Exception as error:  # a space may be anybody's code
            raise ProposalError.of(number, error) from error
        try:
            if self._over_limit(cost):
                self.ledger.reject(number, candidate, cost, Outcome.OVER_LIMIT)
                return None
            if not self.ledger.start(number, candidate, cost, worker=trial_id):
                self.ledger.reject(number, candidate, cost, Outcome.DUPLICATE)
                return None
        except LeaseLostError:  # another driver has taken the trial over
            return None
        if candidate.digest in self.known:
            self.ledger.complete(number, self.known[candidate.digest])
            self.on_end(number, Outcome.COMPLETE)
            return None
        self.left -= 1
        self.tried.add(candidate.digest)
        seed = candidate_seed(self.ledger.config.seed, candidate.digest)
        return self.hand_out(trial_id, Job.of(candidate, number=number, seed=seed))

    def _candidate(self, params: Mapping[str, Any]) -> Candidate:
        return self.space.decode(params, self.ledger.config.task, self.ledger.config.epochs)

    def _cost(self, candidate: Candidate) -> Cost:
        return self.space.cost(candidate.spec, self.ledger.config.task)

    def _over_limit(self, cost: Cost) -> bool:
        return any(c.violation(cost) > 0 for c in self.ledger.config.constraints)

    def _sketch(self, params: Mapping[str, Any]) -> Sketch | None:
        key = repr(list(params.values()))  # a choice may be a list
        if key not in self._sketches:
            if len(self._sketches) >= SKETCHES:
                self._sketches.clear()
            self._sketches[key] = sketched(self.space, params, self.ledger.config)
        return self._sketches[key]

    def _acceptable(self, params: Mapping[str, Any]) -> bool:
        try:
            candidate = self._candidate(params)
        except SpecError:  # the space has no such candidate, so another one is drawn
            return False
        new = candidate.digest not in self._started and candidate.digest not in self.tried
        return new and not self._over_limit(self._cost(candidate))


class Recorder(LivesInDriver, Callback):
    """Writes the epochs that workers report, and passes them to an observer.

    Tune does not pass the result at which it stops a trial to `Searcher.on_trial_result`, but a callback sees all
    results.
    """

    def __init__(self, searcher: StudySearcher, observe: Callable[[Report], None]) -> None:
        self._searcher, self._observe = searcher, observe

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        report: Report = result["report"]
        with self._searcher.noting_errors():
            self._searcher.record(trial.trial_id, report)
            self._observe(report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Drops the last report and the statistics of an ended trial, which Tune would keep until the run is over."""
        kept = trial.run_metadata
        kept.last_result, kept.metric_analysis, kept.metric_n_steps = {}, {}, {}
        kept.checkpoint_manager = type(kept.checkpoint_manager)(None)
