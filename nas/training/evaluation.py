"""The evaluation of one candidate, one epoch at a time: (network, task, recipe, seed) -> `Measurement`."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.search.early_stopping import is_milestone
from nas.search.objectives import METRICS
from nas.training.batches import NoisyBatch, TrainingData
from nas.training.loop import Diverged, Training
from nas.training.metrics import OF_RUN, Answers, Tally, mean, psnr, self_psnr, true_fp32
from nas.types import Cost, EpochRow, Measurement, Recipe, Task, flat, from_flat


class Evaluation:
    """Trains one candidate and measures it. Call `advance` until `done`, then `measurement`.

    Args:
        build: makes the untrained network. It is called with torch's global generator seeded, which also feeds dropout,
            so one process must run one evaluation at a time.
        task: the task that is trained and judged.
        recipe: the training recipe.
        data: data on the device, with its noise drawn.
        cost: the network's size, which is reported with the values.
        seed: see `candidate_seed`.
        precision: precision of training; validation is always in fp32, the precision of an export.
        capture: see `Training`.
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
        capture: bool = True,
    ) -> None:
        _reset_peak_memory(data.device)
        started = time.perf_counter()
        torch.manual_seed(seed)
        self.training = Training(build(), task, recipe, data, seed=seed, precision=precision, capture=capture)
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
            Diverged: see `nas.training.loop.Training.run_epoch`; also when a metric on validation is not finite.
        """
        started = time.perf_counter()
        denoise, classify = self.training.run_epoch(after_step)
        milestone = is_milestone(self.training.epoch, self.training.recipe.epochs)
        values = self._validated() if milestone else {}
        seconds = time.perf_counter() - started
        self.seconds += seconds
        row = EpochRow(
            epoch=self.training.epoch,
            denoise_loss=denoise,
            classify_loss=classify,
            seconds=seconds,
            values=values,
        )
        self.rows.append(row)
        return row

    def _validated(self) -> dict[str, float]:
        """Returns every metric that a validation measures, by name."""
        values = dict(judge(self.training.network, self.training.data.validation).values)
        values |= {name: compute(self.training.probe_curve()) for name, compute in OF_RUN.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"validation {METRICS[name].title} is {value} after epoch {self.training.epoch}")
        return values

    def state(self) -> dict[str, Any]:
        """Returns the run as tensors and plain values, safe to load with ``weights_only``; see `load_state`."""
        return {
            "training": self.training.state(),
            "rows": [flat(row) for row in self.rows],
            "seconds": self.seconds,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state`."""
        self.training.load_state(state["training"])
        self.rows = [from_flat(EpochRow, row) for row in state["rows"]]
        self.seconds = state["seconds"]

    def measurement(self) -> Measurement:
        """Returns the result of the full budget, with every metric but those of the exported program."""
        assert self.done
        values = dict(self.rows[-1].values)
        values |= {name: float(getattr(self.cost, name)) for name, m in METRICS.items() if m.basis == "cost"}
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
    """The quality of a network on noisy images.

    Attributes:
        values: every metric on images that applies, by name (see `nas.training.metrics.ON_IMAGES`).
        denoise: squared error over the trivial loss, the mean over images.
        classify: cross-entropy in nats, the mean over images, which count by the weight of their class where weights
            were given; None without labels.
    """

    values: Mapping[str, float]
    denoise: float
    classify: float | None


def judge(
    network: nn.Module, batches: Iterable[NoisyBatch], trivial: float = 1.0, class_weights: Tensor | None = None
) -> Judgement:
    """Judges a network in evaluation mode and true fp32, and restores its mode.

    Args:
        network: the network.
        batches: batches on the network's device.
        trivial: the unit of `Judgement.denoise`, see `nas.training.batches.trivial_loss`.
        class_weights: weights of the classes (K,) in `Judgement.classify`; None for equal ones.
    """
    was_training = network.training
    network.eval()
    tally, errors, entropies, weights = Tally(), [], [], []
    with torch.inference_mode(), true_fp32():
        for batch in batches:
            noisy, clean, labels, held_out = batch
            denoised, logits = network(noisy.contiguous(memory_format=torch.channels_last))
            tally.add(
                Answers(noisy=noisy, clean=clean, denoised=denoised, labels=labels, logits=logits, held_out=held_out)
            )
            errors.append(batch.error(denoised) / trivial)
            if labels is not None:
                entropies.append(F.cross_entropy(logits, labels, reduction="none"))
                weights.append(torch.ones_like(entropies[-1]) if class_weights is None else class_weights[labels])
    network.train(was_training)
    return Judgement(
        values=tally.values(),
        denoise=mean(torch.cat(errors)),
        classify=_weighted(torch.cat(entropies), torch.cat(weights)) if entropies else None,
    )


def _weighted(values: Tensor, weights: Tensor) -> float:
    """Returns the weighted mean; NaN when all weights are 0."""
    return float((values.double() * weights).sum() / weights.double().sum())


def noisy_psnr(batches: Iterable[NoisyBatch]) -> float:
    """Returns the mean PSNR in dB of the noisy images themselves, which is the reference point's PSNR for validation
    images. It is self-supervised where no clean ones are known."""
    found, held_out = [], False
    for batch in batches:
        held_out = batch.held_out is not None
        found.append(batch.error(batch.noisy) if held_out else psnr(batch.noisy, batch.clean, clip=False))
    return self_psnr(torch.cat(found)) if held_out else mean(torch.cat(found))


def _gate_summary(gate: Tensor) -> dict[str, float]:
    return {"mean": float(gate.mean()), "min": float(gate.min()), "max": float(gate.max())}


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # A reused worker would otherwise report the largest trial it ever ran. Not every system lets a process reset its
    # peak; there the figure is the worker's peak so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> float:
    """Returns the peak memory in MiB since the last reset: of the device for CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
