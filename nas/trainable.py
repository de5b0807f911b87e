"""One candidate inside a Ray worker. Exceptions are reported, never raised: Ray would retry a bug."""

from __future__ import annotations

import faulthandler
import logging
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from ray import tune

from nas.checkpoint import load_checkpoint, open_hang, read_hang, save_checkpoint, save_weights
from nas.data import Dataset
from nas.evaluation import Evaluation
from nas.protocols import SearchSpace
from nas.searcher import Report
from nas.training import DeviceData, Diverged
from nas.types import Recipe, Task

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
"""A trial's state is written at every validation, and when this long has passed since the last."""

REPORT_SECONDS = 1.0
"""A worker reports at validations, at the end, and otherwise about this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What is the same for every trial of a search.

    Attributes:
        device: ``cpu`` or ``cuda``; a worker that sees no CUDA device trains on the CPU.
        precision: ``fp32`` or ``bf16``.
        threads: torch threads of a worker.
        files: folder for weights and checkpoints, on a disk that driver and workers share.
        trial_timeout: seconds after which a trial counts as hanging; None for never.
    """

    task: Task
    device: str
    precision: str
    threads: int
    files: Path
    trial_timeout: float | None


class CandidateTrainable(tune.Trainable):
    """Trains one candidate, reporting a `Report`. The process and the data on its device are reused."""

    def setup(  # type: ignore[override]  # tune.with_parameters supplies the rest
        self, config: dict[str, Any], *, data: Dataset, space: SearchSpace, settings: WorkerSettings
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._space, self._settings = space, settings
        cuda = settings.device == "cuda" and torch.cuda.is_available()
        self._data = DeviceData.of(data, settings.task, torch.device("cuda" if cuda else "cpu"))
        self._evaluation: Evaluation | None = None
        self._hang: TextIO | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._evaluation = None
        return True

    def step(self) -> dict[str, Any]:
        number = self.config["number"]
        try:
            # A trial that hung has had its process ended, and Ray has started it again in this one.
            hung = "" if self._evaluation is not None else read_hang(self._settings.files, number)
            report = Report(number=number, outcome="timeout", detail=hung) if hung else self._advance(number)
        except Diverged as error:
            probe = self._evaluation.training.probe_curve() if self._evaluation else None
            report = Report(number=number, outcome="diverged", detail=str(error), probe=probe)
        except Exception as error:
            outcome = "out_of_memory" if _is_out_of_memory(error) else "exception"
            report = Report(number=number, outcome=outcome, detail=traceback.format_exc())
        if report.outcome is not None:
            self._evaluation = None  # free its memory before the next trial is built
            self._watch(None)
        return {"report": report, "done": report.outcome is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state is its own (see `nas.checkpoint`), not Tune's."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see `save_checkpoint`."""

    def _advance(self, number: int) -> Report:
        started = time.perf_counter()
        if self._evaluation is None:
            self._evaluation, self._reported = self._begin(), 0
        evaluation = self._evaluation
        while not evaluation.done:
            row = evaluation.advance(self._checkpoint_if_due)
            if not evaluation.done and row.psnr is not None:
                self._checkpoint()
            if row.psnr is not None or time.perf_counter() - started > REPORT_SECONDS:
                break
        rows = tuple(evaluation.rows[self._reported :])
        self._reported = len(evaluation.rows)
        if not evaluation.done:
            return Report(number=number, rows=rows)
        measurement = evaluation.measurement()
        save_weights(evaluation.training.network, self._settings.files, number)
        return Report(number=number, rows=rows, outcome="complete", measurement=measurement)

    def _begin(self) -> Evaluation:
        self._watch(self._settings.trial_timeout)
        task = self._settings.task
        spec = self._space.spec(self.config["spec"])
        self._saved = time.monotonic()
        evaluation = Evaluation(
            partial(self._space.build, spec, task),
            task,
            Recipe.from_dict(self.config["recipe"]),
            self._data,
            self._space.cost(spec, task),
            seed=self.config["seed"],
            precision=self._settings.precision,
        )
        state = load_checkpoint(self._settings.files, self.config["number"], **self._identity())
        if state is not None:
            # Every row is reported again: those since the last report may have died with a worker.
            evaluation.restore(state)
        return evaluation

    def _watch(self, timeout: float | None) -> None:
        """Ends this process when the trial takes longer than `timeout` seconds, or no longer watches it.

        The watchdog is a thread in C that needs no interpreter lock, so code that hangs while it holds
        the lock is ended too. It leaves a traceback of where the trial hung.
        """
        faulthandler.cancel_dump_traceback_later()
        if self._hang is not None:
            self._hang.close()
            Path(self._hang.name).unlink(missing_ok=True)
            self._hang = None
        if timeout is not None:
            self._hang = open_hang(self._settings.files, self.config["number"])
            faulthandler.dump_traceback_later(timeout, exit=True, file=self._hang)

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self._checkpoint()

    def _checkpoint(self) -> None:
        assert self._evaluation is not None
        try:
            save_checkpoint(self._evaluation.state(), self._settings.files, self.config["number"], **self._identity())
        except OSError as error:  # a full disk costs the chance to resume, not the trial
            log.warning("trial %d goes on without a checkpoint: %s", self.config["number"], error)
        self._saved = time.monotonic()

    def _identity(self) -> dict[str, Any]:
        return {"digest": self.config["digest"], "seed": self.config["seed"]}


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises a plain RuntimeError when the host's allocator fails.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
