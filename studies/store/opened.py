"""A study of an open storage, and everything that is fixed in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial

from nas.errors import StorageError, in_short
from nas.settings import StudyConfig
from nas.training.version import TRAINING_VERSION
from studies.store import statements as sql
from studies.store.by_hand import ended_by_hand, record_ends
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.finding import find_study
from studies.store.records import StudyRecord
from studies.store.retries import Patience
from studies.store.urls import masked_command

log = logging.getLogger(__name__)


class OpenedStudy:
    """A study that is open: `studies.store.ledger.SqlLedger` drives it, `studies.reading.study.StudyReader` reads it.

    As a context manager it closes the storage it came from.

    Attributes:
        storage: the open database.
        study_id: number of the study in it.
        identity: identity of the study, which no other one ever has.
        config: the study's configuration.
        distributions: every hyperparameter of its search space, as it was when the study was created.
        provenance: versions, commit, hardware and the like, as given when the study was created.
        command: the command line that created the study.
        created: when, in seconds since the epoch.
        training_version: version of the training code that trains what is asked for here. Figures of different versions
            do not compare, so trials of another one are neither rivals at a rung nor originals of a duplicate.
        optuna_study: the study as Optuna has it.
        patience: whether calls wait for a database that is gone.
    """

    def __init__(self, storage: Storage, name: str, record: StudyRecord) -> None:
        self.storage = storage
        self.study_id = record.study_id
        self.identity = record.identity
        self.config = StudyConfig.from_dict(record.config)
        try:
            self.distributions: dict[str, BaseDistribution] = {
                name: json_to_distribution(text) for name, text in record.distributions.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # a database may come from a stranger
            raise StorageError(
                f"study {name!r} in {storage.masked}: its stored hyperparameters cannot be read ({in_short(error)}); "
                "restore the database, or begin another study"
            ) from None
        self.provenance: Mapping[str, Any] = record.provenance or {}
        self.command = masked_command(record.command)  # older versions kept passwords
        self.created = record.created
        self.training_version = TRAINING_VERSION
        with storage.guard():
            self.optuna_study = optuna.load_study(study_name=name, storage=storage.optuna)
        self.patience = Patience()

    @classmethod
    def open(cls, name: str, storage: Storage | str | None = None) -> Self:
        """Opens a study that exists.

        Args:
            name: of the study.
            storage: an open storage, or the URL of one that must exist; the study closes either.

        Raises:
            StudyError: there is no such study, or skipnas did not make it.
            StorageError: the storage cannot be opened.
        """
        if not isinstance(storage, Storage):
            opened = open_storage(storage, must_exist=True)
            try:
                return cls.open(name, opened)
            except BaseException:
                opened.close()
                raise
        with storage.session() as session:
            record = find_study(session, storage, name)
        study = cls(storage, name, record)
        if not storage.read_only:
            study.record_ends()
        return study

    def optuna_trials(self) -> list[FrozenTrial]:
        """Returns the trials as Optuna has them, by number.

        Raises:
            StorageError: Optuna cannot read them, as in a database of a stranger.
        """
        try:
            with self.storage.guard():
                return self.optuna_study.get_trials(deepcopy=False)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise StorageError(
                f"trials of study {self.config.study!r} in {self.storage.masked} cannot be read by Optuna "
                f"({in_short(error)}): another program wrote them; delete the study, or restore the database"
            ) from None

    def record_ends(self) -> None:
        """Records the ends of trials that a person set in Optuna since the study was last looked at."""
        with self.storage.transaction() as connection:
            if not ended_by_hand(connection, self.study_id):
                return
        try:
            with self.storage.transaction() as connection:
                connection.execute(sql.HOLD, {"study": self.study_id, "own_identity": self.identity})
                record_ends(connection, self.study_id, self.config)
        except StorageError as error:  # such as a role that may only read
            log.warning("trials that were ended by hand are not in the records yet: %s", error)

    def note_origin(self, key: str, value: Any) -> None:
        """Keeps one more fact about the study's origin, or another one in its place."""
        self.provenance = {**self.provenance, key: value}
        with self.storage.session() as session:
            session.get_one(StudyRecord, self.study_id).provenance = dict(self.provenance)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the storage's connections."""
        self.storage.close()
