"""The part of a study's ended trials that has been read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from studies.store.records import group_of


@dataclass(slots=True)
class Past:
    """Facts about a study's oldest trials, all of which have ended, so that they are not read again.

    Attributes:
        up_to: Optuna's id of the last of these trials.
        trials: number of these trials.
        counts: their counts, as in `Counts`.
        started: by version of the training code, the digests of all trials of the study that are known to have begun,
            later trials included.
    """

    up_to: int = -1
    trials: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    started: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Adds the next trials up to the first one that has not ended, and returns the rest."""
        for row in rows:
            if row.started is not None and row.digest is not None:
                self.started[row.training_version].add(row.digest)
        ended = next((i for i, row in enumerate(rows) if not row.state.is_finished()), len(rows))
        for row in rows[:ended]:
            self.counts[group_of(row.state, row.reason)] += 1
            self.up_to, self.trials = row.trial_id, row.number + 1
        return rows[ended:]
