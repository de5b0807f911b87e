"""Measurements of how well a network restores and recognises images: the figures of ``evaluate`` and of cards."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from nas.bundles.bundle import Bundle
from nas.bundles.inference import Predict, check_numbers, tiled
from nas.bundles.reference_denoisers import Denoiser, restore_batch
from nas.data.folders import read_photographs
from nas.data.noise import Noise
from nas.data.splits import Dataset, Split, joined_splits, noise_seed, to_float
from nas.data.white import White
from nas.errors import DataError
from nas.search.objectives import METRICS, of_basis
from nas.training.batches import NoisyBatch, noisy_batches
from nas.training.metrics import Answers, Tally, answered, psnr, self_psnr
from nas.training.recognition import class_figures

SSIM_WINDOW = 7
"""The side in pixels of the window of scikit-image's SSIM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Means over all images and draws of noise, shots or hidden pixels.

    Attributes:
        values: the metrics on images of the network that apply, as in `nas.training.evaluation.judge`, and its SSIM
            where clean images are known; by name, in the order of `nas.search.objectives.METRICS`.
        noisy: PSNR and SSIM of the noisy images themselves, as they are; where no clean images are known, their
            self-supervised PSNR.
        reference: PSNR and SSIM of the images that a reference denoiser restored; empty without one, and where no clean
            images are known.
        confusion: how many images of each class (row) were answered with each class (column), as the mean over the
            draws; None without labels or without classes. `to_dict` also has what it says of each class, under
            ``per_class``.
        images: number of images judged.
        draws: number of draws for each image.
    """

    values: Mapping[str, float]
    noisy: Mapping[str, float]
    reference: Mapping[str, float]
    confusion: tuple[tuple[float, ...], ...] | None
    images: int
    draws: int

    def figures(self) -> dict[str, float]:
        """Returns what is known of these images without a reference: ``psnr``, ..., ``noisy_psnr``, ``noisy_ssim``."""
        return {**self.values, **{f"noisy_{name}": value for name, value in self.noisy.items()}}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values; None for metrics that do not apply and for a reference that there is not."""
        return {
            **{metric.name: self.values.get(metric.name) for metric in of_basis("images", "evaluation")},
            "confusion": self.confusion,
            "per_class": None if self.confusion is None else [one.to_dict() for one in class_figures(self.confusion)],
            **{f"noisy_{name}": value for name, value in self.noisy.items()},
            **{f"reference_{name}": self.reference.get(name) for name in self.noisy},
            "images": self.images,
            "draws": self.draws,
        }


def assess(
    predict: Predict,
    split: Split,
    noise: Noise,
    *,
    seed: int,
    draws: int = 1,
    denoiser: Denoiser | None = None,
    threshold: float | None = None,
    structure: bool = True,
) -> Assessment:
    """Judges any function from noisy images to restored ones and logits, on the CPU.

    Where no clean images are known it is judged by noisy ones (see `nas.training.held_out`).

    Args:
        predict: a network in evaluation mode, or any other runtime behind a function.
        split: images, with labels or without.
        noise: noise that is added to clean ones.
        seed: seed of the noise; the same seed gives the same noisy images.
        draws: draws of noise, shots or hidden pixels for each image.
        denoiser: reference judged on the same noisy images (see `nas.bundles.reference_denoisers`).
        threshold: see `nas.training.metrics.answered`.
        structure: whether SSIM is computed, which takes most of the time for small images.

    Raises:
        DataError: images have a side under 3 pixels, for which SSIM is not defined.
    """
    batches = noisy_batches(split, noise, torch.device("cpu"), seed=seed, draws=draws)
    return _assess(predict, batches, draws, denoiser, threshold, structure)


def assess_bundle(
    bundle: Bundle,
    data: Dataset,
    noise: Noise,
    *,
    part: str = "test",
    denoiser: Denoiser | None = None,
    structure: bool = True,
    run: Predict | None = None,
) -> Assessment:
    """Judges a bundle on a split of a data set, under noise that depends on the data alone.

    A network with classes is judged by denoising alone where the data has no labels, and so is a network without
    classes.

    Args:
        bundle: a bundle from `nas.bundles.bundle.open_bundle`.
        data: its channels must be the network's, and its classes too, if both have any.
        noise: noise of any kind and strength.
        part: ``train``, ``validation``, ``test``, or ``all`` three. On ``validation``, seed and draws are the search's.
        denoiser, structure: see `assess`.
        run: runs in the place of the network, such as its `nas.bundles.inference.self_ensemble`.

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
    return assess_data(
        run or bundle.network,
        data,
        noise,
        part=part,
        denoiser=denoiser,
        threshold=bundle.threshold,
        structure=structure,
    )


def assess_data(
    predict: Predict,
    data: Dataset,
    noise: Noise,
    *,
    part: str,
    denoiser: Denoiser | None = None,
    threshold: float | None = None,
    structure: bool = True,
) -> Assessment:
    """Judges on a split of a data set, under noise that depends on the data alone; see `assess_bundle` and `assess`."""
    split = _part(data, part)
    return assess(
        predict,
        split,
        noise,
        seed=noise_seed(data.fingerprint),
        draws=split.draws,
        denoiser=denoiser,
        threshold=threshold,
        structure=structure,
    )


def assess_photographs(
    predict: Predict,
    channels: int,
    paths: Sequence[Path],
    noise: Noise,
    *,
    denoiser: Denoiser | None = None,
    structure: bool = True,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> Assessment:
    """Judges on photographs of any sizes, each at its full size, under noise of its own.

    A network is run in tiles where a photograph would not fit into memory (see `nas.bundles.inference`); another
    function is run as it is. A network for colour (3 `channels`) takes gray photographs as colour ones. The noise
    depends only on the image and the noise's name. The photographs of one file are in memory at a time: each page of a
    stack is one.

    Args:
        predict: a network, or any other function from noisy images to restored ones and logits.
        channels: channels of its images.
        paths: the files.
        noise: noise that is added.
        denoiser, structure: see `assess`.
        white: what is known of the value that is white in images of more than 8 bits.

    Raises:
        DataError: a photograph cannot be read, or is in colour where the network takes gray.
    """
    if isinstance(predict, nn.Module):
        predict = tiled(predict, channels)
    return _assess(predict, _photograph_batches(channels, paths, noise, white), 1, denoiser, structure=structure)


def _photograph_batches(channels: int, paths: Sequence[Path], noise: Noise, white: White) -> Iterator[NoisyBatch]:
    for path in paths:
        for image in read_photographs(path, white):
            if image.shape[0] == 1 and channels == 3:
                image = image.repeat(3, axis=0)  # a search treats gray images among colour ones in the same way
            if image.shape[0] != channels:
                raise DataError(
                    f"image {path}: {image.shape[0]} channel(s), the network takes {channels}; "
                    "evaluate it on such images"
                )
            seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:7], "big")
            clean = to_float(torch.from_numpy(image)[None])
            yield NoisyBatch(noise.add(clean, torch.Generator().manual_seed(seed)), clean)


def _assess(
    predict: Predict,
    batches: Iterable[NoisyBatch],
    draws: int,
    denoiser: Denoiser | None,
    threshold: float | None = None,
    structure: bool = True,
) -> Assessment:
    tally, similarity, untouched, images = Tally(), list[float](), list[Tensor](), 0
    noisy_figures, reference_figures = _Comparison(structure), _Comparison(structure)
    confusion: Tensor | None = None
    with torch.inference_mode():
        for batch in batches:
            noisy, clean, labels, held_out = batch
            images += len(noisy)
            # Networks are trained and judged in this layout; in another one they round differently.
            denoised, logits = predict(noisy.contiguous(memory_format=torch.channels_last))
            check_numbers((denoised, logits))
            tally.add(
                Answers(
                    noisy=noisy,
                    clean=clean,
                    denoised=denoised,
                    labels=labels,
                    logits=logits,
                    held_out=held_out,
                    threshold=threshold,
                )
            )
            if held_out is None:
                if structure:
                    similarity += ssim(denoised, clean)
                noisy_figures.add(noisy, clean, clip=False)
                if denoiser is not None:
                    reference_figures.add(restore_batch(denoiser, noisy, clean), clean)
            else:
                untouched.append(batch.error(noisy))
            if labels is not None and (classes := logits.shape[1]) > 0:
                pairs = torch.bincount(labels * classes + answered(logits, threshold), minlength=classes**2)
                confusion = pairs if confusion is None else confusion + pairs
    table: tuple[tuple[float, ...], ...] | None = None
    if confusion is not None:
        side = round(len(confusion) ** 0.5)
        counts: list[list[int]] = confusion.view(side, side).tolist()
        table = tuple(tuple(count / draws for count in row) for row in counts)
    found = tally.values() | ({"ssim": fmean(similarity)} if similarity else {})
    return Assessment(
        values={metric.name: found[metric.name] for metric in METRICS.values() if metric.name in found},
        noisy={"self_psnr": self_psnr(torch.cat(untouched))} if untouched else noisy_figures.means(),
        reference=reference_figures.means(),
        confusion=table,
        images=images // draws,
        draws=draws,
    )


class _Comparison:
    """Gathers PSNR, and SSIM where it is wanted, of images compared with the clean ones."""

    def __init__(self, structure: bool) -> None:
        self._structure = structure
        self._psnr: list[float] = []
        self._ssim: list[float] = []

    def add(self, images: Tensor, clean: Tensor, *, clip: bool = True) -> None:
        self._psnr += psnr(images, clean, clip=clip).tolist()
        if self._structure:
            self._ssim += ssim(images, clean)

    def means(self) -> dict[str, float]:
        return {name: fmean(found) for name, found in (("psnr", self._psnr), ("ssim", self._ssim)) if found}


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
    # In double precision, because the variances of nearly flat images are differences of nearly equal numbers.
    pairs = zip(output.double().clamp(0, 1).cpu().numpy(), clean.double().cpu().numpy(), strict=True)
    same = functools.partial(structural_similarity, win_size=window, data_range=1, channel_axis=0)
    return [float(same(*pair)) for pair in pairs]


def _part(data: Dataset, part: str) -> Split:
    if part != "all":
        split: Split = getattr(data, part)
        return split
    return joined_splits((data.train, data.validation, data.test))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
