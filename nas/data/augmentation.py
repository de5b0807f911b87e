"""Flips and turns that do not change the meaning of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
        import torch

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


def _coin(images: Tensor, generator: torch.Generator) -> Tensor:
    """Throws a coin for each image, (N, 1, 1, 1)."""
    import torch

    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
