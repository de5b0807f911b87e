"""The checks for a GPU run on a CPU as they would there, with tiny settings."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import searches, trials
from benchmarks.gpu.__main__ import CHECKS
from benchmarks.gpu.agreement import distance
from benchmarks.gpu.processes import search_command
from benchmarks.gpu.searches import Pace
from benchmarks.gpu.speed import covered
from benchmarks.lib.checks import PROJECT, Room
from nas.engine.report import Report
from nas.training.loop import Diverged
from nas.types import EpochRow

WITH_RAY = ("front", "at-a-time", "search")
SLOWER = (*WITH_RAY, "resume", "loop", "loop-larger")
CAPTURED = ("graphs", "captured", "trainings", "refused")


def run(names: list[str], folder: Path, minutes: float) -> dict[str, list[dict[str, Any]]]:
    """The command, on the CPU: records by check."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--to", str(folder / "found")]
    command += ["--minutes", str(minutes), "--only", *names]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60 * minutes + 60)
    assert done.returncode == 0, done.stdout + done.stderr
    records: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "found/gpu.jsonl").read_text().splitlines():
        record = json.loads(line)
        records.setdefault(record["check"], []).append(record)
    assert records["all"][0]["values"]["wrong"] == []
    for name in names:
        assert records[name][-1]["values"]["end"] in ("done", "out of time"), records[name][-1]["text"]
        assert len(records[name]) > 1, f"{name} found nothing"
    return records


@pytest.mark.slow
def test_checks_that_need_no_ray(tmp_path: Path) -> None:
    names = [name for name in CHECKS if name not in (*SLOWER, *CAPTURED)]
    found = run(names, tmp_path, minutes=4)
    assert found["networks"][0]["values"]["off"]["fp32"] == [0.0, 0.0]
    assert 0 < found["networks"][0]["values"]["off"]["bf16"][1] < 0.5
    assert {record["right"] for record in found["steps"][:-1]} == {True}
    assert [record["values"].get("outcome") for record in found["memory"][1:-1]] == ["out_of_memory", "complete"]


@pytest.mark.slow
def test_checks_of_captured_steps(tmp_path: Path) -> None:
    found = run(list(CAPTURED), tmp_path, minutes=4)
    assert {(record["values"]["off"], record["values"]["graphs"]) for record in found["graphs"][:-1]} == {(0.0, 0)}
    assert found["captured"][0]["values"]["pace"].keys() == {
        "people",
        *(f"{how} {precision}" for how in ("plain", "captured") for precision in ("fp32", "bf16")),
    }
    assert found["trainings"][0]["values"]["held"] == [0, 0, 0]
    assert found["refused"][0]["values"]["broken"] is False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_checks_with_ray_and_whole_trials(tmp_path: Path) -> None:
    found = run(list(SLOWER), tmp_path, minutes=20)
    there, elsewhere = (record["values"] for record in found["resume"][:2])
    assert there["off"] == elsewhere["off"] == 0.0
    assert there["began_at"] == there["total"] // 2
    assert [record["values"].get("at_a_time") for record in found["at-a-time"][:-1]] == [2, 1]
    assert found["search"][0]["values"]["complete"] == 1


def test_a_gpu_s_memory_is_taken_but_for_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    mib, free = 2**20, [40_000 * 2**20 + 12_345]

    def empty(size: int, **_: object) -> int:
        assert size <= free[0]
        if size > 9_000 * mib:
            raise torch.OutOfMemoryError("in one piece there is not so much")
        free[0] -= size
        return size

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 80_000 * mib))
    monkeypatch.setattr(torch, "empty", empty)
    taken = trials._taken_but(300 * mib, torch.device("cuda"))
    assert 300 * mib <= free[0] < 301 * mib
    assert sum(taken) == 40_000 * mib + 12_345 - free[0]  # type: ignore[arg-type]


def test_the_union_of_intervals_counts_overlaps_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
    assert covered([]) == 0.0


def test_distances_are_relative_and_what_is_no_number_is_far() -> None:
    assert distance(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])) == pytest.approx(0.75)
    assert not distance(torch.tensor([float("nan")]), torch.tensor([1.0])) <= 1e9


def test_epochs_count_once_all_workers_have_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("benchmarks.gpu.searches.time.monotonic", lambda: now[0])
    pace = Pace(2, 10.0)
    row = EpochRow(epoch=1, denoise_loss=1.0, classify_loss=None, seconds=1.0)

    def report(number: int, epochs: int, at: float) -> None:
        now[0] = at
        pace.report(Report(number=number, rows=(row,) * epochs))

    report(0, 5, at=104.0)
    assert pace.began is None
    report(1, 5, at=106.0)
    assert pace.began == 6.0
    report(0, 3, at=108.0)
    report(1, 3, at=110.0)
    assert pace.per_second() == pytest.approx(6 / 4)
    assert not pace.stop.is_set()
    report(0, 3, at=116.5)
    assert pace.stop.is_set()


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        ("Traceback\nModuleNotFoundError: No module named 'ray.tune'\n", ModuleNotFoundError, ""),
        ("searching\nerror: no trial fits\n", RuntimeError, "ended with 2 and said: error: no trial fits"),
    ],
)
def test_a_search_that_fails_says_why(
    said: str, error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = subprocess.CompletedProcess([], 2, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(error, match=f"{told}$") as raised:
        search_command(["--trials", "0"], Room(folder=tmp_path, ends=math.inf))
    if isinstance(raised.value, ModuleNotFoundError):
        assert raised.value.name == "ray.tune"


def test_a_run_that_diverges_on_the_cpu_has_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(evaluation: object) -> None:
        raise Diverged("loss is nan in epoch 1")

    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(searches, "evaluation_of", lambda *_: None)
    monkeypatch.setattr(searches, "finished", diverges)
    assert searches._values_on_cpu({}, {}, 0, None, ["psnr"]) is None
    monkeypatch.setattr(searches, "finished", lambda evaluation: {"psnr": 20.0, "accuracy": 90.0})
    assert searches._values_on_cpu({}, {}, 0, None, ["accuracy", "psnr"]) == [90.0, 20.0]
