"""Optuna's ask and tell behind Ray Tune's `Searcher`; Tune's callbacks carry curves into the records.

Ray's own OptunaSearch tells a stopped trial COMPLETE with partial values and leaves others RUNNING for
ever. Here every trial ends as its worker says, and one that was cut off stays RUNNING to be continued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from nas.evaluation import candidate_seed
from nas.protocols import Ledger, SearchSpace
from nas.sampler import NovelSampler
from nas.types import Candidate, Cost, EpochRow, Measurement, ProbeCurve

PROPOSALS_PER_TRIAL = 20
"""At most this many proposals are drawn for each trial that a search should have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says after some epochs; `outcome` is None while the trial goes on.

    Outcomes: ``complete`` (with `measurement`), ``diverged``, ``out_of_memory``, ``exception``.
    """

    number: int
    rows: tuple[EpochRow, ...] = ()
    outcome: str | None = None
    measurement: Measurement | None = None
    probe: ProbeCurve | None = None
    detail: str = ""


class LivesInDriver:
    """Pickled as None. Tune writes its whole configuration to disk for `Tuner.restore`, which is never
    used here; connections cannot be pickled, and their passwords must not be."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()


class StudySearcher(LivesInDriver, Searcher):
    """Proposes candidates from the study until it holds `trials` trained ones.

    Trials that a driver left RUNNING are proposed first, under their own number. Duplicates and
    candidates over a limit are told so and asked again; they never reach a worker.

    Args:
        ledger: the study; only this object writes to it while the search runs.
        space: decodes hyperparameters; judges cost.
        trials: the size the study should have.
        stopping: when it answers True no new trial is proposed.
        on_end: called with a trial's number and outcome after it was told.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        *,
        trials: int,
        stopping: Callable[[], bool],
        on_end: Callable[[int, str], None],
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self.space, self.trials = ledger, space, trials
        self.stopping, self.on_end = stopping, on_end
        self.live: dict[str, int] = {}
        self.exhausted = False
        self._interrupted = deque(ledger.interrupted())
        self._taken = set(ledger.trained_digests())
        config = ledger.config
        ledger.study.sampler = NovelSampler(config.sampler, config.seed, ledger.distributions, self._acceptable)

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's config, None to wait, or FINISHED. Called by Tune."""
        if self.stopping():
            return None if self.live else Searcher.FINISHED
        if self._interrupted:
            number, params = self._interrupted.popleft()
            return self._begin(trial_id, number, params)
        while True:
            counts = self.ledger.counts()
            if counts.trained + len(self.live) >= self.trials:
                return None if self.live else Searcher.FINISHED
            if counts.proposals >= PROPOSALS_PER_TRIAL * self.trials:
                self.exhausted = True
                return None if self.live else Searcher.FINISHED
            trial = self.ledger.study.ask(self.ledger.distributions)
            config = self._begin(trial_id, trial.number, trial.params)
            if config is not None:
                return config

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how a trial ended. Called by Tune, once a trial, also when the search is stopped."""
        number = self.live.pop(trial_id, None)
        if number is None:
            return
        report: Report | None = (result or {}).get("report")
        if error:
            outcome = "worker_lost"
            self.ledger.fail(number, outcome, detail="its worker or node was lost, and so were those that retried it")
        elif report is None or report.outcome is None:
            return  # cut off by a stop: it stays RUNNING and is continued when the study is opened again
        elif report.measurement is not None:
            outcome = "complete"
            self.ledger.complete(number, report.measurement)
        elif report.outcome == "exception":
            outcome = report.outcome
            self.ledger.fail(number, outcome, detail=report.detail)
        else:
            outcome = report.outcome
            self.ledger.prune(number, outcome, detail=report.detail, probe=report.probe)
        self.on_end(number, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state (and Tune's file would hold the database's password)."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search continues from its study."""

    def _begin(self, trial_id: str, number: int, params: Mapping[str, Any]) -> dict[str, Any] | None:
        candidate, cost = self._candidate(params)
        reason = self._rejection(candidate, cost)
        if reason is not None:
            self.ledger.start(number, candidate, cost, worker="")
            self.ledger.fail(number, reason)
            return None
        self._taken.add(candidate.digest)
        self.live[trial_id] = number
        self.ledger.start(number, candidate, cost, worker=trial_id)
        return {
            "number": number,
            "digest": candidate.digest,
            "spec": candidate.spec.to_dict(),
            "recipe": candidate.recipe.to_dict(),
            "seed": candidate_seed(self.ledger.config.seed, candidate.digest),
        }

    def _candidate(self, params: Mapping[str, Any]) -> tuple[Candidate, Cost]:
        task = self.ledger.config.task
        candidate = self.space.decode(params, task, self.ledger.config.epochs)
        return candidate, self.space.cost(candidate.spec, task)

    def _rejection(self, candidate: Candidate, cost: Cost) -> str | None:
        if any(c.violation(cost) > 0 for c in self.ledger.config.constraints):
            return "over_limit"
        return "duplicate" if candidate.digest in self._taken else None

    def _acceptable(self, params: Mapping[str, Any]) -> bool:
        return self._rejection(*self._candidate(params)) is None


class Recorder(LivesInDriver, Callback):
    """Writes the epochs that workers report, and tells an observer of them.

    Tune does not pass the result at which it stops a trial to `Searcher.on_trial_result`; a callback
    sees them all.
    """

    def __init__(self, ledger: Ledger, observe: Callable[[Report], None]) -> None:
        self._ledger, self._observe = ledger, observe

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        report: Report = result["report"]
        if report.rows:
            self._ledger.epochs(report.number, report.rows)
        self._observe(report)
