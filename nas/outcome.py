"""Every way in which a trial can end, and the meaning of each for its study."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]

GROUPS = {
    "complete": "complete",
    "pruned": "pruned",
    "failed": "failed",
    "duplicate": "duplicate",
    "over_limit": "over a limit",
    "running": "running",
    "waiting": "waiting",
}
"""The groups by which trials are counted and drawn (the fields of `nas.types.Counts`), and their words for people."""


class Outcome(StrEnum):
    """The end of a trial, or the fact that it has not ended yet.

    A new way to end is one line here. This table alone gives the meaning of an outcome, and a trial without an outcome
    of the table cannot be stored.

    Attributes:
        state: name of the state in which Optuna has such a trial (`optuna.trial.TrialState`).
        group: key of `GROUPS` under which such trials are counted and drawn.
        words: the outcome in words for people.
    """

    state: State
    group: str
    words: str

    COMPLETE = "complete", "COMPLETE", "complete", "complete"
    """The trial was trained for its whole budget, and every objective has a value."""
    STOPPED = "stopped", "PRUNED", "pruned", "stopped"
    """It was not among the best at a rung."""
    DIVERGED = "diverged", "PRUNED", "pruned", "diverged"
    """Its loss was not finite, or rose far above that of the untrained network."""
    OUT_OF_MEMORY = "out_of_memory", "PRUNED", "pruned", "out of memory"
    PRUNED_BY_HAND = "pruned_by_hand", "PRUNED", "pruned", "pruned by hand"
    """A person ended it in Optuna or its dashboard, as the next one."""
    FAILED_BY_HAND = "failed_by_hand", "FAIL", "failed", "failed by hand"
    EXCEPTION = "exception", "FAIL", "failed", "exception"
    """The code raised; the traceback is stored."""
    TIMEOUT = "timeout", "FAIL", "failed", "timeout"
    """It took longer than a trial may, and its process was ended."""
    WORKER_LOST = "worker_lost", "FAIL", "failed", "worker lost"
    """Its worker or node was lost, and so were those that tried again."""
    INVALID = "invalid", "FAIL", "failed", "no candidate"
    """It could not be proposed, or its hyperparameters are no candidate of the space, so it was not trained."""
    LATENCY = "latency", "FAIL", "failed", "latency not measured"
    """Its latency could not be measured, so it was not trained."""
    DUPLICATE = "duplicate", "FAIL", "duplicate", "duplicate"
    """Another trial of the study has the same candidate, so this one was not trained."""
    OVER_LIMIT = "over_limit", "FAIL", "over_limit", "over a limit"
    """The network is larger than the study allows, so it was not trained."""
    DISK_FULL = "disk_full", "RUNNING", "running", "disk full"
    """A worker could not write its weights. This ends the search, and the next search goes on with the trial."""
    RUNNING = "running", "RUNNING", "running", "running"
    """It is being trained, or was interrupted and will go on."""
    WAITING = "waiting", "WAITING", "waiting", "waiting"
    """It was enqueued, and no driver has taken it yet."""

    def __new__(cls, value: str, state: State, group: str, words: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.state, member.group, member.words = state, group, words
        return member

    @property
    def ended(self) -> bool:
        """Whether such a trial is over and cannot go on."""
        return self.state not in ("RUNNING", "WAITING")

    @property
    def trained(self) -> bool:
        """Whether such a trial tells something about its candidate; the size of a study counts these."""
        return self.state in ("COMPLETE", "PRUNED")

    @property
    def ended_early(self) -> bool:
        """Whether such a trial is over and has no values."""
        return self.ended and self is not Outcome.COMPLETE

    @property
    def takes_place(self) -> bool:
        """Whether such a trial takes a place in the budget: it is trained, or may still be."""
        return self.trained or self.state == "RUNNING"

    @property
    def rejected(self) -> bool:
        """Whether the proposal was turned down before training, so that the study asks again."""
        return self in (Outcome.DUPLICATE, Outcome.OVER_LIMIT)

    @property
    def at_fault(self) -> bool:
        """Whether the code or the machine may be the cause, so that a search in which all trials end so is stopped."""
        return self.group == "failed" or self is Outcome.OUT_OF_MEMORY

    @property
    def stored(self) -> str | None:
        """The outcome as a trial's record has it: empty for a complete trial, None for a trial that has not ended."""
        if not self.ended:
            return None
        return "" if self is Outcome.COMPLETE else self.value

    @classmethod
    def read(cls, stored: str | None) -> Outcome:
        """Returns the outcome that a record has as `stored`; a confirmation's run is stored by its value.

        Raises:
            ValueError: the text stands for no outcome.
        """
        if stored is None:
            return cls.RUNNING
        return cls(stored or "complete")  # type: ignore[call-arg]  # mypy knows the table's rows as arguments
