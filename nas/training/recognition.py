"""What the answers for a split say of a network: each class by itself, curves, and a threshold for two classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from nas.training.batches import NoisyBatch
from nas.training.metrics import Recognition, recognised, true_fp32

LEVEL = 0.95
"""The level of intervals."""

USUAL_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of images and its Wilson interval, all in 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """How well one class is recognised.

    Attributes:
        images: number of its images.
        recall: share of its images that were answered with it; None without images.
        precision: share of the images that were answered with it which are of it; None when it was never answered.
    """

    images: float
    recall: Share | None
    precision: Share | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(right: float, images: float) -> Share | None:
    """Returns a share of images with its interval of level `LEVEL` (Wilson 1927); None without images.

    The numbers need not be whole: they are means over noise draws, because draws of one image are no further images.
    """
    if images <= 0:
        return None
    z2 = float(ndtri((1 + LEVEL) / 2)) ** 2
    share = right / images
    centre = (right + z2 / 2) / (images + z2)
    half = math.sqrt(z2) / (images + z2) * math.sqrt(right * (1 - share) + z2 / 4)
    return Share(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def class_figures(confusion: Sequence[Sequence[float]]) -> list[ClassFigures]:
    """Returns the figures of each class from the numbers of images by true class (rows) and answer (columns)."""
    counts = np.asarray(confusion, dtype=np.float64)
    return [
        ClassFigures(
            images=float(counts[k].sum()),
            recall=wilson(float(counts[k, k]), float(counts[k].sum())),
            precision=wilson(float(counts[k, k]), float(counts[:, k].sum())),
        )
        for k in range(len(counts))
    ]


def recognition_of(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]],
    batches: Iterable[NoisyBatch],
    *,
    threshold: float | None = None,
) -> Recognition | None:
    """Returns the answers of a network in evaluation mode for all batches; None without labels or classes."""
    rows = []
    with torch.inference_mode(), true_fp32():
        for batch in batches:
            logits = predict(batch.noisy.contiguous(memory_format=torch.channels_last))[1]
            if (found := recognised(logits, batch.labels, threshold)) is not None:
                rows.append(found)
    return Recognition.of(torch.cat(rows)) if rows else None


def best_threshold(found: Recognition | None) -> float | None:
    """Returns the probability of the second of two classes from which on it should be answered.

    Of all thresholds it has the largest balanced accuracy, and it lies in the middle between the probabilities that it
    parts; it is `USUAL_THRESHOLD` where that one is as good. It is None unless there are two classes, and images of
    both.
    """
    from sklearn.metrics import roc_curve

    if found is None or found.probabilities.shape[1] != 2 or len(found.present) < 2:
        return None
    chances = found.probabilities[:, 1]
    wrong, right, highest = roc_curve(found.labels == 1, chances, drop_intermediate=False)
    # A threshold answers the same from the probability that it is to just above the next smaller one.
    highest = np.minimum(highest, 1.0)
    lowest = np.append(highest[1:], 0.0)
    best = np.isclose(right - wrong, (right - wrong).max(), rtol=0, atol=1e-12)
    if (best & (lowest < USUAL_THRESHOLD) & (highest >= USUAL_THRESHOLD)).any():
        return USUAL_THRESHOLD
    middles = (lowest + highest)[best] / 2
    return float(middles[np.abs(middles - USUAL_THRESHOLD).argmin()])


def roc_points(found: Recognition, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the ROC curve of one class against the rest: the shares of other images and of its own that are taken for
    it, from none to all of them."""
    from sklearn.metrics import roc_curve

    wrong, right, _ = roc_curve(found.labels == label, found.probabilities[:, label])
    return wrong, right
