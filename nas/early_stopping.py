"""Asynchronous successive halving for several objectives, as a Ray Tune scheduler.

Rungs stand at epochs r, r * eta, r * eta^2, ... (Li et al., ASHA, 2020), the first where a tenth of the run is
done. A candidate that reaches a rung goes on when it is among the best 1/eta of all that reached it so far, by
non-domination rank and within a rank by hypervolume contribution or, as the study is set, by an epsilon-net
(Salinas et al., 2021; in ASHA: Schmucker et al., MO-ASHA, 2021).
Objectives may have any direction and scale. Who diverged never reaches a rung; ties go on together; the
first to reach a rung always goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.evaluation import REDUCTION
from nas.pareto import WITHIN_RANK, dominators, fronts
from nas.searcher import LivesInDriver, Report, StudySearcher
from nas.types import EpochRow, Objective

FIRST_RUNG = 0.1
"""Share of a run before which nobody is stopped. Of 27 epochs on digits, ranks after the first say little about ranks
at the end, and after the third much: correlations up to 0.4, and of 0.8 to 0.9 (benchmarks/RESULTS.md)."""


def has_rung(epoch: int, epochs: int) -> bool:
    """Whether a validated epoch of a run of `epochs` is late enough for a rung."""
    return epoch >= FIRST_RUNG * epochs


def goes_on(
    number: int, reached: Mapping[int, Sequence[float]], objectives: Sequence[Objective], within: str = "hypervolume"
) -> bool:
    """Whether a candidate passes its rung.

    Args:
        number: of the candidate, a key of `reached`.
        reached: values at this rung, in the order of `objectives`, of every candidate that reached it.
        objectives: directions, and the reference that contributions are counted from.
        within: what decides within a rank, a key of `nas.pareto.WITHIN_RANK`.
    """
    numbers = list(reached)
    own = numbers.index(number)
    values = np.array([reached[n] for n in numbers], dtype=np.float64)
    maximize = [o.direction == "maximize" for o in objectives]
    places = math.ceil(len(numbers) / REDUCTION)
    if dominators(values, own, maximize) >= places:  # most end here, and no front of thousands need be found
        return False
    for front in fronts(values, maximize):
        if own in front:
            if len(front) <= places:
                return True
            merits = WITHIN_RANK[within](values[front], [o.reference for o in objectives], maximize)
            return bool(merits[front == own].item() >= np.sort(merits)[-places])
        places -= len(front)
        if places <= 0:
            break
    return False


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
        if row is None or row.psnr is None or not has_rung(row.epoch, self._searcher.ledger.config.epochs):
            return TrialScheduler.CONTINUE
        with self._searcher.noting_errors():
            return self._judge(trial.trial_id, report, row)

    def _judge(self, trial_id: str, report: Report, row: EpochRow) -> str:
        ledger = self._searcher.ledger
        # Tune asks its scheduler before its callbacks: the row is not in the epochs table yet.
        if not self._searcher.record(trial_id, report):
            return TrialScheduler.STOP
        within = ledger.config.within_rank
        if goes_on(report.number, ledger.rung(row.epoch), ledger.rung_objectives(), within):
            return TrialScheduler.CONTINUE
        self._searcher.stop(trial_id, row.epoch)
        return TrialScheduler.STOP
