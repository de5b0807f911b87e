"""The table of outcomes agrees with itself, with what databases hold, and with all that reads it."""

from __future__ import annotations

import pickle
from dataclasses import fields

import pytest
from optuna.trial import TrialState

from nas.outcome import GROUPS, Outcome
from nas.types import Counts
from studies.pages.style import COLOURS, NAMES, SYMBOLS
from studies.reading.history import FRONT
from studies.store.records import group_of

STORED = {
    "": ("COMPLETE", "complete", True),
    "stopped": ("PRUNED", "pruned", True),
    "diverged": ("PRUNED", "pruned", True),
    "out_of_memory": ("PRUNED", "pruned", True),
    "pruned_by_hand": ("PRUNED", "pruned", True),
    "failed_by_hand": ("FAIL", "failed", False),
    "exception": ("FAIL", "failed", False),
    "timeout": ("FAIL", "failed", False),
    "worker_lost": ("FAIL", "failed", False),
    "invalid": ("FAIL", "failed", False),
    "latency": ("FAIL", "failed", False),
    "duplicate": ("FAIL", "duplicate", False),
    "over_limit": ("FAIL", "over_limit", False),
}
"""What the databases of today have as the reason of an ended trial, its state in Optuna, its group, and whether it
counts as trained."""


def test_what_is_stored_stays_the_same() -> None:
    assert {o.stored: (o.state, o.group, o.trained) for o in Outcome if o.ended} == STORED
    for stored in STORED:
        assert Outcome.read(stored).stored == stored
    assert Outcome.read(None) is Outcome.RUNNING
    assert Outcome.read("complete") is Outcome.COMPLETE, "as the runs of a confirmation are stored"
    with pytest.raises(ValueError, match="nonsense"):
        Outcome.read("nonsense")


def test_which_trials_take_a_place_in_the_budget() -> None:
    assert {o for o in Outcome if o.takes_place} == {o for o in Outcome if o.trained} | {
        Outcome.RUNNING,
        Outcome.DISK_FULL,
    }
    assert not any(o.ended for o in (Outcome.RUNNING, Outcome.DISK_FULL, Outcome.WAITING))
    assert {o for o in Outcome if o.rejected} == {Outcome.DUPLICATE, Outcome.OVER_LIMIT}


def test_every_state_and_group_is_known() -> None:
    assert {o.state for o in Outcome} == {state.name for state in TrialState}
    assert {o.group for o in Outcome} == set(GROUPS) == {field.name for field in fields(Counts)}
    assert set(COLOURS) == set(SYMBOLS) == set(NAMES) == {FRONT, *GROUPS} - {"waiting"}, "figures show no waiting trial"


@pytest.mark.parametrize("outcome", Outcome)
def test_trials_are_counted_by_their_outcome(outcome: Outcome) -> None:
    assert group_of(TrialState[outcome.state], outcome.stored) == outcome.group


def test_the_state_counts_where_plain_optuna_ended_a_trial() -> None:
    assert [group_of(state, None) for state in TrialState] == ["running", "complete", "pruned", "failed", "waiting"]


def test_an_outcome_comes_back_from_a_worker_as_itself() -> None:
    assert all(pickle.loads(pickle.dumps(outcome)) is outcome for outcome in Outcome)
