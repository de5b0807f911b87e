"""Trials whose end a person set through Optuna or its dashboard: the records say the same from then on."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Row, Select, and_, bindparam, select

from nas.outcome import Outcome
from nas.search.objectives import of_basis
from nas.settings import StudyConfig
from studies.store import statements as sql
from studies.store.optuna_bridge import OPTUNA_TRIALS, VALUES

DETAIL = "a person set its state in Optuna"

_OUTCOMES = {
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED_BY_HAND,
    TrialState.FAIL: Outcome.FAILED_BY_HAND,
}

_SAME = and_(sql.TRIALS.c.study_id == OPTUNA_TRIALS.c.study_id, sql.TRIALS.c.number == OPTUNA_TRIALS.c.number)

_COSTS = tuple(metric.name for metric in of_basis("cost"))
"""The metrics of a complete trial that its record knows from its start."""

_ENDED: Select[Any] = (
    select(*OPTUNA_TRIALS.c["number", "trial_id", "state"], *sql.TRIALS.c["started", *_COSTS])
    .join(sql.TRIALS, _SAME)
    .where(OPTUNA_TRIALS.c.study_id == bindparam("study"), OPTUNA_TRIALS.c.state.in_(list(_OUTCOMES)))
    .where(sql.TRIALS.c.reason.is_(None))
    .order_by(OPTUNA_TRIALS.c.number)
)


def ended_by_hand(connection: Connection, study_id: int) -> list[Row[Any]]:
    """Returns the trials that have ended in Optuna and not in the records, by number.

    A COMPLETE trial that was never started has no candidate to put on a front, and is left to Optuna alone.
    """
    rows = connection.execute(_ENDED, {"study": study_id}).all()
    return [row for row in rows if row.state is not TrialState.COMPLETE or row.started is not None]


def record_ends(connection: Connection, study_id: int, config: StudyConfig) -> None:
    """Records the ends that a person set, within a transaction that holds the study.

    From then on the trials are no driver's, so that what their workers still report is refused.
    """
    rows = ended_by_hand(connection, study_id)
    complete = [row.trial_id for row in rows if row.state is TrialState.COMPLETE]
    values: defaultdict[int, list[float]] = defaultdict(list)
    told = select(*VALUES.c["trial_id", "value"]).where(VALUES.c.trial_id.in_(complete)).order_by(VALUES.c.objective)
    for trial_id, value in connection.execute(told) if complete else ():
        values[trial_id].append(math.nan if value is None else value)
    names = [objective.name for objective in config.objectives]
    for row in rows:
        outcome, found = _OUTCOMES[row.state], values[row.trial_id]
        changes: dict[str, Any] = {"reason": outcome.stored, "detail": DETAIL, "ended": time.time(), "owner": None}
        if outcome is Outcome.COMPLETE:
            if len(found) != len(names) or not all(map(math.isfinite, found)):
                continue  # Optuna keeps infinities, which would dominate every other candidate
            changes["values"] = {name: getattr(row, name) for name in _COSTS} | dict(zip(names, found, strict=True))
        changes["tell_order"] = connection.execute(sql.COUNT, {"study": study_id}).scalar_one()
        connection.execute(sql.CHANGE_TRIAL, {"study": study_id, "trial": row.number} | changes)
