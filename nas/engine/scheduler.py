"""What Tune asks a scheduler: whether a candidate goes on, by a rule of `nas.search.early_stopping` at every validated
epoch; and why a worker was lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.engine.report import LivesInDriver, Report
from nas.engine.searcher import JobSearcher, StudySearcher
from nas.search.early_stopping import RULES, Rungs


def short_memory(error: str) -> str:
    """Returns how much memory was in use when Ray's memory monitor ended a worker, by an error's text; "" for another
    error."""
    if "low on memory" not in error:
        return ""
    found = re.search(r"was ([0-9.]+ ?[KMGT]?B) used / ([0-9.]+ ?[KMGT]?B) limit", error)
    return f"{found[1]} of {found[2]} in use" if found else "nearly all in use"


class LossScheduler(LivesInDriver, FIFOScheduler):
    """Stops no candidate. It notes which workers Ray ended for want of memory, as only a scheduler learns in time."""

    def __init__(self, searcher: JobSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._jobs = searcher

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tune calls this before it tells the searcher that a worker was lost."""
        try:
            text = Path(trial.error_file).read_text(errors="replace")
        except (OSError, TypeError):  # it could not be written
            return
        if used := short_memory(text):
            self._jobs.memory_short(trial.trial_id, used)


class RungScheduler(LossScheduler):
    """Stops candidates that their study's rule does not let go on; `searcher` tells the study why.

    Values of other candidates come from the ledger, so that drivers that share a study judge alike. A candidate that
    diverged is never asked about.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__(searcher)
        self._searcher = searcher
        ledger = searcher.ledger
        self._rule = RULES[ledger.config.within_rank]
        self._rungs = Rungs(ledger.rung_objectives(), ledger.config.epochs, ledger.rung)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report: Report = result["report"]
        if not report.rows or not report.rows[-1].validated:
            return TrialScheduler.CONTINUE
        with self._searcher.noting_errors():
            return self._judge(trial.trial_id, report, report.rows[-1].epoch)

    def _judge(self, trial_id: str, report: Report, epoch: int) -> str:
        # Tune asks its scheduler before its callbacks, so the row is not in the epochs table yet.
        if not self._searcher.record(trial_id, report):
            return TrialScheduler.STOP
        if self._rule(self._rungs, report.number, epoch):
            return TrialScheduler.CONTINUE
        self._searcher.stop(trial_id, epoch)
        return TrialScheduler.STOP
