"""The SQL that a driver needs for every trial, as statements on plain tables that are made once.

SQLAlchemy runs them at a fraction of the cost of its mapped classes. Parameters: ``study`` is the study's id, ``trial``
is the trial's number. A statement that changes a row takes the changed columns as further parameters, so no parameter
of a condition has the name of a column. Statements on Optuna's tables alone are in `optuna_bridge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from optuna.trial import TrialState
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.expression import FromClause

from nas.outcome import Outcome
from nas.search.objectives import METRICS, RESTORING
from nas.training.version import FIRST_VERSION
from studies.store.optuna_bridge import IDENTITY, OPTUNA_TRIALS, PARAMS, STUDY_USER_ATTRIBUTES
from studies.store.records import EPOCH_METRICS, DriverRecord, EpochRecord, ProbeRecord, StudyRecord, TrialRecord

TRAINED = [outcome.stored for outcome in Outcome if outcome.trained]
"""The reasons that records have for trials that were trained to an end."""


STUDIES, TRIALS, EPOCHS, PROBES, DRIVERS = (
    cast(Table, each.__table__) for each in (StudyRecord, TrialRecord, EpochRecord, ProbeRecord, DriverRecord)
)

_OF_STUDY = STUDIES.c.study_id == bindparam("study")
_OF_TRIAL = and_(TRIALS.c.study_id == bindparam("study"), TRIALS.c.number == bindparam("trial"))
_VERSION = func.coalesce(TRIALS.c.training_version, literal_column(str(FIRST_VERSION)))

TRAINED_BY = _VERSION.label("training_version")
"""The version of the training code that trained or trains a trial."""

OF_VERSION = _VERSION == bindparam("version")  # noqa: SIM300  (which is no constant)
"""The condition that the training code ``version`` trained or trains a trial."""

# The study and its drivers
IDENTITY_AS_JSON: ColumnElement[str] = literal('"') + STUDIES.c.identity + literal('"')
"""The identity of records as Optuna stores it in the attribute of their study."""

_BORNE = (
    exists()
    .where(STUDY_USER_ATTRIBUTES.c.key == IDENTITY, STUDY_USER_ATTRIBUTES.c.value_json == IDENTITY_AS_JSON)
    .correlate(STUDIES)
)
OF_ITS_STUDY = _BORNE.where(STUDY_USER_ATTRIBUTES.c.study_id == STUDIES.c.study_id)
"""The condition that the study of a record's id bears the record's identity, so that the record is its own."""

OF_NO_STUDY = ~_BORNE
"""The condition that no study bears a record's identity."""

HOLD = (
    update(STUDIES)
    .where(_OF_STUDY, STUDIES.c.identity == bindparam("own_identity"), OF_ITS_STUDY)
    .values(tells=STUDIES.c.tells)
)
"""Holds the study ``study`` of the identity ``own_identity`` until the transaction ends. It changes no row when that
study was deleted, or another one has its id."""

COUNT = update(STUDIES).where(_OF_STUDY).values(tells=STUDIES.c.tells + 1).returning(STUDIES.c.tells)
"""Returns the next event's place, and holds the study too."""

CHANGE_DRIVER = update(DRIVERS).where(DRIVERS.c.driver == bindparam("own"))
# One trial
TRIAL: Select[Any] = select(*TRIALS.c["owner", "reason", "started", "digest", "ask_order"], TRAINED_BY).where(_OF_TRIAL)
END_OF_TRIAL: Select[Any] = select(*TRIALS.c["reason", "values"]).where(_OF_TRIAL)
CHANGE_TRIAL = update(TRIALS).where(_OF_TRIAL)

CHANGE_EPOCHS_DONE = (
    update(TRIALS)
    .where(_OF_TRIAL, TRIALS.c.owner.is_not_distinct_from(bindparam("own")), TRIALS.c.started.is_not(None))
    .where(
        exists().where(
            OPTUNA_TRIALS.c.trial_id == bindparam("optuna"),
            OPTUNA_TRIALS.c.study_id == TRIALS.c.study_id,
            OPTUNA_TRIALS.c.state == TrialState.RUNNING,
        )
    )
    .values(epochs_done=bindparam("last"))
)
"""Changes a trial that ``own`` trains; it changes no row when another driver trains it, or a person ended it.

Optuna's id ``optuna`` finds its row at once. By number it would be looked for among all trials of the study.
"""

DROP_EPOCHS = (
    delete(EPOCHS)
    .where(EPOCHS.c.study_id == bindparam("study"), EPOCHS.c.number == bindparam("trial"))
    .where(EPOCHS.c.epoch.in_(bindparam("epochs", expanding=True)))
)

DROP_ALL_EPOCHS = delete(EPOCHS).where(EPOCHS.c.study_id == bindparam("study"), EPOCHS.c.number == bindparam("trial"))

TWIN = (
    select(TRIALS.c.number)
    .where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.digest == bindparam("twin"))
    .where(TRIALS.c.number != bindparam("trial"))
    .where(
        or_(
            and_(TRIALS.c.reason.in_(TRAINED), OF_VERSION),
            and_(TRIALS.c.reason.is_(None), TRIALS.c.started.is_not(None)),
        )
    )
    .limit(1)
)
"""Finds another trial of the digest ``twin`` that is under way, or was trained to an end by the training code
``version``."""

# Many trials
_TRIAL_ROWS: Select[Any] = (
    select(
        *OPTUNA_TRIALS.c["trial_id", "number", "state"],
        *TRIALS.c["owner", "reason", "digest", "started", "epochs_done"],
        TRAINED_BY,
    )
    .outerjoin(TRIALS, and_(TRIALS.c.study_id == OPTUNA_TRIALS.c.study_id, TRIALS.c.number == OPTUNA_TRIALS.c.number))
    .where(OPTUNA_TRIALS.c.study_id == bindparam("study"))
    .order_by(OPTUNA_TRIALS.c.trial_id)
)
_OPEN = OPTUNA_TRIALS.c.state.in_([TrialState.RUNNING, TrialState.WAITING])

OPEN = _TRIAL_ROWS.where(_OPEN, OPTUNA_TRIALS.c.trial_id > bindparam("after"))
"""Returns every trial later than Optuna's id ``after`` that has not ended, with its columns in the records, oldest
first."""

ENDED_LATER = _TRIAL_ROWS.where(~_OPEN, OPTUNA_TRIALS.c.trial_id > bindparam("after"))
"""Returns, with the same columns, every trial later than Optuna's id ``after`` that has ended."""

SOME_ENDED = _TRIAL_ROWS.where(~_OPEN, OPTUNA_TRIALS.c.trial_id.in_(bindparam("trials", expanding=True)))
"""Returns, with the same columns, those of the trials with Optuna's ids ``trials`` that have ended."""

DRAWN = (
    select(OPTUNA_TRIALS.c.number, PARAMS.c.param_name, PARAMS.c.param_value)
    .join(PARAMS, PARAMS.c.trial_id == OPTUNA_TRIALS.c.trial_id)
    .where(OPTUNA_TRIALS.c.study_id == bindparam("study"))
    .where(OPTUNA_TRIALS.c.number.in_(bindparam("trials", expanding=True)))
)
"""Returns the hyperparameters of the trials ``trials``, as Optuna stores them."""


def _ended(query: Select[Any]) -> Select[Any]:
    """Restricts a query to trials trained to an end after the event ``after``, in the order of their tells."""
    return (
        query.where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.tell_order > bindparam("after"))
        .where(TRIALS.c.reason.in_(TRAINED))
        .order_by(TRIALS.c.tell_order)
    )


ENDED = _ended(select(*TRIALS.c["number", "tell_order", "digest", "reason"], TRIALS.c["values"].label("measured")))
"""Returns every trial that was trained to an end later than the event ``after``, in order."""

TRAINING_VERSIONS = (
    select(_VERSION, func.count())
    .where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.reason.in_(TRAINED))
    .group_by(_VERSION)
)
"""Returns versions of the training code, and the number of trials that each trained to an end."""


def at_rung(objectives: Sequence[str], *, later: bool) -> Select[Any]:
    """Returns number and objectives of trials that were validated at the epoch ``rung``, by number.

    With `later` they are all from the number ``from`` on, and otherwise those of ``trials``. Only trials count that the
    training code ``version`` trained or trains.
    """
    of_trial = and_(TRIALS.c.study_id == EPOCHS.c.study_id, TRIALS.c.number == EPOCHS.c.number)
    number = EPOCHS.c.number
    return (
        select(number, *_columns(objectives))
        .select_from(EPOCHS.join(TRIALS, of_trial))
        .where(EPOCHS.c.study_id == bindparam("study"), EPOCHS.c.epoch == bindparam("rung"))
        .where(number >= bindparam("from") if later else number.in_(bindparam("trials", expanding=True)))
        .where(_validated(EPOCHS, objectives), OF_VERSION)
        .order_by(number)
    )


COUNT_AT_EPOCH = (
    select(func.count())
    .select_from(EPOCHS)
    .where(EPOCHS.c.study_id == bindparam("study"), EPOCHS.c.epoch == bindparam("rung"))
)
"""Returns the number of trials that have the epoch ``rung``."""


def judged(objectives: Sequence[str]) -> Select[Any]:
    """Returns the rows of `ENDED`, with the epoch at which each trial was validated last, and the objectives there."""
    earlier = EPOCHS.alias()
    last = (
        select(func.max(earlier.c.epoch))
        .where(earlier.c.study_id == TRIALS.c.study_id, earlier.c.number == TRIALS.c.number)
        .where(_validated(earlier, objectives))
        .correlate(TRIALS)
        .scalar_subquery()
    )
    at_last = and_(EPOCHS.c.study_id == TRIALS.c.study_id, EPOCHS.c.number == TRIALS.c.number, EPOCHS.c.epoch == last)
    columns = *TRIALS.c["number", "tell_order", "reason", "values"], EPOCHS.c.epoch, *_columns(objectives)
    return _ended(select(*columns).select_from(TRIALS.outerjoin(EPOCHS, at_last)))


def _columns(objectives: Sequence[str]) -> list[ColumnElement[Any]]:
    return [_epoch_value(EPOCHS, name) if METRICS[name].per_epoch else TRIALS.c[name] for name in objectives]


def _epoch_value(epochs: FromClause, name: str) -> ColumnElement[Any]:
    return epochs.c[name] if name in EPOCH_METRICS else epochs.c.further[name].as_float()


def _validated(epochs: FromClause, objectives: Sequence[str]) -> ColumnElement[bool]:
    """Tells whether an epoch has every objective that an epoch can have."""
    names = [name for name in objectives if METRICS[name].per_epoch]
    restored = or_(*(_epoch_value(epochs, name).is_not(None) for name in RESTORING))
    return and_(restored, *(_epoch_value(epochs, name).is_not(None) for name in names))
