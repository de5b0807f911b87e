"""The project's own tables, in the same database as Optuna's, keyed by Optuna's study id and trial number.

Optuna keeps hyperparameters, states and values; everything else about a trial is here. The types exist in both SQLite
and PostgreSQL. Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.trial import TrialState
from sqlalchemy import (
    JSON,
    ForeignKeyConstraint,
    Index,
    String,
    Table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.training.version import FIRST_VERSION
from nas.types import ProbeCurve
from studies.store import stored

_GROUPS_OF_STATES = {TrialState[outcome.state]: outcome.group for outcome in Outcome if not outcome.rejected}


def group_of(state: TrialState, reason: str | None) -> str:
    """Returns the field of `Counts` that counts a trial with Optuna's `state` and the records' `reason`.

    The state decides, because a trial that plain Optuna ended has no reason.
    """
    rejected = state is TrialState.FAIL and Outcome.read(reason).rejected
    return Outcome.read(reason).group if rejected else _GROUPS_OF_STATES[state]


SCHEMA_VERSION = 6
"""Every change of the tables below raises it, with a step in `studies.store.migrations`. Higher versions are
refused."""


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own idiom)
        int: stored.INTEGER,
        float: stored.REAL,
        str: stored.text(),
        bytes: stored.ARRAY,
        dict[str, Any]: stored.OBJECT,
        dict[str, float]: stored.NUMBERS,
        list[dict[str, float]]: stored.LIST_OF_NUMBERS,
    }


class MetaRecord(Base):
    """Facts about the database itself: `schema_version`, and the `identity` by which its studies' folders know it."""

    __tablename__ = "skipnas_meta"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str]


class StudyRecord(Base):
    """The settings that a study was created with. `events` counts its asks and tells and gives each its place.

    A transaction that writes to this row holds the study until the commit; in this way drivers take turns. The record
    is that of the study `study_id` only if this study bears the same `identity` (see `studies.store.identity`).
    """

    __tablename__ = "skipnas_studies"

    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    config: Mapped[dict[str, Any]]
    distributions: Mapped[dict[str, Any]]
    provenance: Mapped[dict[str, Any]]
    command: Mapped[str]
    created: Mapped[float] = mapped_column(stored.TIME)
    events: Mapped[int] = mapped_column("tells", default=0)  # schema 1 counted tells alone
    identity: Mapped[str | None] = mapped_column(stored.text(32))


class DriverRecord(Base):
    """A process that runs trials of a study, while it lives; see `studies.store.leases`.

    Attributes:
        driver: random, 32 hexadecimal digits.
        host: name of its machine, for people.
        place: the place within which its `pid` is unique: one boot of one machine, one namespace of processes.
        born: start of the process, as `place` counts time; None when it cannot be read.
        expires: end of the lease, by the database's clock.
        reserved: places in the study's budget that it holds for trials it has not asked for yet.
    """

    __tablename__ = "skipnas_drivers"

    driver: Mapped[str] = mapped_column(stored.text(32), primary_key=True)
    study_id: Mapped[int] = mapped_column(index=True)
    host: Mapped[str]
    place: Mapped[str]
    pid: Mapped[int]
    born: Mapped[str | None]
    started: Mapped[float] = mapped_column(stored.TIME)
    expires: Mapped[float] = mapped_column(stored.TIME)
    reserved: Mapped[int] = mapped_column(default=0)

    @property
    def label(self) -> str:
        """The process and its machine, in words for people."""
        return f"process {self.pid} on {self.host}"


class TrialRecord(Base):
    """One trial, from the moment it is asked for.

    Attributes:
        digest: identity of the candidate; None until the trial starts or is rejected.
        owner: the driver that asked for it or took it over last; None when there was none or it gave the trial back.
        asked_by: the driver that asked for it; None in trials of schema 1 to 4, and where there was none.
        started: time at which it first began to train; None before.
        reason: `Outcome.stored` of the trial's end; None before.
        detail: traceback, or other details of its end.
        ask_order: place of its ask among the study's events, asks and tells together, from 1; None in trials of schema
            1.
        tell_order: place of its end among the study's events.
        latency: ms per image, if it was measured.
        peak_memory: MiB.
        epochs_done: the last epoch written to the epochs table.
        values: every measured value by name, whether it is an objective or not.
        training_version: version of the training code that trained or trains it (`nas.training.version`). It is None in
            trials that were never started, and in trials of schema 1 and 2, which are of version 1.
    """

    __tablename__ = "skipnas_trials"
    __table_args__ = (
        ForeignKeyConstraint(["study_id"], ["skipnas_studies.study_id"]),
        Index("ix_skipnas_trials_tell_order", "study_id", "tell_order"),
    )

    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str | None] = mapped_column(stored.text(16), index=True)
    spec: Mapped[dict[str, Any] | None]
    recipe: Mapped[dict[str, Any] | None]
    owner: Mapped[str | None] = mapped_column(stored.text(32))
    asked_by: Mapped[str | None] = mapped_column(stored.text(32))
    worker: Mapped[str | None]
    started: Mapped[float | None] = mapped_column(stored.TIME)
    ended: Mapped[float | None] = mapped_column(stored.TIME)
    ask_order: Mapped[int | None]
    tell_order: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(stored.OUTCOME)
    detail: Mapped[str | None]
    params: Mapped[int | None]
    macs: Mapped[int | None]
    latency: Mapped[float | None]
    peak_memory: Mapped[float | None]
    seconds: Mapped[float | None]
    seed: Mapped[int | None]
    epochs_done: Mapped[int] = mapped_column(default=0)
    values: Mapped[dict[str, float] | None]
    gates: Mapped[list[dict[str, float]] | None]
    training_version: Mapped[int | None]

    @property
    def outcome(self) -> Outcome:
        """The end of the trial; RUNNING before."""
        return Outcome.read(self.reason)

    @property
    def trained_by(self) -> int | None:
        """The version of the training code that trained or trains it; None when it was never started."""
        return None if self.started is None else self.training_version or FIRST_VERSION


EPOCH_METRICS = ("psnr", "accuracy", "stability")
"""The metrics with a column of their own in the epochs table, as all had at first. Others are in `further`."""


class EpochRecord(Base):
    """`nas.types.EpochRow`. NULL stands for NaN in `denoise_loss`, and for a metric that was not measured.

    Attributes:
        further: metrics without a column, by name.
    """

    __tablename__ = "skipnas_epochs"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["skipnas_trials.study_id", "skipnas_trials.number"]),
        Index("ix_skipnas_epochs_epoch", "study_id", "epoch"),
    )

    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    denoise_loss: Mapped[float | None]
    classify_loss: Mapped[float | None]
    psnr: Mapped[float | None]
    accuracy: Mapped[float | None]
    stability: Mapped[float | None]
    seconds: Mapped[float]
    further: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # `_epoch` looks at it


class ConfirmationRecord(Base):
    """`nas.search.confirmation.ConfirmedRun`: a candidate trained again under one seed.

    Attributes:
        repeat: place of the seed among the confirmation's, from 0.
        number: number of the trial; None for a reference network that is no trial of the front.
        reference: name of the reference network; None for others.
        ended: time of its end.
        training_version: as a trial's; None in runs of schema 2.
    """

    __tablename__ = "skipnas_confirmations"
    __table_args__ = (ForeignKeyConstraint(["study_id"], ["skipnas_studies.study_id"]),)

    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(stored.text(16), primary_key=True)
    repeat: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seed: Mapped[int]
    number: Mapped[int | None]
    reference: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    recipe: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(stored.OUTCOME)
    detail: Mapped[str | None]
    values: Mapped[dict[str, float] | None]
    gates: Mapped[list[dict[str, float]] | None]
    seconds: Mapped[float]
    ended: Mapped[float] = mapped_column(stored.TIME)
    training_version: Mapped[int | None]

    @property
    def run(self) -> ConfirmedRun:
        """The run as the engine has it."""
        return ConfirmedRun(
            digest=self.digest,
            repeat=self.repeat,
            seed=self.seed,
            number=self.number,
            reference=self.reference,
            spec=self.spec,
            recipe=self.recipe,
            outcome=Outcome.read(self.reason),
            detail=self.detail or "",
            values=self.values or {},
            gates=tuple(self.gates or ()),
            seconds=self.seconds,
            training_version=self.training_version or FIRST_VERSION,
        )


class ProbeRecord(Base):
    """`nas.types.ProbeCurve` as little-endian arrays: int32 steps, float32 losses."""

    __tablename__ = "skipnas_probes"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["skipnas_trials.study_id", "skipnas_trials.number"]),
    )

    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    steps: Mapped[bytes]
    denoise: Mapped[bytes]
    classify: Mapped[bytes]

    @property
    def curve(self) -> ProbeCurve:
        """The curve as it was measured, to single precision."""
        return ProbeCurve(
            steps=tuple(np.frombuffer(self.steps, "<i4").tolist()),
            denoise=tuple(np.frombuffer(self.denoise, "<f4").tolist()),
            classify=tuple(np.frombuffer(self.classify, "<f4").tolist()),
        )


def insert_missing(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Returns an INSERT that leaves a row as it is when another process has made it meanwhile."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
