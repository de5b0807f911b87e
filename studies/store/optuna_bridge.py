"""Every use of Optuna's internals, and nothing else."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState


@functools.cache
def _json_of(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def param_row(trial_id: int, name: str, value: float, distribution: BaseDistribution) -> dict[str, Any]:
    """A hyperparameter as Optuna stores it."""
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": value,
        "distribution_json": _json_of(distribution),
    }


class DrawnParams:
    """In the place of Optuna's storage while a trial is drawn: keeps what it would write, one by one."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        self.rows.append(param_row(trial_id, name, value, distribution))


class FreshTrial(optuna.Trial):
    """Optuna's trial that was made a moment ago: nothing has to be read of it."""

    def __init__(self, study: optuna.Study, number: int, trial_id: int) -> None:
        self.study, self.storage, self._trial_id = study, study._storage, trial_id
        self._cached_frozen_trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=trial_id,
        )
        self.relative_search_space: dict[str, BaseDistribution] | None = None
        self._relative_params: dict[str, Any] | None = None
        self._fixed_params: dict[str, Any] = {}
