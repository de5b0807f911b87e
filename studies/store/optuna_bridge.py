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
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from studies.store.records import insert_missing

SEEN_TO_WORK = ("5.0.0",)
"""Versions of Optuna with which the tests passed."""

(
    OPTUNA_STUDIES,
    OPTUNA_TRIALS,
    PARAMS,
    VALUES,
    STUDY_ATTRIBUTES,
    STUDY_USER_ATTRIBUTES,
    SYSTEM_ATTRIBUTES,
    USER_ATTRIBUTES,
) = (
    cast(Table, each.__table__)
    for each in (
        models.StudyModel,
        models.TrialModel,
        models.TrialParamModel,
        models.TrialValueModel,
        models.StudySystemAttributeModel,
        models.StudyUserAttributeModel,
        models.TrialSystemAttributeModel,
        models.TrialUserAttributeModel,
    )
)
OPTUNA_METADATA = models.BaseModel.metadata
"""All of Optuna's tables, whichever it has."""

ALEMBIC_TABLE = "alembic_version"
"""The table in which Optuna keeps the version of its tables, beside them."""

IDENTITY = "skipnas:study"
"""The user attribute in which a study bears the identity of its records."""

METRIC_NAMES = "study:metric_names"
"""The system attribute in which Optuna keeps the names of a study's objectives."""

FINITE = models.TrialValueModel.TrialValueType.FINITE

_OF_ID = OPTUNA_TRIALS.c.trial_id == bindparam("id")
_HOLD = select(OPTUNA_STUDIES.c.study_id).where(OPTUNA_STUDIES.c.study_id == bindparam("study")).with_for_update()
_MAKE = insert(OPTUNA_TRIALS).returning(OPTUNA_TRIALS.c.trial_id)
_CHANGE = update(OPTUNA_TRIALS).where(_OF_ID)
_STATE = select(OPTUNA_TRIALS.c.state).where(_OF_ID).with_for_update()
_ID = select(OPTUNA_TRIALS.c.trial_id).where(
    OPTUNA_TRIALS.c.study_id == bindparam("study"), OPTUNA_TRIALS.c.number == bindparam("trial")
)


def optuna_id(study: optuna.Study) -> int:
    """The number of a study in its database."""
    return study._study_id


def forget_trials(study: optuna.Study) -> None:
    """Drops the trials that a study has read in this thread, as its own `ask` does, so that samplers read anew."""
    study._thread_local.cached_all_trials = None


def now() -> datetime:
    """This moment as Optuna stores it: in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def hold_study(connection: Connection, study_id: int) -> None:
    """Holds Optuna's study until the transaction ends, as Optuna does while it makes a trial."""
    connection.execute(_HOLD, {"study": study_id})


def bear_identity(connection: Connection, study_id: int, identity: str) -> None:
    """Lets a study bear the identity of its records, in place of any other."""
    _replace_attribute(connection, STUDY_USER_ATTRIBUTES, study_id, IDENTITY, identity)


def name_metrics(connection: Connection, study_id: int, names: Sequence[str]) -> None:
    """Gives a study's objectives their names, as `Study.set_metric_names` does."""
    _replace_attribute(connection, STUDY_ATTRIBUTES, study_id, METRIC_NAMES, list(names))


def _replace_attribute(connection: Connection, table: Table, study_id: int, key: str, value: Any) -> None:
    connection.execute(delete(table).where(table.c.study_id == study_id, table.c.key == key))
    connection.execute(insert(table), {"study_id": study_id, "key": key, "value_json": json.dumps(value)})


def make_trial(connection: Connection, study_id: int, number: int) -> int:
    """Makes a RUNNING trial; returns Optuna's id of it. The study is held, so that the number is free."""
    row = {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": now()}
    trial_id: int = connection.execute(_MAKE, row).scalar_one()
    return trial_id


def begin_trial(connection: Connection, trial_id: int) -> None:
    """Makes a WAITING trial RUNNING."""
    connection.execute(_CHANGE, {"id": trial_id, "state": TrialState.RUNNING, "datetime_start": now()})


def end_trial(connection: Connection, trial_id: int, state: TrialState, values: Sequence[float] = ()) -> None:
    """Ends a trial as Optuna's `tell` does; nothing happens when it has ended.

    Args:
        connection: of the transaction.
        trial_id: Optuna's id of the trial.
        state: how it ends.
        values: of a COMPLETE trial, finite, in the order of the study's objectives.
    """
    if trial_state(connection, trial_id) is not TrialState.RUNNING:
        return
    connection.execute(_CHANGE, {"id": trial_id, "state": state, "datetime_complete": now()})
    if values:
        connection.execute(insert(VALUES), value_rows(trial_id, values))


def trial_state(connection: Connection, trial_id: int) -> TrialState | None:
    """The state of a trial, which stays as it is until the transaction ends; None when it was deleted."""
    state: TrialState | None = connection.execute(_STATE, {"id": trial_id}).scalar_one_or_none()
    return state


def find_trial(connection: Connection, study_id: int, number: int) -> int | None:
    """Optuna's id of a trial; None when it was deleted."""
    trial_id: int | None = connection.execute(_ID, {"study": study_id, "trial": number}).scalar_one_or_none()
    return trial_id


def write_params(
    connection: Connection, trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> None:
    """Writes hyperparameters of a trial; those that are there already stay."""
    rows = [
        param_row(trial_id, name, distributions[name].to_internal_repr(value), distributions[name])
        for name, value in params.items()
    ]
    connection.execute(insert_missing(connection.dialect.name, PARAMS), rows)


def set_attributes(
    connection: Connection, table: Table, trial_id: int, attributes: Mapping[str, Any], *, replace: bool
) -> None:
    """Writes attributes of a trial.

    Args:
        connection: of the transaction.
        table: `SYSTEM_ATTRIBUTES` or `USER_ATTRIBUTES`.
        trial_id: Optuna's id of the trial.
        attributes: JSON values by key.
        replace: whether they may be there, and are replaced then.
    """
    if replace:
        connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
    if attributes:
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(v)} for key, v in attributes.items()]
        connection.execute(insert(table), rows)


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


def constraint_attributes(violations: Mapping[str, float]) -> dict[str, Any]:
    """The system attributes by which Optuna knows a trial's constraints, by name; it is feasible at 0 and below."""
    # Optuna reads one attribute per constraint, Optuna Dashboard the list that older versions wrote.
    attributes: dict[str, Any] = {f"constraints:{name}": value for name, value in violations.items()}
    return attributes | ({"constraints": list(violations.values())} if violations else {})


def rename_pictures(connection: Connection, old: int, new: int) -> None:
    """Lets the pictures of the study `new`'s trials be found, whose attributes were copied from the study `old`."""
    attributes, trials = SYSTEM_ATTRIBUTES.c, OPTUNA_TRIALS.c
    query = (
        select(trials.trial_id, trials.number)
        .join(SYSTEM_ATTRIBUTES, attributes.trial_id == trials.trial_id)
        .where(trials.study_id == new, attributes.key.startswith(f"artifacts:{old:x}-", autoescape=True))
    )
    for trial_id, number in connection.execute(query).all():
        (stale,) = picture_attribute(old, number)
        connection.execute(delete(SYSTEM_ATTRIBUTES).where(attributes.trial_id == trial_id, attributes.key == stale))
        set_attributes(connection, SYSTEM_ATTRIBUTES, trial_id, picture_attribute(new, number), replace=True)


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
