"""Measurements of how well a network restores and recognises images: the figures of ``evaluate`` and of cards."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from nas.bundles.bundle import Bundle
from nas.bundles.inference import Predict, tiled
from nas.bundles.reference_denoisers import Denoiser, restore_batch
from nas.data.folders import read_photograph
from nas.data.noise import Noise
from nas.data.splits import Dataset, Split, noise_seed, to_float, validation_draws
from nas.errors import DataError
from nas.training.batches import NoisyBatch, noisy_batches
from nas.training.metrics import psnr

SSIM_WINDOW = 7
"""The side in pixels of the window of scikit-image's SSIM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Means over all images and noise draws.

    Attributes:
        psnr: PSNR of the restored images in dB, as in `nas.training.evaluation.judge`.
        ssim: structural similarity of the restored images, at most 1.
        accuracy: top-1 accuracy on the noisy images in percent; None without labels or without classes.
        confusion: how often each class (row) was answered with each class (column); None without accuracy.
        noisy_psnr: PSNR of the noisy images themselves, as they are, in dB.
        noisy_ssim: structural similarity of the noisy images themselves.
        reference_psnr: PSNR of the images that a reference denoiser restored; None without one.
        reference_ssim: structural similarity of the same images.
        images: number of images judged.
        draws: number of noise draws for each image.
    """

    psnr: float
    ssim: float
    accuracy: float | None
    confusion: tuple[tuple[int, ...], ...] | None
    noisy_psnr: float
    noisy_ssim: float
    reference_psnr: float | None
    reference_ssim: float | None
    images: int
    draws: int


def assess(
    predict: Predict, split: Split, noise: Noise, *, seed: int, draws: int = 1, denoiser: Denoiser | None = None
) -> Assessment:
    """Judges any function from noisy images to restored ones and logits, on the CPU.

    Args:
        predict: a network in evaluation mode, or any other runtime behind a function.
        split: clean images, with labels or without.
        noise: noise that is added to them.
        seed: seed of the noise; the same seed gives the same noisy images.
        draws: noise draws for each image.
        reference: denoiser judged on the same noisy images (see `nas.bundles.reference_denoisers`).

    Raises:
        DataError: images have a side under 3 pixels, for which SSIM is not defined.
    """
    batches = noisy_batches(split, noise, torch.device("cpu"), seed=seed, draws=draws)
    return _assess(predict, batches, len(split.images), draws, denoiser)


def assess_bundle(
    bundle: Bundle, data: Dataset, noise: Noise, *, part: str = "test", denoiser: Denoiser | None = None
) -> Assessment:
    """Judges a bundle on a split of a data set, under noise that depends on the data alone.

    A network with classes is judged by denoising alone where the data has no labels, and so is a network without
    classes.

    Args:
        bundle: a bundle from `nas.bundles.bundle.open_bundle`.
        data: its channels must be the network's, and its classes too, if both have any.
        noise: noise of any kind and strength.
        part: ``train``, ``validation``, ``test``, or ``all`` three. On ``validation``, seed and draws are the search's.
        reference: see `assess`.

    Raises:
        DataError: the data does not fit the network.
    """
    channels = data.test.images.shape[1]
    if channels != bundle.task.channels:
        raise DataError(
            f"{data.name}: images have {channels} channel(s), the network of {bundle.path} takes "
            f"{bundle.task.channels}; evaluate it on such images"
        )
    if bundle.classes and data.classes and data.classes != bundle.classes:
        raise DataError(
            f"{data.name}: its {len(data.classes)} classes ({_some(data.classes)}) differ from the "
            f"{len(bundle.classes)} of {bundle.path} ({_some(bundle.classes)}); evaluate it on data with the same "
            "class names"
        )
    return assess_data(bundle.network, data, noise, part=part, denoiser=denoiser)


def assess_data(
    predict: Predict, data: Dataset, noise: Noise, *, part: str, denoiser: Denoiser | None = None
) -> Assessment:
    """Judges on a split of a data set, under noise that depends on the data alone; see `assess_bundle`."""
    split = _part(data, part)
    draws = validation_draws(len(split.images))
    return assess(predict, split, noise, seed=noise_seed(data.fingerprint), draws=draws, denoiser=denoiser)


def assess_photographs(
    predict: Predict, channels: int, paths: Sequence[Path], noise: Noise, *, denoiser: Denoiser | None = None
) -> Assessment:
    """Judges on photographs of any sizes, each at its full size, under noise of its own.

    A network is run in tiles where a photograph would not fit into memory (see `nas.bundles.inference`); another
    function is run as it is. A network for colour (3 `channels`) takes gray photographs as colour ones. The noise
    depends only on the image and the noise's name. One photograph is in memory at a time.

    Raises:
        DataError: a photograph cannot be read, or is in colour where the network takes gray.
    """
    if isinstance(predict, nn.Module):
        predict = tiled(predict, channels)
    return _assess(predict, _photograph_batches(channels, paths, noise), len(paths), 1, denoiser)


def _photograph_batches(channels: int, paths: Sequence[Path], noise: Noise) -> Iterator[NoisyBatch]:
    for path in paths:
        image = read_photograph(path)
        if image.shape[0] == 1 and channels == 3:
            image = image.repeat(3, axis=0)  # a search treats gray images among colour ones in the same way
        if image.shape[0] != channels:
            raise DataError(
                f"image {path}: {image.shape[0]} channel(s), the network takes {channels}; evaluate it on such images"
            )
        seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:7], "big")
        clean = to_float(torch.from_numpy(image)[None])
        yield noise.add(clean, torch.Generator().manual_seed(seed)), clean, None


def _assess(
    predict: Predict, batches: Iterable[NoisyBatch], images: int, draws: int, denoiser: Denoiser | None
) -> Assessment:
    columns: dict[str, list[float]] = {
        name: [] for name in ("psnr", "ssim", "noisy_psnr", "noisy_ssim", "reference_psnr", "reference_ssim")
    }
    confusion: Tensor | None = None
    with torch.inference_mode():
        for noisy, clean, labels in batches:
            # Networks are trained and judged in this layout; in another one they round differently.
            denoised, logits = predict(noisy.contiguous(memory_format=torch.channels_last))
            columns["psnr"] += psnr(denoised, clean).tolist()
            columns["ssim"] += ssim(denoised, clean)
            columns["noisy_psnr"] += psnr(noisy, clean, clip=False).tolist()
            columns["noisy_ssim"] += ssim(noisy, clean)
            if denoiser is not None:
                restored = restore_batch(denoiser, noisy, clean)
                columns["reference_psnr"] += psnr(restored, clean).tolist()
                columns["reference_ssim"] += ssim(restored, clean)
            if labels is not None and (classes := logits.shape[1]) > 0:
                pairs = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2)
                confusion = pairs if confusion is None else confusion + pairs
    means = {name: fmean(values) if values else None for name, values in columns.items()}
    table: tuple[tuple[int, ...], ...] | None = None
    if confusion is not None:
        side = round(len(confusion) ** 0.5)
        table = tuple(tuple(row) for row in confusion.view(side, side).tolist())
    return Assessment(
        **means,  # type: ignore[arg-type]  # only the reference's may be None
        accuracy=None if confusion is None or table is None else _accuracy(table),
        confusion=table,
        images=images,
        draws=draws,
    )


def ssim(output: Tensor, clean: Tensor) -> list[float]:
    """Returns the structural similarity of each of N images (N, C, H, W), the mean over channels, as in scikit-image.

    `output` is clipped to [0, 1], where `clean` must lie. The uniform window has a side of 7 pixels, or of the largest
    odd number that fits a smaller image.

    Raises:
        DataError: images have a side under 3 pixels.
    """
    side = min(clean.shape[-2:])
    if side < 3:
        raise DataError(f"SSIM of images with a side of {side} pixel(s): at least 3 are needed; evaluate larger images")
    window = min(SSIM_WINDOW, side - 1 + side % 2)
    pairs = zip(output.float().clamp(0, 1).cpu().numpy(), clean.cpu().numpy(), strict=True)
    same = functools.partial(structural_similarity, win_size=window, data_range=1, channel_axis=0)
    return [float(same(*pair)) for pair in pairs]


def _accuracy(confusion: Sequence[Sequence[int]]) -> float:
    return 100 * sum(row[i] for i, row in enumerate(confusion)) / sum(map(sum, confusion))


def _part(data: Dataset, part: str) -> Split:
    if part != "all":
        split: Split = getattr(data, part)
        return split
    splits = (data.train, data.validation, data.test)
    labels = [split.labels for split in splits if split.labels is not None]
    return Split(np.concatenate([split.images for split in splits]), np.concatenate(labels) if labels else None)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
