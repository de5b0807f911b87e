"""Confirmations through Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from toy_search import TASK, Search
from toy_space import ToySpace

from nas.engine.confirm import run_confirmation
from nas.search.confirmation import Member, confirmation_seed, summarize
from nas.settings import Resources
from nas.training.version import TRAINING_VERSION
from studies.store.records import ConfirmationRecord


def confirm(search: Search, seeds: int, *widths: int, faults: tuple[str, ...] = ("none",), **options: Any) -> Any:
    """Confirms toy candidates of these widths, one for each fault."""
    params = [{"width": width, "fault": fault} for width in widths for fault in faults]
    members = [
        Member(candidate=search.space.decode(one, TASK, search.ledger.config.epochs), number=number)
        for number, one in enumerate(params)
    ]
    resources = Resources(**{"concurrency": 1} | options)
    return run_confirmation(
        search.ledger.config, search.space, search.ledger, search.digits, search.files, members, seeds, resources
    )


def test_a_confirmation_trains_each_member_under_each_seed_once(make: Any) -> None:
    search = make()
    first = confirm(search, 2, 4, 8)
    assert (first.reason, first.new, first.total, first.done) == ("complete", 4, 4, 4)
    again = confirm(search, 2, 4, 8)
    assert (again.reason, again.new, again.seconds) == ("complete", 0, 0.0)
    more = confirm(search, 3, 4, 8)
    assert (more.reason, more.new, more.total) == ("complete", 2, 6)
    runs = search.ledger.confirmations()
    assert {(run.number, run.repeat) for run in runs} == {(n, r) for n in range(2) for r in range(3)}
    seeds = {run.repeat: run.seed for run in runs if run.number == 0}
    assert seeds == {repeat: confirmation_seed(0, repeat) for repeat in range(3)}
    for run in runs:
        on_images = {"psnr", "accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error"}
        others = {"stability", "params", "macs"}
        assert set(run.values) == on_images | others | {f"test_{name}" for name in on_images}
        assert run.values["test_psnr"] != run.values["psnr"]
        assert run.gates == ({"mean": run.gates[0]["mean"], "min": run.gates[0]["min"], "max": run.gates[0]["max"]},)
    for member in summarize(runs):
        assert (member.sound, member.values["psnr"].n) == (True, 3)
        assert member.values["psnr"].sd > 0, "seeds make different runs"
    assert not list(search.files.rglob("*")), "nothing is left on disk"
    assert search.states() == [], "the search is untouched"


@pytest.mark.slow
def test_runs_of_other_training_code_are_trained_again(make: Any) -> None:
    search = make(epochs=1)
    assert confirm(search, 2, 4).new == 2
    first = search.ledger.confirmations()
    assert {run.training_version for run in first} == {TRAINING_VERSION}
    with search.ledger.storage.session() as session:
        session.execute(update(ConfirmationRecord).values(training_version=None))
    assert {run.training_version for run in search.ledger.confirmations()} == {1}
    again = confirm(search, 2, 4)
    assert (again.reason, again.new, again.done, again.total) == ("complete", 2, 2, 2)
    assert {run.training_version for run in search.ledger.confirmations()} == {TRAINING_VERSION}


@pytest.mark.slow
def test_runs_that_diverge_are_kept_and_those_with_a_bug_are_not(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("none", "nan", "exception"), scratch=str(tmp_path)))
    found = confirm(search, 2, 4, faults=("none", "nan", "exception"), concurrency=2)
    assert (found.reason, found.done, found.total) == ("failed", 4, 6)
    assert {(run.number, run.outcome) for run in search.ledger.confirmations()} == {(0, "complete"), (1, "diverged")}
    (line,) = [line for line in found.messages if "trial 2, seed 1: exception, RuntimeError: planted" in line]
    kept = Path(line.rpartition(" is in ")[2])
    assert kept.read_text().startswith("Traceback (most recent call last)")
    assert confirm(search, 2, 4, faults=("none", "nan")).reason == "complete"
    assert confirm(search, 2, 4, faults=("none", "nan", "exception")).new == 0


@pytest.mark.slow
def test_a_confirmation_stops_at_its_time_limit_and_goes_on(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=300)
    stopped = confirm(search, 2, 4, faults=("slow",), time_limit=3)
    assert (stopped.reason, stopped.done) == ("time_limit", 0)
    (tmp_path / "fast").touch()
    done = confirm(search, 2, 4, faults=("slow",))
    assert (done.reason, done.new) == ("complete", 2)
