"""The checks in their order, and the command that performs them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import __doc__ as purpose
from benchmarks.gpu.agreement import graphs, machine, networks, steps, validation
from benchmarks.gpu.searches import at_a_time, front, search
from benchmarks.gpu.setting import CARD, TINY, Setting
from benchmarks.gpu.speed import busy, captured, loop
from benchmarks.gpu.trials import memory, refused, resume, trainings
from benchmarks.lib.checks import PROJECT, Check, Finding, Records, run_checks

CHECKS: Mapping[str, tuple[Callable[..., Iterator[Finding]], float]] = {
    "machine": (machine, 10),
    "networks": (networks, 30),
    "steps": (steps, 20),
    "graphs": (graphs, 30),
    "validation": (validation, 15),
    "loop": (partial(loop, later=False), 100),
    "resume": (resume, 50),
    "memory": (memory, 30),
    "captured": (captured, 30),
    "trainings": (trainings, 20),
    "refused": (refused, 10),
    "front": (front, 100),
    "at-a-time": (at_a_time, 120),
    "busy": (busy, 30),
    "loop-larger": (partial(loop, later=True), 60),
    "search": (search, 90),
}
"""Name -> what is done, and its share of the time. The most telling come first; what one leaves goes to the others."""

PRELOAD = ("torch", "sklearn.datasets", "benchmarks.lib.loops")
FOLDER = Path("runs/gpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Performs the checks. Returns 1 when something was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(purpose or "").partition(":")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for all checks together (default: 8)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of: {', '.join(CHECKS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="files of data sets (default: data)")
    parser.add_argument("--to", type=Path, default=FOLDER, help=f"folder of what is found (default: {FOLDER})")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, and torch sees no GPU here; leave it out to run on the CPU")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Commands and workers are started in other folders.
    path = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join([*path, str(PROJECT)])
    if options.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"
    setting = Setting(
        device=torch.device(options.device),
        scale=CARD if options.device == "cuda" else TINY,
        data_root=options.data_root.resolve(),
    )
    checks = [
        Check(name=name, work=partial(CHECKS[name][0], setting), weight=CHECKS[name][1])
        for name in options.only or CHECKS
    ]
    records = Records(options.to, "gpu")
    wrong = run_checks(checks, records, 60 * options.minutes, PRELOAD)
    print(f"kept in {records.text} and {records.lines}; what the checks printed is in {records.log}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
