"""Databases of older versions, brought up to date one small step at a time."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine, text

STEPS: Mapping[int, tuple[str, ...]] = {
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
}
"""Schema version -> statements that make it from the version before, in SQL that SQLite and PostgreSQL both read.

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
                for statement in STEPS[target]:
                    connection.execute(text(statement))
