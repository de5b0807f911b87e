"""docs/extending.md on options: its example, applied to a copy of the project, is an option everywhere."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from extending_examples import EXAMPLES, copy_product

SEARCH = (
    "search --study new --trials 3 --epochs 3 --subset 60 --sampler random --early-stopping --no-baselines "
    "--max-macs 200000 --concurrency 1 --precision fp32"
)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command of a copy of the project to which the example was applied."""
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_product(copy)
    EXAMPLES["A search option"].apply(copy)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(copy / "app_cli.py"), *words]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=240)

    return call


@pytest.mark.slow
def test_a_setting_that_is_declared_is_an_option_that_is_checked_kept_compared_and_shown(run: Run) -> None:
    search = shlex.split(SEARCH)
    assert "--spared" in run("search", "--help").stdout
    wrong = run(*search, "--spared", "-1")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --spared is -1; give at least 0\n")
    done = run(*search, "--spared", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] == 3, "none was stopped"
    shown = json.loads(run("studies", "show", "new", "--json").stdout)
    assert (shown["settings"]["spared"], shown["config"]["spared"]) == ("3", 3)
    assert "spared 3" in run("studies", "show", "new").stdout
    other = run(*search, "--spared", "1")
    assert "spared: study has 3, asked for 1" in other.stderr
    assert run(*search).returncode == 0, "what is not asked for is as the study has it"
