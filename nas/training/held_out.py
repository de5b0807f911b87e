"""Training and judging without clean images: noisy images are compared with other noisy ones of the same scene, or with
pixels of their own that the network does not see.

With two shots or more of a scene the network sees one, and the mean of the K - 1 others is the target (Noise2Noise,
Lehtinen et al. 2018). Their noise is independent of what the network sees and its mean is zero, so for the scene x and
the restored image f

    E (f - target)^2 = E (f - x)^2 + s^2 / (K - 1),

where s^2 is the variance of a shot's noise. The last term is the noise's own share. The variance over the shots, with
K - 1 in its denominator, estimates s^2 without bias, pixel by pixel and whatever s^2 depends on. So the error against
the target less the share estimates the error against the clean image without bias. It can be below zero by chance.

With one shot a few percent of the pixels are hidden: a random neighbour is put in the place of each, and the error is
that at these pixels alone (Noise2Void, Krull et al. 2019). The restored value of a hidden pixel does not depend on its
noise, if noise is independent from pixel to pixel. So the same identity holds with a share of s^2 (Noise2Self, Batson
and Royer 2019). One shot does not tell s^2, and so the share stays in the error: it ranks networks as the clean images
would, and is larger by the same amount for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.raw import Shots
from nas.data.splits import to_float

CELL = 5
"""One pixel is hidden in each cell of so many pixels squared: 4 % of all."""

AROUND = 2
"""The largest distance in rows and columns of the neighbour that is put in the place of a hidden pixel."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is known of noisy targets that stand in the place of clean images.

    Attributes:
        share: the noise's own share of the mean squared error of the targets (N,).
        pixels: (N, 1, H, W), True where images are compared; None for everywhere.
    """

    share: Tensor
    pixels: Tensor | None = None

    def error(self, images: Tensor, target: Tensor) -> Tensor:
        """Returns the mean squared error of each image (N, C, H, W) where it is compared, less the share (N,)."""
        squared = (images.float() - target).square().mean(1, keepdim=True)
        if self.pixels is None:
            return squared.flatten(1).mean(1) - self.share
        seen = self.pixels.flatten(1)
        return (squared.flatten(1) * seen).sum(1) / seen.sum(1) - self.share

    def mapped(self, change: Callable[[Tensor], Tensor]) -> HeldOut:
        """Returns the same with ``change(tensor)`` in the place of each tensor."""
        return HeldOut(change(self.share), None if self.pixels is None else change(self.pixels))


def hidden_pixels(images: Tensor, generator: torch.Generator) -> tuple[Tensor, HeldOut]:
    """Hides a random pixel of each cell of `CELL` x `CELL`, in all channels.

    Args:
        images: (N, C, H, W), with sides of at least `CELL`.
        generator: a generator on their device.

    Returns:
        Copies of the images with a random neighbour in the place of each hidden pixel, and where they are compared.
    """
    count, channels, height, width = images.shape
    rows, columns = -(-height // CELL), -(-width // CELL)

    def drawn(below: int) -> Tensor:
        shape = (count, rows, columns)
        return torch.randint(below, shape, generator=generator, device=images.device)

    y = drawn(CELL) + CELL * torch.arange(rows, device=images.device)[:, None]
    x = drawn(CELL) + CELL * torch.arange(columns, device=images.device)
    side = 2 * AROUND + 1
    step = drawn(side**2 - 1)
    step = step + (step >= side**2 // 2)  # no pixel is its own neighbour
    dy, dx = step // side - AROUND, step % side - AROUND
    inside = (y < height) & (x < width)  # cells at the edges are cut off
    y, x = y.clamp(max=height - 1), x.clamp(max=width - 1)
    # A neighbour beyond the edge is taken on the other side of the pixel.
    dy = torch.where((y + dy < 0) | (y + dy >= height), -dy, dy)
    dx = torch.where((x + dx < 0) | (x + dx >= width), -dx, dx)
    neighbour = ((y + dy) * width + x + dx).flatten(1)
    place = torch.where(inside, y * width + x, height * width).flatten(1)  # one place too many for what is cut off

    flat = images.flatten(2)
    taken = flat.gather(2, neighbour[:, None].expand(-1, channels, -1))
    room = torch.cat([flat, flat.new_zeros(count, channels, 1)], dim=2)
    hidden = room.scatter(2, place[:, None].expand(-1, channels, -1), taken)[..., :-1].reshape(images.shape)
    pixels = torch.zeros(count, height * width + 1, dtype=torch.bool, device=images.device)
    pixels = pixels.scatter(1, place, True)[:, :-1].reshape(count, 1, height, width)
    return hidden, HeldOut(images.new_zeros(count), pixels)


def noise_shares(shots: Shots) -> Tensor:
    """Returns the share of noise in the mean of all shots of a scene but one, for each scene (N,)."""
    shares = []
    for first, behind in zip(shots.starts[:-1].tolist(), shots.starts[1:].tolist(), strict=True):
        some = to_float(torch.tensor(shots.images[first:behind]))
        shares.append(float(some.double().var(0).mean()) / (behind - first - 1))
    return torch.tensor(shares, dtype=torch.float32)


def others_than(shot: Tensor, mean: Tensor, count: Tensor) -> Tensor:
    """Returns the mean of all shots of each scene but one.

    Args:
        shot: the one (N, C, H, W).
        mean: the mean of all (N, C, H, W).
        count: the number of all (N,), at least 2.
    """
    number = count.to(mean.dtype)[:, None, None, None]
    return (number * mean - shot) / (number - 1)
