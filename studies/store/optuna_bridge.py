"""Every use of Optuna's internals, and nothing else.

A driver writes Optuna's tables within its own transactions, because Optuna's functions would take a transaction for
each hyperparameter, value and attribute. So this module knows what no documentation of Optuna promises: its tables, how
it stores what it keeps in them, and a few private attributes. Other modules import them from here.
`tests/studies/store/test_optuna_bridge.py` lists each of them, and says which one a new Optuna has changed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Table

SEEN_TO_WORK = ("5.0.0",)
"""Versions of Optuna with which the tests passed."""

OPTUNA_STUDIES, OPTUNA_TRIALS, PARAMS, VALUES, STUDY_ATTRIBUTES, SYSTEM_ATTRIBUTES, USER_ATTRIBUTES = (
    cast(Table, each.__table__)
    for each in (
        models.StudyModel,
        models.TrialModel,
        models.TrialParamModel,
        models.TrialValueModel,
        models.StudySystemAttributeModel,
        models.TrialSystemAttributeModel,
        models.TrialUserAttributeModel,
    )
)
OPTUNA_METADATA = models.BaseModel.metadata
"""All of Optuna's tables, whichever it has."""

FINITE = models.TrialValueModel.TrialValueType.FINITE


def optuna_id(study: optuna.Study) -> int:
    """The number of a study in its database."""
    return study._study_id


def forget_trials(study: optuna.Study) -> None:
    """Drops the trials that a study has read in this thread, as its own `ask` does, so that samplers read anew."""
    study._thread_local.cached_all_trials = None


def now() -> datetime:
    """This moment as Optuna stores it: in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


@functools.cache
def _json_of(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def param_row(trial_id: int, name: str, value: float, distribution: BaseDistribution) -> dict[str, Any]:
    """A hyperparameter as a row of `PARAMS`; `value` is the distribution's internal representation of it."""
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": value,
        "distribution_json": _json_of(distribution),
    }


def value_rows(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    """The finite values of a trial, in the order of the study's objectives, as rows of `VALUES`."""
    return [
        {"trial_id": trial_id, "objective": objective, "value": value, "value_type": FINITE}
        for objective, value in enumerate(values)
    ]


def attribute_rows(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes of a trial as rows of `SYSTEM_ATTRIBUTES` or `USER_ATTRIBUTES`."""
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def constraint_attributes(violations: Mapping[str, float]) -> dict[str, Any]:
    """The system attributes by which Optuna knows a trial's constraints, by name; it is feasible at 0 and below."""
    # Optuna reads one attribute per constraint, Optuna Dashboard the list that older versions wrote.
    attributes: dict[str, Any] = {f"constraints:{name}": value for name, value in violations.items()}
    return attributes | ({"constraints": list(violations.values())} if violations else {})


def picture_attribute(study_id: int, number: int) -> dict[str, str]:
    """The system attribute by which Optuna and its dashboard know a trial's picture as an artifact."""
    # An id of an artifact is hexadecimal digits and dashes; this one says where the file is.
    artifact = f"{study_id:x}-{number:x}"
    facts = {"artifact_id": artifact, "filename": f"trial-{number}.png", "mimetype": "image/png", "encoding": None}
    return {f"artifacts:{artifact}": json.dumps(facts)}


def enqueued_params(trial: FrozenTrial) -> dict[str, Any]:
    """The hyperparameters with which a trial was enqueued; empty for one that was not."""
    params: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return params


def stored_trial(storage: BaseStorage, study_id: int, number: int) -> FrozenTrial:
    """One trial of a study as Optuna reads it."""
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number))
