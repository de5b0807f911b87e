"""The identity of a study, and records that follow a renamed study.

Ids and names are used again: SQLite gives the id of a deleted study to the next one, and a name may go to another
study. So records are a study's only if both bear one identity. In Optuna it is a user attribute, because Optuna
Dashboard copies these when it renames a study, which to Optuna is a new study with a new id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from sqlalchemy import Connection, delete, insert, literal, select, update

from studies.store import statements as sql
from studies.store.optuna_bridge import (
    IDENTITY,
    OPTUNA_STUDIES,
    STUDY_USER_ATTRIBUTES,
    name_metrics,
    rename_pictures,
)
from studies.store.records import Base


def new_identity() -> str:
    """Returns 32 hexadecimal digits that nothing else has."""
    return uuid.uuid4().hex


def renamed(connection: Connection) -> Iterator[tuple[int, str, int, str]]:
    """Yields old id, old name, new id and new name of every study that was renamed since its records were written.

    A copy of a study that is still there is no renamed study.
    """
    bearers, studies = STUDY_USER_ATTRIBUTES.alias(), OPTUNA_STUDIES.c
    bears = bearers.c.value_json == sql.IDENTITY_AS_JSON
    query = (
        select(sql.STUDIES.c.study_id, sql.STUDIES.c.config, studies.study_id.label("now"), studies.study_name)
        .join(bearers, bears & (bearers.c.key == IDENTITY))
        .join(OPTUNA_STUDIES, studies.study_id == bearers.c.study_id)
        .where(~sql.OF_ITS_STUDY)
        .order_by(studies.study_id)
    )
    seen: set[int] = set()
    for row in connection.execute(query).all():
        if row.study_id not in seen:
            seen.add(row.study_id)
            yield row.study_id, row.config["study"], row.now, row.study_name


def is_borne_by_another(connection: Connection, study_id: int) -> bool:
    """Tells whether another study bears the identity of a study's records."""
    bearers = STUDY_USER_ATTRIBUTES.c
    query = (
        select(bearers.study_id)
        .join(sql.STUDIES, bearers.value_json == sql.IDENTITY_AS_JSON)
        .where(sql.STUDIES.c.study_id == study_id, bearers.key == IDENTITY, bearers.study_id != study_id)
    )
    return connection.scalar(query.limit(1)) is not None


def follow(connection: Connection, old: int, new: int, name: str) -> None:
    """Gives the records of the study `old` to the study `new`, which bears the same identity and is called `name`.

    Records that stood under the number `new` are of a study that is gone, and are deleted.
    """
    tables = Base.metadata.sorted_tables
    for table in reversed(tables):
        if "study_id" in table.c:
            connection.execute(delete(table).where(table.c.study_id == new))
    # Rows are copied and then deleted, because those of trials refer to those of their study.
    for table in tables:
        if table is sql.DRIVERS or "study_id" not in table.c:
            continue
        others = [column for column in table.c if column.name != "study_id"]
        rows = select(literal(new), *others).where(table.c.study_id == old)
        connection.execute(insert(table).from_select(["study_id", *(column.name for column in others)], rows))
    connection.execute(update(sql.DRIVERS).where(sql.DRIVERS.c.study_id == old).values(study_id=new))
    for table in reversed(tables):
        if "study_id" in table.c:
            connection.execute(delete(table).where(table.c.study_id == old))
    config = connection.scalar(select(sql.STUDIES.c.config).where(sql.STUDIES.c.study_id == new))
    assert config is not None
    changed = update(sql.STUDIES).where(sql.STUDIES.c.study_id == new)
    connection.execute(changed.values(config={**config, "study": name}))
    name_metrics(connection, new, [objective["name"] for objective in config["objectives"]])
    rename_pictures(connection, old, new)
