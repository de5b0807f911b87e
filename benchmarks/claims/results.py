"""The runs of the claims. Each is made once, kept in a file, and found again by network and setting."""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.claims.networks import NETWORKS
from benchmarks.claims.protocol import Plan
from benchmarks.lib import runs
from benchmarks.lib.penalties import penalised
from benchmarks.lib.records import Record, note_session
from benchmarks.lib.runs import Job, Setting
from studies import provenance

log = logging.getLogger("benchmarks.claims")


class Results:
    """The finished runs of a plan, by network and setting."""

    def __init__(self, plan: Plan, records: Mapping[str, Record]) -> None:
        self.plan = plan
        self._found: dict[tuple[str, Setting], dict[int, Record]] = {}
        for setting in plan.settings:
            for name in NETWORKS:
                jobs = {seed: plan.job(name, setting, seed) for seed in plan.seeds(name, setting)}
                self._found[name, setting] = {s: records[j.key] for s, j in jobs.items() if j.key in records}

    def runs(self, network: str, setting: Setting) -> dict[int, Record]:
        """Returns the records by seed."""
        return self._found[network, setting]

    def values(self, network: str, setting: Setting, metric: str) -> dict[int, float]:
        """Returns a metric by seed, without runs that lack it; diverged runs lack all but stability."""
        return {s: float(r[metric]) for s, r in self._found[network, setting].items() if metric in r}

    def differences(self, ours: str, theirs: str, setting: Setting, metric: str) -> list[float]:
        """Returns the differences, ours minus theirs, for the seeds that both networks have."""
        a, b = self.values(ours, setting, metric), self.values(theirs, setting, metric)
        return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]

    def gates(self, network: str, setting: Setting) -> dict[int, list[float]]:
        """Returns the gates by seed, shallow first."""
        return {s: list(r["gates"]) for s, r in self._found[network, setting].items() if r.get("gates")}

    @property
    def seconds(self) -> float:
        """The seconds of all runs together, each counted once."""
        records = {r["key"]: r for found in self._found.values() for r in found.values()}
        return sum(float(r["seconds"]) for r in records.values())


def perform(job: Job) -> dict[str, Any]:
    """Makes a run as `runs.perform` does, but with the stability score with penalties.

    The rules were written for that score, so all runs keep it.
    """
    evaluation, diverged = runs.trained(job)
    training = evaluation.training
    probe, done = training.probe_curve(), training.step / training.total_steps
    scores = [penalised(losses, done) for losses in (probe.denoise, probe.classify) if losses]
    return {**runs.record_of(job, evaluation, diverged), "stability": math.prod(scores) ** (1 / len(scores))}


def train(plan: Plan, path: Path) -> bool:
    """Makes the runs of `plan` that the file lacks. Returns False when it was stopped."""
    todo = runs.missing(plan.jobs(), path)
    if not todo:
        log.info("every run is in %s", path)
        return True
    log.info("%d runs to do, about %.1f h on %d free cores", len(todo), runs.estimate(todo), runs.WORKERS)
    note_session(path, session())
    return runs.perform_all(todo, path, perform)


def session() -> dict[str, str]:
    """Describes when and where runs are made, without paths and names of machines or people."""
    found = provenance.versions()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": provenance.describe(provenance.hardware()),
        "versions": ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "numpy")),
    }
