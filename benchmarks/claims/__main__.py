"""What the papers claim, measured: ``python -m benchmarks.claims [--quick]``.

The reference networks are trained at equal parameter budgets, for denoising and classification at once unless
a claim says otherwise, on digits (27 epochs; 20 seeds for the four networks of claim a, 8 for the others) and on
6,000 training images of Fashion-MNIST (9 epochs, 5 seeds), each under gaussian:25 and gaussian:50. Seeds
are paired: a seed fixes data order and training noise for every network. Networks are judged on the validation split.
`benchmarks.claims.protocol` has the claims and the rules by which they are decided.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims.protocol import plan
from benchmarks.claims.report import write
from benchmarks.claims.results import Results, train
from benchmarks.lib.records import read, sessions
from nas.errors import SkipnasError

FOLDER = Path("runs/claims")
REPORT = Path("benchmarks/CLAIMS.md")
RESULTS = Path("benchmarks/claims.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, then writes the report. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs and seeds on digits, to see that it runs")
    parser.add_argument("--only", choices=("digits", "fashion"), help="one data source")
    parser.add_argument("--data-root", type=Path, help="where the files of Fashion-MNIST are")
    parser.add_argument("--results", type=Path, help=f"finished runs, one a line (default: {RESULTS}, or in {FOLDER})")
    parser.add_argument("--report", type=Path, help=f"default: {REPORT} for the full run, else in {FOLDER}")
    parser.add_argument("--no-training", action="store_true", help="only the report, from the runs that there are")
    options = parser.parse_args(arguments)
    if options.quick and options.only == "fashion":
        parser.error("--quick trains on digits only; leave out --only fashion")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    kind = "quick" if options.quick else options.only or "full"
    results_path = options.results or (FOLDER / "quick.jsonl" if options.quick else RESULTS)
    report_path = options.report or (REPORT if kind == "full" else FOLDER / kind / REPORT.name)
    try:
        todo = plan(quick=options.quick, only=options.only, root=options.data_root)
        if not options.no_training and not train(todo, results_path):
            print(f"stopped; {results_path} has what is finished, and the same command goes on", file=sys.stderr)
            return 130
    except SkipnasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = "python -m benchmarks.claims"
    command += " --quick" if options.quick else f" --only {options.only}" if options.only else ""
    print(write(Results(todo, read(results_path)), report_path, sessions(results_path), command))
    print(f"written to {report_path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
