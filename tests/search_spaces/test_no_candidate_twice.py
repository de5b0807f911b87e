"""A search never trains a candidate twice, however often its space proposes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.engine.report import Report
from nas.engine.searcher import StudySearcher
from nas.outcome import Outcome
from nas.search.objectives import DEFAULT, TrivialQuality, resolve_objectives
from nas.settings import StudyConfig
from nas.types import Candidate, Measurement, ProbeCurve, Task
from search_spaces.unet.space import UNetSpace
from studies.store.catalog import create_study
from studies.store.database import open_storage

DRAWS = 2000
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")


drawn: list[str] = []
"""Digests of all specs that were drawn, in order."""


class Watched(UNetSpace):
    """Notes what is drawn, also what the sampler puts back by itself."""

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        candidate = super().decode(params, task, epochs)
        drawn.append(candidate.digest)
        return candidate


@pytest.mark.slow
def test_2000_random_specs_are_each_trained_once(tmp_path: Path) -> None:
    """One recipe, at most 2 levels and 4 channels, so that many draws are the same network."""
    space = Watched()
    one: dict[str, BaseDistribution] = {
        name: CategoricalDistribution([value])
        for name, value in {
            "width": 4,
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "batch_size": 32,
            "optimizer": "adamw",
            "classification_weight": 0.3,
            "balancing": "fixed",
            "sharing_rate": 1.0,
            "head_width": 8,
            "head_dropout": 0.0,
            "head_hidden": 0,
            "columns": 1,
            "extra_blocks": 0,
            "kernel": 3,
            "kernel_schedule": "constant",
            "norm": "none",
            "prediction": "image",
        }.items()
    }
    distributions = space.distributions(TASK) | one | {"levels": CategoricalDistribution([1, 2])}
    config = StudyConfig(
        study="twice",
        space="unet",
        space_version=space.version,
        data="digits",
        fingerprint="0",
        task=TASK,
        epochs=1,
        objectives=resolve_objectives(DEFAULT, TASK, TrivialQuality(psnr=14.0, counts=(1,) * 10), space.limits(TASK))[
            0
        ],
        constraints=space.limits(TASK),
        sampler="random",
    )
    ledger = create_study(open_storage(f"sqlite:///{tmp_path / 's.db'}"), config, distributions, {}, "test")
    with ledger.drive():
        searcher = StudySearcher(ledger, space, trials=DRAWS, stopping=lambda: False, on_end=lambda number, how: None)
        trained: Counter[str] = Counter()
        while len(drawn) < DRAWS:
            trial_id = str(len(drawn))
            job = searcher.ask(trial_id)
            assert job is not None
            trained[job.digest] += 1
            measurement = Measurement(
                values={"psnr": 20.0, "accuracy": 90.0, "stability": 0.5, "params": 1.0, "macs": 1.0, "latency": 1.0},
                probe=ProbeCurve(),
                gates=(),
                seconds=0.0,
                peak_memory=0.0,
                seed=0,
            )
            report = Report(number=job.number, outcome=Outcome.COMPLETE, measurement=measurement)
            searcher.on_trial_complete(trial_id, {"report": report})
        counts = ledger.counts()
    ledger.close()
    assert len(set(drawn)) < len(drawn) / 2  # so most draws were known ones
    assert counts.trained == sum(trained.values()) == len(trained)
    assert trained.keys() <= set(drawn)
