"""Found networks beside known ones, on real images: ``python -m benchmarks.proof [--list | --cell NAME | --table]``.

A cell is a data set (digits, 6,000 images of Fashion-MNIST, 4,068 of CIFAR-10, PneumoniaMNIST), a noise (gaussian:25 or
50) and a limit of MACs: 6.4 M for digits, which is the limit of the space, 42 M for the larger images, which is about
what a search of 20 minutes on two cores allows itself, and a half and a sixth of them. In each cell

- one search of a stated length is made as it comes, with nothing set but data, noise, epochs and the limit;
- its knee and the other ends of its front are trained again under five new seeds, beside every network of the papers
  as wide as the limit allows, and the pair of one network that denoises and one that classifies, with the same MACs in
  sum. Known networks are trained under their own recipe and under that of the knee, so that networks are compared and
  not batch sizes;
- all are judged on the test split, which neither the search nor any choice has seen.

The verdict on each rival is that of `benchmarks.proof.verdicts`: paired intervals over the seeds, with Holm's
correction for all differences of a cell. A search begins with the prior of the space, which was fitted to validation
figures of digits and Fashion-MNIST at gaussian:50, CIFAR-10 at gaussian:25 and photographs (benchmarks/ATLAS.md).

Everything is kept in a folder, and the same command goes on after a stop, with further cells too. Each cell says before
it begins how long it will take. Ray lets its workers yield to all other programs; on a machine that is not idle
RAY_worker_niceness=0 gives them their share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.proof.cells import Cell, cells
from benchmarks.proof.pages import details, picture, summary
from benchmarks.proof.running import Plan, measure, tell
from nas.errors import SkipnasError
from studies.commands.terminal import duration
from studies.pages.drawing import check_target, write_figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Brings cells to their records and prints the tables. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--cell", action="append", metavar="NAME", help="only this cell; again for further ones")
    parser.add_argument("--list", action="store_true", help="name the cells, and say which are finished")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is finished")
    parser.add_argument("--minutes", type=float, default=20.0, help="length of each search (20)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each network (5)")
    parser.add_argument("--data-root", type=Path, help="folder with the files of Fashion-MNIST and cifar10-subset")
    parser.add_argument("--pneumonia", type=Path, metavar="FILE", help="pneumoniamnist.npz, for its cells")
    parser.add_argument("--to", type=Path, default=Path("runs/proof"), help="folder of everything (runs/proof)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="the picture: svg, png, pdf or html")
    options = parser.parse_args(arguments)
    every = cells(options.data_root, options.pneumonia)
    if unknown := sorted({*(options.cell or ())} - {cell.name for cell in every}):
        parser.error(f"--cell {unknown[0]} is unknown; --list names them")
    if options.seeds < 2 or options.minutes <= 0:
        parser.error("--seeds is at least 2, as an interval needs two runs, and --minutes is above 0")
    chosen = [cell for cell in every if not options.cell or cell.name in options.cell]
    plan = Plan(minutes=options.minutes, seeds=options.seeds, folder=options.to)
    if options.list:
        print("\n".join(f"{cell.name:32} {cell.macs:>12,} MACs  {state}" for cell, state in states(every, plan)))
        return 0
    try:
        if options.picture:
            check_target(options.picture, "picture")
        for cell in () if options.table else chosen:
            if cell.needs:
                tell(f"{cell.name}: needs {cell.needs}")
            elif not measure(cell, plan):
                tell(f"stopped; {plan.folder} has what is finished, and the same command goes on")
                return 130
        finished = plan.finished(every)
        for cell in chosen:
            if cell.name in finished:
                print("\n".join([*details(finished[cell.name]), ""]))
        print("\n".join(summary(every, finished)))
        if options.picture and finished.keys() & {cell.name for cell in chosen}:
            drawn = picture([finished[cell.name] for cell in chosen if cell.name in finished])
            write_figure(drawn, options.picture, "picture")
    except SkipnasError as error:
        tell(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        tell("stopped; the same command goes on")
        return 130
    return 0


def states(every: Sequence[Cell], plan: Plan) -> list[tuple[Cell, str]]:
    """Returns the state of each cell in words."""
    finished = plan.finished(every)
    found = []
    for cell in every:
        so_far = plan.searched(cell)
        state = f"needs {cell.needs}" if cell.needs else "-"
        if cell.name in finished:
            state = "finished"
        elif so_far["reason"]:
            state = "searched"
        elif so_far["seconds"] or so_far["begun"] is not None:
            state = f"searched for {duration(so_far['seconds'])}"
        found.append((cell, state))
    return found


if __name__ == "__main__":
    sys.exit(main())
