"""Databases of older versions, brought up to date one small step at a time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping

from sqlalchemy import Connection, Engine, text

Step = str | Callable[[Connection], None]


def _identify(connection: Connection) -> None:
    """Gives an identity to the database and to every study.

    The study of a record's id is another one if plain Optuna deleted the first: it then has another name, or lacks the
    names of objectives, which skipnas has always set. The record gets an identity that no study bears.
    """
    execute = connection.execute
    execute(text("INSERT INTO skipnas_meta (key, value) VALUES ('identity', :new)"), {"new": uuid.uuid4().hex})
    records = execute(text("SELECT study_id, config FROM skipnas_studies")).all()
    for study, stored in records:
        config = json.loads(stored) if isinstance(stored, str) else stored
        names = json.dumps([objective["name"] for objective in config["objectives"]])
        identity = {"study": study, "new": uuid.uuid4().hex}
        execute(text("UPDATE skipnas_studies SET identity = :new WHERE study_id = :study"), identity)
        own = execute(
            text(
                "SELECT count(*) FROM studies JOIN study_system_attributes AS named USING (study_id) "
                "WHERE study_id = :study AND study_name = :name "
                "AND named.key = 'study:metric_names' AND named.value_json = :names"
            ),
            {"study": study, "name": config["study"], "names": names},
        ).scalar_one()
        if own:
            execute(
                text(
                    "INSERT INTO study_user_attributes (study_id, key, value_json) "
                    "VALUES (:study, 'skipnas:study', :new)"
                ),
                {"study": study, "new": json.dumps(identity["new"])},
            )


STEPS: Mapping[int, tuple[Step, ...]] = {
    2: (
        """
        CREATE TABLE skipnas_drivers (
            driver VARCHAR(32) NOT NULL PRIMARY KEY,
            study_id BIGINT NOT NULL,
            host TEXT NOT NULL,
            place TEXT NOT NULL,
            pid BIGINT NOT NULL,
            born TEXT,
            started DOUBLE PRECISION NOT NULL,
            expires DOUBLE PRECISION NOT NULL,
            reserved BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE skipnas_confirmations (
            study_id BIGINT NOT NULL,
            digest VARCHAR(16) NOT NULL,
            repeat BIGINT NOT NULL,
            seed BIGINT NOT NULL,
            number BIGINT,
            reference TEXT,
            spec JSON NOT NULL,
            recipe JSON NOT NULL,
            reason VARCHAR(32) NOT NULL,
            detail TEXT,
            "values" JSON,
            gates JSON,
            seconds DOUBLE PRECISION NOT NULL,
            ended DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (study_id, digest, repeat),
            FOREIGN KEY (study_id) REFERENCES skipnas_studies (study_id)
        )
        """,
        "CREATE INDEX ix_skipnas_drivers_study_id ON skipnas_drivers (study_id)",
        "ALTER TABLE skipnas_trials ADD COLUMN owner VARCHAR(32)",
        "ALTER TABLE skipnas_trials ADD COLUMN ask_order BIGINT",
        "CREATE INDEX ix_skipnas_epochs_epoch ON skipnas_epochs (study_id, epoch)",
    ),
    3: (
        "ALTER TABLE skipnas_trials ADD COLUMN training_version BIGINT",
        "ALTER TABLE skipnas_confirmations ADD COLUMN training_version BIGINT",
    ),
    4: ("ALTER TABLE skipnas_epochs ADD COLUMN further JSON",),
    5: ("ALTER TABLE skipnas_trials ADD COLUMN asked_by VARCHAR(32)",),
    6: ("ALTER TABLE skipnas_studies ADD COLUMN identity VARCHAR(32)", _identify),
}
"""Schema version -> statements that make it from the version before, in SQL that SQLite and PostgreSQL both read, and
functions that run such statements.

They are never changed once released, and do not use `studies.store.records`, which goes on changing.
"""


def migrate(engine: Engine, version: int) -> None:
    """Brings tables of schema `version` up to date. Each step is done whole or not at all.

    The caller ensures that no other process does the same.
    """
    for target in sorted(STEPS):
        if target > version:
            with engine.begin() as connection:
                # The write comes first, because Python's sqlite3 begins a transaction for it, but not for a CREATE.
                connection.execute(
                    text("UPDATE skipnas_meta SET value = :version WHERE key = 'schema_version'"),
                    {"version": str(target)},
                )
                for step in STEPS[target]:
                    if isinstance(step, str):
                        connection.execute(text(step))
                    else:
                        step(connection)
