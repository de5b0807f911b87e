"""What the engine costs: ``python -m benchmarks.engine``.

Three parts answer with trials that train nothing (`benchmarks.lib.made_up`) and go the whole way otherwise: the sampler
proposes, Ray Tune starts a trial, a worker reports one epoch, a measurement and a probe curve of 200 points, and
records and Optuna's tables are written to SQLite.

- ``speed`` measures trials a second over a study's first trials, from the first report to the last, for several
  samplers. Beside it, in the same run, stands Ray Tune alone: the same worker with a searcher that only counts, and
  nothing is written. The ratio is the share of Tune's own speed that is left.
- ``busy`` measures the share of two workers' time that trials of some seconds get. Their work is counted in CPU time,
  so that a driver that takes the workers' cores away lowers the share.
- ``memory`` measures how much the driver's memory grows over many trials.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import optuna

from benchmarks.lib.made_up import TASK, WorkingSpace, study_config
from benchmarks.lib.made_up_searches import WORKERS, Watch, busy_share, made_up_workers, search
from nas.data.splits import Dataset, load
from nas.engine.executor import run_jobs, worker_pool
from nas.engine.job import Job
from nas.engine.session import ray_session
from nas.settings import Resources

SPEED_TRIALS = 400
SPEED_GOALS = {"auto": 15.0, "random": 40.0}
BUSY_TRIALS = {0.1: 200, 1.0: 60, 10.0: 10}
"""Seconds of a trial -> the number of trials."""
BUSY_GOALS = {1.0: 0.85, 10.0: 0.97}
MEMORY_TRIALS = 5000
MEMORY_GOAL = 50.0
WARM_TRIALS = 400
"""Trials before memory is first measured, when every module is loaded and every cache of fixed size is full."""


def tune_alone(data: Dataset, trials: int) -> Watch:
    """Runs the same workers with a searcher that has a list, and keeps nothing."""
    space, config, watch = WorkingSpace(), study_config("made-up", "random"), Watch()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    jobs = []
    for number in range(trials):
        candidate = space.decode(study.ask(space.distributions(TASK)).params, TASK, config.epochs)
        jobs.append(Job.of(candidate, number=number, seed=0))
    resources = Resources(concurrency=WORKERS)
    with (
        tempfile.TemporaryDirectory() as folder,
        made_up_workers(),
        worker_pool(config, space, data, Path(folder), resources) as pool,
    ):
        run_jobs(jobs, pool, on_end=lambda report: watch.note(), on_report=lambda report: None)
    return watch


def speed_table(data: Dataset, trials: int, samplers: Sequence[str], rounds: int) -> str:
    """Measures trials a second by sampler and of Tune alone, in turns; the table shows medians over rounds."""
    found: dict[str, list[float]] = {name: [] for name in (*samplers, "Tune alone")}
    for _ in range(rounds):
        for sampler in samplers:
            found[sampler].append(search(data, sampler, trials).per_second())
        found["Tune alone"].append(tune_alone(data, trials).per_second())
    alone = found["Tune alone"]
    lines = [f"| {trials} trials | a second | goal | least, most | of Tune alone |", "|---|---|---|---|---|"]
    for name, speeds in found.items():
        share = median(one / other for one, other in zip(speeds, alone, strict=True))
        goal = _goal(SPEED_GOALS.get(name), ".0f")
        lines.append(f"| {name} | {median(speeds):.1f} | {goal} | {min(speeds):.1f}, {max(speeds):.1f} | {share:.2f} |")
    return "\n".join(lines)


def busy_table(data: Dataset, seconds: Sequence[float], samplers: Sequence[str]) -> str:
    """Measures the share of the workers' time that trials get, by sampler and length of a trial."""
    lines = ["| seconds of a trial | trials | sampler | share of the workers' time | goal |", "|---|---|---|---|---|"]
    for length in seconds:
        trials = BUSY_TRIALS[length]
        for sampler in samplers:
            share = busy_share(search(data, sampler, trials, space=WorkingSpace(work=length)).spans, length)
            lines.append(
                f"| {length:g} | {trials} | {sampler} | {share:.1%} | {_goal(BUSY_GOALS.get(length), '.0%')} |"
            )
    return "\n".join(lines)


def memory_table(data: Dataset, trials: int, sampler: str, time_limit: float) -> str:
    """Compares the driver's memory at the end with that after the first trials."""
    watch = search(data, sampler, trials, time_limit=time_limit)
    done, first = len(watch.ends), min(WARM_TRIALS, len(watch.ends))
    return "\n".join(
        [
            "| sampler | trials | driver after | of them | MiB at the end | growth | goal | a second, last tenth |",
            "|---|---|---|---|---|---|---|---|",
            f"| {sampler} | {done} | {watch.memory[first - 1]:.0f} MiB | {first} | {watch.memory[-1]:.0f} "
            f"| {watch.memory[-1] - watch.memory[first - 1]:+.0f} MiB | {MEMORY_GOAL:.0f} MiB "
            f"| {Watch(watch.ends[-max(2, done // 10) :]).per_second():.1f} |",
        ]
    )


def _goal(goal: float | None, form: str) -> str:
    return "" if goal is None else format(goal, form)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("parts", nargs="*", choices=["speed", "busy", "memory"], help="default: all")
    parser.add_argument("--trials", type=int, help="trials of speed and memory (default: 400 and 5,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of speed (default: 3)")
    parser.add_argument("--seconds", type=float, nargs="+", choices=list(BUSY_TRIALS), default=list(BUSY_TRIALS))
    parser.add_argument("--samplers", nargs="+", default=["auto", "random"])
    parser.add_argument("--time-limit", type=float, default=200.0, help="seconds of the part memory (default: 200)")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load("digits", subset=128)
    with ray_session(Resources(), cpus=WORKERS):
        if not options.parts or "speed" in options.parts:
            print(speed_table(data, options.trials or SPEED_TRIALS, options.samplers, options.rounds), flush=True)
        if not options.parts or "busy" in options.parts:
            print(busy_table(data, options.seconds, options.samplers), flush=True)
        if not options.parts or "memory" in options.parts:
            for sampler in options.samplers:
                print(memory_table(data, options.trials or MEMORY_TRIALS, sampler, options.time_limit), flush=True)


if __name__ == "__main__":
    main()
