"""What a stage computes, and how one level leads to the next. Each part has its cost beside it.

Features are (N, C, H, W). In costs, `pixels` is H * W of what the part writes, for one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from nas.types import Cost
from search_spaces.unet import cost
from search_spaces.unet.spec import Block, Norm, Resampling

NORMS: Mapping[Norm, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(1, width),
}
POOLS: Mapping[Resampling, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
}


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A square convolution that keeps the image's size, or halves it with stride 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)


class ConvBlock(nn.Sequential):
    """(conv, norm, GELU) twice: the stage of U-Net (Ronneberger et al. 2015), padded, with norm and GELU.

    Not the paper's ReLU: of narrow, deep networks without norm and skips one in 300 is then silent, its
    weights without gradient, from the first steps. Convolutions have a bias only where no norm follows;
    there the weights are drawn as by He et al. 2015, so that many blocks in a row keep the signal's size.
    """

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        bias = norm == "none"
        first, second = conv(inputs, width, kernel, bias=bias), conv(width, width, kernel, bias=bias)
        super().__init__(first, NORMS[norm](width), nn.GELU(), second, NORMS[norm](width), nn.GELU())
        if norm == "none":
            nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(second.weight, nonlinearity="relu")

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


BLOCKS: Mapping[Block, type[ConvBlock] | type[ResidualBlock]] = {"conv": ConvBlock, "residual": ResidualBlock}


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
