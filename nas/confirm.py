"""The front again under several seeds: which members, which runs, and what the runs say together.

A search judges each candidate by one run and keeps those that did well, so its figures are a little too
good. Confirmation trains the chosen ones again, on the full budget and under seeds of its own, the same
for all of them. They are ranked by their means on validation; the test split is judged and only reported.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nas.checkpoint import confirm_dir, drop_all, drop_checkpoint, traceback_path
from nas.data import Dataset
from nas.pareto import contributions, knee, non_dominated
from nas.protocols import SearchSpace
from nas.search import Resources, stop_signals, until
from nas.types import Candidate, Objective, StudyConfig, TrialResult

if TYPE_CHECKING:
    from nas.searcher import Report

SEEDS = 5
TOP = 8
"""Members of the front beside the knee: those with the largest hypervolume contributions."""

LEAST_RUNS = 2
"""Finished runs from which a mean has an interval."""

CONFIDENCE = 0.95

KEPT = ("complete", "diverged", "out_of_memory")
"""Outcomes that say something of a candidate. After any other the same command trains the run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What is confirmed.

    Attributes:
        number: of the trial on the front; None for a reference network that is not on it.
        reference: name of the reference network; None for other trials.
    """

    candidate: Candidate
    number: int | None = None
    reference: str | None = None

    @property
    def label(self) -> str:
        return " = ".join(
            ([] if self.number is None else [f"trial {self.number}"]) + ([self.reference] if self.reference else [])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRun:
    """One member trained to an end under one seed.

    Attributes:
        digest: of the candidate.
        repeat: place of the seed among the confirmation's, from 0.
        seed: of weights, data order and training noise.
        number, reference: see `Member`.
        spec, recipe: of the candidate.
        reason: ``complete``, ``diverged`` or ``out_of_memory``.
        detail: what else there is to say about the reason.
        values: as in `nas.types.Measurement`, and ``test_psnr`` and ``test_accuracy`` where they are finite; empty
            unless complete.
        gates: learned skip gates by level, shallow first: mean, minimum and maximum of each.
        seconds: wall time of the run.
    """

    digest: str
    repeat: int
    seed: int
    number: int | None
    reference: str | None
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    reason: str
    detail: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    gates: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean of independent runs with its 95 % interval (Student's t)."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What a candidate's runs say together.

    Attributes:
        runs: those that ended, complete or not.
        failed: how many of them diverged or ran out of memory; they take no part in `values`.
        values: mean and interval of every value that all complete runs have.
        gates: mean and interval of each learned skip gate, shallow first; empty without any.
    """

    digest: str
    number: int | None
    reference: str | None
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    runs: int
    failed: int
    values: Mapping[str, Interval]
    gates: tuple[Interval, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every run was complete, and there were enough of them for an interval."""
        return not self.failed and bool(self.values)


class ConfirmationLedger(Protocol):
    """Where the runs of a confirmation are kept. Every method may raise StorageError."""

    def confirmations(self) -> list[ConfirmedRun]:
        """Every run that ended, in the order in which they did."""

    def confirm(self, run: ConfirmedRun) -> None:
        """Keeps a run. One of the same candidate and repeat that is there already stays."""


def interval(values: Sequence[float]) -> Interval:
    """Mean, sample standard deviation and 95 % interval ``mean +- t(0.975, n - 1) * sd / sqrt(n)``.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    n = len(values)
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return Interval(mean=mean, sd=sd, low=mean - half, high=mean + half, n=n)


def confirmation_seed(study_seed: int, repeat: int) -> int:
    """A seed that is the same for every member, so that they see the same order of data and the same noise.

    The search's own seeds come from digests of candidates, which no such name is.
    """
    from nas.evaluation import candidate_seed  # torch, which those who only read do not need

    return candidate_seed(study_seed, f"confirmation {repeat}")


def pick_members(results: Sequence[TrialResult], objectives: Sequence[Objective], top: int = TOP) -> list[TrialResult]:
    """The knee of the front, and the `top` members with the largest hypervolume contributions, those first.

    Args:
        results: complete trials of a study, at least one.
        objectives: in the study's order.
        top: how many beside the knee; 0 for the knee alone.
    """
    maximize = [o.direction == "maximize" for o in objectives]
    values = np.array([[r.values[o.name] for o in objectives] for r in results])
    mask = non_dominated(values, maximize)
    front, values = [r for r, on in zip(results, mask, strict=True) if on], values[mask]
    gains = contributions(values, [o.reference for o in objectives], maximize)
    best = knee(values, maximize).index
    others = [int(i) for i in np.argsort(-gains, kind="stable") if i != best]
    return [front[i] for i in (best, *others[:top])]


def summarize(runs: Iterable[ConfirmedRun]) -> list[Confirmed]:
    """Runs by candidate, in the order in which candidates first appear.

    A candidate with fewer than `LEAST_RUNS` complete runs has no values.
    """
    groups: dict[str, list[ConfirmedRun]] = {}
    for run in runs:
        groups.setdefault(run.digest, []).append(run)
    result = []
    for digest, group in groups.items():
        complete = [run for run in group if run.reason == "complete"]
        enough = len(complete) >= LEAST_RUNS
        names = [name for name in complete[0].values if all(name in run.values for run in complete)] if enough else ()
        gates = zip(*(run.gates for run in complete), strict=True) if enough else ()
        result.append(
            Confirmed(
                digest=digest,
                number=next((run.number for run in group if run.number is not None), None),
                reference=next((run.reference for run in group if run.reference is not None), None),
                spec=group[0].spec,
                recipe=group[0].recipe,
                runs=len(group),
                failed=len(group) - len(complete),
                values={name: interval([run.values[name] for run in complete]) for name in names},
                gates=tuple(interval([gate["mean"] for gate in level]) for level in gates),
            )
        )
    return result


@dataclass(slots=True, kw_only=True)
class ConfirmProgress:
    """The state of a confirmation, for whoever shows it.

    Attributes:
        total: runs there should be; done: runs that are there; done_before: those there at the start.
        running: job -> share of its epochs that is done.
        messages: lines about runs that failed, oldest first.
    """

    total: int
    done: int
    done_before: int
    running: dict[int, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float | None:
        """Expected seconds to the end from the pace so far; None before there is one."""
        done = self.done - self.done_before + sum(self.running.values())
        left = self.total - self.done_before - done
        return left * (time.monotonic() - self.started) / done if done >= 0.5 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmOutcome:
    """How a confirmation ended.

    Attributes:
        reason: ``complete``, ``time_limit``, ``interrupted``, or ``failed`` when runs ended by an error.
        total, done, new: runs there should be, runs there are, runs of this call.
    """

    reason: str
    total: int
    done: int
    new: int
    seconds: float = 0.0
    messages: tuple[str, ...] = ()

    def lines(self, study: str, again: str) -> list[str]:
        """How it ended, for people, and what to type next."""
        if self.reason == "complete" and not self.new:
            return [f"study {study} is confirmed: all {self.total} runs are there; nothing to do"]
        done = f"{self.new} runs in {self.seconds:.0f} s; the confirmation has {self.done} of {self.total}"
        if self.reason == "complete":
            return [done]
        why = {
            "time_limit": "stopped by the time limit; runs under way are kept",
            "interrupted": "stopped by an interrupt; runs under way are kept",
            "failed": "some runs failed",
        }
        return [done, f"{why[self.reason]}. Go on with: {again}"]


def run_confirmation(
    config: StudyConfig,
    space: SearchSpace,
    ledger: ConfirmationLedger,
    data: Dataset,
    files: Path,
    members: Sequence[Member],
    seeds: int,
    resources: Resources,
    observe: Callable[[ConfirmProgress], None] = lambda progress: None,
) -> ConfirmOutcome:
    """Trains each member under `seeds` seeds, those runs that the ledger does not hold yet.

    Every seed is given to all members before the next, so that a confirmation that was stopped compares
    like with like. Returns at once, without starting Ray, when nothing is left. A stop (time limit, SIGINT,
    SIGTERM) leaves runs under way with a checkpoint, from which the next call goes on.

    Args:
        config: the study's.
        ledger: where runs are kept.
        data: of the study; its test split is judged, and takes part in nothing.
        files: the study's folder; checkpoints lie in it while runs are under way.
        members: distinct candidates.
        resources: what the runs get, each as a trial of the search would.
        observe: called with the progress at every change, in this thread.

    Raises:
        ConfigError: a run asks for more than there is. ClusterError: no cluster answers.
    """
    jobs = [(member, repeat) for repeat in range(seeds) for member in members]
    have = {(run.digest, run.repeat) for run in ledger.confirmations()}
    left = {i: job for i, job in enumerate(jobs) if (job[0].candidate.digest, job[1]) not in have}
    before = len(jobs) - len(left)
    progress = ConfirmProgress(total=len(jobs), done=before, done_before=before)
    if not left:
        return ConfirmOutcome(reason="complete", total=len(jobs), done=before, new=0)

    # Ray is slow to import and not needed above.
    from nas.executor import Pool, ray_session, run_jobs, slots
    from nas.trainable import WorkerSettings

    folder = confirm_dir(files).resolve()

    def on_report(report: Report) -> None:
        member, repeat = jobs[report.number]
        progress.messages += [f"{member.label}, seed {repeat + 1}: {warning}" for warning in report.warnings]
        if report.rows:
            progress.running[report.number] = report.rows[-1].epoch / member.candidate.recipe.epochs
        observe(progress)

    def on_end(report: Report) -> None:
        progress.running.pop(report.number, None)
        member, repeat = jobs[report.number]
        assert report.outcome is not None
        if report.outcome in KEPT:
            ledger.confirm(_run(member, repeat, config.seed, report))
            progress.done += 1
        if report.outcome != "complete":
            last = report.detail.strip().splitlines()[-1:] or [""]
            what = report.outcome.replace("_", " ") + (f", {last[0]}" if last[0] else "")
            progress.messages.append(f"{member.label}, seed {repeat + 1}: {what}")
        drop_checkpoint(folder, report.number)
        if report.outcome not in KEPT and report.detail:
            text = traceback_path(folder, report.number)
            folder.mkdir(parents=True, exist_ok=True)
            text.write_text(report.detail, "utf-8")
            progress.messages[-1] += f"; the whole traceback is in {text}"
        observe(progress)

    with stop_signals() as stop, ray_session(resources.address):
        concurrency = slots(resources.cpus_per_trial, resources.gpus_per_trial, resources.concurrency)
        observe(progress)
        stopping = until(stop, resources.time_limit)
        pool = Pool(
            space=space,
            data=data,
            settings=WorkerSettings.of(config, folder, trial_timeout=resources.trial_timeout, confirming=True),
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            size=min(concurrency, len(left)),
            stopping=stopping,
        )
        todo = [_config(number, *job, config.seed) for number, job in left.items()]
        run_jobs(todo, pool, on_end=on_end, on_report=on_report)
        stopped, interrupted = stopping(), stop.is_set()
    if progress.done == len(jobs):
        reason = "complete"
        drop_all(folder)
    elif stopped:
        reason = "interrupted" if interrupted else "time_limit"
    else:
        reason = "failed"
    return ConfirmOutcome(
        reason=reason,
        total=len(jobs),
        done=progress.done,
        new=progress.done - before,
        seconds=time.monotonic() - progress.started,
        messages=tuple(progress.messages),
    )


def _config(number: int, member: Member, repeat: int, study_seed: int) -> dict[str, Any]:
    """What `nas.trainable.CandidateTrainable` is given; `number` names the run's checkpoint."""
    candidate = member.candidate
    return {
        "number": number,
        "digest": candidate.digest,
        "spec": candidate.spec.to_dict(),
        "recipe": candidate.recipe.to_dict(),
        "seed": confirmation_seed(study_seed, repeat),
    }


def _run(member: Member, repeat: int, study_seed: int, report: Report) -> ConfirmedRun:
    measured = report.measurement
    return ConfirmedRun(
        digest=member.candidate.digest,
        repeat=repeat,
        seed=confirmation_seed(study_seed, repeat),
        number=member.number,
        reference=member.reference,
        spec=member.candidate.spec.to_dict(),
        recipe=member.candidate.recipe.to_dict(),
        reason=str(report.outcome),
        detail=report.detail,
        values={} if measured is None else dict(measured.values),
        gates=() if measured is None else measured.gates,
        seconds=0.0 if measured is None else measured.seconds,
    )
