"""One candidate, judged: (network, task, recipe, seed) -> `Measurement`, an epoch at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.search.rungs import is_milestone
from nas.training.batches import NoisyBatch, TrainingData
from nas.training.loop import Diverged, Training
from nas.training.metrics import correct, psnr
from nas.training.stability import stability
from nas.types import Cost, EpochRow, Measurement, Recipe, Task


class Evaluation:
    """Trains one candidate and measures it. `advance` until `done`, then `measurement`.

    Args:
        build: makes the untrained network; called with torch's global generator seeded, which also
            feeds dropout, so one process must run one evaluation at a time.
        task: what is trained and judged.
        recipe: how.
        data: on the device, noise drawn.
        cost: the network's size, reported with the values.
        seed: see `candidate_seed`.
        precision: of training; validation is always judged in fp32, the precision of an export.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        task: Task,
        recipe: Recipe,
        data: TrainingData,
        cost: Cost,
        *,
        seed: int,
        precision: str = "fp32",
    ) -> None:
        _reset_peak_memory(data.device)
        started = time.perf_counter()
        torch.manual_seed(seed)
        self.training = Training(build(), task, recipe, data, seed=seed, precision=precision)
        self.task, self.cost, self.seed = task, cost, seed
        self.rows: list[EpochRow] = []
        self.seconds = time.perf_counter() - started

    @property
    def done(self) -> bool:
        return self.training.epoch >= self.training.recipe.epochs

    def advance(self, after_step: Callable[[], None] = lambda: None) -> EpochRow:
        """Trains one epoch, or the rest of it, and validates where it is a milestone.

        Args:
            after_step: called between steps, when `state` may be taken.

        Raises:
            Diverged: see `nas.training.loop.Training.run_epoch`; also when the validation PSNR is not finite.
        """
        started = time.perf_counter()
        denoise, classify = self.training.run_epoch(after_step)
        quality: float | None = None
        accuracy: float | None = None
        so_far: float | None = None
        if is_milestone(self.training.epoch, self.training.recipe.epochs):
            found = judge(self.training.network, self.training.data.validation)
            quality, accuracy = found.psnr, found.accuracy
            if not math.isfinite(quality):
                raise Diverged(f"validation PSNR is {quality} after epoch {self.training.epoch}")
            so_far = stability(self.training.probe_curve())
        seconds = time.perf_counter() - started
        self.seconds += seconds
        row = EpochRow(
            epoch=self.training.epoch,
            denoise_loss=denoise,
            classify_loss=classify,
            psnr=quality,
            accuracy=accuracy,
            stability=so_far,
            seconds=seconds,
        )
        self.rows.append(row)
        return row

    def state(self) -> dict[str, Any]:
        """The run as tensors and plain values, safe to load with ``weights_only``; see `load_state`."""
        return {
            "training": self.training.state(),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "seconds": self.seconds,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state`."""
        self.training.load_state(state["training"])
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.seconds = state["seconds"]

    def measurement(self) -> Measurement:
        """The full-budget result. Every figure is measured, whether it is an objective or not."""
        assert self.done
        last = self.rows[-1]
        assert last.psnr is not None
        assert last.stability is not None
        values = {
            "psnr": last.psnr,
            "stability": last.stability,
            "params": float(self.cost.params),
            "macs": float(self.cost.macs),
            "latency": latency(self.training.network, self.task),
        }
        if last.accuracy is not None:
            values["accuracy"] = last.accuracy
        return Measurement(
            values=values,
            probe=self.training.probe_curve(),
            gates=tuple(_gate_summary(g) for g in self.training.abilities.gates()),
            seconds=self.seconds,
            peak_memory=_peak_memory(self.training.device),
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a network does on noisy images, as means over images.

    Attributes:
        psnr: in dB, of each image's own.
        accuracy: top-1 in percent; None without labels.
        denoise: squared error over the trivial loss.
        classify: cross-entropy in nats; None without labels.
    """

    psnr: float
    accuracy: float | None
    denoise: float
    classify: float | None


def judge(network: nn.Module, batches: Iterable[NoisyBatch], trivial: float = 1.0) -> Judgement:
    """Judges a network in evaluation mode and true fp32. It is left in training mode as found.

    Args:
        trivial: the unit of `Judgement.denoise`, see `nas.training.batches.trivial_loss`.
    """
    was_training = network.training
    network.eval()
    quality, errors, hits, entropies = [], [], [], []
    with torch.inference_mode(), _true_fp32():
        for noisy, clean, labels in batches:
            denoised, logits = network(noisy.contiguous(memory_format=torch.channels_last))
            quality.append(psnr(denoised, clean))
            errors.append((denoised - clean).square().flatten(1).mean(1) / trivial)
            if labels is not None:
                hits.append(correct(logits, labels))
                entropies.append(F.cross_entropy(logits, labels, reduction="none"))
    network.train(was_training)
    return Judgement(
        psnr=_mean(quality),
        accuracy=100.0 * _mean(hits) if hits else None,
        denoise=_mean(errors),
        classify=_mean(entropies) if entropies else None,
    )


def noisy_psnr(batches: Iterable[NoisyBatch]) -> float:
    """Mean PSNR in dB of noisy images themselves; of the validation images it is the reference point's PSNR."""
    return _mean([psnr(noisy, clean, clip=False) for noisy, clean, _ in batches])


def latency(network: nn.Module, task: Task, repeats: int = 15) -> float:
    """Median time in ms for one image of the task (batch 1, fp32), on the network's device, after warm-up."""
    device = next(network.parameters()).device
    image = torch.zeros(1, task.channels, task.height, task.width, device=device)
    was_training = network.training
    network.eval()
    times = []
    with torch.inference_mode(), _true_fp32():
        for _ in range(repeats + 3):
            started = time.perf_counter()
            network(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(1000 * (time.perf_counter() - started))
    network.train(was_training)
    return statistics.median(times[3:])


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).double().mean())


@contextlib.contextmanager
def _true_fp32() -> Iterator[None]:
    """cuDNN's convolutions as exact as their type; by default it rounds fp32 to TF32, which training may."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _gate_summary(gate: Tensor) -> dict[str, float]:
    return {"mean": float(gate.mean()), "min": float(gate.min()), "max": float(gate.max())}


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # A reused worker would otherwise report the largest trial it ever ran. Not every system lets a
    # process reset its peak; there the figure is the worker's peak so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> float:
    """Peak memory in MiB since the last reset: of the device for CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
