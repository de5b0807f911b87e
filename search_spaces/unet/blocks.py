"""What a stage computes, and how one level leads to the next. Each part has its cost beside it.

Features are (N, C, H, W). In costs, `pixels` is H * W of what the part writes, for one image. A new block
is a class here and an entry in `BLOCKS`, and its name in `spec.Block`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost
from search_spaces.unet import cost
from search_spaces.unet.spec import Block, Norm, Resampling


class _Concatenation(torch.autograd.Function):
    """`torch.cat` along channels, whose gradients are tensors of their own and not slices of one.

    What comes next on the way back, a GELU most often, takes slices pixel by pixel: 6 times as long on a CPU.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.widths = [part.shape[1] for part in inputs]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        channels_last = gradient.permute(0, 2, 3, 1).split(ctx.widths, dim=3)
        return tuple(part.contiguous().permute(0, 3, 1, 2) for part in channels_last)


def concatenated(*parts: Tensor) -> Tensor:
    """(N, C_i, H, W) each -> (N, sum of C_i, H, W)."""
    if len(parts) == 1:
        return parts[0]
    joined: Tensor = _Concatenation.apply(*parts) if torch.is_grad_enabled() else torch.cat(parts, dim=1)
    return joined


class _PixelMean(torch.autograd.Function):
    """The mean over pixels, whose gradient is channels-last as everything else is.

    A sum of gradients of two layouts takes up to 3 times as long on a CPU, and a head stands beside most decoders.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3), keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        count, width, *pixels = ctx.shape
        each: Tensor = (gradient / math.prod(pixels)).view(count, 1, 1, width)
        return each.expand(count, *pixels, width).contiguous().permute(0, 3, 1, 2)


def pixel_mean(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1)."""
    if not torch.is_grad_enabled():
        return features.mean(dim=(2, 3), keepdim=True)
    mean: Tensor = _PixelMean.apply(features)
    return mean


class ImageNorm(nn.GroupNorm):
    """Group normalisation with one group: over all channels and pixels of an image."""

    vector = 16
    """bfloat16 numbers that torch's channels-last group norm takes at once; other widths it takes one by one."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)

    def forward(self, features: Tensor) -> Tensor:
        width = self.num_channels
        slow = features.dtype == torch.bfloat16 and features.device.type == "cpu" and width % self.vector
        if not slow:
            return super().forward(features)
        # The same as layer norm, 2 to 7 times as fast there.
        shape = (*features.shape[2:], width)
        scale, shift = self.weight.expand(shape), self.bias.expand(shape)
        return F.layer_norm(features.permute(0, 2, 3, 1), shape, scale, shift, self.eps).permute(0, 3, 1, 2)


NORMS: Mapping[Norm, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": ImageNorm,
}
POOLS: Mapping[Resampling, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
}


POOLING_NORMS: frozenset[Norm] = frozenset({"group"})
"""Those that look at the whole image in evaluation mode too."""


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A square convolution that keeps the image's size, or halves it with stride 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)


class ConvBlock(nn.Sequential):
    """(conv, norm, GELU) twice: the stage of U-Net (Ronneberger et al. 2015), padded, with norm and GELU.

    Not the paper's ReLU: of narrow, deep networks without norm and skips one in 300 is then silent, its
    weights without gradient, from the first steps. Convolutions have a bias only where no norm follows;
    there the weights are drawn as by He et al. 2015, so that many blocks in a row keep the signal's size.
    """

    pools: ClassVar[bool] = False
    """Whether a pixel of the result depends on the whole image, but for the norm (see `UNet.reach`)."""

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        bias = norm == "none"
        first, second = conv(inputs, width, kernel, bias=bias), conv(width, width, kernel, bias=bias)
        super().__init__(first, NORMS[norm](width), nn.GELU(), second, NORMS[norm](width), nn.GELU())
        if norm == "none":
            nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(second.weight, nonlinearity="relu")

    def residual(self, features: Tensor) -> Tensor:
        """What an update of the state adds or subtracts: all that the stage computes."""
        change: Tensor = self(features)
        return change

    @staticmethod
    def cost(inputs: int, width: int, kernel: int, norm: Norm, pixels: int) -> Cost:
        # A bias, or in its place the scale and shift of a norm.
        vectors = Cost(params=(1 if norm == "none" else 2) * 2 * width, macs=0)
        first, second = (cost.conv(w, width, kernel, pixels, bias=False) for w in (inputs, width))
        return cost.total(first, second, vectors)


class ResidualBlock(nn.Module):
    """h + (conv, norm, GELU) twice: the block of Multi-ResNet (Williams et al. 2023, arXiv 2305.19638).

    Where the width changes, a 1x1 convolution stands on the shortcut. Without norm the second convolution
    starts at zero (Fixup, Zhang et al. 2019), or the signal would double with every block.
    """

    pools: ClassVar[bool] = False

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if inputs == width else conv(inputs, width, 1)
        self.residual = ConvBlock(inputs, width, kernel, norm)
        if norm == "none":
            for parameter in self.residual[3].parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        state: Tensor = self.shortcut(features) + self.residual(features)
        return state

    @staticmethod
    def cost(inputs: int, width: int, kernel: int, norm: Norm, pixels: int) -> Cost:
        shortcut = cost.NOTHING if inputs == width else cost.conv(inputs, width, 1, pixels)
        return cost.total(shortcut, ConvBlock.cost(inputs, width, kernel, norm, pixels))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NafBlock(nn.Module):
    """The block of NAFNet (Chen et al. 2022, arXiv 2204.04676), equations 4 to 6: no activation functions.

        y = x + beta * W3 sca(gate(D W1 norm(x))),  x' = y + gamma * W5 gate(W4 norm(y))

    with 1x1 convolutions W, a depthwise one D of the stage's kernel, gate(a, b) = a * b of the halves of
    the channels, and sca(z) = z * W mean(z). beta and gamma, one for each channel, start at zero. Where
    the width changes, a 1x1 convolution comes first. Has its own norm, so the stage's is not used.
    """

    pools: ClassVar[bool] = True

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.entry = nn.Identity() if inputs == width else conv(inputs, width, 1)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.conv1 = conv(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, kernel, padding=kernel // 2, groups=2 * width)
        self.attention = conv(width, width, 1)
        self.conv3 = conv(width, width, 1)
        self.conv4 = conv(width, 2 * width, 1)
        self.conv5 = conv(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        state: Tensor = self.entry(features)
        return state + self.residual(state)

    def residual(self, features: Tensor) -> Tensor:
        """Sum of both branches, (N, width, H, W) like `features`."""
        mixed = _simple_gate(self.depthwise(self.conv1(self.norm1(features))))
        mixed = mixed * self.attention(pixel_mean(mixed))
        first = self.beta * self.conv3(mixed)
        second = self.gamma * self.conv5(_simple_gate(self.conv4(self.norm2(features + first))))
        total: Tensor = first + second
        return total

    @staticmethod
    def cost(inputs: int, width: int, kernel: int, norm: Norm, pixels: int) -> Cost:
        return cost.total(
            cost.NOTHING if inputs == width else cost.conv(inputs, width, 1, pixels),
            cost.conv(width, 2 * width, 1, pixels),
            cost.conv(1, 2 * width, kernel, pixels),
            cost.conv(width, width, 1, 1),
            cost.conv(width, width, 1, pixels),
            cost.conv(width, 2 * width, 1, pixels),
            cost.conv(width, width, 1, pixels),
            Cost(params=6 * width, macs=0),  # two norms, beta and gamma
        )


def _simple_gate(features: Tensor) -> Tensor:
    first, second = features.chunk(2, dim=1)
    return first * second


Stage = ConvBlock | ResidualBlock | NafBlock
BLOCKS: Mapping[Block, type[Stage]] = {"conv": ConvBlock, "residual": ResidualBlock, "naf": NafBlock}
EXTRA: Mapping[Block, type[Stage]] = {**BLOCKS, "conv": ResidualBlock}
"""The blocks that `extra_blocks` adds: always residual, as those that Multi-ResNet gives back."""


class Down(nn.Sequential):
    """From one level to the next: the side is halved (or kept, without resampling), then the width changes.

    Pooling is followed by a 1x1 convolution where the width changes; the strided convolution does both.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, resampling: Resampling) -> None:
        if resampling == "strided":
            super().__init__(conv(inputs, outputs, kernel, stride=2))
        else:
            super().__init__(POOLS[resampling](), nn.Identity() if inputs == outputs else conv(inputs, outputs, 1))

    @staticmethod
    def cost(inputs: int, outputs: int, kernel: int, resampling: Resampling, pixels: int) -> Cost:
        if resampling == "strided":
            return cost.conv(inputs, outputs, kernel, pixels)
        return cost.NOTHING if inputs == outputs else cost.conv(inputs, outputs, 1, pixels)


class HaarDown(nn.Module):
    """From one level to the next without parameters: Multi-ResNet's encoder (arXiv 2305.19638).

    The low-pass band of one 2-D Haar step, ``(a + b + c + d) / 2`` of each 2x2 pixels, halved to keep the
    image's range: exactly average pooling. Channels are repeated to the width of the level.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.copies = outputs // inputs

    def forward(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, 2).repeat(1, self.copies, 1, 1)


class Up(nn.Sequential):
    """Back to the level above: a convolution where the width changes, then each pixel becomes 2x2 (Multi-ResNet)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, resampling: Resampling) -> None:
        super().__init__(
            nn.Identity() if inputs == outputs else conv(inputs, outputs, kernel),
            nn.Identity() if resampling == "none" else nn.Upsample(scale_factor=2, mode="nearest"),
        )

    @staticmethod
    def cost(inputs: int, outputs: int, kernel: int, pixels: int) -> Cost:
        """`pixels` counts those of the level below, where the convolution works."""
        return cost.NOTHING if inputs == outputs else cost.conv(inputs, outputs, kernel, pixels)
