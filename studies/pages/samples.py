"""Images through the networks of a study's front: noisy, denoised and clean, with PSNR and the predicted class.

Where no clean images are known, what was removed is shown instead, with its autocorrelation.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import SkipnasError
from studies.pages.recognition import Answered
from studies.reading.data import study_data
from studies.reading.history import History, Trial
from studies.reading.space import study_space

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.data.raw import Labels
    from nas.data.splits import Dataset
    from studies.reading.study import StudyReader

IMAGES = 6
"""The number of validation images shown."""

MEMBERS = 8
"""The number of front members shown: the knee, the best of each objective, then the others by number."""


EVIDENCE = "evidence"
"""The first word of the rows that show where the evidence for a class lies."""

REACH = 8
"""The largest shift in pixels of an autocorrelation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image as the page shows it.

    Attributes:
        png: the PNG in base64.
        psnr: in dB against the clean image; None for the clean image itself, and where no clean one is known.
        note: what else is said of it.
        label: true class of a clean image, predicted class of a denoised one; empty without classes.
        right: whether the predicted class is the true one.
    """

    png: str
    psnr: float | None = None
    label: str = ""
    right: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows of pictures, in which a column shows one image; `lacks` says why pictures are missing.

    `answered` are the knee's answers for all validation images; None without labels or weights. `seen` says which
    channels of the images the pictures show, where these are not all.
    """

    rows: tuple[tuple[str, tuple[Picture, ...]], ...] = ()
    size: tuple[int, int] = (0, 0)
    lacks: str = ""
    answered: Answered | None = None
    seen: str = ""


def samples(
    study: StudyReader, history: History, data_root: Path | None = None, own_space: str | None = None
) -> Samples:
    """Sends the first validation images, from as many classes as there are, through members of the front."""
    members = shown_members(history)
    if not members:
        return Samples(lacks="No trial is complete yet.")
    try:
        data = study_data(study, data_root)
        space = study_space(study, own_space)
    except SkipnasError as error:
        return Samples(lacks=f"There are no images here: {error}")
    import torch

    from nas.data.noise import parse_noise
    from nas.data.splits import noise_seed
    from nas.training.batches import noisy_batches
    from nas.training.evidence import coloured, evidence_for, has_evidence
    from nas.training.metrics import psnr
    from nas.training.strips import seen_channels
    from studies.bundles import trained_network

    config = history.config
    chosen = _spread(data.validation.labels, len(data.validation.images))
    split = data.validation.chosen(chosen)
    noisy, clean, labels, held_out = next(
        noisy_batches(split, parse_noise(config.task.noise), torch.device("cpu"), seed=noise_seed(config.fingerprint))
    )
    if held_out is not None and held_out.pixels is not None:
        noisy = clean  # whole images, without hidden pixels
    names = [""] * len(chosen) if labels is None else [data.classes[int(i)] for i in labels]

    def figures(images: Tensor, *, clip: bool = True) -> list[float | None]:
        return psnr(images, clean, clip=clip).tolist() if held_out is None else [None] * len(images)

    above = {"clean": clean} if held_out is None else {} if noisy is clean else {"mean of other shots": clean}
    rows = [
        (name, tuple(Picture(png=_inline(image), label=label) for image, label in zip(images, names, strict=True)))
        for name, images in above.items()
    ]
    values = figures(noisy, clip=False)
    labels_above = [""] * len(names) if above else names
    rows.append(
        (
            "noisy",
            tuple(
                Picture(png=_inline(image), psnr=value, label=label)
                for image, value, label in zip(noisy, values, labels_above, strict=True)
            ),
        )
    )
    lost, answered = [], None
    for trial in members:
        try:
            network = trained_network(study, space, space.spec(trial.spec), trial.number, trial.digest or "")
        except SkipnasError:
            lost.append(trial.number)
            continue
        network.eval()
        if trial.number == history.knee:
            answered = _answered(network, data, config.task.noise, trial.number)
        with torch.inference_mode():
            denoised, logits = network(noisy)
        values = figures(denoised)
        guesses = [data.classes[int(i)] for i in logits.argmax(1)] if labels is not None else names
        rows.append(
            (
                f"trial {trial.number}" + (" (knee)" if trial.number == history.knee else ""),
                tuple(
                    Picture(png=_inline(image), psnr=value, label=guess, right=guess == name)
                    for image, value, guess, name in zip(denoised, values, guesses, names, strict=True)
                ),
            )
        )
        if labels is not None and has_evidence(network):
            evidence = evidence_for(network, noisy, logits.argmax(1))
            way = "" if evidence.exact else " by gradient"
            shown = zip(denoised, evidence.maps, strict=True)
            pictures = tuple(Picture(png=_inline(coloured(image, found))) for image, found in shown)
            rows.append((f"{EVIDENCE} in trial {trial.number}{way}", pictures))
        if held_out is not None:
            removed = noisy - denoised
            rows.append((f"removed by trial {trial.number}", tuple(map(_removed, removed))))
            rows.append(("its autocorrelation", tuple(_alike(autocorrelation(each)) for each in removed)))
    lacks = f"Trials {', '.join(map(str, lost))}: the weights are not on this machine, or not of this version."
    size = (int(clean.shape[-1]), int(clean.shape[-2]))
    seen = seen_channels(config.task.channels)
    return Samples(rows=tuple(rows), size=size, lacks=lacks if lost else "", answered=answered, seen=seen)


def knee_answers(
    study: StudyReader, history: History, data_root: Path | None = None, own_space: str | None = None
) -> Answered | None:
    """Returns the knee's answers for all validation images; None without a knee, its weights, the images or labels."""
    knee = next((trial for trial in history.front if trial.number == history.knee), None)
    if knee is None or not history.config.task.classifies:
        return None
    from studies.bundles import trained_network

    try:
        data = study_data(study, data_root)
        space = study_space(study, own_space)
        network = trained_network(study, space, space.spec(knee.spec), knee.number, knee.digest or "")
    except SkipnasError:
        return None
    return _answered(network.eval(), data, history.config.task.noise, knee.number)


def _answered(network: nn.Module, data: Dataset, noise: str, number: int) -> Answered | None:
    """Returns the answers of a trial's network, in evaluation mode, for all validation images; None without labels."""
    import torch

    from nas.data.noise import parse_noise
    from nas.training.batches import evaluation_batches
    from nas.training.recognition import recognition_of

    batches = evaluation_batches(data, "validation", parse_noise(noise), torch.device("cpu"))
    found = recognition_of(network, batches)
    if found is None:
        return None
    return Answered(trial=number, classes=data.classes, found=found, draws=data.validation.draws)


def autocorrelation(image: Tensor) -> Tensor:
    """Returns the correlation of an image (C, H, W) with itself, moved by up to `REACH` pixels down and to the right.

    Its shape is (2 R + 1, 2 R + 1), where R is `REACH` or, if that is less, half of the shortest side. It is 1 in the
    middle and near 0 elsewhere for white noise. An image without any variation has 0 everywhere.
    """
    import torch

    rest = image.double() - image.double().mean((1, 2), keepdim=True)
    height, width = image.shape[1:]
    reach = min(REACH, height // 2, width // 2)
    # With as many zeros around it the image does not meet itself on the other side.
    room = 2 * height, 2 * width
    sums = torch.fft.irfft2(torch.fft.rfft2(rest, s=room).abs().square(), s=room).sum(0)
    moved = torch.arange(-reach, reach + 1)
    overlap = (height - moved.abs())[:, None] * (width - moved.abs())
    means: Tensor = sums[moved][:, moved] / overlap
    return means / means[reach, reach].clamp(min=1e-12)


def _removed(image: Tensor) -> Picture:
    """Shows what was removed on gray. Three times its root mean square reaches from gray to black and white."""
    size = float(image.square().mean().sqrt())
    return Picture(png=_inline(0.5 + image / (6 * max(size, 1e-6))), note=f"± {255 * size:.1f}")


def _alike(found: Tensor) -> Picture:
    """Shows an `autocorrelation` on gray; 0.5 is white."""
    middle = len(found) // 2
    beside, below = float(found[middle, middle + 1]), float(found[middle + 1, middle])
    return Picture(png=_inline(0.5 + found[None].float()), note=f"{beside:+.2f}, {below:+.2f}")


def shown_members(history: History) -> list[Trial]:
    """Returns the knee, the best of each objective, then the other front members by number; at most `MEMBERS`."""
    front = history.front
    wanted = [t for t in front if t.number == history.knee]
    for o in history.config.objectives if front else ():
        sign = 1 if o.direction == "maximize" else -1
        best = int(np.argmax([sign * t.values[o.name] for t in front]))
        wanted.append(front[best])
    return list({t.number: t for t in [*wanted, *front]}.values())[:MEMBERS]


def _spread(labels: Labels | None, count: int) -> list[int]:
    """Returns the rows of `IMAGES` images: the first of each class, then others."""
    if labels is None:
        return list(range(min(IMAGES, count)))
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(count), first)
    return [int(row) for row in np.concatenate([np.sort(first), rest])[:IMAGES]]


def _inline(image: Tensor) -> str:
    from nas.training.strips import png

    return base64.b64encode(png(image)).decode()
