"""A decoder state u joined with the skip s of its level, both (N, C, H, W): first a gate on s, then a fusion.

A new fusion is a class here, an entry in `FUSIONS`, and its name in `spec.Fusion`; a new gate likewise. Add, scalar
gate, channel gate and concat + 1x1 nest in this order: each of them can compute the same as the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost
from search_spaces.unet import cost, spec
from search_spaces.unet.blocks import concatenated, pixel_mean


class Gate(nn.Module):
    """Multiplies a skip by weights. The base class returns the skip as it is."""

    pools: ClassVar[bool] = False
    """Whether a pixel of the result depends on the whole image, so that tiles of the image differ from it (see
    `UNet.reach`)."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def value(self) -> Tensor | None:
        """Returns the factor of every skip, () or (C,); None when it depends on the skip, or there is no gate."""
        return None

    def forward(self, skip: Tensor, state: Tensor) -> Tensor:
        return skip

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.NOTHING


class ScalarGate(Gate):
    """softplus(b) * s with one b: the gate of AddUNet (arXiv 2601.13208). It starts at 1, with b = ln(e - 1).

    The paper does not give its initial value.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.b = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def value(self) -> Tensor:
        return F.softplus(self.b)

    def forward(self, skip: Tensor, state: Tensor) -> Tensor:
        return self.value() * skip

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return Cost(params=1, macs=0)


class ChannelGate(Gate):
    """g_c * s with one g for each channel, of either sign. It starts at 1."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.g = nn.Parameter(torch.ones(width))

    def value(self) -> Tensor:
        return self.g

    def forward(self, skip: Tensor, state: Tensor) -> Tensor:
        return self.g[:, None, None] * skip

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return Cost(params=width, macs=0)


class SqueezeExcitation(Gate):
    """s * sigmoid(W2 relu(W1 mean(s))), with one weight for each image and channel (Hu et al. 2018, eq. 3 and 4).

    The layers have no biases. Their inner width is `inner_width`, as in the selective kernel.
    """

    pools = True

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.w1 = conv1x1(width, inner_width(width), bias=False)
        self.w2 = conv1x1(inner_width(width), width, bias=False)
        mirror_(self.w1)

    def forward(self, skip: Tensor, state: Tensor) -> Tensor:
        pooled = pixel_mean(skip)
        return skip * torch.sigmoid(self.w2(F.relu(self.w1(pooled))))

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        inner = inner_width(width)
        return cost.total(cost.conv(width, inner, 1, 1, bias=False), cost.conv(inner, width, 1, 1, bias=False))


class AttentionGate(Gate):
    """BN(W(A * s)) with A = sigmoid(psi relu(theta(s) + phi(u))), one weight for each pixel.

    This is the additive gate of Attention U-Net (Oktay et al. 2018, arXiv 1804.03999, eq. 1 and 2), with 1x1
    convolutions and the inner width C / 2. The state u has the size of s already, so nothing is resampled.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.theta = conv1x1(width, width // 2, bias=False)
        self.phi = conv1x1(width, width // 2)
        self.psi = conv1x1(width // 2, 1)
        self.w = nn.Sequential(conv1x1(width, width, bias=False), nn.BatchNorm2d(width))
        mirror_(self.theta)
        mirror_(self.phi)

    def forward(self, skip: Tensor, state: Tensor) -> Tensor:
        attention = torch.sigmoid(self.psi(F.relu(self.theta(skip) + self.phi(state))))
        gated: Tensor = self.w(attention * skip)
        return gated

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.total(
            cost.conv(width, width // 2, 1, pixels, bias=False),
            cost.conv(width, width // 2, 1, pixels),
            cost.conv(width // 2, 1, 1, pixels),
            cost.conv(width, width, 1, pixels, bias=False),
            Cost(params=2 * width, macs=0),
        )


GATES: Mapping[spec.Gate, type[Gate]] = {
    "none": Gate,
    "scalar": ScalarGate,
    "channel": ChannelGate,
    "squeeze_excitation": SqueezeExcitation,
    "attention": AttentionGate,
}


class Fusion(nn.Module):
    """Joins the state and the gated skip. The base class ignores the skip and returns u.

    With `dense` the skip is the concatenation of the encoder's skip and every earlier node of the level.
    """

    pools: ClassVar[bool] = False
    """As in `Gate`."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return state

    @staticmethod
    def channels(width: int, skips: int) -> int:
        """Returns the channels of the result, from a state and `skips` skips of `width` channels each."""
        return width

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.NOTHING


class Concat(Fusion):
    """[u, s], the fusion of U-Net (Ronneberger et al. 2015), and of U-Net++ (Zhou et al. 2018, eq. 1)."""

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return concatenated(state, skip)

    @staticmethod
    def channels(width: int, skips: int) -> int:
        return (1 + skips) * width


class Add(Fusion):
    """u + s, the fusion of AddUNet (arXiv 2601.13208)."""

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return state + skip


class Nddr(Fusion):
    """W [u, s] with a 1x1 convolution W, C x 2C, without bias: discriminative dimensionality reduction.

    NDDR-CNN (Gao et al. 2019) joins tasks in this way, with diagonal initial weights. No paper gives initial weights
    for a state and a skip. Here both blocks of W start as the identity, so that the fusion starts as `Add`.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.reduce = conv1x1(2 * width, width, bias=False)
        with torch.no_grad():
            self.reduce.weight.copy_(torch.eye(width).repeat(1, 2)[:, :, None, None])

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        fused: Tensor = self.reduce(concatenated(state, skip))
        return fused

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.conv(2 * width, width, 1, pixels, bias=False)


class SelectiveKernel(Fusion):
    """a * u + (1 - a) * s, with weights for each image and channel: softmax(W2 relu(W1 mean(u + s))).

    This is the selective kernel fusion (Li et al. 2019, arXiv 1903.06586, eq. 1 to 6) of two branches, without biases
    and norm, and with the inner width `inner_width` of MIRNet (Zamir et al. 2020).
    """

    pools = True

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.w1 = conv1x1(width, inner_width(width), bias=False)
        self.w2 = conv1x1(inner_width(width), 2 * width, bias=False)
        mirror_(self.w1)

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        pooled = pixel_mean(state + skip)
        scores = self.w2(F.relu(self.w1(pooled)))
        of_state, of_skip = scores.unflatten(1, (2, -1)).softmax(dim=1).unbind(dim=1)
        fused: Tensor = of_state * state + of_skip * skip
        return fused

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        inner = inner_width(width)
        return cost.total(cost.conv(width, inner, 1, 1, bias=False), cost.conv(inner, 2 * width, 1, 1, bias=False))


FUSIONS: Mapping[spec.Fusion, type[Fusion]] = {
    "none": Fusion,
    "concat": Concat,
    "add": Add,
    "nddr": Nddr,
    "selective_kernel": SelectiveKernel,
    "dense": Concat,
}


def inner_width(width: int) -> int:
    """Returns max(C / 8, 4), the inner width of MIRNet's selective kernel fusion."""
    return max(width // 8, 4)


def conv1x1(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """Makes a linear layer on the channels of each pixel."""
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


def mirror_(layer: nn.Conv2d) -> None:
    """Makes the second half of a layer's outputs start as the negative of the first half.

    A ReLU follows, and narrow gates have few of them, so that all could be silent for every image from the start. In a
    mirrored pair one is always active.
    """
    half = layer.out_channels // 2
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter[half : 2 * half] = -parameter[:half]
