"""What a proposal costs in a large study, and whether a cheap one is as good: ``python -m benchmarks.sampling``.

Trials are made up (`benchmarks.lib.made_up`): the space is ``unet`` with three objectives, and nothing is trained.

- ``cost`` fills a study on SQLite with many finished trials. It measures the milliseconds of a proposal through the
  project's searcher, and of what the search writes for it. Beside it, in the same run, stands Optuna's TPE over as many
  trials in memory, where nothing is written. The project's sampler does more in its time: it draws until a proposal is
  new and within the limits.
- ``quality`` compares the hypervolume after some trials, one at a time, over seeds. The project's samplers work on a
  study in memory. Optuna's TPE is used as it is: it is not told the limits, and repeated candidates count as trials.
- ``open`` measures the seconds until a study of many trials is open, has answered what a search asks first, and has its
  first proposal, and until ``best`` answers, as a command in a fresh process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy import insert

from benchmarks.lib import ROOT
from benchmarks.lib.made_up import OBJECTIVES, TASK, WorkingSpace, epoch_row, measurement, study_config, values
from benchmarks.lib.stats import mean_interval
from nas.engine.report import Report
from nas.engine.searcher import PROPOSALS_PER_TRIAL, StudySearcher
from nas.outcome import Outcome
from nas.search.pareto import hypervolume
from nas.training.version import TRAINING_VERSION
from studies.reading.best import choose
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.epochs import epoch_columns
from studies.store.ledger import SqlLedger
from studies.store.optuna_bridge import OPTUNA_TRIALS, PARAMS, VALUES, now, param_row, value_rows
from studies.store.records import EpochRecord, ProbeRecord, StudyRecord, TrialRecord

TRIALS = 5000
LARGE = 10_000
PROPOSALS = 20
GOAL_MS, GOAL_OPEN, GOAL_BEST = 100.0, 5.0, 2.0
QUALITY_TRIALS = 90
SEEDS = 10
SPACE = WorkingSpace()
MAXIMIZE = [objective.direction == "maximize" for objective in OBJECTIVES]
REFERENCE = [objective.reference for objective in OBJECTIVES]


def fill(ledger: SqlLedger, trials: int, seed: int = 0) -> None:
    """Fills an empty study with finished random trials, and with all that a search would have written of them."""
    generator, rows = np.random.default_rng(seed), _Rows(ledger)
    seen: set[str] = set()
    while rows.count < trials:
        params = {name: draw(distribution, generator) for name, distribution in ledger.distributions.items()}
        candidate = SPACE.decode(params, TASK, ledger.config.epochs)
        cost = SPACE.cost(candidate.spec, TASK)
        if candidate.digest in seen or any(c.violation(cost) > 0 for c in ledger.config.constraints):
            continue
        seen.add(candidate.digest)
        rows.add(params, candidate, cost)
    rows.write()


def draw(distribution: BaseDistribution, generator: np.random.Generator) -> Any:
    """Draws a value of a distribution of the space ``unet``: one of its choices, or a whole number."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[generator.integers(len(distribution.choices))]
    assert isinstance(distribution, optuna.distributions.IntDistribution)
    return int(generator.integers(distribution.low, distribution.high + 1))


class _Rows:
    """The rows of finished trials, for all tables, which are written at once."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.ledger, self.count = ledger, 0
        self.first = 10**6 * ledger.study_id  # Optuna numbers the trials of all studies of a database
        self.tables: dict[Any, list[dict[str, Any]]] = {
            table: []
            for table in (
                OPTUNA_TRIALS,
                PARAMS,
                VALUES,
                TrialRecord,
                EpochRecord,
                ProbeRecord,
            )
        }

    def add(self, params: dict[str, Any], candidate: Any, cost: Any) -> None:
        number, study = self.count, self.ledger.study_id
        self.count += 1
        spec, recipe = candidate.spec.to_dict(), candidate.recipe.to_dict()
        found = measurement(spec, recipe)
        trials, drawn, told, records, epochs, probes = self.tables.values()
        trials.append(
            {"trial_id": self.first + number, "study_id": study, "number": number, "state": TrialState.COMPLETE}
            | {"datetime_start": now(), "datetime_complete": now()}
        )
        for name, distribution in self.ledger.distributions.items():
            drawn.append(
                param_row(self.first + number, name, distribution.to_internal_repr(params[name]), distribution)
            )
        told += value_rows(self.first + number, [found.values[o.name] for o in self.ledger.config.objectives])
        records.append(
            {
                "study_id": study,
                "number": number,
                "digest": candidate.digest,
                "spec": spec,
                "recipe": recipe,
                "started": time.time(),
                "ended": time.time(),
                "ask_order": 2 * number + 1,
                "tell_order": 2 * number + 2,
                "reason": "",
                "params": cost.params,
                "macs": cost.macs,
                "seconds": 1.0,
                "seed": 0,
                "training_version": TRAINING_VERSION,
                "epochs_done": 1,
                "values": dict(found.values),
                "gates": [dict(gate) for gate in found.gates],
            }
        )
        row = epoch_row(1, found.values)
        epochs.append({"study_id": study, "number": number} | epoch_columns(row))
        steps, losses = np.asarray(found.probe.steps, "<i4"), np.asarray(found.probe.denoise, "<f4")
        probes.append(
            {"study_id": study, "number": number, "steps": steps.tobytes()}
            | {"denoise": losses.tobytes(), "classify": losses.tobytes()}
        )

    def write(self) -> None:
        with self.ledger.storage.session() as session:
            for table, rows in self.tables.items():
                session.execute(insert(table), rows)
            session.get_one(StudyRecord, self.ledger.study_id).events = 2 * self.count


def one_trial(searcher: StudySearcher, name: str) -> tuple[float, float]:
    """Proposes a trial and tells its made-up values.

    Returns:
        the seconds of the proposal, and of everything that is written after it.
    """
    started = time.perf_counter()
    job = searcher.ask(name)
    assert job is not None
    proposed = time.perf_counter()
    found = measurement(job.spec, job.recipe.to_dict())
    rows = (epoch_row(1, found.values),)
    report = Report(number=job.number, rows=rows, outcome=Outcome.COMPLETE, measurement=found)
    measured = time.perf_counter()
    searcher.record(name, report)
    searcher.on_trial_complete(name, {"report": report})
    return proposed - started, time.perf_counter() - measured


def searcher_of(ledger: SqlLedger, trials: int) -> StudySearcher:
    """Makes a searcher as a search has it."""
    return StudySearcher(ledger, SPACE, trials=trials, stopping=lambda: False, on_end=lambda number, outcome: None)


def cost_of_proposals(url: str, name: str) -> tuple[float, float]:
    """Times the project's proposals in a stored study.

    Returns:
        median milliseconds of a proposal, and of writing its trial.
    """
    with SqlLedger.open(name, url) as ledger, ledger.drive():
        searcher = searcher_of(ledger, 10**6)
        one_trial(searcher, "first")  # this one reads the study
        times = [one_trial(searcher, str(number)) for number in range(PROPOSALS)]
    proposed, written = zip(*times, strict=True)
    return 1000 * statistics.median(proposed), 1000 * statistics.median(written)


def cost_of_optuna(url: str, name: str) -> float:
    """Times ask, suggest and tell by Optuna's TPE over the same trials in memory, in median milliseconds."""
    with StudyReader.open(name, url) as stored:
        space, directions = stored.distributions, stored.optuna_study.directions
        trials = stored.optuna_study.get_trials(deepcopy=False)
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=0))
    study.add_trials(trials)
    times = []
    for _ in range(PROPOSALS // 4):
        started = time.perf_counter()
        trial = study.ask(space)
        proposed = time.perf_counter()
        candidate = SPACE.decode(trial.params, TASK, 1)
        found = values(candidate.spec.to_dict(), candidate.recipe.to_dict())
        measured = time.perf_counter()
        study.tell(trial, [found[objective.name] for objective in OBJECTIVES])
        times.append(proposed - started + time.perf_counter() - measured)
    return 1000 * statistics.median(times)


def cost_table(trials: int, samplers: Sequence[str]) -> str:
    """Measures the milliseconds of a proposal, by sampler of the project and by Optuna's TPE."""
    lines = [f"| {trials} finished trials | ms a proposal | goal | ms written after it | of Optuna's TPE |"]
    lines.append("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        for sampler in samplers:
            with open_storage(url) as storage:
                fill(
                    create_study(
                        storage, study_config(sampler, sampler, prior="space"), SPACE.distributions(TASK), {}, ""
                    ),
                    trials,
                )
                storage.close()
        theirs = cost_of_optuna(url, samplers[0])
        for sampler in samplers:
            ours, written = cost_of_proposals(url, sampler)
            lines.append(f"| {sampler} | {ours:.0f} | {GOAL_MS:.0f} | {written:.0f} | {ours / theirs:.2f} |")
    return "\n".join([*lines, f"| Optuna's TPE, in memory | {theirs:.0f} | | | 1.00 |"])


def volumes(points: Sequence[Sequence[float]]) -> list[float]:
    """Returns hypervolumes after a third, two thirds and all of the values, as shares of the box above the
    reference."""
    box = float(np.prod(np.subtract([22.0, 99.0, 1.0], REFERENCE)))
    ends = [len(points) * part // 3 for part in (1, 2, 3)]
    return [hypervolume(np.array(points[:end]), REFERENCE, MAXIMIZE) / box for end in ends]


def search_ours(sampler: str, trials: int, seed: int) -> list[float]:
    """Returns the `volumes` of a study of the project's own."""
    with open_storage("sqlite://") as storage:
        config = study_config("made-up", sampler, seed=seed)
        ledger = create_study(storage, config, SPACE.distributions(TASK), {}, "")
        with ledger.drive():
            searcher = searcher_of(ledger, trials)
            for number in range(trials):
                one_trial(searcher, str(number))
        return volumes([point for _, point in sorted(ledger.objective_values().items())])


def search_optuna(trials: int, seed: int) -> list[float]:
    """Returns the `volumes` of Optuna's TPE as it is.

    A proposal over a limit is told as failed and asked again; it is not counted.
    """
    study = optuna.create_study(
        directions=[objective.direction for objective in OBJECTIVES], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    limits = SPACE.limits(TASK)
    points: list[list[float]] = []
    for _ in range(PROPOSALS_PER_TRIAL * trials):  # as many as the searcher makes; all may be over a limit
        if len(points) == trials:
            break
        trial = study.ask(SPACE.distributions(TASK))
        candidate = SPACE.decode(trial.params, TASK, 1)
        cost = SPACE.cost(candidate.spec, TASK)
        if any(limit.violation(cost) > 0 for limit in limits):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        found = values(candidate.spec.to_dict(), candidate.recipe.to_dict())
        points.append([found[objective.name] for objective in OBJECTIVES])
        study.tell(trial, points[-1])
    return volumes(points)


def quality_table(trials: int, seeds: int, samplers: Sequence[str]) -> str:
    """Compares hypervolumes over seeds, with the difference to Optuna's TPE paired by seed."""
    theirs = [search_optuna(trials, seed) for seed in range(seeds)]
    lines = [
        f"| {seeds} seeds: share of the box | {' | '.join(f'{trials * k // 3} trials' for k in (1, 2, 3))} "
        "| difference at the end | ratio |",
        "|---|---|---|---|---|---|",
        _quality_row("Optuna's TPE", theirs, theirs),
    ]
    lines += [_quality_row(s, [search_ours(s, trials, seed) for seed in range(seeds)], theirs) for s in samplers]
    return "\n".join(lines)


def _quality_row(name: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    means = [mean_interval(column) for column in zip(*ours, strict=True)]
    gain = mean_interval([a[-1] - b[-1] for a, b in zip(ours, theirs, strict=True)])
    shown = " | ".join(f"{m.mean:.3f} ± {(m.high - m.low) / 2:.3f}" for m in means)
    ratio = means[-1].mean / mean_interval([b[-1] for b in theirs]).mean
    difference = "" if ours is theirs else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"| {name} | {shown} | {difference} | {ratio:.2f} |"


def open_table(trials: int) -> str:
    """Measures the seconds until a large study is open and answers."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        with open_storage(url) as storage:
            fill(
                create_study(storage, study_config("large", "auto", prior="space"), SPACE.distributions(TASK), {}, ""),
                trials,
            )
        size = Path(folder, "studies.db").stat().st_size / 2**20
        started = time.perf_counter()
        with SqlLedger.open("large", url) as ledger, ledger.drive():
            ledger.counts()
            ledger.front()
            answered = time.perf_counter() - started
            searcher_of(ledger, trials + 1).ask("first")
            proposed = time.perf_counter() - started
        with StudyReader.open("large", url) as stored:
            started = time.perf_counter()
            choose(stored)
            chosen = time.perf_counter() - started
        command = [sys.executable, str(ROOT / "app_cli.py"), "best", "large", "--storage", url]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        best = time.perf_counter() - started
    return "\n".join(
        [
            f"| {trials} trials, {size:.0f} MiB | seconds | goal |",
            "|---|---|---|",
            f"| open, counted, front known | {answered:.2f} | |",
            f"| and the first proposal made | {proposed:.2f} | {GOAL_OPEN:.0f} |",
            f"| `best` in a process that runs | {chosen:.2f} | |",
            f"| `skipnas best`, Python started | {best:.2f} | {GOAL_BEST:.0f} |",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("parts", nargs="*", choices=["cost", "quality", "open"], help="default: all")
    parser.add_argument("--trials", type=int, help=f"of a study (default: {TRIALS}, {QUALITY_TRIALS} and {LARGE})")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samplers", nargs="+", default=["auto", "random", "nsga2"])
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if not options.parts or "cost" in options.parts:
        print(cost_table(options.trials or TRIALS, options.samplers), flush=True)
    if not options.parts or "quality" in options.parts:
        print(quality_table(options.trials or QUALITY_TRIALS, options.seeds, options.samplers), flush=True)
    if not options.parts or "open" in options.parts:
        print(open_table(options.trials or LARGE), flush=True)


if __name__ == "__main__":
    main()
