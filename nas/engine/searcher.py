"""Optuna's ask and tell behind Ray Tune's `Searcher`; Tune's callbacks carry curves into the records.

Ray's own OptunaSearch tells a stopped trial COMPLETE with partial values and leaves others RUNNING for
ever. Here every trial ends as its worker says, and one that was cut off stays RUNNING to be continued.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from nas.engine.job import Job
from nas.engine.report import LivesInDriver, Report
from nas.errors import LeaseLostError, SkipnasError
from nas.outcome import Outcome
from nas.protocols import Ledger, SearchSpace
from nas.search.sampler import proposer
from nas.types import Candidate, Cost, Measurement, candidate_seed

WAIT_SECONDS = 0.2
"""Pause between looks at a study whose remaining trials are under way at other drivers."""

PROPOSALS_PER_TRIAL = 20
"""At most this many proposals are drawn for each trial that a search should have."""

RESERVED_AHEAD = 8
"""At most this many places in the budget are held for proposals to come."""


RETRIES = 4
"""Times a job goes on after its worker or node was lost.

Tune's own retries do not count: it gives up at once on a trial that it hands to a worker which died between two
trials. And a lost node may cost two, because until its death is noticed a trial may be started there once more."""


class JobSearcher(LivesInDriver, Searcher):
    """Hands jobs to Tune's workers and hears how each ended; one whose worker was lost goes on, `RETRIES` times.

    Attributes:
        live: the jobs that workers have, by Tune's name of the trial.
        over: whether there is no further job, now or later, as `ask` last found.
    """

    def __init__(self) -> None:
        super().__init__(metric=None, mode=None)
        self.live: dict[str, Job] = {}
        self.over = False
        self._losses: Counter[int] = Counter()

    @abstractmethod
    def ask(self, trial_id: str) -> Job | None:
        """The next job, noted by `hand_out`; None when there is none now, and `over` says whether one may follow."""

    @abstractmethod
    def cut_off(self, job: Job) -> None:
        """A job's worker was lost; `ask` gives it out again."""

    @abstractmethod
    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        """A job has ended with its last report, or was cut off when the run was stopped: then the report has no
        outcome, or there is none."""

    def hand_out(self, trial_id: str, job: Job) -> Job:
        """Notes that a worker has the job from now on."""
        self.live[trial_id] = job
        return job

    def suggest(self, trial_id: str) -> Any:
        """The next job as Tune's configuration of a trial, None to wait, or FINISHED. Called by Tune."""
        job = self.ask(trial_id)
        if job is not None:
            return {"job": job}
        return Searcher.FINISHED if self.over and not self.live else None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Passes on how a job ended. Called by Tune, once a trial, also when the run is stopped."""
        job = self.live.pop(trial_id, None)
        if job is None:
            return
        report: Report | None = (result or {}).get("report")
        if error:
            self._losses[job.number] += 1
            if self._losses[job.number] <= RETRIES:
                self.cut_off(job)
                return
            detail = "its worker or node was lost, and so were those that retried it"
            report = Report(number=job.number, outcome=Outcome.WORKER_LOST, detail=detail)
        self.tell(trial_id, job, report)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what has ended is in the records (and Tune's file would hold the database's password)."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the next run begins with what is left."""


class StudySearcher(JobSearcher):
    """Proposes candidates from the study until it holds `trials` trained ones.

    Trials whose driver is gone are taken over first, under their own number. Duplicates and candidates
    over a limit are told so and asked again; they never reach a worker. Several drivers may work on one
    study: each holds a reservation for what it proposes, so that together they reach `trials` exactly.

    Args:
        ledger: the study; only this object and the scheduler write to it while the search runs.
        space: decodes hyperparameters; judges cost.
        trials: the size the study should have.
        stopping: when it answers True no new trial is proposed.
        on_end: called with a trial's number and outcome after it was told.
        known: measurements by digest, of candidates that need not be trained: they are complete at once.

    Attributes:
        left: trials that it may still hand out before it says that it has finished; its owner may raise it again.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        *,
        trials: int,
        stopping: Callable[[], bool],
        on_end: Callable[[int, Outcome], None],
        known: Mapping[str, Measurement] | None = None,
    ) -> None:
        super().__init__()
        self.ledger, self.space, self.trials = ledger, space, trials
        self.stopping, self.on_end, self.known = stopping, on_end, known or {}
        self.left: float = math.inf
        self.exhausted = False
        self.disk_full = ""
        self.error: SkipnasError | None = None
        self._stopped: dict[str, int] = {}
        self._lost: set[str] = set()
        self._started = ledger.started_digests()  # it grows as the ledger reads
        config = ledger.config
        self._propose = proposer(config.sampler, config.seed, ledger.distributions, config.objectives, self._acceptable)

    def ask(self, trial_id: str) -> Job | None:
        self.over = bool(self.stopping() or self.disk_full or not self.left)
        if self.over:
            return None
        claimed = self.ledger.claim(self._propose)
        if claimed is not None:
            return self._begin(trial_id, *claimed)
        while True:
            counts = self.ledger.counts()
            if counts.trained >= self.trials:
                self.over = True
                return None
            if counts.proposals >= PROPOSALS_PER_TRIAL * self.trials:
                self.over = self.exhausted = True
                return None
            if not self.ledger.reserved and not self.ledger.reserve(self.trials, RESERVED_AHEAD):
                # The rest is under way: here, or at another driver, whose trials are taken over if it dies.
                if not self.live:
                    time.sleep(WAIT_SECONDS)
                return None
            try:
                asked = self.ledger.ask(self._propose)
            except LeaseLostError:  # the lease ran out, and others filled the budget meanwhile
                return None
            job = self._begin(trial_id, *asked)
            if job is not None:
                return job

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Keeps a user's error for the driver: Tune makes text of what is raised while it handles a result."""
        try:
            yield
        except SkipnasError as error:
            self.error = error
            raise

    def stop(self, trial_id: str, epoch: int) -> None:
        """Notes that a trial did not pass its rung at `epoch`; Tune will call `on_trial_complete`."""
        self._stopped[trial_id] = epoch

    def record(self, trial_id: str, report: Report) -> bool:
        """Writes the epochs of a report. False when another driver has taken the trial over."""
        try:
            self.ledger.epochs(report.number, report.rows)
        except LeaseLostError:
            self._lost.add(trial_id)
        return trial_id not in self._lost

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how a trial ended, unless another driver has taken it over. Called by Tune."""
        if trial_id in self._lost:
            self.live.pop(trial_id, None)
            return
        with self.noting_errors(), suppress(LeaseLostError):
            super().on_trial_complete(trial_id, result, error)

    def cut_off(self, job: Job) -> None:
        self.ledger.interrupt(job.number)

    def tell(self, trial_id: str, job: Job, report: Report | None) -> None:
        outcome = self._tell(trial_id, job.number, report)
        if outcome is not None:
            self.on_end(job.number, outcome)

    def _tell(self, trial_id: str, number: int, report: Report | None) -> Outcome | None:
        """How a trial ended; None when it was cut off and is continued when the study is opened again."""
        ledger = self.ledger
        if trial_id in self._stopped:
            ledger.prune(number, Outcome.STOPPED, detail=f"not among the best at epoch {self._stopped[trial_id]}")
            return Outcome.STOPPED
        if report is None or report.outcome is None:
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
        candidate = self._candidate(params)
        cost = self._cost(candidate)
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
        seed = candidate_seed(self.ledger.config.seed, candidate.digest)
        return self.hand_out(trial_id, Job.of(candidate, number=number, seed=seed))

    def _candidate(self, params: Mapping[str, Any]) -> Candidate:
        return self.space.decode(params, self.ledger.config.task, self.ledger.config.epochs)

    def _cost(self, candidate: Candidate) -> Cost:
        return self.space.cost(candidate.spec, self.ledger.config.task)

    def _over_limit(self, cost: Cost) -> bool:
        return any(c.violation(cost) > 0 for c in self.ledger.config.constraints)

    def _acceptable(self, params: Mapping[str, Any]) -> bool:
        candidate = self._candidate(params)
        return candidate.digest not in self._started and not self._over_limit(self._cost(candidate))


class Recorder(LivesInDriver, Callback):
    """Writes the epochs that workers report, and tells an observer of them.

    Tune does not pass the result at which it stops a trial to `Searcher.on_trial_result`; a callback
    sees them all.
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
        """Lets go of what Tune keeps of an ended trial until the run is over: its last report, and statistics of it."""
        kept = trial.run_metadata
        kept.last_result, kept.metric_analysis, kept.metric_n_steps = {}, {}, {}
        kept.checkpoint_manager = type(kept.checkpoint_manager)(None)
