"""A search on two nodes of made-up GPUs, one of which is killed in mid-search."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from toy_space import ToySpace

from nas.data.splits import load
from nas.engine.search import Progress, run_search
from nas.settings import RunOptions, StudyConfig
from nas.types import Objective, Task
from studies.store.catalog import create_study
from studies.store.database import open_storage

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
TRIALS = 6


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # where workers find the toy space
    memory = {"object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    nodes = [made.add_node(num_cpus=2, num_gpus=1, **memory) for _ in range(2)]
    yield made, nodes
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the processes that Cluster starts
def test_a_search_outlives_a_node(cluster: Any, tmp_path: Path) -> None:
    made, nodes = cluster
    data = load("digits", subset=128)
    space = ToySpace(faults=("slow",), scratch=str(tmp_path))
    names = ("psnr", "accuracy", "stability")
    config = StudyConfig(
        study="toy",
        space="toy",
        space_version=1,
        data="digits",
        fingerprint=data.fingerprint,
        task=TASK,
        epochs=27,
        objectives=tuple(Objective(name=n, direction="maximize", unit="", reference=0.0) for n in names),
        constraints=space.limits(TASK),
        sampler="random",
    )
    killed: list[int] = []

    def observe(progress: Progress) -> None:
        if not killed and progress.running:
            (raylet,) = nodes[0].all_processes["raylet"]
            killed.append(raylet.process.pid)
            os.kill(raylet.process.pid, signal.SIGKILL)
            (tmp_path / "fast").touch()

    with open_storage(f"sqlite:///{tmp_path / 'studies.db'}") as storage:
        ledger = create_study(storage, config, space.distributions(TASK), {}, "test")
        options = RunOptions(trials=TRIALS, gpus_per_trial=0.5, address=made.address)
        outcome = run_search(config, space, ledger, data, tmp_path / "files", options, observe)
        assert killed, "the node was killed while trials ran on it"
        assert outcome.workers == 4
        assert (outcome.reason, outcome.counts.trained) == ("complete", TRIALS)
        assert (outcome.counts.failed, outcome.counts.running) == (0, 0)
        assert [trial.number for trial in ledger.optuna_study.get_trials()] == list(range(TRIALS))
        expected = ledger.kept()
    kept = sorted(int(path.stem.split("-")[1]) for path in (tmp_path / "files").glob("*.safetensors"))
    assert kept == expected
