"""The deletion of a study with all its records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Connection,
    MetaData,
    delete,
    select,
    update,
)
from sqlalchemy.orm import Session

from nas.errors import StudyError
from studies.store import statements as sql
from studies.store.connection import Storage
from studies.store.finding import find_study
from studies.store.leases import live_drivers
from studies.store.optuna_bridge import OPTUNA_METADATA, OPTUNA_STUDIES, OPTUNA_TRIALS
from studies.store.records import Base, StudyRecord


def delete_study(storage: Storage, name: str) -> None:
    """Deletes a study and all its records in one transaction. The caller deletes its files.

    Raises:
        StudyError: there is no such study, skipnas did not make it, or a live driver works on it.
    """
    studies = OPTUNA_STUDIES.c
    with storage.session() as session:
        hold_study(session, select(studies.study_id).where(studies.study_name == name).scalar_subquery())
        delete_held(session, find_study(session, storage, name).study_id, name)


def hold_study(session: Session, study_id: Any) -> bool:
    """Holds a study's row until the transaction ends, as its drivers do. Returns False when skipnas made no such
    study."""
    held = session.execute(
        update(StudyRecord).where(StudyRecord.study_id == study_id, sql.OF_ITS_STUDY).values(events=StudyRecord.events),
        execution_options={"synchronize_session": False},
    )
    return bool(held.rowcount)  # type: ignore[attr-defined]


def delete_held(session: Session, study_id: int, name: str) -> None:
    """Deletes a study that the session holds, so that no driver can begin meanwhile."""
    refuse_driven(session.connection(), study_id, name, "delete")
    # Records are deleted by table, because Optuna's own deletion loads every trial.
    _delete_records(session, Base.metadata, [study_id])
    _delete_records(session, OPTUNA_METADATA, [study_id])


def refuse_driven(connection: Connection, study_id: int, name: str, what: str) -> None:
    """Raises StudyError when a live driver works on a study, which somebody wants to `what`."""
    if drivers := live_drivers(connection, study_id).values():
        raise StudyError(
            f"study {name!r} is being worked on by {', '.join(d.label for d in drivers)}; "
            f"stop that search or confirmation first (Ctrl-C), then {what} the study"
        )


def _delete_records(session: Session, metadata: MetaData, study_ids: Any) -> None:
    """Deletes the rows of these studies from the tables, children first."""
    trial_ids = select(OPTUNA_TRIALS.c.trial_id).where(OPTUNA_TRIALS.c.study_id.in_(study_ids))
    for table in reversed(metadata.sorted_tables):
        if "study_id" in table.c:
            session.execute(delete(table).where(table.c.study_id.in_(study_ids)))
        elif "trial_id" in table.c:
            session.execute(delete(table).where(table.c.trial_id.in_(trial_ids)))


def drop_orphans(storage: Storage) -> None:
    """Deletes records whose study plain Optuna deleted, because SQLite gives the study's id to the next one."""
    orphans = select(StudyRecord.study_id).where(sql.OF_NO_STUDY)
    with storage.session() as session:
        if session.scalar(orphans.limit(1)) is None:
            return
    with storage.session() as session:
        _delete_records(session, Base.metadata, orphans)
