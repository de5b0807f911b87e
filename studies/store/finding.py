"""A study found by its name."""

from __future__ import annotations

from sqlalchemy import (
    Select,
    select,
)
from sqlalchemy.orm import Session

from nas.errors import StudyError
from studies.store import statements as sql
from studies.store.connection import Storage
from studies.store.optuna_bridge import OPTUNA_STUDIES, OPTUNA_TRIALS
from studies.store.records import StudyRecord


def has_study(storage: Storage, name: str) -> bool:
    """Tells whether skipnas made a study of that name."""
    with storage.session() as session:
        return session.scalar(_named(name)) is not None


def _named(name: str) -> Select[StudyRecord]:
    studies = OPTUNA_STUDIES.c
    same = studies.study_id == StudyRecord.study_id
    return select(StudyRecord).join(OPTUNA_STUDIES, same).where(studies.study_name == name, sql.OF_ITS_STUDY)


def find_study(session: Session, storage: Storage, name: str) -> StudyRecord:
    """Returns the record of a study. Raises StudyError when there is none, or skipnas did not make it."""
    record: StudyRecord | None = session.scalar(_named(name))
    if record is not None:
        return record
    studies = OPTUNA_STUDIES.c
    if session.scalar(select(studies.study_id).where(studies.study_name == name)) is not None:
        raise foreign_study(storage, name)
    names = session.scalars(
        select(studies.study_name)
        .select_from(OPTUNA_STUDIES)
        .join(StudyRecord, StudyRecord.study_id == studies.study_id)
        .where(sql.OF_ITS_STUDY)
        .order_by(StudyRecord.created.desc())
        .limit(11)
    ).all()
    listed = ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")
    raise StudyError(
        f"no study {name!r} in {storage.masked}; "
        + (f"there are: {listed}" if names else "it holds none, run `skipnas search` first")
    )


def refuse_foreign(storage: Storage, name: str) -> None:
    """Raises StudyError when a study of that name has trials, and skipnas did not make it.

    Without trials it may be one whose creation was cut off.
    """
    studies, trials = OPTUNA_STUDIES.c, OPTUNA_TRIALS.c
    found = select(trials.trial_id).join(OPTUNA_STUDIES, studies.study_id == trials.study_id)
    with storage.session() as session:
        has_trials = session.scalar(found.where(studies.study_name == name).limit(1)) is not None
    if has_trials and not has_study(storage, name):
        raise foreign_study(storage, name)


def foreign_study(storage: Storage, name: str) -> StudyError:
    return StudyError(f"study {name!r} in {storage.masked} was not made by skipnas; choose another name")
