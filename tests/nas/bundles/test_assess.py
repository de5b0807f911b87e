"""Assessment: the search's own PSNR and accuracy, and scikit-image's SSIM, of a network on a split."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_samples import CLASSES, SPACE, TASK, candidate, digits, network_of
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from nas.bundles.assess import assess, assess_bundle, ssim
from nas.bundles.bundle import Bundle
from nas.data.noise import parse_noise
from nas.data.splits import Dataset, Split, validation_draws
from nas.errors import DataError
from nas.training.batches import DeviceData, noisy_batches
from nas.training.evaluation import judge
from nas.training.metrics import psnr

NOISE = parse_noise("gaussian:50")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return network_of(candidate()).eval()


def perfect(noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves images as they are and always answers class 0."""
    return noisy, torch.eye(10)[torch.zeros(len(noisy), dtype=torch.long)]


def bundle_of(network: nn.Module, classes: tuple[str, ...] = CLASSES) -> Bundle:
    task = replace(TASK, classes=len(classes))
    return Bundle(
        path=Path("bundle"), space=SPACE, candidate=candidate(), task=task, classes=classes, network=network, facts={}
    )


def dataset(split: Split, classes: tuple[str, ...] = CLASSES) -> Dataset:
    return Dataset("digits", train=split, validation=split, test=split, classes=classes, fingerprint="00ff")


def test_psnr_and_accuracy_are_those_of_the_search(network: nn.Module) -> None:
    split = digits(300)
    found = assess(network, split, NOISE, seed=3, draws=2)
    wanted = judge(network, noisy_batches(split, NOISE, CPU, seed=3, draws=2))
    assert found.values["psnr"] == pytest.approx(wanted.values["psnr"], abs=1e-6)
    assert found.values["accuracy"] == pytest.approx(wanted.values["accuracy"])
    assert (found.images, found.draws) == (300, 2)


def test_a_bundle_on_validation_gives_the_numbers_of_the_search(network: nn.Module) -> None:
    data = dataset(digits(40))
    found = assess_bundle(bundle_of(network), data, NOISE, part="validation")
    searched = DeviceData.of(data, TASK, CPU)
    wanted = judge(network, searched.validation)
    assert found.values["psnr"] == pytest.approx(wanted.values["psnr"], abs=1e-6)
    assert found.values["accuracy"] == pytest.approx(wanted.values["accuracy"])
    assert found.draws == validation_draws(40) == 8


def test_what_leaves_images_alone_scores_as_the_noise_does() -> None:
    split = digits(50)
    found = assess(perfect, split, NOISE, seed=1)
    assert split.labels is not None
    # The output is clipped, the noisy input is judged as it is.
    assert found.noisy["psnr"] == pytest.approx(20 * math.log10(255 / 50), abs=0.3)
    assert found.values["psnr"] > found.noisy["psnr"] + 1
    assert found.values["ssim"] == found.noisy["ssim"]
    assert found.values["accuracy"] == pytest.approx(100 * np.mean(split.labels == 0))
    [(noisy, clean, *_)] = noisy_batches(split, NOISE, CPU, seed=1)
    assert found.noisy["psnr"] == pytest.approx(float(psnr(noisy, clean, clip=False).mean()), abs=1e-5)


def test_without_noise_nothing_is_lost() -> None:
    found = assess(perfect, digits(20), parse_noise("none"), seed=0)
    assert found.values["psnr"] == 60
    assert found.values["ssim"] == pytest.approx(1)


def test_the_seed_decides_the_noise() -> None:
    first, same, other = (assess(perfect, digits(20), NOISE, seed=seed) for seed in (5, 5, 6))
    assert first == same != other


def test_accuracy_needs_labels_and_classes(network: nn.Module) -> None:
    split = digits(20)
    unlabelled = Split(split.images, None)
    assert assess(network, unlabelled, NOISE, seed=0).to_dict()["accuracy"] is None
    blind = network_of(candidate(), replace(TASK, classes=0)).eval()
    assert assess(blind, split, NOISE, seed=0).to_dict()["accuracy"] is None
    assert assess_bundle(bundle_of(blind, ()), dataset(split), NOISE).to_dict()["accuracy"] is None
    assert assess_bundle(bundle_of(network), dataset(unlabelled, ()), NOISE).to_dict()["accuracy"] is None


@pytest.mark.parametrize(("side", "window"), [(3, 3), (4, 3), (5, 5), (6, 5), (7, 7), (8, 7), (20, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(side: int, window: int, channels: int) -> None:
    clean = torch.rand(4, channels, side, side + 2)
    output = clean + 0.3 * torch.randn(clean.shape)
    wanted = [
        np.mean([structural_similarity(a, b, win_size=window, data_range=1) for a, b in zip(x, y, strict=True)])
        for x, y in zip(output.clamp(0, 1).double().numpy(), clean.double().numpy(), strict=True)
    ]
    assert ssim(output, clean) == pytest.approx(wanted, abs=1e-12)


def test_ssim_of_nearly_flat_images_is_exact_too() -> None:
    clean = torch.full((1, 1, 16, 16), 0.9)
    output = clean + 1e-4 * torch.randn(clean.shape)
    pair = (each[0, 0].double().numpy() for each in (output.clamp(0, 1), clean))
    assert ssim(output, clean) == pytest.approx([structural_similarity(*pair, data_range=1)], abs=1e-12)


def test_ssim_of_images_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="at least 3"):
        ssim(torch.rand(1, 1, 2, 9), torch.rand(1, 1, 2, 9))


def test_data_that_does_not_fit_a_bundle_is_refused(network: nn.Module) -> None:
    split = digits(20)
    colour = Split(split.images.repeat(3, axis=1), split.labels)
    with pytest.raises(DataError, match=r"images have 3 channel\(s\), the network of bundle takes 1"):
        assess_bundle(bundle_of(network), dataset(colour), NOISE)
    with pytest.raises(DataError, match=r"its 2 classes \(cat, dog\) differ from the 10 of bundle \(0, 1, 2, ...\)"):
        assess_bundle(bundle_of(network), dataset(split, ("cat", "dog")), NOISE)
