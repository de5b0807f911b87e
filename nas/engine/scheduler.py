"""Asynchronous successive halving for several objectives, as a Ray Tune scheduler.

Rungs stand at epochs r, r * eta, r * eta^2, ... (Li et al., ASHA, 2020); the first one is where a tenth of the run is
done. A candidate passes a rung when it is among the best 1/eta of all candidates that have reached it so far. They are
ordered by non-domination rank, and within a rank by hypervolume contribution or by an epsilon-net, as the study is set
(Salinas et al., 2021; in ASHA: Schmucker et al., MO-ASHA, 2021). Objectives may have any direction and scale. A
candidate that diverged never reaches a rung, equal candidates pass together, and the first candidate at a rung always
passes.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.engine.report import LivesInDriver, Report
from nas.engine.searcher import StudySearcher
from nas.search.rungs import goes_on, has_rung
from nas.types import EpochRow


class RungScheduler(LivesInDriver, FIFOScheduler):
    """Stops candidates at rungs; `searcher` tells the study why.

    Values of other candidates come from the ledger, so that drivers that share a study judge alike.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report: Report = result["report"]
        row = report.rows[-1] if report.rows else None
        if row is None or not row.validated or not has_rung(row.epoch, self._searcher.ledger.config.epochs):
            return TrialScheduler.CONTINUE
        with self._searcher.noting_errors():
            return self._judge(trial.trial_id, report, row)

    def _judge(self, trial_id: str, report: Report, row: EpochRow) -> str:
        ledger = self._searcher.ledger
        # Tune asks its scheduler before its callbacks, so the row is not in the epochs table yet.
        if not self._searcher.record(trial_id, report):
            return TrialScheduler.STOP
        within = ledger.config.within_rank
        if goes_on(report.number, ledger.rung(row.epoch), ledger.rung_objectives(), within):
            return TrialScheduler.CONTINUE
        self._searcher.stop(trial_id, row.epoch)
        return TrialScheduler.STOP
