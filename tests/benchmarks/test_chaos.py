"""Forty kills -9 over search, confirm, train and export leave no trace."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_forty_kills_leave_no_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills", "40", "--keep", str(tmp_path)]
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = done.communicate(timeout=960)
    finally:
        done.terminate()  # it ends its commands and its cluster
        done.wait(20)
    assert done.returncode == 0, said
    killed = re.search(r"^(\d+) kills \((.*)\) in \d+ s; 0 rules broken$", said, re.MULTILINE)
    assert killed is not None, said
    assert int(killed[1]) >= 40
    for kind in ("search: driver", "search: worker", "confirm: driver", "train: driver", "export: driver"):
        assert kind in killed[2], said
