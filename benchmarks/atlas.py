"""Trains an atlas of the space ``unet``: ``python -m benchmarks.atlas TASK [--count N] [--data-root DIR]``.

An atlas holds, for one task, candidates of the whole space with their values after each validated epoch. The prior that
a search begins with is fitted to the atlases (`benchmarks.prior`), and searches are compared on a surrogate of them.

Candidates come from three origins in turn: random draws from the space; children of the reference networks, in which
one to four hyperparameters are drawn anew; and children of the atlas's own best. Each has a limit of MACs of its own,
drawn evenly over its logarithm, so that small networks are as well known as large ones.

Finished runs are kept, one a line, under ``runs/atlas``, with their probe curves; the same command with a larger
``--count`` goes on, on another machine from the candidates of ``benchmarks/atlas.npz``. ``--times`` times some training
steps of every finished candidate, which compares networks more exactly than the seconds of whole runs on a busy
machine. ``--write`` packs the runs of all tasks, without the curves, into ``benchmarks/atlas.npz`` and writes its card,
`ATLAS.md`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import atlases, runs
from benchmarks.lib.atlases import FOLDER, SPACE, VALUES, AtlasTask, atlas_tasks
from benchmarks.lib.records import Record, read
from benchmarks.lib.runs import Job
from nas.errors import SpecError
from nas.search.pareto import fronts
from nas.training.version import TRAINING_VERSION
from nas.types import Candidate, Constraint, Task, digest_of
from search_spaces.draws import choices
from studies import provenance

MOST_CHANGES = 4
LEAST_SHARE = 0.02
"""The smallest limit of MACs that a candidate gets, as a share of the task's largest."""
ROUNDS = 4
"""The number of times that steps are timed."""
WAVE = 24
"""Candidates that are made at a time. Children of the best come from the waves before."""
TRIES, DOUBLINGS = 200, 8
NOTHING: Mapping[str, Any] = {}
CARD = atlases.FILE.with_name("ATLAS.md")
PROBES_KEPT = 28
"""The number of points of a probe curve that are kept, evenly over the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Job):
    """One training of an atlas.

    Attributes:
        number: the candidate's number in its atlas.
        origin: ``random``, the name of the reference network that is its parent, or ``front`` for a child of the best.
        params: its hyperparameters.
    """

    number: int
    origin: str
    params: Mapping[str, Any]


def wave(at: AtlasTask, task: Task, first: int, count: int, known: Sequence[Record]) -> list[Entry]:
    """Makes the candidates `first` to `first + count` of an atlas, none of which is among the `known` records."""
    setting = at.setting
    space = {name: choices(distribution) for name, distribution in SPACE.distributions(task).items()}
    best = _best(known)
    seen = {record["candidate"] for record in known}
    found = []
    for number in range(first, first + count):
        generator = np.random.default_rng([int(digest_of(setting.name), 16), number])
        kind = ("random", "reference", "front" if best else "reference")[number % 3]
        share = LEAST_SHARE ** float(generator.random())
        for attempt in range(TRIES * DOUBLINGS):
            if attempt % TRIES == 0:  # what fits no candidate at all is doubled
                limits = _limits(at, task, min(1.0, share * 2 ** (attempt // TRIES)))
                references = _references(task, setting.epochs, limits, space)
            origin, parent, changed = "random", NOTHING, list(space)
            if kind != "random":
                origin = "front" if kind == "front" else str(generator.choice(list(references)))
                known_parent = best[int(generator.integers(len(best)))] if kind == "front" else None
                parent = SPACE.encode(references[origin]) if known_parent is None else known_parent
                changes = int(generator.integers(1, MOST_CHANGES + 1))
                changed = generator.choice(list(space), changes, replace=False).tolist()
            params = {**parent, **{name: space[name][int(generator.integers(len(space[name])))] for name in changed}}
            candidate = _fitting(params, task, setting.epochs, limits)
            if candidate is not None and candidate.digest not in seen:
                seen.add(candidate.digest)
                params = {name: value for name, value in SPACE.encode(candidate).items() if name in space}
                found.append(
                    Entry(setting=setting, candidate=candidate, seed=0, number=number, origin=origin, params=params)
                )
                break
    return found


def _references(
    task: Task, epochs: int, limits: Sequence[Constraint], space: Mapping[str, Sequence[Any]]
) -> dict[str, Candidate]:
    """Returns the reference networks that the hyperparameters of the space can express; those for one task alone are
    none."""
    return {
        name: candidate
        for name, candidate in SPACE.baselines(task, epochs, limits).items()
        if _fitting({k: v for k, v in SPACE.encode(candidate).items() if k in space}, task, epochs, ()) == candidate
    }


def _best(known: Sequence[Record]) -> list[Mapping[str, Any]]:
    """Returns the hyperparameters of the first two fronts of quality against MACs."""
    trained = [record for record in known if "diverged" not in record]
    if len(trained) < WAVE:
        return []
    values = np.array([[*(record[name] for name in VALUES), record["macs"]] for record in trained])
    ranks = fronts(values, [True] * len(VALUES) + [False])
    return [trained[row]["hyperparameters"] for _, front in zip(range(2), ranks, strict=False) for row in front]


def _limits(at: AtlasTask, task: Task, share: float) -> tuple[Constraint, ...]:
    """Returns limits of which that of MACs is a share of the task's largest."""
    return tuple(
        Constraint(name=limit.name, upper=round(limit.upper * at.share * share)) if limit.name == "macs" else limit
        for limit in SPACE.limits(task)
    )


def _fitting(params: Mapping[str, Any], task: Task, epochs: int, limits: Sequence[Constraint]) -> Candidate | None:
    """Returns the candidate of these hyperparameters; None where they are not valid or over a limit."""
    try:
        candidate = SPACE.decode(params, task, epochs)
    except SpecError:
        return None
    cost = SPACE.cost(candidate.spec, task)
    return None if any(limit.violation(cost) > 0 for limit in limits) else candidate


def perform(entry: Entry) -> dict[str, Any]:
    """Trains one candidate and returns its record."""
    started = time.process_time()
    evaluation, diverged = runs.trained(entry)
    probe = evaluation.training.probe_curve()
    at = np.unique(np.linspace(0, len(probe.steps) - 1, PROBES_KEPT).round().astype(int))
    return {
        **runs.record_of(entry, evaluation, diverged),
        "number": entry.number,
        "origin": entry.origin,
        "hyperparameters": dict(entry.params),
        "cpu_seconds": round(time.process_time() - started, 2),
        "curve": {row.epoch: [row.values.get(name) for name in VALUES] for row in evaluation.rows if row.validated},
        "probe_steps": [probe.steps[i] for i in at],
        "probe_denoise": runs.short([probe.denoise[i] for i in at]) if probe.denoise else [],
        "probe_classify": runs.short([probe.classify[i] for i in at]) if probe.classify else [],
    }


def grow(name: str, at: AtlasTask, count: int, folder: Path, begun: Sequence[Record] = ()) -> bool:
    """Trains what an atlas of `count` candidates lacks. Returns False when it was stopped.

    Args:
        name: the task.
        at: its setting.
        count: the number of candidates that there should be.
        folder: the folder of runs.
        begun: records of the atlas that goes on.
    """
    path, _ = atlases.paths(name, folder)
    task = runs.task_of(at.setting)
    before = {record["number"]: _with_digest(record, task, at.setting.epochs) for record in begun}
    while True:
        known = [*({**before, **{record["number"]: record for record in read(path).values()}}).values()]
        numbers = {record["number"] for record in known}
        lacking = [number for number in range(count) if number not in numbers]
        if not lacking:
            return True
        # A wave is made from the waves before it alone, so that one that was cut short is made again as it was.
        first = lacking[0] // WAVE * WAVE
        made = wave(at, task, first, min(WAVE, count - first), [r for r in known if r["number"] < first])
        todo = [entry for entry in made if entry.number not in numbers]
        if not todo:
            raise RuntimeError(f"no candidate of {name} from {first} on fits its limits")
        if not runs.perform_all(todo, path, perform):
            return False


def _with_digest(record: Record, task: Task, epochs: int) -> Record:
    return {**record, "candidate": SPACE.decode(record["hyperparameters"], task, epochs).digest}


def time_steps(name: str, at: AtlasTask, folder: Path) -> bool:
    """Times the candidates of an atlas that are not timed yet. Returns False when it was stopped."""
    path, timed = atlases.paths(name, folder)
    setting = at.setting
    task = runs.task_of(setting)
    entries = [
        Entry(
            setting=setting,
            candidate=SPACE.decode(record["hyperparameters"], task, setting.epochs),
            seed=0,
            number=record["number"],
            origin=record["origin"],
            params=record["hyperparameters"],
        )
        for record in read(path).values()
    ]
    return runs.perform_all(runs.missing(entries, timed), timed, perform_timing, workers=1)


def perform_timing(entry: Entry) -> dict[str, Any]:
    """Returns the record of a candidate's time."""
    return {"key": entry.key, "number": entry.number, "image_seconds": runs.image_seconds(entry, ROUNDS)}


def card(found: Mapping[str, Sequence[Record]]) -> str:
    """Writes the card: what a stranger must know of the atlas, and what it says at a glance."""
    lines = [
        "# An atlas of U-Nets that denoise and classify",
        "",
        f"Candidates of the whole space `unet` (version {SPACE.version}, training version {TRAINING_VERSION}), each "
        "trained once, with its values after epochs 1, 3, 9 and 27 as far as it was trained.",
        "",
        "- **Origins**: a third are random draws, a third are children of the reference networks with one to four "
        "hyperparameters drawn anew, a third are children of the atlas's own best.",
        "- **Limits**: each candidate has its own limit of MACs, drawn evenly over its logarithm.",
        "- **Values**: validation PSNR in dB, accuracy in percent, stability in 0..1; CPU seconds of the training on "
        "one core, and of a training step for an image, parameters, MACs. The test split has not been looked at.",
        f"- **Made** by `python -m benchmarks.atlas` on {provenance.describe(provenance.hardware())}, "
        f"{date.today():%Y-%m-%d}.",
        "- **Use**: `from benchmarks.lib import atlases; atlases.read()` gives the records of each task; "
        "`python -m benchmarks.prior` fits the prior of the space to them.",
        "",
        "| task | data, noise | training images | epochs | largest MACs | candidates | diverged | core hours "
        "| best PSNR | best accuracy | best stability |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, records in found.items():
        setting = atlas_tasks(None)[name].setting
        trained = [record for record in records if "diverged" not in record]
        best = " | ".join(f"{max(record[value] for record in trained):.3f}" for value in VALUES)
        lines.append(
            f"| {name} | {setting.name} | {setting.subset or 'all'} | {setting.epochs} "
            f"| {max(record['macs'] for record in records):,} | {len(records)} | {len(records) - len(trained)} "
            f"| {sum(record['cpu_seconds'] for record in records) / 3600:.2f} | {best} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the candidates that are missing. Returns the exit code."""
    names = list(atlas_tasks(None))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atlas", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("task", choices=names, nargs="?", help="the task whose atlas grows")
    parser.add_argument("--count", type=int, default=250, help="candidates that the atlas should have")
    parser.add_argument("--data-root", type=Path, help="folder with the files of Fashion-MNIST and cifar10-subset")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of finished runs (default: {FOLDER})")
    parser.add_argument("--times", action="store_true", help="time the steps of the task's finished candidates")
    parser.add_argument("--write", action="store_true", help=f"pack all finished runs into {atlases.FILE.name}")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.write:
        found = atlases.from_runs(options.results, atlases.read())
        atlases.write(found)
        CARD.write_text(card(found))
        print(CARD.read_text())
        return 0
    if options.task is None:
        parser.error(f"name a task, of {', '.join(names)}, or give --write")
    at = atlas_tasks(options.data_root)[options.task]
    if options.times:
        done = time_steps(options.task, at, options.results)
    else:
        done = grow(options.task, at, options.count, options.results, atlases.read()[options.task])
    if not done:
        print(f"stopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
