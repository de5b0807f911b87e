"""The `nas.protocols.Ledger` on SQL: Optuna's study and the project's own records, kept in step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import ConfigError, LeaseLostError, ProposalError, StorageError, StudyError, in_short
from nas.search.past import Propose
from nas.types import EpochRow
from search_spaces.draws import allows, rule
from studies.store.connection import Storage
from studies.store.driver import Driver
from studies.store.opened import OpenedStudy
from studies.store.optuna_bridge import enqueued_params
from studies.store.progress import Progress
from studies.store.records import StudyRecord
from studies.store.retries import patient
from studies.store.writer import Writer


class SqlLedger(OpenedStudy):
    """A study that this process searches; see `nas.protocols.Ledger` for what each method promises.

    Attributes:
        progress: what is known of the study's trials.
        driver: what this process may train and write.
        writer: what it writes.
    """

    def __init__(self, storage: Storage, name: str, record: StudyRecord) -> None:
        super().__init__(storage, name, record)
        self.progress = progress = Progress(self)
        self.driver = driver = Driver(self, progress)
        self.writer = writer = Writer(self, driver)
        # The engine's calls are those of the parts.
        self.drive, self.reserve, self.interrupt = driver.drive, driver.reserve, driver.interrupt
        self.other_drivers = driver.others
        self.counts, self.started_digests = progress.counts, progress.started_digests
        self.under_way, self.ended, self.epochs_table = progress.under_way, progress.ended, progress.epochs_table
        self.rung_objectives, self.rung = progress.rung_objectives, progress.rung
        self.objective_values, self.front = progress.objective_values, progress.front
        self.kept = progress.kept
        self.start, self.reject = writer.start, writer.reject
        self.complete, self.prune, self.fail = writer.complete, writer.prune, writer.fail
        self.confirmations, self.confirm = progress.confirmations, writer.confirm

    @property
    def reserved(self) -> int:
        """Places that this driver holds for trials it has not asked for yet."""
        return self.driver.reserved

    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""
        self.writer.epochs(number, rows)
        self.progress.note_epochs(number, (row.epoch for row in rows))

    def ask(self, propose: Propose) -> tuple[int, dict[str, Any]]:
        """Takes the oldest enqueued trial or makes one: its number and hyperparameters.

        A reservation, if the driver holds any, becomes the trial's place in the budget.

        Raises:
            LeaseLostError: the lease ran out since the reservation, and the budget is full by now.
            ProposalError: the trial has no valid hyperparameters.
        """
        number, blank = self.driver.make_trial()
        return number, self.fill(number, propose, {} if blank else None)

    def claim(self, propose: Propose) -> tuple[int, dict[str, Any]] | None:
        """Takes over the oldest trial whose driver is gone: number and hyperparameters, or None.

        Raises:
            ProposalError: the trial has no valid hyperparameters.
        """
        while (claimed := self.driver.claim_oldest()) is not None:
            number, ended = claimed
            if not ended:
                return number, self.fill(number, propose)
        return None

    def fill(self, number: int, propose: Propose, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All hyperparameters of a trial of this driver; `propose` gives those that it lacks, and they are written.

        Args:
            number: of the trial.
            propose: see `nas.search.past`.
            known: hyperparameters that the trial has, by name; None when they are to be read.

        Raises:
            ProposalError: one of them is no choice, or `propose` raised.
        """
        try:
            return self._filled(number, propose, known)
        except (StorageError, StudyError, LeaseLostError):
            raise
        except Exception as error:  # people enqueue anything, and spaces and samplers may be anybody's code
            raise ProposalError.of(number, error) from error

    def _filled(self, number: int, propose: Propose, known: Mapping[str, Any] | None) -> dict[str, Any]:
        enqueued: Mapping[str, Any] = {}
        if known is None:
            _, trial = self.progress.as_optuna(number)
            known, enqueued = trial.params, enqueued_params(trial)
        params = {**enqueued, **known}
        self._check(params)
        if not params.keys() >= self.distributions.keys():
            params = {**self._proposed(number, propose), **params}
        params = {name: params[name] for name in self.distributions}
        self.writer.params(number, {name: value for name, value in params.items() if name not in known})
        return params

    @patient
    def _proposed(self, number: int, propose: Propose) -> dict[str, Any]:
        with self.storage.guard():
            return propose(number, self.progress)

    def _check(self, params: Mapping[str, Any]) -> None:
        """Raises ConfigError for a hyperparameter that the study does not have, or a value that is none of its
        choices."""
        for name, value in params.items():
            if name not in self.distributions:
                raise ConfigError(
                    f"{in_short(name)} is no hyperparameter; this study has {', '.join(self.distributions)}"
                )
            if not allows(self.distributions[name], value):
                raise ConfigError(f"{name} is {in_short(repr(value))}, must be {rule(self.distributions[name])}")
