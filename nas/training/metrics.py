"""The functions that compute metrics, by their names in `nas.search.objectives.METRICS`.

scikit-learn does the arithmetic of classification, and is imported by the first such computation. A class that a split
has no image of has no recall, and means over classes leave it out.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.search.objectives import SENSITIVITY
from nas.training.held_out import HeldOut
from nas.training.stability import stability
from nas.types import ProbeCurve

PSNR_CAP = 60.0
"""The PSNR in dB of an exact restoration, so that means stay finite."""

BINS = 15
"""The number of bins of confidence of the calibration error, as in Guo et al. 2017."""


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


def self_psnr(errors: Tensor) -> float:
    """Returns the PSNR in dB of the mean of squared errors without clean images (N,), up to `PSNR_CAP`.

    See `nas.training.held_out` for the errors. Those of single images may be below zero, so it is the PSNR of their
    mean and not the mean of their PSNRs, and is below that where errors differ from image to image. A mean error that
    is smaller than its own standard error cannot be told from none, and counts as large as that.
    """
    errors = errors.double()
    doubt = float(errors.std()) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    least = 10 ** (-PSNR_CAP / 10)
    return -10 * math.log10(max(mean(errors), doubt, least))


def answered(logits: Tensor, threshold: float | None = None) -> Tensor:
    """Returns the class (N,) that is answered for logits (N, K): that of the largest one; with a `threshold` the second
    of two classes where its probability is at least that."""
    return logits.argmax(1) if threshold is None else (logits.double().softmax(1)[:, 1] >= threshold).long()


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
        held_out: how `clean` stands in the place of clean images; None where it holds clean images.
        threshold: see `answered`.
    """

    noisy: Tensor
    clean: Tensor
    denoised: Tensor
    labels: Tensor | None
    logits: Tensor
    held_out: HeldOut | None = None
    threshold: float | None = None


def mean(rows: Tensor) -> float:
    """Returns the mean of all values, summed in double precision."""
    return float(rows.double().mean())


@dataclass(frozen=True, slots=True)
class OnImages:
    """The computation of a metric on images, batch by batch.

    Attributes:
        each: from a batch to a row for each of its images, shape (N, ...), or None where the metric does not apply.
        total: from the rows of all batches to the metric; None where it is undefined for these images.
    """

    each: Callable[[Answers], Tensor | None]
    total: Callable[[Tensor], float | None] = mean


def right_answers(answers: Answers) -> Tensor | None:
    """Tells whether each image was classified correctly (N,), boolean; None without labels or without classes."""
    if answers.labels is None or not answers.logits.shape[1]:
        return None
    return answered(answers.logits, answers.threshold) == answers.labels


def _clean_psnr(answers: Answers) -> Tensor | None:
    return psnr(answers.denoised, answers.clean) if answers.held_out is None else None


def held_out_errors(answers: Answers) -> Tensor | None:
    """Returns the squared error of each restored image (N,), clipped to [0, 1], where no clean ones are known."""
    if answers.held_out is None:
        return None
    return answers.held_out.error(answers.denoised.float().clamp(0.0, 1.0), answers.clean)


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answers for N images of K classes.

    Attributes:
        labels: true classes (N,).
        answers: classes that were answered (N,).
        probabilities: of each class (N, K), in double precision.
    """

    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Tensor) -> Recognition:
        """Makes it of `recognised` rows."""
        found = rows.cpu().numpy()
        return cls(found[:, 0].astype(np.int64), found[:, 1].astype(np.int64), found[:, 2:])

    @property
    def present(self) -> NDArray[np.int64]:
        """The classes that some image is of, in ascending order."""
        return np.unique(self.labels)


def recognised(logits: Tensor, labels: Tensor | None, threshold: float | None = None) -> Tensor | None:
    """Returns rows of label, answer and the probability of each class (N, 2 + K), double; None without labels (N,) or
    classes."""
    if labels is None or not logits.shape[1]:
        return None
    named = torch.stack([labels, answered(logits, threshold)], 1).double()
    return torch.cat([named, logits.double().softmax(1)], 1)


def _recognised(answers: Answers) -> Tensor | None:
    return recognised(answers.logits, answers.labels, answers.threshold)


def _of_classes(compute: Callable[[Recognition], float | None]) -> OnImages:
    """Returns a metric of the answers, which is NaN when a probability is."""
    return OnImages(_recognised, lambda rows: compute(Recognition.of(rows)) if rows.isfinite().all() else math.nan)


def balanced_accuracy(found: Recognition) -> float:
    """Returns the mean recall of the classes, in percent."""
    from sklearn.metrics import recall_score

    return 100.0 * float(recall_score(found.labels, found.answers, labels=found.present, average="macro"))


def macro_f1(found: Recognition) -> float:
    """Returns the mean F1 of the classes, in 0..1. A class that is never answered has an F1 of 0."""
    from sklearn.metrics import f1_score

    return float(f1_score(found.labels, found.answers, labels=found.present, average="macro", zero_division=0))


def auc(found: Recognition) -> float | None:
    """Returns the area under the ROC curve of one class against the rest, the mean over classes, in 0..1.

    It is that of MedMNIST's evaluator: of two classes the probability of the second one is ranked. A class without
    images has no curve. It is None when all images are of one class.
    """
    from sklearn.metrics import roc_auc_score

    if len(found.present) < 2:
        return None
    ranked = [1] if found.probabilities.shape[1] == 2 else found.present.tolist()
    return statistics.fmean(float(roc_auc_score(found.labels == k, found.probabilities[:, k])) for k in ranked)


def accuracy_at_sensitivity(found: Recognition) -> float | None:
    """Returns the largest accuracy in percent of all thresholds at which at least `SENSITIVITY` of the second class's
    images are found.

    It is None unless there are two classes, and images of both.
    """
    from sklearn.metrics import roc_curve

    if found.probabilities.shape[1] != 2 or len(found.present) < 2:
        return None
    second = found.labels == 1
    wrong, right, _ = roc_curve(second, found.probabilities[:, 1], drop_intermediate=False)
    accuracy = right * second.mean() + (1 - wrong) * (1 - second.mean())
    return 100.0 * float(accuracy[right >= SENSITIVITY].max())


def calibration_bins(found: Recognition) -> NDArray[np.float64]:
    """Returns for each bin that has answers their number, mean confidence and accuracy, shape (bins, 3).

    The confidence of an answer is the largest probability. `BINS` bins of equal width divide 0..1, and each includes
    its upper end (Guo et al. 2017, arXiv 1706.04599, section 2).
    """
    confidence = found.probabilities.max(1)
    right = found.probabilities.argmax(1) == found.labels
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    bins = [place == k for k in range(BINS) if (place == k).any()]
    return np.array([(rows.sum(), confidence[rows].mean(), right[rows].mean()) for rows in bins])


def calibration_error(found: Recognition) -> float:
    """Returns the expected calibration error in percent: the mean over answers of their bin's difference of confidence
    and accuracy."""
    count, confidence, accuracy = calibration_bins(found).T
    return 100.0 * float(np.average(np.abs(confidence - accuracy), weights=count))


OF_CLASSES: Mapping[str, Callable[[Recognition], float | None]] = {
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "auc": auc,
    "accuracy_at_sensitivity": accuracy_at_sensitivity,
    "calibration_error": calibration_error,
}
"""The metrics of the source ``images`` that the answers for a whole split give; None where one is undefined."""

ON_IMAGES: Mapping[str, OnImages] = {
    "psnr": OnImages(_clean_psnr),
    "self_psnr": OnImages(held_out_errors, self_psnr),
    "accuracy": OnImages(right_answers, lambda rows: 100.0 * mean(rows)),
    **{name: _of_classes(compute) for name, compute in OF_CLASSES.items()},
}
"""The metrics of the source ``images``."""

OF_RUN: Mapping[str, Callable[[ProbeCurve], float]] = {"stability": stability}
"""The metrics of the source ``run``."""


class Tally:
    """Gathers the metrics on images over the batches of a split. Metrics of the same rows share them."""

    def __init__(self) -> None:
        self._rows: dict[Callable[[Answers], Tensor | None], list[Tensor]] = {m.each: [] for m in ON_IMAGES.values()}

    def add(self, answers: Answers) -> None:
        """Adds one more batch."""
        for each, rows in self._rows.items():
            if (found := each(answers)) is not None:
                rows.append(found)

    def values(self) -> dict[str, float]:
        """Returns every metric that applies to the added batches and is defined for them, by name."""
        joined = {each: torch.cat(rows) for each, rows in self._rows.items() if rows}
        totals = {name: m.total(joined[m.each]) for name, m in ON_IMAGES.items() if m.each in joined}
        return {name: value for name, value in totals.items() if value is not None}
