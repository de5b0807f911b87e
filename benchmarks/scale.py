"""Does the driver keep up with a large cluster? ``python -m benchmarks.scale [virtual] [clusters]``.

- ``virtual``: the real searcher, scheduler and records on SQLite drive a thousand workers on a virtual clock
  (`benchmarks.lib.virtual`), whose trials take ten virtual minutes and have made-up values (`benchmarks.lib.made_up`).
  The clock goes on by the real time that every decision takes, so that workers who wait for the driver are seen. As the
  study grows the table shows the time of a decision, the share of the workers' time that is lost to waiting, the
  driver's memory and the size of the database.
- ``clusters``: real Ray clusters of one, two and four nodes run on this machine, with two workers a node whose trials
  sleep. The table shows trials a second, and the share of the workers' time that trials get.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import optuna

from benchmarks.lib import ROOT
from benchmarks.lib.made_up import TASK, WorkingSpace, study_config, values
from benchmarks.lib.made_up_searches import busy_share, resident, search
from benchmarks.lib.virtual import Skipnas, Trace, Values, run
from nas.data.splits import load
from nas.engine.session import ray_session
from nas.settings import Resources
from nas.types import Candidate
from studies.store.catalog import create_study
from studies.store.database import open_storage

EPOCHS = 27
WORKERS, TRIALS = 1000, 20_000
TRIAL_SECONDS = 600.0
LOST_GOAL = 0.02
ROWS = 10
NODES = (1, 2, 4)
WORKERS_OF_A_NODE = 2
SLEEP = 2.0
TRIALS_OF_A_WORKER = 12


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Answers that approach a candidate's made-up values over the epochs (see `benchmarks.lib.virtual.Answers`)."""

    def values(self, candidate: Candidate, epoch: int) -> Values | None:
        final = values(candidate.spec.to_dict(), candidate.recipe.to_dict())
        learned = 1 - math.exp(-epoch / 5)
        return (
            14.0 + (final["psnr"] - 14.0) * learned,
            10.0 + (final["accuracy"] - 10.0) * learned,
            final["stability"] * learned,
        )

    def seconds(self, candidate: Candidate) -> float:
        # Trials differ in length, so that workers do not ask in step.
        return TRIAL_SECONDS / EPOCHS * (0.5 + (int(candidate.digest[:4], 16) / 0xFFFF))


def virtual_part(workers: int, trials: int, sampler: str, stopping: bool) -> None:
    """Prints the table as the study grows; each line is about the trials since the one before it."""
    print(
        f"{workers:,} workers, trials of about {TRIAL_SECONDS / 60:.0f} minutes when trained to the end, sampler "
        f"{sampler}, early stopping {'on' if stopping else 'off'}\n\n"
        "| trials | decisions | ms a decision | of rungs, median | of proposals, median "
        "| workers' time lost to waiting | goal, less than | driver | database |\n"
        "|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    space, before, told = WorkingSpace(), Trace(), 0
    with tempfile.TemporaryDirectory() as folder, open_storage(f"sqlite:///{folder}/studies.db") as storage:
        config = study_config("scale", sampler, epochs=EPOCHS, early_stopping=stopping)
        ledger = create_study(storage, config, space.distributions(TASK), {}, "")

        def observe(trace: Trace) -> None:
            nonlocal before, told
            if trace.asked % max(1, trials // ROWS) == 0:
                size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
                took, told = trace.took[told:], len(trace.took)
                medians = " | ".join(_median_ms(took, question) for question in ("after", "ask"))
                print(
                    f"| {trace.asked:,} | {len(took):,} | {1000 * sum(each for _, each in took) / len(took):.1f} "
                    f"| {medians} | {_lost(trace, before):.2%} | {LOST_GOAL:.0%} | {resident():.0f} MiB "
                    f"| {size:.0f} MiB |",
                    flush=True,
                )
                before = replace(trace, finished=[])

        with ledger.drive():
            method = Skipnas(ledger, space, trials=trials)
            trace = run(
                method,
                MadeUp(),
                workers=workers,
                epochs=EPOCHS,
                trials=trials,
                deciding_takes_time=True,
                observe=observe,
            )
    seconds, lost = sum(each for _, each in trace.took), _lost(trace, Trace())
    print(
        f"\nIn all {len(trace.took):,} decisions in {seconds:.0f} s, {lost:.2%} of the workers' time lost, "
        f"{trace.clock / 3600:.1f} virtual hours, {len(trace.finished):,} trained to the end.",
        flush=True,
    )


def _median_ms(took: Sequence[tuple[str, float]], question: str) -> str:
    """Writes the median in ms of the answers to a question; a dash when there are none."""
    seconds = [each for asked, each in took if asked == question]
    return f"{1000 * statistics.median(seconds):.1f}" if seconds else "-"


def _lost(now: Trace, before: Trace) -> float:
    """Returns the share of the workers' time that went into waiting between two moments."""
    waited = now.waited - before.waited
    return waited / (waited + now.busy - before.busy)


def clusters_part(nodes: Sequence[int], sampler: str) -> None:
    """Prints the pace of searches on clusters of several numbers of nodes."""
    data = load("digits", subset=128)
    print(
        f"Trials that sleep {SLEEP:g} s, {WORKERS_OF_A_NODE} workers a node, sampler {sampler}\n\n"
        "| nodes | workers | trials | trials a second | share of the workers' time |\n|---|---|---|---|---|",
        flush=True,
    )
    for count in nodes:
        workers = count * WORKERS_OF_A_NODE
        with cluster(count) as address, ray_session(Resources(address=address)):
            trials = TRIALS_OF_A_WORKER * workers
            watch = search(data, sampler, trials, space=WorkingSpace(sleep=SLEEP), workers=workers)
        share = busy_share(watch.spans, SLEEP)
        print(f"| {count} | {workers} | {trials} | {watch.per_second():.2f} | {share:.1%} |", flush=True)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Starts a Ray cluster of a head without workers and of `nodes` nodes; yields its address."""
    from ray.cluster_utils import Cluster

    memory = 100 * 2**20  # bytes of each node's object store
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):  # where workers find the made-up trials
        made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory})
        try:
            for _ in range(nodes):
                made.add_node(num_cpus=WORKERS_OF_A_NODE, object_store_memory=memory)
            yield made.address
        finally:
            made.shutdown()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").partition("?")[0])
    parser.add_argument("parts", nargs="*", choices=["virtual", "clusters"], help="default: both")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"virtual ones (default: {WORKERS:,})")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"on virtual workers (default: {TRIALS:,})")
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--early-stopping", action="store_true", help="trials are stopped at rungs")
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES))
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if not options.parts or "virtual" in options.parts:
        virtual_part(options.workers, options.trials, options.sampler, options.early_stopping)
    if not options.parts or "clusters" in options.parts:
        clusters_part(options.nodes, options.sampler)


if __name__ == "__main__":
    main()
