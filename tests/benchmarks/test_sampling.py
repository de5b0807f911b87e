"""The benchmark of proposals fills studies as a search would, and its made-up objectives conflict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import sampling
from benchmarks.lib import made_up
from benchmarks.lib.made_up import OBJECTIVES, TASK, measurement, study_config
from benchmarks.sampling import MAXIMIZE, REFERENCE, SPACE
from nas.search.pareto import non_dominated
from studies.reading.best import choose
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger


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
    with SqlLedger.open("filled", url) as ledger:
        study = StudyReader.open("filled", ledger.storage)
        assert ledger.counts().complete == 12
        assert sorted(ledger.started_digests()) == sorted(record.digest or "" for record in study.trials())
        assert ledger.front() == sorted(trial.number for trial in ledger.optuna_study.best_trials)
        assert choose(study).chosen.number in ledger.front()
        record = study.trial(3)
        assert record.spec is not None
        assert record.recipe is not None
        assert study.measurement(3).values == measurement(record.spec, record.recipe).values
        with ledger.drive():
            searcher = sampling.searcher_of(ledger, 14)
            sampling.one_trial(searcher, "a")
            sampling.one_trial(searcher, "b")
        assert ledger.counts().complete == 14
        assert study.events()[-4:] == [("ask", 12), ("tell", 12), ("ask", 13), ("tell", 13)]


def test_quality_of_a_short_run_grows_with_trials() -> None:
    ours = sampling.search_ours("random", 6, 0)
    theirs = sampling.search_optuna(6, 0)
    for volumes in (ours, theirs):
        assert volumes == pytest.approx(sorted(volumes))  # rounding is of the order of points
    assert 0 < ours[-1] < 1
    assert sampling.search_ours("random", 6, 0) == ours
