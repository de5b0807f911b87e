"""Data sets of noisy images alone, made of clean ones, and the true PSNR of networks that are trained on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data.augmentation import NONE, Augmentation
from nas.data.noise import parse_noise
from nas.data.raw import Shots
from nas.data.splits import Dataset, Split, noise_seed, to_float
from nas.training.batches import DeviceData, evaluation_batches
from nas.training.evaluation import judge
from nas.training.loop import Training
from nas.types import Recipe
from search_spaces import get_space


def with_shots(clean: Split, noise: str, shots: int, seed: int) -> tuple[Split, Split]:
    """Makes noisy images from clean ones, once.

    Args:
        clean: the clean images; their labels are left out.
        noise: the noise, as ``--noise`` takes it.
        shots: shots of each image.
        seed: seed of the noise.

    Returns:
        The noisy images alone, as ``noisy:DIR`` reads them, and the clean ones with the same shots, as ``pairs:DIR``.
    """
    generator = torch.Generator().manual_seed(seed)
    images = to_float(torch.tensor(clean.images))
    made = torch.stack([parse_noise(noise).add(images, generator) for _ in range(shots)], dim=1)
    kept = Shots(made.flatten(0, 1).numpy(), np.arange(len(images) + 1) * shots)
    alone = Split(made.mean(1).numpy(), None, kept if shots > 1 else None, clean=False)
    return alone, Split(images.numpy(), None, kept)


def noisy_data(data: Dataset, noise: str, shots: int) -> tuple[Dataset, Dataset]:
    """Returns the noisy images of a data set alone, and the clean ones with the same shots; see `with_shots`."""
    seed = noise_seed(data.fingerprint) % 2**31
    train, validation, test = (
        with_shots(split, noise, shots, seed + number)
        for number, split in enumerate((data.train, data.validation, data.test))
    )
    alone, known = (
        replace(data, classes=(), train=train[side], validation=validation[side], test=test[side]) for side in (0, 1)
    )
    return alone, known


def trained(
    data: Dataset,
    spec: Any,
    recipe: Recipe,
    *,
    seed: int,
    noise: str = "data",
    precision: str = "fp32",
    augmentation: Augmentation = NONE,
) -> tuple[nn.Module, DeviceData]:
    """Trains a network of the space `unet` under a noise, by default that of the data itself.

    Returns:
        The network, and its data with the validation batches.

    Raises:
        Diverged: the loss became NaN.
    """
    task, space = data.task(noise), get_space("unet")
    torch.manual_seed(seed)
    network = space.build(spec, task)
    batches = DeviceData.of(data, task, torch.device("cpu"), augmentation)
    training = Training(network, task, recipe, batches, seed=seed, precision=precision)
    while training.epoch < recipe.epochs:
        training.run_epoch()
    return network.eval(), batches


def true_psnr(network: nn.Module, known: Dataset) -> float:
    """Returns the PSNR in dB against the clean validation images, of which the network has seen none."""
    batches = evaluation_batches(known, "validation", parse_noise("data"), torch.device("cpu"))
    return judge(network, batches).values["psnr"]
