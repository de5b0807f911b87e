"""One candidate as a worker trains it, without Ray's processes: what it reports when something gives way."""

from __future__ import annotations

import dataclasses
import errno
import faulthandler
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_space import ToyNet, ToySpace

from nas.data.splits import Dataset
from nas.engine import trainable
from nas.engine.job import Job
from nas.engine.report import Report
from nas.engine.trainable import CandidateTrainable, WorkerSettings
from nas.outcome import Outcome
from nas.training import checkpoint
from nas.training.batches import DeviceData
from nas.training.checkpoint import checkpoint_path, hang_path, weights_path
from nas.training.evaluation import Judgement
from nas.types import LatencySetting, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
SPACE = ToySpace()


class Worker:
    """A worker's trainable in this process."""

    def __init__(self, folder: Path, digits: Dataset, epochs: int = 9, **changes: Any) -> None:
        candidate = SPACE.decode({"width": 4, "fault": "none"}, TASK, epochs)
        self.trainable = CandidateTrainable.__new__(CandidateTrainable)
        self.trainable.config = {"job": Job.of(candidate, number=3, seed=1)}
        settings = WorkerSettings(
            task=TASK, device="cpu", precision="fp32", threads=1, files=folder, **{"trial_timeout": None} | changes
        )
        self.trainable.setup({}, data=digits, space=SPACE, settings=settings)

    def run(self) -> list[Report]:
        """Every report until the trial ends."""
        reports: list[Report] = []
        while not reports or reports[-1].outcome is None:
            reports.append(self.trainable.step()["report"])
        self.trainable.cleanup()
        return reports


def epochs(reports: list[Report]) -> list[tuple[int, float | None]]:
    return [(row.epoch, row.values.get("psnr")) for report in reports for row in report.rows]


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_trial(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = epochs(Worker(tmp_path / "a", digits).run())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        reports = Worker(tmp_path / "b", digits).run()
    assert reports[-1].outcome == "complete"
    assert epochs(reports) == undisturbed
    told = "it goes on without a checkpoint ([Errno 28] No space left on device)"
    assert told in caplog.text
    assert [w for report in reports for w in report.warnings] == [told], "once, and where the driver sees it"
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"trial-3.safetensors", "trial-3.png"}


def test_a_disk_that_is_full_at_the_end_leaves_the_trial_to_be_continued(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainable, "save_weights", full)
        first = Worker(tmp_path, digits).run()
    assert (first[-1].outcome, first[-1].detail) == ("disk_full", "[Errno 28] No space left on device")
    assert checkpoint_path(tmp_path, 3).exists()
    second = Worker(tmp_path, digits).run()
    assert second[-1].outcome == "complete"
    assert weights_path(tmp_path, 3).exists()


def test_another_error_of_the_disk_is_an_exception_with_its_traceback(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(trainable, "save_weights", denied)
    last = Worker(tmp_path, digits).run()[-1]
    assert last.outcome == "exception"
    assert "Traceback" in last.detail
    assert "PermissionError" in last.detail


HERE = LatencySetting(height=12, width=20, threads=1, provider="cpu")


def test_latency_is_measured_before_the_training_and_changes_nothing_of_it(tmp_path: Path, digits: Dataset) -> None:
    plain = Worker(tmp_path / "a", digits).run()
    reports = Worker(tmp_path / "b", digits, latency=HERE).run()
    assert epochs(reports) == epochs(plain)
    measured, alone = reports[-1].measurement, plain[-1].measurement
    assert measured is not None
    assert alone is not None
    latency = {name: value for name, value in measured.values.items() if name not in alone.values}
    assert latency.keys() == {"latency", "latency_spread"}
    assert 0 < latency["latency"] < 1000
    shared = [json.loads(path.read_text()) for path in (tmp_path / "b").glob("latency-*")]
    assert shared == [latency], "for other candidates of its architecture"


def test_a_confirmation_measures_each_run_anew(tmp_path: Path, digits: Dataset) -> None:
    last = Worker(tmp_path, digits, latency=HERE, confirming=True).run()[-1]
    assert last.measurement is not None
    assert last.measurement.values["latency"] > 0
    assert not list(tmp_path.glob("latency-*"))


def test_a_command_that_fails_ends_the_trial_untrained_and_with_its_reason(tmp_path: Path, digits: Dataset) -> None:
    command = f"{sys.executable} -c 'import sys; sys.exit(sys.argv[1][-5:])' {{model}}"
    board = LatencySetting(height=12, width=20, command=command)
    reports = Worker(tmp_path, digits, latency=board).run()
    assert [report.outcome for report in reports] == ["latency"]
    assert reports[0].detail == f"{command!r} ended with code 1 (.onnx), 3 times in a row"
    assert reports[0].rows == ()
    assert not list(tmp_path.iterdir())


def raised(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(2**60),  # the host, as torch says it
        lambda: bytearray(2**62),  # the host, as Python says it
        lambda: raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        lambda: raised(torch.AcceleratorError("CUDA error: out of memory")),
        lambda: raised(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        lambda: raised(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
    ],
    ids=["torch", "python", "device", "cuda", "cublas", "cudnn"],
)
def test_memory_that_runs_out_ends_the_trial_and_not_the_worker(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], Any]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ToyNet, "_fault", lambda self: next(iter(allocate())))
        assert [report.outcome for report in Worker(tmp_path, digits).run()] == ["out_of_memory"]
    assert Worker(tmp_path, digits).run()[-1].outcome == "complete"


def test_too_little_memory_for_the_data_ends_the_trial_with_its_reason(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    worker = Worker(tmp_path, digits)
    with monkeypatch.context() as patch:
        patch.setattr(DeviceData, "of", scarce)
        report = worker.trainable.step()["report"]
    assert report.outcome == "out_of_memory"
    assert "Tried to allocate 2.00 GiB" in report.detail
    assert worker.run()[-1].outcome == "complete", "the next trial finds the memory"


def test_a_device_that_failed_ends_the_process_and_not_the_trial(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later call of CUDA in the process would fail too."""

    def failed(self: ToyNet) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(ToyNet, "_fault", failed)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        Worker(tmp_path, digits).trainable.step()


@pytest.mark.parametrize("retried", [False, True])
def test_a_trial_that_has_lost_a_worker_goes_on_without_graphs(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, retried: bool
) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr("nas.training.loop.graphs_on", devices.append)
    monkeypatch.setattr(ToyNet, "capturable", True, raising=False)
    worker = Worker(tmp_path, digits, epochs=1)
    worker.trainable.config = {"job": dataclasses.replace(worker.trainable.config["job"], retried=retried)}
    assert worker.run()[-1].outcome == Outcome.COMPLETE
    assert devices == ([] if retried else [torch.device("cpu")])


@pytest.mark.parametrize("end", [lambda one: one.reset_config({}), lambda one: one.cleanup()], ids=["reset", "cleanup"])
def test_a_trial_that_a_rung_stopped_is_watched_no_longer(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, end: Callable[[CandidateTrainable], object]
) -> None:
    """The process lives on, for the next trial or idle, and must not be ended by the last one's limit."""
    armed: list[bool] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: armed.append(True))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: armed.append(False))
    worker = Worker(tmp_path, digits, trial_timeout=60.0)
    assert worker.trainable.step()["report"].outcome is None
    assert armed[-1]
    assert hang_path(tmp_path, 3).exists()
    end(worker.trainable)
    assert not armed[-1]
    assert not hang_path(tmp_path, 3).exists()
    worker.trainable.cleanup()


@pytest.mark.parametrize("finite", [True, False])
def test_no_figure_on_test_takes_a_confirmation_s_run_away(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, finite: bool
) -> None:
    if not finite:
        monkeypatch.setattr(
            trainable,
            "judge",
            lambda *_: Judgement(values={"psnr": math.nan, "accuracy": 50.0}, denoise=math.nan, classify=2.0),
        )
    last = Worker(tmp_path, digits, epochs=1, confirming=True).run()[-1]
    assert last.outcome == "complete"
    assert last.measurement is not None
    told = {name.removeprefix("test_") for name in last.measurement.values if name.startswith("test_")}
    of_classes = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error"}
    assert told == ({"psnr"} | of_classes if finite else {"accuracy"})


@pytest.mark.parametrize("step", range(1, 7))
def test_a_loss_that_is_not_a_number_at_any_step_is_divergence(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """128 images are one step an epoch; the last is the sixth."""
    forward, steps = ToyNet.forward, 0

    def poisoned(self: ToyNet, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal steps
        denoised, logits = forward(self, noisy)
        steps += self.training
        return (denoised * math.nan if self.training and steps == step else denoised), logits

    monkeypatch.setattr(ToyNet, "forward", poisoned)
    reports = Worker(tmp_path, digits, epochs=6).run()
    assert reports[-1].outcome == "diverged"
    assert reports[-1].measurement is None
    assert all(epoch < step for epoch, _ in epochs(reports))


def test_weights_that_are_not_a_number_are_divergence_too(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last step can spoil weights that no loss is taken of any more: validation sees it."""
    judge = ToyNet.eval

    def spoil(self: ToyNet) -> ToyNet:
        if int(self.epoch) == 0:  # a plain toy does not count
            torch.nn.init.constant_(self.out.weight, math.nan)
        return judge(self)

    monkeypatch.setattr(ToyNet, "eval", spoil)
    last = Worker(tmp_path, digits, epochs=1).run()[-1]
    assert (last.outcome, last.measurement) == ("diverged", None)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_checkpoint_that_was_cut_off_is_no_checkpoint(tmp_path: Path, digits: Dataset) -> None:
    undisturbed = epochs(Worker(tmp_path / "a", digits).run())
    worker = Worker(tmp_path, digits)
    worker.trainable.step()
    worker.trainable.step()
    path = checkpoint.checkpoint_path(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:1000])
    reports = Worker(tmp_path, digits).run()
    assert epochs(reports) == undisturbed
    (warning,) = reports[0].warnings
    assert f"checkpoint {path} cannot be read" in warning
    assert not any(report.warnings for report in reports[1:])
