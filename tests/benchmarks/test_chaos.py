"""Thirty kills -9 of drivers, workers and nodes leave no trace in the studies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_kills_leave_no_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills", "30", "--keep", str(tmp_path)]
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = done.communicate(timeout=580)
    finally:
        done.terminate()  # it ends its searches and its cluster
        done.wait(20)
    assert done.returncode == 0, said
    killed = re.search(r"^(\d+) kills \((.*)\) in \d+ s; 0 rules broken$", said, re.MULTILINE)
    assert killed is not None, said
    assert int(killed[1]) >= 30
    assert all(kind in killed[2] for kind in ("driver", "worker", "node"))
