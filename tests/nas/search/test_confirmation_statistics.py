"""Confirmation: which members, which seeds, and what runs say together. Runs through Ray: test_confirm_runs.py."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nas.engine.confirm import ConfirmEnd, ConfirmProgress
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun, confirmation_seed, interval, pick_members, summarize
from nas.types import Objective, TrialResult, candidate_seed

OBJECTIVES = (
    Objective(name="psnr", direction="maximize", unit="dB", reference=0.0),
    Objective(name="params", direction="minimize", unit="", reference=100.0),
)


def result(number: int, psnr: float, params: float) -> TrialResult:
    return TrialResult(
        number=number, digest=f"{number:016x}", spec={}, recipe={}, values={"psnr": psnr, "params": params}
    )


def run(digest: str = "a", repeat: int = 0, psnr: float = 20.0, **changes: Any) -> ConfirmedRun:
    settings: dict[str, Any] = {
        "digest": digest,
        "repeat": repeat,
        "seed": repeat,
        "number": 1,
        "reference": None,
        "spec": {"depth": 1},
        "recipe": {},
        "outcome": Outcome.COMPLETE,
        "training_version": 2,
        "values": {"psnr": psnr, "test_psnr": psnr - 1},
    }
    return ConfirmedRun(**settings | changes)


def test_an_interval_is_student_s() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.n) == (2.5, 4)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    # t(0.975, 3) = 3.182446, as tables have it
    assert found.high - found.mean == pytest.approx(3.182446 * math.sqrt(5 / 3) / 2, abs=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_an_interval_is_that_of_scipy(values: list[float]) -> None:
    found = interval(values)
    if found.sd > 1e-6:
        low, high = scipy.stats.t.interval(
            0.95, len(values) - 1, loc=statistics.fmean(values), scale=scipy.stats.sem(values)
        )
        assert found.low == pytest.approx(low, rel=1e-6, abs=1e-6)
        assert found.high == pytest.approx(high, rel=1e-6, abs=1e-6)
    else:
        assert found.low == pytest.approx(found.high, abs=1e-4)


def test_equal_runs_have_an_interval_without_width() -> None:
    assert interval([3.0] * 5) == replace(interval([3.0, 3.0]), n=5)
    assert interval([3.0] * 5).low == 3.0 == interval([3.0] * 5).high


def test_one_run_has_no_interval() -> None:
    with pytest.raises(statistics.StatisticsError):
        interval([1.0])


@pytest.mark.parametrize("runs", [3, 5])
def test_intervals_of_normal_draws_cover_their_mean_as_often_as_they_say(runs: int) -> None:
    draws = np.random.default_rng(0).normal(7.0, 2.0, size=(2000, runs))
    covered = sum(found.low <= 7.0 <= found.high for found in map(interval, draws.tolist()))
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_seeds_differ_and_are_none_of_the_search() -> None:
    seeds = [confirmation_seed(0, repeat) for repeat in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [confirmation_seed(0, repeat) for repeat in range(100)]
    assert seeds[0] != confirmation_seed(1, 0)
    assert not set(seeds) & {candidate_seed(0, f"{number:016x}") for number in range(100)}


def test_members_are_the_knee_and_the_largest_contributions() -> None:
    # A front along a line but for trial 3, which lies far out: the knee. The ends contribute most of the rest.
    front = [result(0, 10, 10), result(1, 20, 30), result(2, 21, 31), result(3, 50, 32), result(4, 60, 90)]
    dominated = [result(5, 5, 95), result(6, 19, 30)]
    assert [r.number for r in pick_members([*front, *dominated], OBJECTIVES, 0)] == [3]
    two = [r.number for r in pick_members([*front, *dominated], OBJECTIVES, 2)]
    assert two[0] == 3
    assert len(two) == 3
    everyone = pick_members([*front, *dominated], OBJECTIVES, 100)
    assert sorted(r.number for r in everyone) == [0, 1, 2, 3, 4]
    assert [r.number for r in everyone[:3]] == two, "more of them never changes who comes first"
    assert [r.number for r in pick_members([result(9, 1, 1)], OBJECTIVES, 8)] == [9]


def test_runs_are_summed_up_by_candidate() -> None:
    runs = [run("a", 0, 20), run("b", 0, 30, number=None, reference="unet"), run("a", 1, 22), run("b", 1, 30)]
    a, b = summarize(runs)
    assert (a.digest, a.number, a.reference, a.runs, a.failed, a.sound) == ("a", 1, None, 2, 0, True)
    assert a.values["psnr"] == interval([20, 22])
    assert a.values["test_psnr"] == interval([19, 21])
    assert (b.reference, b.number) == ("unet", 1)


def test_gates_are_summed_up_by_level() -> None:
    gates = [({"mean": 1.0, "min": 0.9, "max": 1.1}, {"mean": 0.5}), ({"mean": 1.2}, {"mean": 0.7})]
    (found,) = summarize([run("a", repeat, gates=each) for repeat, each in enumerate(gates)])
    assert found.gates == (interval([1.0, 1.2]), interval([0.5, 0.7]))
    (single,) = summarize([run("a", 0, gates=gates[0])])
    assert single.gates == ()


def test_only_what_all_runs_have_is_summed_up() -> None:
    (found,) = summarize([run("a", 0, 20), run("a", 1, 22, values={"psnr": 22})])
    assert (set(found.values), found.sound) == ({"psnr"}, True)
    (found,) = summarize([run("a", 0, 20, values={"psnr": 20}), run("a", 1, 22)])
    assert (set(found.values), found.sound) == ({"psnr"}, True)


def test_a_candidate_that_diverged_is_not_sound() -> None:
    diverged = run("a", 2, outcome=Outcome.DIVERGED, values={})
    (found,) = summarize([run("a", 0), run("a", 1), diverged])
    assert (found.runs, found.failed, found.sound) == (3, 1, False)
    assert found.values["psnr"].n == 2
    (single,) = summarize([run("a", 0), diverged])
    assert (single.values, single.sound) == ({}, False)
    assert summarize([]) == []


def test_progress_expects_the_end_from_the_pace() -> None:
    progress = ConfirmProgress(total=10, done=2, done_before=2)
    assert progress.seconds_left() is None
    progress.done, progress.started = 6, progress.started - 40
    assert progress.seconds_left() == pytest.approx(40, abs=2)
    progress.running = {3: 0.5, 4: 0.5}
    assert progress.seconds_left() == pytest.approx(3 * 40 / 5, abs=2)


@pytest.mark.parametrize(
    ("reason", "new", "says"),
    [
        ("complete", 0, "study s is confirmed: all 6 runs are there; nothing to do"),
        ("complete", 6, "6 runs in 9 s"),
        ("time_limit", 2, "stopped by the time limit; runs under way are kept. Go on with: skipnas confirm s"),
        ("interrupted", 2, "stopped by an interrupt"),
        ("failed", 2, "some runs failed. Go on with"),
    ],
)
def test_the_end_is_told(reason: str, new: int, says: str) -> None:
    outcome = ConfirmEnd(reason=reason, total=6, done=6, new=new, seconds=9.0)
    assert says in " ".join(outcome.lines("s", "skipnas confirm s"))


def test_runs_of_different_training_code_make_no_mean() -> None:
    """Those of the newest version count, of each candidate for itself."""
    old = [run("a", repeat, 10.0 + repeat, training_version=1) for repeat in range(4)]
    new = [run("a", repeat, 30.0 + repeat) for repeat in range(2)]
    only_old = [run("b", repeat, 20.0 + repeat, training_version=1) for repeat in range(3)]
    found = {one.digest: one for one in summarize([*old, *only_old, *new])}
    assert (found["a"].runs, found["a"].values["psnr"].mean) == (2, 30.5)
    assert (found["b"].runs, found["b"].values["psnr"].mean) == (3, 21.0)
