"""Searches of made-up trials go the whole way, and the shares that are read off them count what they say."""

from __future__ import annotations

import pytest

from benchmarks import engine
from benchmarks.lib import ROOT
from benchmarks.lib.made_up import WorkingSpace
from benchmarks.lib.made_up_searches import Watch, busy_share, search
from nas.data.splits import load
from nas.engine.session import ray_session
from nas.settings import Resources


def test_the_share_of_workers_counts_work_and_not_waiting() -> None:
    full = [(1, 0.0, 1.0), (2, 0.0, 1.0), (1, 1.0, 2.0), (2, 1.0, 2.0)]
    assert busy_share(full, 1.0) == pytest.approx(1.0)
    # One worker waits half a second between its trials, and the trials of the other take twice their work.
    waiting = [(1, 0.0, 1.0), (1, 1.5, 2.5), (1, 3.0, 4.0), (2, 0.0, 2.0), (2, 2.0, 4.0)]
    assert busy_share(waiting, 1.0) == pytest.approx((3.0 + 2.0) / 8.0)


def test_the_share_leaves_out_starting_and_running_dry() -> None:
    # The second worker begins at 3, and has nothing more to do from 7 on.
    assert busy_share([(1, 0.0, 4.0), (1, 4.0, 8.0), (2, 3.0, 7.0)], 4.0) == pytest.approx(1.0)


def test_trials_a_second_are_counted_from_the_first_end() -> None:
    assert Watch(ends=[10.0, 10.5, 11.0]).per_second() == pytest.approx(2.0)


@pytest.mark.slow
def test_made_up_trials_go_the_whole_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where workers find the made-up trainable
    data = load("digits", subset=128)
    with ray_session(Resources(), cpus=2):
        watch = search(data, "auto", 12, space=WorkingSpace(work=0.05))
        assert len(watch.ends) == len(watch.spans) == 12
        assert 0 < busy_share(watch.spans, 0.05) <= 1.01
        assert len(engine.tune_alone(data, 5).ends) == 5
