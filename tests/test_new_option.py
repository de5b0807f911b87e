"""docs/extending.md on options: its example, applied to a copy of the project, is an option everywhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from command_samples import ROOT

SECTION = re.search(
    r"^## A search option\n(.*?)^## ", (ROOT / "docs/extending.md").read_text(), re.DOTALL | re.MULTILINE
)
SEARCH = (
    "search --study new --trials 3 --epochs 3 --subset 60 --sampler random --early-stopping --no-baselines "
    "--max-macs 200000 --concurrency 1 --precision fp32"
)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command of a copy of the project to which the example was applied."""
    copy = tmp_path / "copy"
    for name in ("nas", "search_spaces", "studies"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app_cli.py", copy)
    assert SECTION is not None
    asked, kept, used = (textwrap.dedent(code) for code in re.findall(r"```python\n(.*?)```", SECTION[1], re.DOTALL))
    for file, before, code in (
        ("nas/settings.py", "    seed: Annotated[\n        int | None", asked),
        ("nas/settings.py", "    training_version: int = 1\n", kept),
        (
            "nas/engine/scheduler.py",
            "        with self._searcher.noting_errors():\n            return self._judge",
            used,
        ),
    ):
        text = (copy / file).read_text()
        assert text.count(before) == 1, before
        indent = " " * (len(before) - len(before.lstrip()))
        (copy / file).write_text(text.replace(before, textwrap.indent(code, indent) + before))

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(copy / "app_cli.py"), *words]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=240)

    return call


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
