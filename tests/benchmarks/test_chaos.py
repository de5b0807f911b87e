"""Kills -9 of a search, a confirmation, a training and an export leave no trace."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_round_of_kills_leaves_no_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills", "14", "--trials", "6"]
    command += ["--keep", str(tmp_path)]
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = done.communicate(timeout=660)
    finally:
        done.terminate()  # it ends its commands and its cluster
        done.wait(20)
    assert done.returncode == 0, said
    killed = re.search(r"^(\d+) kills \((.*)\) in \d+ s; 0 rules broken$", said, re.MULTILINE)
    assert killed is not None, said
    assert int(killed[1]) >= 10, "a command may end before all of its kills"
    for command in ("search", "confirm", "train", "export"):
        assert f"{command}: " in killed[2], said
