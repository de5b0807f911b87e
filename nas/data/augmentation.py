"""Flips and turns that do not change the meaning of an image, decided by the source of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.errors import ConfigError

TURNABLE = {"images", "photos", "dtd", "eurosat"}
"""Sources whose images may be seen from any side: photographs without classes, textures, images from above."""

MIRRORED = {
    "caltech101",
    "caltech256",
    "cifar10",
    "cifar100",
    "clevr",
    "country211",
    "fashion-mnist",
    "fgvc-aircraft",
    "flowers102",
    "food101",
    "imagenette",
    "oxford-iiit-pet",
    "stanford-cars",
    "stl10",
    "sun397",
}
"""Sources of photographed objects, which may as well be seen from the other side."""

FIXED = {
    "digits",
    "emnist",
    "gtsrb",
    "kmnist",
    "mnist",
    "qmnist",
    "rendered-sst2",
    "semeion",
    "svhn",
    "usps",
}
"""Sources of digits, letters and signs, whose mirror images are no examples of their class."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The symmetries of an image that are drawn from.

    Attributes:
        name: the text that people read.
        mirrors: whether left and right may be exchanged.
        turns: whether top and bottom, and rows and columns, may be exchanged too: all 8 symmetries of a square.
    """

    name: str
    mirrors: bool = False
    turns: bool = False

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Puts each of the images (N, C, H, W) under a symmetry of its own. Images that are not square are flipped
        only."""
        if self.mirrors:
            images = torch.where(_coin(images, generator), images.flip(3), images)
        if self.turns:
            images = torch.where(_coin(images, generator), images.flip(2), images)
            if images.shape[2] == images.shape[3]:
                images = torch.where(_coin(images, generator), images.transpose(2, 3), images)
        return images


NONE = Augmentation("none")
MIRRORS = Augmentation("left-right flips", mirrors=True)
TURNS = Augmentation("flips and quarter turns", mirrors=True, turns=True)


def augmentation_for(source: str, wanted: bool | None = None) -> Augmentation:
    """Chooses the augmentation that suits a data source.

    Photographs and textures are flipped and turned, and photographed objects are flipped. Digits, letters and signs
    stay as they are. So do class folders and all other sources, because nothing is known of their images.

    Args:
        source: name of the source, as `nas.data.splits.parse_source` returns it.
        wanted: False for no augmentation. True to flip images of which nothing is known, and to be refused an
            augmentation that would break the data.

    Raises:
        ConfigError: augmentation is wanted and the data allows none.
    """
    kind = source.partition(":")[0]
    if wanted is False:
        return NONE
    if kind in FIXED:
        if wanted:
            raise ConfigError(f"--augment: flips and turns would change what {kind} shows; leave it out")
        return NONE
    if kind in TURNABLE:
        return TURNS
    return MIRRORS if wanted or kind in MIRRORED else NONE


def _coin(images: Tensor, generator: torch.Generator) -> Tensor:
    """Throws a coin for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
