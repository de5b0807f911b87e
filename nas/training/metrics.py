"""The functions that compute metrics, by their names in `nas.search.objectives.METRICS`."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.training.stability import stability
from nas.types import ProbeCurve, Task

PSNR_CAP = 60.0
"""The PSNR in dB of an exact restoration, so that means stay finite."""


def psnr(image: Tensor, clean: Tensor, *, clip: bool = True) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image, shape (N,), in dB up to `PSNR_CAP`.

    The mean squared error runs over all channels and pixels of an image, both arguments of shape (N, C, H, W), and is
    computed in float32 whatever their type. A network's output is first clipped to [0, 1], where `clean` lies. The
    noisy input is judged as it is (``clip=False``), so that ``gaussian:S`` has 20 log10(255 / S) dB as in the
    literature.
    """
    image = image.float().clamp(0.0, 1.0) if clip else image.float()
    error = (image - clean.float()).square().flatten(1).mean(1)
    return (-10.0 * torch.log10(error)).clamp(max=PSNR_CAP)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Tells whether the largest logit is the label's, shape (N,), boolean. `logits` (N, K), `labels` (N,)."""
    return logits.argmax(1) == labels


def latency(network: nn.Module, task: Task, repeats: int = 15) -> float:
    """Returns the median time in ms for one image (batch 1, fp32), on the network's device, after warm-up."""
    device = next(network.parameters()).device
    image = torch.zeros(1, task.channels, task.height, task.width, device=device)
    was_training = network.training
    network.eval()
    times = []
    with torch.inference_mode(), true_fp32():
        for _ in range(repeats + 3):
            started = time.perf_counter()
            network(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(1000 * (time.perf_counter() - started))
    network.train(was_training)
    return statistics.median(times[3:])


@contextlib.contextmanager
def true_fp32() -> Iterator[None]:
    """Makes cuDNN's convolutions as exact as their type. By default cuDNN rounds fp32 to TF32, which training may
    use."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A batch of noisy images and a network's outputs for it.

    Attributes:
        noisy, clean, denoised: images (N, C, H, W); `clean` lies in [0, 1], the others need not.
        labels: classes (N,); None where the data has none.
        logits: (N, K); K is 0 for a network without classes.
    """

    noisy: Tensor
    clean: Tensor
    denoised: Tensor
    labels: Tensor | None
    logits: Tensor


def mean(rows: Tensor) -> float:
    """Returns the mean of all values, summed in double precision."""
    return float(rows.double().mean())


@dataclass(frozen=True, slots=True)
class OnImages:
    """The computation of a metric on images, batch by batch.

    Attributes:
        each: from a batch to a row for each of its images, shape (N, ...), or None where the metric does not apply.
        total: from the rows of all batches to the metric.
    """

    each: Callable[[Answers], Tensor | None]
    total: Callable[[Tensor], float] = mean


def right_answers(answers: Answers) -> Tensor | None:
    """Tells whether each image was classified correctly (N,), boolean; None without labels or without classes."""
    if answers.labels is None or not answers.logits.shape[1]:
        return None
    return correct(answers.logits, answers.labels)


ON_IMAGES: Mapping[str, OnImages] = {
    "psnr": OnImages(lambda answers: psnr(answers.denoised, answers.clean)),
    "accuracy": OnImages(right_answers, lambda rows: 100.0 * mean(rows)),
}
"""The metrics of the source ``images``."""

OF_RUN: Mapping[str, Callable[[ProbeCurve], float]] = {"stability": stability}
"""The metrics of the source ``run``."""

OF_NETWORK: Mapping[str, Callable[[nn.Module, Task], float]] = {"latency": latency}
"""The metrics of the source ``network``."""


class Tally:
    """Gathers the metrics on images over the batches of a split."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {name: [] for name in ON_IMAGES}

    def add(self, answers: Answers) -> None:
        """Adds one more batch."""
        for name, metric in ON_IMAGES.items():
            if (rows := metric.each(answers)) is not None:
                self._rows[name].append(rows)

    def values(self) -> dict[str, float]:
        """Returns every metric that applies to the added batches, by name."""
        return {name: ON_IMAGES[name].total(torch.cat(rows)) for name, rows in self._rows.items() if rows}
