"""The studies of a database: create, open, list."""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from sqlalchemy import (
    and_,
    func,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nas.errors import StudyError
from nas.settings import StudyConfig
from nas.types import Counts
from studies.store import statements as sql
from studies.store.connection import Storage
from studies.store.deletion import drop_orphans
from studies.store.files import check_name
from studies.store.finding import foreign_study, has_study, refuse_foreign
from studies.store.identity import new_identity
from studies.store.ledger import SqlLedger
from studies.store.optuna_bridge import OPTUNA_STUDIES, OPTUNA_TRIALS, VALUES, bear_identity, optuna_id
from studies.store.records import (
    StudyRecord,
    TrialRecord,
    group_of,
)
from studies.store.urls import masked_command

if TYPE_CHECKING:
    from studies.store.connection import Storage


def count_trials(session: Session) -> dict[int, Counts]:
    """Returns the counts of each study in the database, in one query."""
    trials = OPTUNA_TRIALS.c
    query = (
        select(trials.study_id, trials.state, TrialRecord.reason, func.count())
        .select_from(OPTUNA_TRIALS)
        .outerjoin(TrialRecord, and_(TrialRecord.study_id == trials.study_id, TrialRecord.number == trials.number))
        .group_by(trials.study_id, trials.state, TrialRecord.reason)
    )
    fields: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for study, state, reason, count in session.execute(query):
        fields[study][group_of(state, reason)] += count
    return {study: Counts(**counter) for study, counter in fields.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One line of `studies list`.

    Attributes:
        updated: time at which the last trial ended, or the study was created; seconds since the epoch.
        best: the best value of each objective over the COMPLETE trials; empty when there are none.
    """

    name: str
    config: StudyConfig
    command: str
    created: float
    updated: float
    counts: Counts
    best: Mapping[str, float]


def create_study(
    storage: Storage,
    config: StudyConfig,
    distributions: Mapping[str, BaseDistribution],
    provenance: Mapping[str, Any],
    command: str,
) -> SqlLedger:
    """Creates a study.

    Args:
        storage: the database.
        config: fixed from now on; `config.study` is the study's name.
        distributions: distributions of the search space, which the study keeps.
        provenance: versions, commit, hardware; JSON values.
        command: the command line that asked for the study; passwords in its URLs are not kept.

    Raises:
        ConfigError: the name is not valid.
        StudyError: a study of that name exists, or has its files in the same folder.
    """
    check_name(storage.url, config.study, storage.identity)
    exists = StudyError(f"study {config.study!r} exists already in {storage.masked}; choose another name")
    if has_study(storage, config.study):
        raise exists
    refuse_foreign(storage, config.study)
    drop_orphans(storage)
    directions = [optuna.study.StudyDirection[o.direction.upper()] for o in config.objectives]
    with storage.guard():
        # An empty study of that name is one whose creation was cut off, so it is taken over.
        study = optuna.create_study(
            study_name=config.study, storage=storage.optuna, directions=directions, load_if_exists=True
        )
        if study.directions != directions or study.get_trials(deepcopy=False):
            raise foreign_study(storage, config.study)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([o.name for o in config.objectives])
    record = StudyRecord(
        study_id=optuna_id(study),
        config=config.to_dict(),
        distributions={name: distribution_to_json(d) for name, d in distributions.items()},
        provenance=dict(provenance),
        command=masked_command(command),
        created=time.time(),
        identity=new_identity(),
    )
    try:
        with storage.session() as session:
            session.add(record)
            session.flush()  # of two processes that make it at once, one ends here
            bear_identity(session.connection(), record.study_id, str(record.identity))
    except IntegrityError:
        raise exists from None  # another process made it a moment ago
    return SqlLedger.open(config.study, storage)


def list_studies(storage: Storage) -> list[StudySummary]:
    """Returns every study that skipnas made, oldest first, in a handful of queries whatever their number."""
    studies, trials, values = OPTUNA_STUDIES.c, OPTUNA_TRIALS.c, VALUES.c
    extremes = (
        select(trials.study_id, values.objective, func.min(values.value), func.max(values.value))
        .select_from(OPTUNA_TRIALS)
        .join(VALUES, values.trial_id == trials.trial_id)
        .where(trials.state == TrialState.COMPLETE)
        .group_by(trials.study_id, values.objective)
    )
    with storage.session() as session:
        rows = session.execute(
            select(studies.study_name, StudyRecord)
            .select_from(StudyRecord)
            .join(OPTUNA_STUDIES, studies.study_id == StudyRecord.study_id)
            .where(sql.OF_ITS_STUDY)
            .order_by(StudyRecord.created, StudyRecord.study_id)
        ).all()
        counts = count_trials(session)
        ended = {
            row.study_id: row.ended
            for row in session.execute(
                select(TrialRecord.study_id, func.max(TrialRecord.ended).label("ended")).group_by(TrialRecord.study_id)
            )
        }
        best: defaultdict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
        for study_id, objective, low, high in session.execute(extremes):
            best[study_id][objective] = low, high
    summaries = []
    for name, record in rows:
        config = StudyConfig.from_dict(record.config)
        summaries.append(
            StudySummary(
                name=name,
                config=config,
                command=masked_command(record.command),
                created=record.created,
                updated=ended.get(record.study_id) or record.created,
                counts=counts.get(record.study_id, Counts()),
                best={
                    objective.name: best[record.study_id][index][objective.direction == "maximize"]
                    for index, objective in enumerate(config.objectives)
                    if index in best[record.study_id]
                },
            )
        )
    return summaries


def lost_studies(storage: Storage) -> list[str]:
    """Returns the names of studies that another program deleted, whose records are still there."""
    with storage.session() as session:
        records = session.scalars(select(StudyRecord).where(sql.OF_NO_STUDY).order_by(StudyRecord.created))
        return [str(record.config["study"]) for record in records]
