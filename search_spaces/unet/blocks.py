"""The stages of a U-Net, and the layers between its levels. Each part has its cost beside it.

Features are (N, C, H, W). In costs, `pixels` is H * W of the part's output for one image. A new block is a class here,
an entry in `BLOCKS`, and its name in `spec.Block`.
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


def wants_gradients() -> bool:
    """Tells whether gradients will be asked of what is computed now. It is not so while a program is exported, which
    has the formula as it stands."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _Concatenation(torch.autograd.Function):
    """Works as `torch.cat` along channels, but gives each input a gradient tensor of its own instead of a slice.

    The next step of the backward pass, a GELU most often, walks through slices pixel by pixel, which takes 6 times as
    long on a CPU.
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
    """Concatenates tensors (N, C_i, H, W) along channels to (N, sum of C_i, H, W)."""
    if len(parts) == 1:
        return parts[0]
    joined: Tensor = _Concatenation.apply(*parts) if wants_gradients() else torch.cat(parts, dim=1)
    return joined


class _PixelMean(torch.autograd.Function):
    """Computes the mean over pixels with a channels-last gradient, the layout of all other gradients.

    A sum of gradients of two layouts takes up to 3 times as long on a CPU, and most decoders have a head beside them.
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
    """Averages features (N, C, H, W) over pixels, to (N, C, 1, 1)."""
    if not wants_gradients():
        return features.mean(dim=(2, 3), keepdim=True)
    mean: Tensor = _PixelMean.apply(features)
    return mean


class ImageNorm(nn.GroupNorm):
    """Group normalisation with one group: over all channels and pixels of an image."""

    vector = 16
    """The number of bfloat16 values that torch's channels-last group norm takes at once; it takes other widths one by
    one."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)

    def forward(self, features: Tensor) -> Tensor:
        width = self.num_channels
        slow = features.dtype == torch.bfloat16 and features.device.type == "cpu" and width % self.vector
        if not slow:
            return super().forward(features)
        # Layer norm computes the same there, 2 to 7 times as fast.
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
"""The norms that depend on the whole image in evaluation mode too."""


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Makes a square convolution that keeps the image's size, or halves it with stride 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)


class ConvBlock(nn.Sequential):
    """(conv, norm, GELU) twice: the stage of U-Net (Ronneberger et al. 2015), with padding, norm and GELU.

    GELU replaces the paper's ReLU, because one in 300 narrow, deep networks without norm and skips would be silent from
    the first steps, with zero gradients for its weights. A convolution has a bias only where no norm follows. Weights
    without a norm are drawn as in He et al. 2015, so that the signal keeps its size over many blocks.
    """

    pools: ClassVar[bool] = False
    """Whether a pixel of the result depends on the whole image for a reason other than the norm (see `UNet.reach`)."""

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        bias = norm == "none"
        first, second = conv(inputs, width, kernel, bias=bias), conv(width, width, kernel, bias=bias)
        super().__init__(first, NORMS[norm](width), nn.GELU(), second, NORMS[norm](width), nn.GELU())
        if norm == "none":
            nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(second.weight, nonlinearity="relu")

    def residual(self, features: Tensor) -> Tensor:
        """Returns the change that an updating encoder adds to its state or subtracts from it: the whole output of the
        stage."""
        change: Tensor = self(features)
        return change

    @staticmethod
    def cost(inputs: int, width: int, kernel: int, norm: Norm, pixels: int) -> Cost:
        # The vectors are a bias, or the scale and shift of a norm in its place.
        vectors = Cost(params=(1 if norm == "none" else 2) * 2 * width, macs=0)
        first, second = (cost.conv(w, width, kernel, pixels, bias=False) for w in (inputs, width))
        return cost.total(first, second, vectors)


class ResidualBlock(nn.Module):
    """h + (conv, norm, GELU) twice: the block of Multi-ResNet (Williams et al. 2023, arXiv 2305.19638).

    A 1x1 convolution stands on the shortcut where the width changes. Without a norm the second convolution starts at
    zero (Fixup, Zhang et al. 2019), because the signal would double with every block otherwise.
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


class ExtraBlock(ResidualBlock):
    """A `ResidualBlock` that begins as the identity, with zeros for the scale of its last norm (Goyal et al. 2017).

    The blocks that `extra_blocks` adds to a stage make its network deeper. They must not make it harder to train, and
    they did when each began as a random change of the features.
    """

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        super().__init__(inputs, width, kernel, norm)
        for parameter in self.residual[4].parameters():  # scale and shift; there are none without a norm
            nn.init.zeros_(parameter)


class _DepthwiseConvolution(torch.autograd.Function):
    """Works as a depthwise `F.conv2d` with "same" padding, but computes the gradient of wide kernels by columns of 3.

    For kernels up to 3 pixels wide oneDNN compiles code for the gradient of depthwise weights. For wider ones it has a
    plain loop, which takes 10 to 40 times as long. The columns of a kernel do not depend on each other.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, weight = (each.to(gradient.dtype) for each in ctx.saved_tensors)  # autocast may have cast them
        reach = weight.shape[-1] // 2

        def gradients(images: Tensor, part: Tensor, beside: int, *wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
            found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
                gradient, images, part, [len(part)], [1, 1], [reach, beside], [1, 1], False, [0, 0], len(part), wanted
            )
            return found

        of_features, _, _ = gradients(features, weight, reach, True, False, False)
        padded, width = F.pad(features, (reach, reach)), features.shape[3]
        of_columns: list[Tensor] = []
        for part, first in zip(weight.split(3, dim=3), range(0, weight.shape[3], 3), strict=True):
            seen = padded[..., first : first + width + part.shape[3] - 1]
            # oneDNN finds the gradients of weights and bias together, also where one of them is not asked for.
            _, of_column, of_bias = gradients(seen, part, 0, False, True, True)
            of_columns.append(of_column)
        return of_features, torch.cat(of_columns, dim=3), of_bias


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel with a kernel of its own, which keeps the image's size."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, features: Tensor) -> Tensor:
        slow = self.weight.shape[-1] > 3 and features.device.type == "cpu"
        if not (slow and wants_gradients() and torch.backends.mkldnn.is_available()):
            return super().forward(features)
        result: Tensor = _DepthwiseConvolution.apply(features, self.weight, self.bias)
        return result


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NafBlock(nn.Module):
    """The block of NAFNet (Chen et al. 2022, arXiv 2204.04676), equations 4 to 6, without activation functions:

        y = x + beta * W3 sca(gate(D W1 norm(x))),  x' = y + gamma * W5 gate(W4 norm(y))

    W are 1x1 convolutions, D is a depthwise convolution with the stage's kernel, gate(a, b) = a * b multiplies the
    halves of the channels, and sca(z) = z * W mean(z). beta and gamma have one value for each channel and start at
    zero. A 1x1 convolution comes first where the width changes. The block has its own norm and ignores the stage's.
    """

    pools: ClassVar[bool] = True

    def __init__(self, inputs: int, width: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.entry = nn.Identity() if inputs == width else conv(inputs, width, 1)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.conv1 = conv(width, 2 * width, 1)
        self.depthwise = DepthwiseConv(2 * width, kernel)
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
        """Returns the sum of both branches, (N, width, H, W) like `features`."""
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
EXTRA: Mapping[Block, type[Stage]] = {"conv": ExtraBlock, "residual": ExtraBlock, "naf": NafBlock}
"""The blocks that `extra_blocks` adds. They are always residual, as the blocks that Multi-ResNet adds are, and all of
them begin as the identity."""


class Down(nn.Sequential):
    """Leads from one level to the next: halves the side (or keeps it, without resampling), then changes the width.

    A 1x1 convolution follows the pooling where the width changes; a strided convolution does both.
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
    """Leads from one level to the next without parameters: Multi-ResNet's encoder (arXiv 2305.19638).

    The low-pass band of a 2-D Haar step is ``(a + b + c + d) / 2`` of each 2x2 pixels. Halved to keep the image's
    range, it is exactly average pooling. Channels are repeated to the width of the level.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.copies = outputs // inputs

    def forward(self, features: Tensor) -> Tensor:
        # litert-torch repeats another axis (findings/litert-torch-repeats-other-axes.sh).
        return concatenated(*[F.avg_pool2d(features, 2)] * self.copies)


class Up(nn.Sequential):
    """Leads back to the level above: a convolution where the width changes, then each pixel becomes 2x2
    (Multi-ResNet)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, resampling: Resampling) -> None:
        super().__init__(
            nn.Identity() if inputs == outputs else conv(inputs, outputs, kernel),
            nn.Identity() if resampling == "none" else nn.Upsample(scale_factor=2, mode="nearest"),
        )

    @staticmethod
    def cost(inputs: int, outputs: int, kernel: int, pixels: int) -> Cost:
        """Costs the convolution, which works on the `pixels` of the level below."""
        return cost.NOTHING if inputs == outputs else cost.conv(inputs, outputs, kernel, pixels)
