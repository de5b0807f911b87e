"""A study under another name, with everything that belongs to it."""

from __future__ import annotations

import contextlib

from sqlalchemy import select, update

from nas.errors import StudyError
from studies.store.connection import Storage, path_errors
from studies.store.deletion import hold_study
from studies.store.files import check_name, files_dir
from studies.store.finding import find_study
from studies.store.leases import live_drivers
from studies.store.optuna_bridge import OPTUNA_STUDIES


def rename_study(storage: Storage, name: str, new: str) -> None:
    """Renames a study. It keeps its id, so that its trials and records stay its own; its folder gets the new name.

    Raises:
        ConfigError: no study can have the new name.
        StudyError: there is no such study, a live driver works on it, or the new name is taken.
    """
    check_name(storage.url, new)
    old_folder, new_folder = files_dir(storage.url, name), files_dir(storage.url, new)
    studies = OPTUNA_STUDIES.c
    with storage.session() as session:
        hold_study(session, select(studies.study_id).where(studies.study_name == name).scalar_subquery())
        record = find_study(session, storage, name)
        if live_drivers(session.connection(), record.study_id):
            raise StudyError(f"study {name!r} is being worked on; stop that first (Ctrl-C), then rename the study")
        taken = session.scalar(select(studies.study_id).where(studies.study_name == new))
        if taken is not None or (new_folder.is_dir() and any(new_folder.iterdir())):
            raise StudyError(f"a study {new!r} or its folder exists already; choose another name")
        session.execute(update(OPTUNA_STUDIES).where(studies.study_id == record.study_id).values(study_name=new))
        record.config = {**record.config, "study": new}
        with path_errors(storage.url), contextlib.suppress(FileNotFoundError):
            old_folder.rename(new_folder)  # if the transaction fails after it, the folder is found by neither name
