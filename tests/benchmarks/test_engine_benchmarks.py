"""The benchmarks of the engine measure what they say; their figures are not repeated here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import engine, made_up, sampling, scale
from benchmarks.engine import Watch, busy_share
from benchmarks.made_up import OBJECTIVES, TASK, WorkingSpace, measurement, study_config
from benchmarks.sampling import MAXIMIZE, REFERENCE, SPACE
from benchmarks.startup import ROOT
from nas.data.splits import load
from nas.engine.executor import ray_session
from nas.search.pareto import non_dominated
from studies.reading.best import choose
from studies.store.catalog import create_study, open_study
from studies.store.database import open_storage


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
    with ray_session(None, cpus=2):
        watch = engine.search(data, "auto", 12, space=WorkingSpace(work=0.05))
        assert len(watch.ends) == len(watch.spans) == 12
        assert 0 < busy_share(watch.spans, 0.05) <= 1.01
        assert len(engine.tune_alone(data, 5).ends) == 5


def test_made_up_values_are_fixed_and_the_objectives_conflict() -> None:
    generator = np.random.default_rng(0)
    points = []
    for _ in range(200):
        params = {name: sampling.draw(d, generator) for name, d in SPACE.distributions(TASK).items()}
        candidate = SPACE.decode(params, TASK, 1)
        found = made_up.values(candidate.spec.to_dict(), candidate.recipe.to_dict())
        made_up._effects.cache_clear()
        assert found == made_up.values(candidate.spec.to_dict(), candidate.recipe.to_dict())
        points.append([found[objective.name] for objective in OBJECTIVES])
    assert (np.array(points) >= np.array(REFERENCE) - 0.5).all()
    assert 3 < non_dominated(np.array(points), MAXIMIZE).sum() < 100


def test_a_filled_study_is_one_that_a_search_could_have_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with open_storage(url) as storage:
        for name in ("first", "filled"):
            sampling.fill(create_study(storage, study_config(name, "auto"), SPACE.distributions(TASK), {}, ""), 12)
    with open_study("filled", url) as ledger:
        assert ledger.counts().complete == 12
        assert sorted(ledger.started_digests()) == sorted(record.digest or "" for record in ledger.trials())
        assert ledger.front() == sorted(trial.number for trial in ledger.study.best_trials)
        assert choose(ledger).chosen.number in ledger.front()
        record = ledger.trial(3)
        assert record.spec is not None
        assert record.recipe is not None
        assert ledger.measurement(3).values == measurement(record.spec, record.recipe).values
        with ledger.drive():
            searcher = sampling.searcher_of(ledger, 14)
            sampling.one_trial(searcher, "a")
            sampling.one_trial(searcher, "b")
        assert ledger.counts().complete == 14
        assert ledger.events()[-4:] == [("ask", 12), ("tell", 12), ("ask", 13), ("tell", 13)]


def test_quality_of_a_short_run_grows_with_trials() -> None:
    ours = sampling.search_ours("random", 6, 0)
    theirs = sampling.search_optuna(6, 0)
    for volumes in (ours, theirs):
        assert volumes == pytest.approx(sorted(volumes))  # rounding is of the order of points
    assert 0 < ours[-1] < 1
    assert sampling.search_ours("random", 6, 0) == ours


def test_a_thousand_workers_are_driven_by_the_real_engine(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["virtual", "--trials", "40", "--workers", "1000"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:] == [
        str(n) for n in range(4, 41, 4)
    ]
    assert "trained to the end." in lines[-1]


@pytest.mark.slow
def test_a_search_gets_on_on_a_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "TRIALS_OF_A_WORKER", 3)
    monkeypatch.setattr(scale, "SLEEP", 0.2)
    scale.main(["clusters", "--nodes", "1", "--sampler", "random"])
    assert "| 1 | 2 | 6 |" in capsys.readouterr().out
