"""Searches through Ray Tune that are stopped, and go on."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from toy_space import ToySpace

from nas.engine.interrupts import Stopping
from nas.search.growth import Growth


@pytest.mark.slow
def test_a_time_limit_keeps_what_runs_for_the_next_call(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=60)
    # 12 seconds a trial: none ends within the limit.
    stopped = search.run(2, concurrency=2, time_limit=4)
    assert stopped.reason == "time_limit"
    before = search.states()
    assert set(before) <= {"RUNNING"}
    (tmp_path / "fast").touch()
    done = search.run(2)
    assert done.counts.trained == 2
    assert len(search.states()) == 2, "interrupted trials go on under their own numbers"


def test_a_time_limit_without_a_size_trains_as_many_as_fit(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make()

    class Over(Stopping):
        """The time is over when 3 trials are trained, however long that takes."""

        def __call__(self) -> bool:
            if search.ledger.counts().trained >= 3:
                self.deadline = -math.inf
            return super().__call__()

    monkeypatch.setattr("nas.engine.executor.Stopping", Over)
    ended = search.run(None, time_limit=600)
    assert ended.reason == "time_limit"
    assert ended.new == ended.counts.trained >= 3


@pytest.mark.slow
def test_an_interrupt_before_anything_was_trained_stops_cleanly(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("exception",), scratch=str(tmp_path)))
    search.when_running = lambda: os.kill(os.getpid(), signal.SIGINT)  # at the report of what failed
    outcome = search.run(2)
    assert (outcome.reason, outcome.counts.trained, outcome.busy) == ("interrupted", 0, None)


def test_an_interrupt_stops_cleanly(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=1000)
    search.when_running = lambda: os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    outcome = search.run(2)
    assert outcome.reason == "interrupted"
    assert set(search.states()) == {"RUNNING"}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_second_interrupt_ends_the_search_the_hard_way(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(faults=("slow",), scratch=str(tmp_path)), epochs=1000)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    search.when_running = twice
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        search.run(2)
    assert set(search.states()) == {"RUNNING"}
    assert all(trial.driver is None for trial in search.study.unfinished()), "they are anyone's to go on with"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_search_that_is_flat_begins_no_trial_and_ends_those_under_way(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.growth.LEAST_TRIALS", 4)
    monkeypatch.setattr(Growth, "pace", lambda growth: 0.0 if len(growth.times) >= 4 else None)
    search = make()
    ended = search.run(None, until_flat=0.1, concurrency=2)
    assert ended.reason == "flat"
    assert 4 <= ended.counts.trained <= 5
    assert ended.counts.running == 0
    assert ended.promise is not None


@pytest.mark.slow
def test_a_search_that_was_flat_is_told_so_whatever_its_last_trials_bring(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter((0.5, 0.0))
    monkeypatch.setattr(Growth, "pace", lambda growth: next(answers, 0.5))
    ended = make().run(None, until_flat=0.1, concurrency=2)
    assert ended.reason == "flat"


@pytest.mark.slow
def test_a_search_that_grows_goes_on_to_its_size(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.search.growth.LEAST_TRIALS", 1)
    monkeypatch.setattr(Growth, "pace", lambda growth: 0.5)
    ended = make().run(3, until_flat=0.1)
    assert (ended.reason, ended.counts.trained) == ("complete", 3)
