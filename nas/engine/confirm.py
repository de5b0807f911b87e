"""The front trained again under several seeds: members, runs, and their results together.

A search judges each candidate by one run and keeps the good ones, so its figures are a little too good. A confirmation
trains the chosen candidates again, on the full budget and under seeds of its own, which are the same for all of them.
They are ranked by their means on validation. The test split is measured and only reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.data.listing import counted
from nas.data.splits import Dataset
from nas.engine.job import Job
from nas.outcome import Outcome
from nas.protocols import SearchSpace
from nas.search.confirmation import ConfirmedRun, Member, confirmation_seed
from nas.settings import Resources, StudyConfig
from nas.training.checkpoint import confirm_dir, drop_all, drop_checkpoint, traceback_path
from nas.training.version import TRAINING_VERSION

if TYPE_CHECKING:
    from nas.engine.report import Report


class ConfirmationLedger(Protocol):
    """The place where the runs of a confirmation are kept. Every method may raise StorageError."""

    def confirmations(self) -> list[ConfirmedRun]:
        """Returns every run that ended, in the order of their ends."""

    def confirm(self, run: ConfirmedRun) -> None:
        """Keeps a run, unless one of the same candidate, repeat and training code is there already.

        It replaces a run of another version of the training code.
        """


@dataclass(slots=True, kw_only=True)
class ConfirmProgress:
    """The state of a confirmation, for a display.

    Attributes:
        total: number of runs that there should be.
        done: number of runs that have ended.
        done_before: number of runs that had ended at the start.
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
        """Returns the expected seconds to the end at the pace so far; None before there is one."""
        done = self.done - self.done_before + sum(self.running.values())
        left = self.total - self.done_before - done
        return left * (time.monotonic() - self.started) / done if done >= 0.5 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmEnd:
    """The end of a confirmation.

    Attributes:
        reason: ``complete``, ``time_limit``, ``interrupted``, or ``failed`` when runs ended by an error.
        total: number of runs that there should be.
        done: number of runs that have ended.
        new: number of runs of this call.
        seconds: wall time.
        messages: lines about runs that failed.
    """

    reason: str
    total: int
    done: int
    new: int
    seconds: float = 0.0
    messages: tuple[str, ...] = ()

    def lines(self, study: str, again: str) -> list[str]:
        """Returns lines for people about the end, and the command to type next."""
        if self.reason == "complete" and not self.new:
            return [f"study {study} is confirmed: all {self.total} runs are there; nothing to do"]
        done = f"{counted(self.new, 'run')} in {self.seconds:.0f} s; the confirmation has {self.done} of {self.total}"
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
) -> ConfirmEnd:
    """Trains each member under `seeds` seeds, in all runs that the ledger does not have yet.

    Runs of another version of the training code count as missing, because figures of two versions make no mean. A seed
    is given to all members before the next one, so that a confirmation that was stopped compares like with like. The
    call returns at once, without starting Ray, when nothing is left. A stop (time limit, SIGINT, SIGTERM) leaves runs
    under way with a checkpoint, from which the next call continues.

    Args:
        config: the study's configuration.
        space: the study's space.
        ledger: keeps the runs.
        data: the study's data; its test split is measured, and no choice depends on it.
        files: the study's folder; checkpoints lie in it while runs are under way.
        members: distinct candidates.
        seeds: number of runs of each member.
        resources: resources of the runs, each as a trial of the search.
        observe: called with the progress at every change, in this thread.

    Raises:
        ConfigError: a run asks for more than there is.
        ClusterError: no cluster answers.
    """
    runs = [(member, repeat) for repeat in range(seeds) for member in members]
    have = {(run.digest, run.repeat) for run in ledger.confirmations() if run.training_version == TRAINING_VERSION}
    jobs = [
        Job.of(member.candidate, number=number, seed=confirmation_seed(config.seed, repeat))
        for number, (member, repeat) in enumerate(runs)
        if (member.candidate.digest, repeat) not in have
    ]
    before = len(runs) - len(jobs)
    progress = ConfirmProgress(total=len(runs), done=before, done_before=before)
    if not jobs:
        return ConfirmEnd(reason="complete", total=len(runs), done=before, new=0)

    # Ray is slow to import and not needed above.
    from nas.engine.executor import run_jobs, worker_pool

    folder = confirm_dir(files).resolve()

    def on_report(report: Report) -> None:
        member, repeat = runs[report.number]
        progress.messages += [f"{member.label}, seed {repeat + 1}: {warning}" for warning in report.warnings]
        if report.rows:
            progress.running[report.number] = report.rows[-1].epoch / member.candidate.recipe.epochs
        observe(progress)

    def on_end(report: Report) -> None:
        progress.running.pop(report.number, None)
        member, repeat = runs[report.number]
        assert report.outcome is not None
        if report.outcome.trained:  # after any other outcome the same command trains the run again
            ledger.confirm(_run(member, repeat, config.seed, report))
            progress.done += 1
        if report.outcome is not Outcome.COMPLETE:
            last = report.detail.strip().splitlines()[-1:] or [""]
            what = report.outcome.words + (f", {last[0]}" if last[0] else "")
            progress.messages.append(f"{member.label}, seed {repeat + 1}: {what}")
        drop_checkpoint(folder, report.number)
        if not report.outcome.trained and report.detail:
            text = traceback_path(folder, report.number)
            folder.mkdir(parents=True, exist_ok=True)
            text.write_text(report.detail, "utf-8")
            progress.messages[-1] += f"; the whole traceback is in {text}"
        observe(progress)

    def tell(line: str) -> None:
        progress.messages.append(line)
        observe(progress)

    with worker_pool(config, space, data, folder, resources, most=len(jobs), confirming=True, tell=tell) as pool:
        observe(progress)
        run_jobs(jobs, pool, on_end=on_end, on_report=on_report)
        stopped = pool.stopping()
    if progress.done == len(runs):
        reason = "complete"
        drop_all(folder)
    elif stopped:
        reason = pool.stopping.reason
    else:
        reason = "failed"
    return ConfirmEnd(
        reason=reason,
        total=len(runs),
        done=progress.done,
        new=progress.done - before,
        seconds=time.monotonic() - progress.started,
        messages=tuple(progress.messages),
    )


def _run(member: Member, repeat: int, study_seed: int, report: Report) -> ConfirmedRun:
    measured = report.measurement
    assert report.outcome is not None
    return ConfirmedRun(
        digest=member.candidate.digest,
        repeat=repeat,
        seed=confirmation_seed(study_seed, repeat),
        number=member.number,
        reference=member.reference,
        spec=member.candidate.spec.to_dict(),
        recipe=member.candidate.recipe.to_dict(),
        outcome=report.outcome,
        training_version=TRAINING_VERSION,
        detail=report.detail,
        values={} if measured is None else dict(measured.values),
        gates=() if measured is None else measured.gates,
        seconds=0.0 if measured is None else measured.seconds,
    )
