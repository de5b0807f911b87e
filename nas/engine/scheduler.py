"""Early stopping as a Ray Tune scheduler: a rule of `nas.search.early_stopping` at every validated epoch."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.engine.report import LivesInDriver, Report
from nas.engine.searcher import StudySearcher
from nas.search.early_stopping import RULES, Rung


class RungScheduler(LivesInDriver, FIFOScheduler):
    """Stops candidates that their study's rule does not let go on; `searcher` tells the study why.

    Values of other candidates come from the ledger, so that drivers that share a study judge alike. A candidate that
    diverged is never asked about.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._rule = RULES[searcher.ledger.config.within_rank]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report: Report = result["report"]
        if not report.rows or not report.rows[-1].validated:
            return TrialScheduler.CONTINUE
        with self._searcher.noting_errors():
            return self._judge(trial.trial_id, report, report.rows[-1].epoch)

    def _judge(self, trial_id: str, report: Report, epoch: int) -> str:
        ledger = self._searcher.ledger
        # Tune asks its scheduler before its callbacks, so the row is not in the epochs table yet.
        if not self._searcher.record(trial_id, report):
            return TrialScheduler.STOP
        rung = Rung(
            number=report.number,
            epoch=epoch,
            epochs=ledger.config.epochs,
            objectives=ledger.rung_objectives(),
            reached=ledger.rung,
        )
        if self._rule(rung):
            return TrialScheduler.CONTINUE
        self._searcher.stop(trial_id, epoch)
        return TrialScheduler.STOP
