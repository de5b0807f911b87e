"""One candidate inside a Ray worker. Exceptions are reported and never raised, because Ray would retry a bug."""

from __future__ import annotations

import dataclasses
import errno
import faulthandler
import logging
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TextIO

import torch
from ray import tune
from torch import nn

from nas.data.splits import Dataset
from nas.engine.job import Job
from nas.engine.report import Report
from nas.errors import LatencyError, is_out_of_memory
from nas.machine import keep_memory, return_memory
from nas.outcome import Outcome
from nas.protocols import SearchSpace
from nas.settings import Resources, StudyConfig
from nas.training.batches import DeviceData, evaluation_batches
from nas.training.checkpoint import load_checkpoint, open_hang, read_hang, save_checkpoint, save_strip, save_weights
from nas.training.evaluation import Evaluation, judge
from nas.training.loop import Diverged
from nas.training.strips import strip
from nas.types import LatencySetting, Measurement, Spec, Task

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 30.0
"""A trial's state is written at every validation, and whenever this many seconds have passed."""

REPORT_SECONDS = 1.0
"""A worker reports at validations, at the end, and otherwise about this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings that all trials of a search share.

    Attributes:
        task: the task of the networks.
        device: ``cpu`` or ``cuda``; a worker that sees no CUDA device trains on the CPU.
        precision: ``fp32`` or ``bf16``.
        threads: torch threads of a worker.
        files: folder for weights and checkpoints, on a disk that driver and workers share.
        trial_timeout: seconds after which a trial counts as hanging; None for never.
        confirming: whether a trained candidate is judged on the test split too (values ``test_psnr`` and so on), and
            its weights are not kept.
        latency: where the latency of the networks is measured; None where it is not.
        working: the folder that the search was started in, where a command that measures latency runs.
    """

    task: Task
    device: str
    precision: str
    threads: int
    files: Path
    trial_timeout: float | None
    confirming: bool = False
    latency: LatencySetting | None = None
    working: Path | None = None

    @classmethod
    def of(cls, config: StudyConfig, files: Path, resources: Resources, *, confirming: bool = False) -> WorkerSettings:
        """Returns the settings that a study fixes, and those of this run.

        In a confirmation each run measures its latency anew, so that its interval tells how much measurements differ.
        """
        return cls(
            task=config.task,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
            files=files.resolve(),
            trial_timeout=resources.trial_timeout,
            confirming=confirming,
            latency=config.latency,
            working=Path.cwd(),  # workers have one of Ray's own
        )


class _Warnings(logging.Handler):
    """Collects the warnings of this project's code in a worker, each warning of a trial once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._new: list[str] = []
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            self._new.append(text)

    def take(self) -> tuple[str, ...]:
        """Returns the warnings since the last call."""
        taken, self._new = tuple(self._new), []
        return taken

    def forget(self) -> None:
        """Prepares for a new trial."""
        self._told.clear()


class CandidateTrainable(tune.Trainable):
    """Trains one candidate and reports a `Report`. The process and the data on its device are reused."""

    def setup(  # type: ignore[override]  # tune.with_parameters supplies the rest
        self, config: dict[str, Any], *, data: Dataset, space: SearchSpace, settings: WorkerSettings
    ) -> None:
        torch.set_num_threads(settings.threads)
        keep_memory()
        self._space, self._settings, self._source = space, settings, data
        self._device = torch.device("cuda" if settings.device == "cuda" and torch.cuda.is_available() else "cpu")
        self._evaluation: Evaluation | None = None
        self._hang: TextIO | None = None
        self._warnings = _Warnings()
        logging.getLogger("nas").addHandler(self._warnings)

    @property
    def _job(self) -> Job:
        job: Job = self.config["job"]  # as `nas.engine.searcher.JobSearcher.suggest` gives it
        return job

    @cached_property
    def _data(self) -> DeviceData:
        """The data, made on first use within `step`, so that a lack of memory is a trial's outcome with its reason."""
        return DeviceData.of(self._source, self._settings.task, self._device)

    def cleanup(self) -> None:
        logging.getLogger("nas").removeHandler(self._warnings)
        self._end()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._warnings.forget()
        return True

    def step(self) -> dict[str, Any]:
        number = self._job.number
        try:
            # The process of a trial that hung was ended, and Ray has started the trial again in this one.
            hung = "" if self._evaluation is not None else read_hang(self._settings.files, number)
            report = Report(number=number, outcome=Outcome.TIMEOUT, detail=hung) if hung else self._advance(number)
        except Diverged as error:
            probe = self._evaluation.training.probe_curve() if self._evaluation else None
            report = Report(number=number, outcome=Outcome.DIVERGED, detail=str(error), probe=probe)
        except LatencyError as error:
            report = Report(number=number, outcome=Outcome.LATENCY, detail=str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                report = Report(number=number, outcome=Outcome.DISK_FULL, detail=str(error))
            else:
                report = Report(number=number, outcome=Outcome.EXCEPTION, detail=traceback.format_exc())
        except Exception as error:
            no_memory = is_out_of_memory(error)
            if isinstance(error, torch.AcceleratorError) and not no_memory:
                raise  # a failed device fails for good in this process; Tune goes on in another, `RETRIES` times
            outcome = Outcome.OUT_OF_MEMORY if no_memory else Outcome.EXCEPTION
            report = Report(number=number, outcome=outcome, detail=traceback.format_exc())
        if report.outcome is not None:
            self._end()
        report = dataclasses.replace(report, warnings=self._warnings.take())
        return {"report": report, "done": report.outcome is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves nothing, because a trial writes its state itself (see `nas.training.checkpoint`)."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Loads nothing: see `save_checkpoint`."""

    def _end(self) -> None:
        """Frees a trial's memory, for the next trial and for other workers of the device, and stops watching it."""
        self._evaluation = None
        self._watch(None)
        return_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _advance(self, number: int) -> Report:
        started = time.perf_counter()
        if self._evaluation is None:
            self._evaluation, self._reported = self._begin(), 0
        evaluation = self._evaluation
        while not evaluation.done:
            row = evaluation.advance(self._checkpoint_if_due)
            if not evaluation.done and row.validated:
                self._checkpoint()
            if row.validated or time.perf_counter() - started > REPORT_SECONDS:
                break
        rows = tuple(evaluation.rows[self._reported :])
        self._reported = len(evaluation.rows)
        if not evaluation.done:
            return Report(number=number, rows=rows)
        measurement = evaluation.measurement()
        measurement = dataclasses.replace(measurement, values={**measurement.values, **self._latency})
        if self._settings.confirming:
            measurement = self._tested(measurement, evaluation.training.network)
            return Report(number=number, rows=rows, outcome=Outcome.COMPLETE, measurement=measurement)
        save_weights(evaluation.training.network, self._settings.files, number, self._job.digest)
        kept = self._keep_strip(number, evaluation)
        return Report(number=number, rows=rows, outcome=Outcome.COMPLETE, measurement=measurement, strip=kept)

    def _keep_strip(self, number: int, evaluation: Evaluation) -> bool:
        try:
            save_strip(strip(evaluation.training.network, self._data), self._settings.files, number)
        except OSError as error:  # a full disk costs the picture, not the trial
            log.warning("it has no picture (%s)", error)
            return False
        return True

    def _tested(self, measurement: Measurement, network: nn.Module) -> Measurement:
        """Adds the finite figures on the test split. No choice may depend on this split, not even one about a
        failure."""
        found = judge(network, evaluation_batches(self._source, "test", self._data.noise, self._device))
        finite = {f"test_{name}": value for name, value in found.values.items() if math.isfinite(value)}
        return dataclasses.replace(measurement, values={**measurement.values, **finite})

    def _begin(self) -> Evaluation:
        self._watch(self._settings.trial_timeout)
        task, job = self._settings.task, self._job
        spec = self._space.spec(job.spec)
        build = partial(self._space.build, spec, task)
        # Before the training, which would be lost where the program or a command fails.
        self._latency = self._measured(spec, build)
        self._saved = time.monotonic()
        evaluation = Evaluation(
            build,
            task,
            job.recipe,
            self._data,
            self._space.cost(spec, task),
            seed=job.seed,
            precision=self._settings.precision,
            capture=not job.retried,
        )
        state = load_checkpoint(self._settings.files, job.number, digest=job.digest, seed=job.seed)
        if state is not None:
            # Every row is reported again, because rows since the last report may have died with a worker.
            evaluation.load_state(state)
        return evaluation

    def _measured(self, spec: Spec, build: Callable[[], nn.Module]) -> dict[str, float]:
        """Returns the latency of a network and its spread; nothing where the study does not measure it."""
        settings = self._settings
        if settings.latency is None:
            return {}
        # Most searches do without ONNX and its runtime.
        from nas.bundles.latency import Meter

        meter = Meter(
            setting=settings.latency,
            folder=settings.files,
            shared=not settings.confirming,
            working=settings.working,
        )
        return meter.measure(spec, settings.task, build)

    def _watch(self, timeout: float | None) -> None:
        """Ends this process when the trial takes longer than `timeout` seconds, or stops watching it.

        The watchdog is a thread in C that needs no interpreter lock, so it also ends code that hangs while it holds the
        lock. It leaves a traceback of the place where the trial hung.
        """
        faulthandler.cancel_dump_traceback_later()
        if self._hang is not None:
            self._hang.close()
            Path(self._hang.name).unlink(missing_ok=True)
            self._hang = None
        if timeout is not None:
            self._hang = open_hang(self._settings.files, self._job.number)
            faulthandler.dump_traceback_later(timeout, exit=True, file=self._hang)

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self._checkpoint()

    def _checkpoint(self) -> None:
        assert self._evaluation is not None
        job = self._job
        try:
            save_checkpoint(
                self._evaluation.state(), self._settings.files, job.number, digest=job.digest, seed=job.seed
            )
        except OSError as error:  # a full disk costs the chance to resume, not the trial
            log.warning("it goes on without a checkpoint (%s)", error)
        self._saved = time.monotonic()
