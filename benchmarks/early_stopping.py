"""Does early stopping pay? ``python -m benchmarks.early_stopping``.

Random candidates of the space ``unet`` are trained to the end on digits, once, and their values at every rung
kept (resumable: a candidate that is in the file is not trained again). Searches are then replayed on these
curves with a virtual clock, with and without early stopping, in the same random orders: `WORKERS` trials at a
time, an epoch costs one unit, the rungs decide with the scheduler's own rule. Printed is the hypervolume of
what was trained to the end, after the same number of epochs, over seeds, with the paired difference.

Candidates are drawn at random with and without stopping, so that nothing but the rungs differs.
"""

from __future__ import annotations

import argparse
import heapq
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import runs
from benchmarks.runs import Job, Setting
from benchmarks.stats import mean_interval
from nas.data.splits import load
from nas.search.objectives import DEFAULT, resolve_objectives
from nas.search.pareto import hypervolume
from nas.search.rungs import goes_on, has_rung
from nas.types import Candidate, Objective, Task
from search_spaces import get_space
from studies.commands.search import trivial_quality

EPOCHS = 27
SETTING = Setting(data="digits", subset=500, noise="gaussian:50", epochs=EPOCHS)
CURVES = 80
SEEDS = 20
WORKERS = 4
BUDGETS = (5, 10, 15)
"""In full trainings."""
RESULTS = Path("runs/early-stopping/curves.jsonl")


@dataclass(frozen=True, slots=True)
class Curve:
    """What a full training of a candidate showed.

    Attributes:
        epochs: that it trained; fewer than `EPOCHS` when it diverged.
        rungs: validated epoch -> values of the objectives.
    """

    epochs: int
    rungs: Mapping[int, tuple[float, ...]]

    @property
    def complete(self) -> bool:
        return EPOCHS in self.rungs


def candidates(task: Task, count: int) -> list[Candidate]:
    """Distinct random candidates within the space's limits, the same for every run."""
    space, generator = get_space("unet"), np.random.default_rng(0)
    distributions = space.distributions(task)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        params = {name: _draw(distribution, generator) for name, distribution in distributions.items()}
        candidate = space.decode(params, task, EPOCHS)
        cost = space.cost(candidate.spec, task)
        if all(limit.violation(cost) <= 0 for limit in space.limits(task)):
            found.setdefault(candidate.digest, candidate)
    return list(found.values())


def _draw(distribution: Any, generator: np.random.Generator) -> Any:
    index = generator.integers(len(distribution.choices) if hasattr(distribution, "choices") else 2**31)
    if hasattr(distribution, "choices"):
        return distribution.choices[index]
    return distribution.low + int(index) % (distribution.high - distribution.low + 1)


def replay(
    order: Sequence[Curve], budget: int, objectives: Sequence[Objective], *, stopping: bool, within: str = "hypervolume"
) -> list[Curve]:
    """Curves of the candidates that `budget` epochs bring to their end, tried in the given order.

    Asynchronous: a worker that is free takes the next candidate; who is at a rung first is judged first.
    """
    reached: dict[int, dict[int, tuple[float, ...]]] = {}
    ended: list[Curve] = []
    waiting = iter(enumerate(order))
    # (epochs that the worker has done, worker, candidate, its epoch)
    free: list[tuple[int, int, int, int]] = [(0, worker, -1, 0) for worker in range(WORKERS)]
    spent = 0
    while free:
        clock, worker, number, epoch = heapq.heappop(free)
        curve = order[number]
        if number >= 0 and epoch < curve.epochs:
            goes = True
            if stopping and epoch in curve.rungs and has_rung(epoch, EPOCHS):
                reached.setdefault(epoch, {})[number] = curve.rungs[epoch]
                goes = goes_on(number, reached[epoch], objectives, within)
            if not goes:
                number = -1
        elif number >= 0:
            if curve.complete:
                ended.append(curve)
            number = -1
        if number < 0:
            number, epoch = next(((n, 0) for n, _ in waiting), (-1, 0))
            if number < 0:
                continue
        later = [rung for rung in order[number].rungs if rung > epoch]
        target = min([*later, order[number].epochs])
        if spent + target - epoch > budget:
            continue
        spent += target - epoch
        heapq.heappush(free, (clock + target - epoch, worker, number, target))
    return ended


def volume(curves: Sequence[Curve], objectives: Sequence[Objective]) -> float:
    """Hypervolume of the final values, from the study's own reference."""
    if not curves:
        return 0.0
    values = np.array([curve.rungs[EPOCHS] for curve in curves])
    return hypervolume(values, [o.reference for o in objectives], [o.direction == "maximize" for o in objectives])


def report(curves: Sequence[Curve], objectives: Sequence[Objective]) -> str:
    """The table: share of the hypervolume of all curves, with and without stopping, by budget."""
    most = volume([curve for curve in curves if curve.complete], objectives)
    lines = [
        f"{len(curves)} candidates, {sum(not c.complete for c in curves)} diverged; {WORKERS} workers, {SEEDS} seeds;",
        "share of the hypervolume of all, mean with 95 % interval; the difference is paired by seed.",
        "",
        "| epochs | full trainings | rule | all trained to the end | stopped early | difference | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for trainings in BUDGETS:
        budget = trainings * EPOCHS
        for within in ("hypervolume", "epsilon-net"):
            pairs = []
            for seed in range(SEEDS):
                order = [curves[i] for i in np.random.default_rng(seed).permutation(len(curves))]
                pairs.append(
                    [
                        volume(replay(order, budget, objectives, stopping=stopping, within=within), objectives) / most
                        for stopping in (False, True)
                    ]
                )
            without, with_, gain = (
                mean_interval(list(column)) for column in (*zip(*pairs, strict=True), [b - a for a, b in pairs])
            )
            half = [(each.high - each.low) / 2 for each in (without, with_)]
            lines.append(
                f"| {budget} | {trainings} | {within} | {without.mean:.3f} ± {half[0]:.3f} "
                f"| {with_.mean:.3f} ± {half[1]:.3f} | {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] "
                f"| {with_.mean / without.mean:.2f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, then prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.early_stopping", description=(__doc__ or "")[:70])
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"finished trainings (default: {RESULTS})")
    parser.add_argument("--curves", type=int, default=CURVES, help=f"candidates to train (default: {CURVES})")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    task = runs.task_of(SETTING)
    jobs = [Job(setting=SETTING, candidate=each, seed=0) for each in candidates(task, options.curves)]
    if not runs.perform_all(runs.missing(jobs, options.results), options.results):
        print(f"stopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
        return 130
    data = load(SETTING.data, root=None, subset=SETTING.subset)
    objectives, _ = resolve_objectives(DEFAULT, task, trivial_quality(data, task), get_space("unet").limits(task))
    records = runs.read(options.results)
    curves = []
    for job in jobs:
        record = records[job.key]
        rungs = {int(epoch): tuple(values) for epoch, values in record["curve"].items()}
        curves.append(Curve(record["epochs"], rungs))
    print(report(curves, objectives))
    return 0


if __name__ == "__main__":
    sys.exit(main())
