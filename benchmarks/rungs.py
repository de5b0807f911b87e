"""Which rule of early stopping keeps the good candidates? ``python -m benchmarks.rungs [--orders 16]``.

The candidates of the atlas of digits (`benchmarks.atlas`) are trained once more on paper: one after the other, in
random orders, each up to the rung at which a rule stops it. The hypervolume of those that were trained to the end is
shown as a share of that of all candidates, after the epochs of 5, 10 and 20 full trainings and at the end, with the
share of all epochs that were spent. ``all`` draws the order from all candidates, most of which are weak, as at the
start of a search; ``best`` from the best forty, among which a search chooses later, and where differences are mostly
those of seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import atlases
from benchmarks.lib.made_up import OBJECTIVES
from benchmarks.lib.records import Record
from benchmarks.lib.stats import mean_interval
from nas.search.early_stopping import RULES, Rule, Rungs
from nas.search.pareto import hypervolume

BEST = 40
POINTS = (5, 10, 20)
REFERENCE = [objective.reference for objective in OBJECTIVES]
MAXIMIZE = [True] * len(OBJECTIVES)
Curve = Mapping[int, tuple[float, ...]]


def volume(curves: Sequence[Curve], numbers: Sequence[int], last: int) -> float:
    """Returns the hypervolume of candidates that were trained to the end."""
    return hypervolume(np.array([curves[number][last] for number in numbers]), REFERENCE, MAXIMIZE) if numbers else 0.0


def replayed(curves: Sequence[Curve], order: Sequence[int], rule: Rule | None) -> tuple[list[int], list[list[int]]]:
    """Trains candidates in an order.

    Returns:
        epochs spent after each candidate, and the candidates that were trained to the end by then.
    """
    epochs = sorted(curves[0])
    reached: dict[int, dict[int, tuple[float, ...]]] = {epoch: {} for epoch in epochs}
    rungs = Rungs(OBJECTIVES, epochs[-1], reached.__getitem__)
    spent, finished = [0], [list[int]()]
    for number in order:
        trained = 0
        for epoch in epochs:
            trained, reached[epoch][number] = epoch, curves[number][epoch]
            if epoch < epochs[-1] and rule is not None and not rule(rungs, number, epoch):
                break
        spent.append(spent[-1] + trained)
        finished.append([*finished[-1], *([number] if trained == epochs[-1] else [])])
    return spent, finished


def row(name: str, curves: Sequence[Curve], pool: NDArray[np.int64], rule: Rule | None, orders: int) -> str:
    """Returns one row of the table."""
    last, whole = max(curves[0]), volume(curves, pool.tolist(), max(curves[0]))
    cells: list[list[float]] = []
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(pool).tolist()
        spent, finished = replayed(curves, order, rule)
        at = [int(np.searchsorted(spent, last * point, side="right")) - 1 for point in POINTS]
        found = [volume(curves, finished[index], last) / whole for index in (*at, -1)]
        cells.append([*found, spent[-1] / (last * len(pool))])
    columns = [mean_interval([each[k] for each in cells]) for k in range(len(POINTS) + 2)]
    return f"| {name} | {' | '.join(f'{column.mean:.3f} ± {column.high - column.mean:.3f}' for column in columns)} |"


def curves_of(records: Sequence[Record]) -> list[Curve]:
    """Returns the values of all candidates that did not diverge, after each validated epoch."""
    return [
        {int(epoch): tuple(values) for epoch, values in record["curve"].items()}
        for record in records
        if "diverged" not in record
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rungs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--orders", type=int, default=16, help="random orders for each row")
    options = parser.parse_args(arguments)
    curves = curves_of(atlases.read()["digits"])
    final = np.array([curve[max(curve)] for curve in curves])
    scaled = (final - REFERENCE) / (final.max(axis=0) - REFERENCE)
    pools = {"all": np.arange(len(curves)), "best": np.argsort(-scaled.sum(axis=1), kind="stable")[:BEST]}
    head = [*(f"{point} trainings" for point in POINTS), "end", "epochs spent"]
    print(f"| candidates, rule | {' | '.join(head)} |\n|---|{'---|' * len(head)}")
    for title, pool in pools.items():
        for name, rule in {"none": None, **RULES}.items():
            print(row(f"{title} {len(pool)}, {name}", curves, pool, rule, options.orders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
