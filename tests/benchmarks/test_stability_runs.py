"""The stability benchmark plans every skip fusion, keeps its runs, and its controls score nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import stability
from benchmarks.lib import runs
from benchmarks.lib.records import append, read
from nas.types import Task
from search_spaces.unet.spec import CHOICES

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")


def test_every_skip_fusion_and_gate_is_among_the_architectures() -> None:
    specs = stability.architectures(TASK).values()
    assert len(specs) >= 40
    assert {spec.fusion for spec in specs} == set(CHOICES["fusion"])
    assert {spec.gate for spec in specs} == set(CHOICES["gate"])
    plan = stability.jobs(stability.SETTING, seeds=stability.SEEDS, factors=stability.FACTORS)
    assert len({run.key for run in plan}) == len(plan) == 13 * len(specs) + len(stability.CONTROLS) * 4


def test_a_run_is_kept_and_not_done_again_and_controls_score_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = runs.Setting(data="digits", subset=64, noise="gaussian:50", epochs=4)
    plan = stability.jobs(setting, seeds=range(1), factors=(), only=("plain concat",))
    assert [run.control for run in plan] == [*stability.CONTROLS, ""]
    records = {run.key: stability.perform(run) for run in plan}
    path = tmp_path / "runs.jsonl"
    for record in records.values():
        append(path, record)
    assert runs.missing(plan, path) == []
    scores = stability.controls(read(path), plan)
    assert scores.keys() == stability.CONTROLS.keys()
    for name in ("learning rate zero", "frozen network", "heavy clipping"):
        assert scores[name] == [pytest.approx(0.0, abs=0.05)], name
    assert len(records[plan[-1].key]["denoise"]) == 5
    assert stability.main(["--quick", "--no-training", "--results", str(path)]) == 0
    assert "0 architectures have all of their runs" in capsys.readouterr().out
