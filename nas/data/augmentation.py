"""Flips and turns that leave what an image shows the same, decided by the source of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.errors import ConfigError

TURNABLE = {"images", "photos", "dtd", "eurosat"}
"""Seen from any side: photographs without classes, textures, images from above."""

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
"""Photographed objects: as likely seen from the other side."""

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
"""Digits, letters and signs: the mirror image of one is no example of its class."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Which of an image's symmetries are drawn from.

    Attributes:
        name: as said to people.
        mirrors: left and right may be exchanged.
        turns: top and bottom too, and rows with columns: all 8 symmetries of a square.
    """

    name: str
    mirrors: bool = False
    turns: bool = False

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W), each under a symmetry of its own; not square ones are not turned, only flipped."""
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
    """What suits a data source, as `nas.data.splits.parse_source` names it.

    Args:
        source: photographs and textures are flipped and turned, photographed objects flipped; digits, letters and
            signs stay as they are, and so do class folders and all others, of which nothing is known.
        wanted: False for none; True to be refused one that would break the data, and to flip what nothing is known of.

    Raises:
        ConfigError: augmentation is wanted and the data has none.
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
    """A throw for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
