"""How long the quick commands take to answer: ``python -m benchmarks.startup``.

It prints the median wall time of fresh processes, and the ratio to a bare ``python -c pass`` in the same run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lib import ROOT
from studies.store.database import open_storage

REPEATS = 7


def seconds(command: list[str], folder: Path) -> float:
    """Times a command in fresh processes, after one run that warms the disk's cache; returns the median wall time."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    program = [sys.executable, str(ROOT / "app_cli.py")]
    with tempfile.TemporaryDirectory() as folder:
        open_storage(f"sqlite:///{folder}/empty.db").close()
        bare = seconds([sys.executable, "-c", "pass"], Path(folder))
        print(f"{'command':<16} {'seconds':>8} {'times python -c pass':>22}")
        for name, arguments in {
            "--help": ["--help"],
            "search --help": ["search", "--help"],
            "studies list": ["studies", "list", "--storage", "empty.db"],
        }.items():
            taken = seconds([*program, *arguments], Path(folder))
            print(f"{name:<16} {taken:>8.2f} {taken / bare:>22.0f}")


if __name__ == "__main__":
    main()
