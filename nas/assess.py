"""How well a network restores and recognises the images of a split: what ``evaluate`` prints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from nas.bundle import Bundle
from nas.data import Dataset, Split, validation_draws
from nas.errors import DataError
from nas.metrics import correct, psnr
from nas.noise import Noise
from nas.training import noisy_batches

SSIM_WINDOW = 7
"""Side in pixels of the window of scikit-image's SSIM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Means over all images and noise draws.

    Attributes:
        psnr: of the restored images in dB, as `nas.evaluation.judge` takes it.
        ssim: structural similarity of the restored images, at most 1.
        accuracy: top-1 on the noisy images in percent; None without labels or without classes.
        noisy_psnr: of the noisy images themselves, as they are, in dB.
        noisy_ssim: of the noisy images themselves.
        images: images in the split.
        draws: noise draws that each image was judged under.
    """

    psnr: float
    ssim: float
    accuracy: float | None
    noisy_psnr: float
    noisy_ssim: float
    images: int
    draws: int


def assess(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]],
    split: Split,
    noise: Noise,
    *,
    seed: int,
    draws: int = 1,
) -> Assessment:
    """Judges whatever maps noisy images (N, C, H, W) to (denoised (N, C, H, W), logits (N, K)), on the CPU.

    Args:
        predict: a network in evaluation mode, or any other runtime behind a function.
        split: clean images, with labels or without.
        noise: added to them.
        seed: of the noise; the same seed gives the same noisy images.
        draws: noise draws for each image.

    Raises:
        DataError: images have a side under 3 pixels, which SSIM is not defined for.
    """
    restored, noisy_input, similar, noisy_similar, hits = [], [], [], [], []
    with torch.inference_mode():
        for noisy, clean, labels in noisy_batches(split, noise, torch.device("cpu"), seed=seed, draws=draws):
            # Networks are trained and judged in this layout; another one rounds differently.
            denoised, logits = predict(noisy.contiguous(memory_format=torch.channels_last))
            restored.append(psnr(denoised, clean))
            noisy_input.append(psnr(noisy, clean, clip=False))
            similar += ssim(denoised, clean)
            noisy_similar += ssim(noisy, clean)
            if labels is not None and logits.shape[1] > 0:
                hits.append(correct(logits, labels))
    return Assessment(
        psnr=_mean(restored),
        ssim=fmean(similar),
        accuracy=100 * _mean(hits) if hits else None,
        noisy_psnr=_mean(noisy_input),
        noisy_ssim=fmean(noisy_similar),
        images=len(split.images),
        draws=draws,
    )


def assess_bundle(bundle: Bundle, data: Dataset, noise: Noise, *, part: str = "test") -> Assessment:
    """Judges a bundle on a split of a data set, under noise that depends on the data alone.

    A network that knows classes is judged on denoising alone where the data has no labels, and vice versa.

    Args:
        bundle: as `nas.bundle.open_bundle` returns it.
        data: its channels must be the network's, and its classes, when it has any and the network too.
        noise: any kind and strength.
        part: ``train``, ``validation`` or ``test``. On ``validation``, seed and draws are the search's.

    Raises:
        DataError: the data does not fit the network.
    """
    split: Split = getattr(data, part)
    channels = split.images.shape[1]
    if channels != bundle.task.channels:
        raise DataError(
            f"{data.name}: images have {channels} channel(s), the network of {bundle.path} takes "
            f"{bundle.task.channels}; evaluate it on such images"
        )
    if bundle.classes and data.classes and data.classes != bundle.classes:
        raise DataError(
            f"{data.name}: {len(data.classes)} classes ({_some(data.classes)}) are not the {len(bundle.classes)} of "
            f"{bundle.path} ({_some(bundle.classes)}); evaluate it on data with the same class names"
        )
    seed = int(data.fingerprint, 16) % 2**63
    return assess(bundle.network, split, noise, seed=seed, draws=validation_draws(len(split.images)))


def ssim(output: Tensor, clean: Tensor) -> list[float]:
    """Structural similarity of each of N images (N, C, H, W), the mean over channels, as scikit-image defines it.

    `output` is clipped to [0, 1], where `clean` must lie. The uniform window has a side of 7 pixels, or the
    largest odd number that fits a smaller image.

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


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).double().mean())


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
