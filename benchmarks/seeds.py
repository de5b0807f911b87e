"""One search under several study seeds: ``python -m benchmarks.seeds [--seeds 10] [--confirm 5] [-- SEARCH OPTIONS]``.

A single search may be lucky. This command runs the default search, or the one that the options after ``--`` ask for,
under one study seed after the other, and trains the members of each front again under new seeds, since the choice of
the best from noisy values flatters them. The table says for each search its hypervolume after the references and at its
end, and for the best member of the front the mean hypervolume under the new seeds. Below it stands what a choice from
the front is worth that goes by the search's one run, or by its mean with one, two or three of the new seeds, judged
under the other ones.

Everything is kept in a database of studies (``--storage``), so that the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.lib.stats import Interval, mean_interval
from nas.search.pareto import hypervolume, knee, non_dominated
from nas.settings import StudyConfig
from studies.reading.history import History, hypervolume_steps, read_history
from studies.reading.study import StudyReader

CHOSEN_BY = 3
"""The most new seeds that a choice goes by."""

APP = Path(__file__).parents[1] / "app_cli.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One search.

    Attributes:
        seed: seed of the study.
        trials: trained trials.
        begun: the hypervolume when the last reference network had ended.
        ended: the hypervolume at the end.
        core_minutes: minutes of all trainings, one core each.
        front: the members of the front, ``reference`` or ``found`` each.
        best: hypervolume of the best member alone under new seeds; None while the front is not confirmed.
        found: whether that member was found by the search.
        chosen: by number of new seeds that the choice of the knee goes by, the hypervolume of the chosen member alone
            under the other seeds, less that of the best member there.
    """

    seed: int
    trials: int
    begun: float
    ended: float
    core_minutes: float
    front: Sequence[str]
    best: Interval | None
    found: bool
    chosen: Mapping[int, float]


def command(*words: str) -> bool:
    """Runs skipnas, with its output on stderr. Returns whether it ended well."""
    return subprocess.run([sys.executable, str(APP), *words], stdout=sys.stderr, check=False).returncode == 0


def alone(values: Sequence[float], config: StudyConfig) -> float:
    """Returns the hypervolume of one network with these values of the study's objectives."""
    objectives = config.objectives
    maximize = [objective.direction == "maximize" for objective in objectives]
    return hypervolume(np.array([values]), [objective.reference for objective in objectives], maximize)


def best_member(study: StudyReader, numbers: Sequence[int]) -> tuple[Interval | None, int | None]:
    """Returns the largest mean hypervolume of a confirmed member, and the number of its trial."""
    runs: dict[int, list[float]] = {}
    for run in study.progress.confirmations():
        if run.number is not None and run.number in numbers and run.values:
            runs.setdefault(run.number, []).append(alone(study.config.in_order(run.values), study.config))
    means = {number: mean_interval(found) for number, found in runs.items()}
    if not means:
        return None, None
    number = max(means, key=lambda each: means[each].mean)
    return means[number], number


def chosen_by(study: StudyReader, numbers: Sequence[int]) -> dict[int, float]:
    """Returns what the knee has less than the best member, by the number of new seeds that its choice goes by."""
    config = study.config
    maximize = [objective.direction == "maximize" for objective in config.objectives]
    runs: dict[int, dict[int, Sequence[float]]] = {}
    for run in study.progress.confirmations():
        if run.number is not None and run.number in numbers and run.values:
            runs.setdefault(run.number, {})[run.repeat] = config.in_order(run.values)
    seeds = max(map(len, runs.values()), default=0)
    members = [number for number, found in runs.items() if len(found) == seeds]
    searched = study.progress.objective_values()
    first = np.array([searched[number] for number in members])
    again = np.array([[runs[number][repeat] for repeat in sorted(runs[number])] for number in members])
    found: dict[int, float] = {}
    for count in range(min(CHOSEN_BY, seeds - 1) + 1):
        lost = []
        for used in combinations(range(seeds), count):
            seen = np.concatenate([first[:, None], again[:, list(used)]], axis=1).mean(axis=1)
            front = np.flatnonzero(non_dominated(seen, maximize))
            others = [repeat for repeat in range(seeds) if repeat not in used]
            worth = [alone(values, config) for values in again[:, others].mean(axis=1)]
            lost.append(worth[front[knee(seen[front], maximize)]] - max(worth))
        found[count] = float(np.mean(lost))
    return found


def row(seed: int, study: StudyReader) -> Row:
    """Reads what a search has found."""
    history: History = read_history(study)
    steps = hypervolume_steps(history)
    references = set(study.references())
    at_start = [step["hypervolume"] for step in steps if step["number"] in references]
    numbers = [trial.number for trial in history.front]
    best, number = best_member(study, numbers)
    return Row(
        seed=seed,
        trials=len(steps),
        begun=max(at_start, default=0.0),
        ended=history.hypervolume,
        core_minutes=sum(trial.seconds or 0.0 for trial in history.trials) / 60,
        front=["reference" if each in references else "found" for each in numbers],
        best=best,
        found=number is not None and number not in references,
        chosen=chosen_by(study, numbers) if best is not None else {},
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the searches, and their means, in Markdown."""
    lines = [
        "| study seed | trials | hypervolume after the references | at the end | core minutes "
        "| front: found, references | best member under new seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        counts = f"{each.front.count('found')}, {each.front.count('reference')}"
        best = "-"
        if each.best is not None:
            best = f"{told(each.best)}, {'found' if each.found else 'a reference'}"
        lines.append(
            f"| {each.seed} | {each.trials} | {each.begun:.1f} | {each.ended:.1f} | {each.core_minutes:.1f} | {counts} "
            f"| {best} |"
        )
    ends = [each.ended for each in rows]
    means = [each.best.mean for each in rows if each.best is not None]
    lines += [
        "",
        f"Hypervolume at the end: {told(mean_interval(ends))}, least {min(ends):.1f}; after the references "
        f"{told(mean_interval([each.begun for each in rows]))}.",
    ]
    if means:
        lines.append(f"Best member under new seeds: {told(mean_interval(means))}, least {min(means):.1f}.")
        for count in range(CHOSEN_BY + 1):
            lost = [each.chosen[count] for each in rows if count in each.chosen]
            if lost:
                seen = "the search's one run" if not count else f"its mean with {count} of the new seeds"
                lines.append(f"Knee by {seen}, beside the best member: {told(mean_interval(lost))}.")
    return lines


def told(found: Interval) -> str:
    """Returns ``503.1 [500.2, 506.0]``."""
    return f"{found.mean:.1f}" + ("" if found.n < 2 else f" [{found.low:.1f}, {found.high:.1f}]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing and prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--seeds", type=int, default=10, help="number of study seeds, from 0 on")
    parser.add_argument("--confirm", type=int, default=5, help="new seeds for each member of a front; 0 for none")
    parser.add_argument("--storage", default="runs/seeds.db", help="the database of the studies")
    parser.add_argument("--name", default="s", help="what the studies' names begin with")
    parser.add_argument("--baselines", action="store_true", help="confirm the reference networks too")
    parser.add_argument("search", nargs="*", metavar="SEARCH OPTIONS", help="options of the search, after --")
    options = parser.parse_args(arguments)
    rows = []
    for seed in range(options.seeds):
        name = f"{options.name}{seed}"
        where = (name, "--storage", options.storage)
        if not command("search", "--study", *where, "--seed", str(seed), "--quiet", *options.search):
            return 1
        members = ["--baselines"] if options.baselines else []
        if options.confirm and not command("confirm", *where, "--seeds", str(options.confirm), "--quiet", *members):
            return 1
        study = StudyReader.open(name, options.storage)
        rows.append(row(seed, study))
        study.close()
        print(table(rows)[1 + len(rows)], file=sys.stderr)
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
