"""The SQL that a driver needs for every trial, as statements on plain tables that are made once.

SQLAlchemy runs these at a fraction of what its mapped classes cost. Parameters: ``study`` is the study's id, ``trial``
the trial's number, ``id`` Optuna's id of the trial. A statement that changes a row takes the columns to be changed as
further parameters, so no parameter of a condition is named like one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.expression import FromClause

from nas.outcome import Outcome
from nas.search.objectives import METRICS
from nas.training.version import FIRST_VERSION
from studies.store.optuna_bridge import OPTUNA_STUDIES, OPTUNA_TRIALS, PARAMS
from studies.store.records import EPOCH_METRICS, DriverRecord, EpochRecord, ProbeRecord, StudyRecord, TrialRecord

TRAINED = [outcome.stored for outcome in Outcome if outcome.trained]
"""What the records have as the reason of trials that were trained to an end."""


STUDIES, TRIALS, EPOCHS, PROBES, DRIVERS = (
    cast(Table, each.__table__) for each in (StudyRecord, TrialRecord, EpochRecord, ProbeRecord, DriverRecord)
)

_OF_STUDY = STUDIES.c.study_id == bindparam("study")
_OF_TRIAL = and_(TRIALS.c.study_id == bindparam("study"), TRIALS.c.number == bindparam("trial"))
_OF_ID = OPTUNA_TRIALS.c.trial_id == bindparam("id")
_VERSION = func.coalesce(TRIALS.c.training_version, literal_column(str(FIRST_VERSION)))

TRAINED_BY = _VERSION.label("training_version")
"""Version of the training code that trains a trial or did."""

OF_VERSION = _VERSION == bindparam("version")  # noqa: SIM300  (which is no constant)
"""Of trials that the training code ``version`` trains or did."""

# The study and its drivers
HOLD = update(STUDIES).where(_OF_STUDY).values(tells=STUDIES.c.tells)
"""Holds the study until the transaction ends."""

HOLD_OPTUNAS = (
    select(OPTUNA_STUDIES.c.study_id).where(OPTUNA_STUDIES.c.study_id == bindparam("study")).with_for_update()
)
"""Holds Optuna's study as its own drivers do."""

COUNT = update(STUDIES).where(_OF_STUDY).values(tells=STUDIES.c.tells + 1).returning(STUDIES.c.tells)
"""The next event's place; holds the study too."""

CHANGE_DRIVER = update(DRIVERS).where(DRIVERS.c.driver == bindparam("own"))
# One trial
TRIAL: Select[Any] = select(*TRIALS.c["owner", "reason", "started", "digest", "ask_order"], TRAINED_BY).where(_OF_TRIAL)
END_OF_TRIAL: Select[Any] = select(*TRIALS.c["reason", "values"]).where(_OF_TRIAL)
CHANGE_TRIAL = update(TRIALS).where(_OF_TRIAL)

CHANGE_EPOCHS_DONE = (
    update(TRIALS)
    .where(_OF_TRIAL, TRIALS.c.owner.is_not_distinct_from(bindparam("own")), TRIALS.c.started.is_not(None))
    .values(epochs_done=bindparam("last"))
)
"""Of a trial that ``own`` trains; no row when it does not."""

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
"""Another trial of the digest ``twin`` that was trained to an end by the training code ``version``, or is under way."""

MAKE_OPTUNAS = insert(OPTUNA_TRIALS).returning(OPTUNA_TRIALS.c.trial_id)
CHANGE_OPTUNAS = update(OPTUNA_TRIALS).where(_OF_ID)
STATE_OF_OPTUNAS = select(OPTUNA_TRIALS.c.state).where(_OF_ID).with_for_update()

ID_OF_OPTUNAS = select(OPTUNA_TRIALS.c.trial_id).where(
    OPTUNA_TRIALS.c.study_id == bindparam("study"), OPTUNA_TRIALS.c.number == bindparam("trial")
)

# Many trials
OPEN: Select[Any] = (
    select(
        *OPTUNA_TRIALS.c["trial_id", "number", "state"],
        *TRIALS.c["owner", "reason", "digest", "started", "epochs_done"],
        TRAINED_BY,
    )
    .outerjoin(TRIALS, and_(TRIALS.c.study_id == OPTUNA_TRIALS.c.study_id, TRIALS.c.number == OPTUNA_TRIALS.c.number))
    .where(OPTUNA_TRIALS.c.study_id == bindparam("study"), OPTUNA_TRIALS.c.trial_id > bindparam("after"))
    .order_by(OPTUNA_TRIALS.c.trial_id)
)
"""Every trial later than Optuna's id ``after``, with what the records have of it, oldest first."""

DRAWN = (
    select(OPTUNA_TRIALS.c.number, PARAMS.c.param_name, PARAMS.c.param_value)
    .join(PARAMS, PARAMS.c.trial_id == OPTUNA_TRIALS.c.trial_id)
    .where(OPTUNA_TRIALS.c.study_id == bindparam("study"))
    .where(OPTUNA_TRIALS.c.number.in_(bindparam("trials", expanding=True)))
)
"""Hyperparameters of the trials ``trials``, as Optuna stores them."""


def _ended(query: Select[Any]) -> Select[Any]:
    """Of trials that were trained to an end later than the event ``after``, in the order in which that was told."""
    return (
        query.where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.tell_order > bindparam("after"))
        .where(TRIALS.c.reason.in_(TRAINED))
        .order_by(TRIALS.c.tell_order)
    )


ENDED = _ended(select(*TRIALS.c["number", "tell_order", "digest", "reason"], TRIALS.c["values"].label("measured")))
"""Every trial that was trained to an end later than the event ``after``, in order."""

TRAINING_VERSIONS = (
    select(_VERSION, func.count())
    .where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.reason.in_(TRAINED))
    .group_by(_VERSION)
)
"""Version of the training code, and how many trials it trained to an end."""


def at_rung(objectives: Sequence[str]) -> Select[Any]:
    """Number and objectives of every trial from the number ``from`` on that was validated at the epoch ``rung``.

    Of those that the training code ``version`` trains or trained.
    """
    of_trial = and_(TRIALS.c.study_id == EPOCHS.c.study_id, TRIALS.c.number == EPOCHS.c.number)
    return (
        select(EPOCHS.c.number, *_columns(objectives))
        .select_from(EPOCHS.join(TRIALS, of_trial))
        .where(EPOCHS.c.study_id == bindparam("study"), EPOCHS.c.epoch == bindparam("rung"))
        .where(EPOCHS.c.number >= bindparam("from"), _validated(EPOCHS, objectives), OF_VERSION)
        .order_by(EPOCHS.c.number)
    )


def judged(objectives: Sequence[str]) -> Select[Any]:
    """As `ENDED`, with the epoch at which each trial was validated last, and the objectives there."""
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
    """Whether every objective that an epoch can have is there."""
    names = [name for name in ("psnr", *objectives) if METRICS[name].per_epoch]
    return and_(*(_epoch_value(epochs, name).is_not(None) for name in names))
