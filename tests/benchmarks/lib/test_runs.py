"""Training runs: what identifies one, what is kept of it, and the worker processes that make many."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lib import ROOT, runs
from benchmarks.lib.records import append, read
from benchmarks.lib.runs import Job, Setting, missing, perform, perform_all, task_of
from nas.types import Candidate, Recipe
from search_spaces.unet.spec import UNetSpec

SPEC = UNetSpec(
    levels=2,
    width=4,
    growth="constant",
    fusion="add",
    gate="scalar",
    resampling="average",
    block="conv",
    norm="batch",
    kernel=3,
)

RECIPE = Recipe(epochs=1, batch_size=32, learning_rate=0.003, weight_decay=0.0, classification_weight=0.3)

SETTING = Setting(data="digits", subset=40, noise="gaussian:25", epochs=1)

JOB = Job(setting=SETTING, candidate=Candidate(spec=SPEC, recipe=RECIPE), seed=0)


def diverging() -> Job:
    return replace(JOB, candidate=Candidate(spec=SPEC, recipe=replace(RECIPE, learning_rate=1e30)))


def test_equal_runs_are_one_and_finished_ones_are_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    other = replace(JOB, seed=1)
    assert missing([JOB, replace(JOB), other], path) == [JOB, other]
    append(path, {"key": JOB.key})
    assert missing([JOB, other], path) == [other]


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, seed=1),
        replace(JOB, setting=replace(SETTING, noise="gaussian:50")),
        replace(JOB, setting=replace(SETTING, subset=41)),
        replace(JOB, candidate=replace(JOB.candidate, recipe=replace(RECIPE, epochs=2))),
    ],
)
def test_whatever_changes_the_result_changes_the_key(job: Job) -> None:
    assert job.key != JOB.key


def test_where_the_files_lie_does_not(tmp_path: Path) -> None:
    assert replace(JOB, setting=replace(SETTING, root=tmp_path)).key == JOB.key


def test_a_run_is_judged_and_repeats_itself() -> None:
    first, second = perform(JOB), perform(JOB)
    assert {name for name in first if first[name] != second[name]} <= {"seconds"}
    assert 0 <= first["accuracy"] <= 100
    assert len(first["gates"]) == 1
    json.dumps(first, allow_nan=False)


def test_the_task_is_what_the_data_makes_of_it() -> None:
    assert task_of(SETTING).classes == 10


def test_divergence_is_a_result() -> None:
    found = perform(diverging())
    assert "loss" in found["diverged"]
    assert found["stability"] == 0.0
    assert "psnr" not in found
    json.dumps(found, allow_nan=False)


def test_the_estimate_grows_with_the_runs() -> None:
    one = runs.estimate([JOB])
    assert 0 < one < 0.1
    many = runs.estimate([replace(JOB, seed=seed) for seed in range(100)])
    assert many > 10 * one


@pytest.mark.slow
def test_the_workers_fill_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    jobs = [replace(JOB, seed=seed) for seed in range(2)]
    assert perform_all(jobs, path, perform)
    assert set(read(path)) == {job.key for job in jobs}
    assert not missing(jobs, path)


SLEEPER = """
import sys, time
from pathlib import Path
from benchmarks.lib.runs import perform_all

def sleep(number):
    time.sleep(1)
    return {"key": str(number)}

if __name__ == "__main__":
    sys.exit(0 if perform_all(range(1000), Path("records.jsonl"), sleep) else 130)
"""


@pytest.mark.slow
def test_an_impatient_second_interrupt_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    records = tmp_path / "records.jsonl"
    process = subprocess.Popen([sys.executable, "sleeper.py"], cwd=tmp_path, env=environment, start_new_session=True)
    try:
        while process.poll() is None and not records.exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        process.kill()
    assert 2 <= len(read(records)) < 1000
