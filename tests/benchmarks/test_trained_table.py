"""What is stored in the trained table is what was measured, and it is written when all runs are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import table
from benchmarks.lib import runs, tabular
from benchmarks.lib.records import append
from benchmarks.lib.tabular import EPOCHS, SPACE, TASK, Table


def test_a_run_is_kept_for_every_epoch_and_its_stability_is_that_of_its_probes() -> None:
    setting = runs.Setting(data="digits", subset=128, noise="gaussian:50", epochs=3)
    (candidate,) = [SPACE.decode(SPACE.encode(tabular.candidates()[0]), TASK, 3)]
    record = json.loads(json.dumps(table.perform(runs.Job(setting=setting, candidate=candidate, seed=0))))
    evaluation, _ = runs.trained(runs.Job(setting=setting, candidate=candidate, seed=0))
    assert len(record["epochs"]) == 3
    last = evaluation.rows[-1]
    assert record["epochs"][-1] == [pytest.approx(last.values[name], abs=1e-3) for name in ("psnr", "accuracy")]
    for row in evaluation.rows:
        if row.validated:
            assert table.stability_after(record, row.epoch, 3) == pytest.approx(row.values["stability"], abs=1e-4)


def test_the_table_is_what_the_runs_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tabular.candidates()[:4]
    monkeypatch.setattr(tabular, "candidates", lambda: few)
    curve = np.linspace(1.0, 0.4, 201).tolist()
    for number, job in enumerate(table.jobs()):
        epochs = [[15 + epoch / 10 + number, 50.0 + epoch] for epoch in range(EPOCHS)]
        record: dict[str, Any] = {"key": job.key, "seconds": 9.5, "epochs": epochs, "steps": 400}
        record |= {"denoise": curve, "classify": curve}
        if number == 2:
            record |= {"epochs": epochs[:5], "denoise": curve[:40], "classify": curve[:40], "diverged": "loss is nan"}
        append(tmp_path / "runs" / f"shard-{number % 2}.jsonl", record)
    assert table.main(["--no-training", "--results", str(tmp_path / "runs"), "--to", str(tmp_path / "t.npz")]) == 0
    found = Table.read(tmp_path / "t.npz")
    assert found.values(few[1], seed=0, epoch=1) == pytest.approx((16.0, 50.0, found.all_values[1, 0, 0, 2]))
    assert found.values(few[1], seed=1, epoch=EPOCHS) == pytest.approx((22.6, 76.0, 0.3), abs=1e-2)
    assert found.values(few[2], seed=0, epoch=5) is not None
    assert found.values(few[2], seed=0, epoch=6) is None
    assert found.values(few[2], seed=0) is None
    assert "1 of 8 runs diverged" in (tmp_path / "TABLE.md").read_text()


def test_a_table_is_not_written_before_every_run_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "t.npz"
    assert table.main(["--no-training", "--results", str(tmp_path), "--to", str(target)]) == 1
    assert "1296 of 1296 runs are not in" in capsys.readouterr().out
    assert not target.exists()


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b"])
def test_a_shard_that_does_not_exist_is_refused(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table.main(["--shard", shard])
    assert "is not I/N with 1 <= I <= N" in capsys.readouterr().err
