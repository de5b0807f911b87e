"""How long commands take until they say something: ``python -m benchmarks.startup [--beside CHECKOUT]``.

For quick commands it prints the median wall time of fresh processes, and the ratio to a bare ``python -c pass`` in the
same run. For a search as the README has it, it prints the time until the first epoch of a trial stands on the terminal,
of this checkout and of another one in turns.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib import ROOT
from studies.store.database import open_storage

REPEATS = 7
ROUNDS = 3
FIRST_FIGURE = b"epoch 1/"
LONGEST = 300.0
"""The most seconds that a search is waited for."""


def seconds(command: list[str], folder: Path) -> float:
    """Times a command in fresh processes, after one run that warms the disk's cache; returns the median wall time."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def first_figure(checkout: Path, folder: Path) -> float:
    """Returns the seconds until a checkout's search on digits shows an epoch on its terminal, and stops it then.

    Raises:
        RuntimeError: it ended without one, or took longer than `LONGEST`.
    """
    master, slave = pty.openpty()
    started = time.perf_counter()
    search = subprocess.Popen(
        [sys.executable, str(checkout / "app_cli.py"), "search"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while FIRST_FIGURE not in seen:
            left = LONGEST - (time.perf_counter() - started)
            if left < 0 or not select.select([master], [], [], left)[0] or search.poll() is not None:
                raise RuntimeError(f"no epoch was shown; the search said: {seen[-2000:].decode(errors='replace')}")
            seen += os.read(master, 1 << 16)
        return time.perf_counter() - started
    finally:
        search.send_signal(signal.SIGINT)
        while search.poll() is None:  # it ends when its terminal is read
            if select.select([master], [], [], 0.1)[0] and not _read(master):
                search.wait(LONGEST)
        os.close(master)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # nobody writes to it any more
        return b""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--beside", type=Path, help="another checkout, whose search is timed in turns with this one's")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of searches (default: {ROUNDS})")
    options = parser.parse_args(arguments)
    program = [sys.executable, str(ROOT / "app_cli.py")]
    with tempfile.TemporaryDirectory() as folder:
        open_storage(f"sqlite:///{folder}/empty.db").close()
        bare = seconds([sys.executable, "-c", "pass"], Path(folder))
        print("| command | seconds | times `python -c pass` |\n|---|---|---|")
        for name, given in {
            "--help": ["--help"],
            "search --help": ["search", "--help"],
            "studies list": ["studies", "list", "--storage", "empty.db"],
        }.items():
            taken = seconds([*program, *given], Path(folder))
            print(f"| `{name}` | {taken:.2f} | {taken / bare:.0f} |", flush=True)
    checkouts = [ROOT, *([options.beside.resolve()] if options.beside else [])]
    found: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    for _ in range(options.rounds):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as folder:
                found[checkout].append(first_figure(checkout, Path(folder)))
    print("\n| search, seconds until an epoch is shown | median | least, most |\n|---|---|---|")
    for name, times in zip(("this checkout", "the other one"), found.values(), strict=False):
        print(f"| {name} | {statistics.median(times):.1f} | {min(times):.1f}, {max(times):.1f} |")
    if options.beside:
        ours, others = found.values()
        print(f"\nin turns: {statistics.median(a / b for a, b in zip(ours, others, strict=True)):.2f} of the other")
    return 0


if __name__ == "__main__":
    sys.exit(main())
