"""The exchange of features between the columns of two tasks: after each common stage, and once over all stages.

States are a list with one (N, C, H, W) for each task. A new sharing is an `Exchange` here, an entry in `SHARINGS`, and
its name in `spec.Sharing`. Its `gather` combines the states of all stages at the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost
from search_spaces.unet import cost, spec
from search_spaces.unet.blocks import concatenated, wants_gradients

COLUMNS = 2


class Gather(nn.Module):
    """Combines one task's states after every exchange, in order, to the state of the last stage.

    The base class returns the last state.

    Args:
        widths: channels of each state.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return states[-1]

    @staticmethod
    def cost(widths: Sequence[int], pixels: int) -> Cost:
        return cost.NOTHING


class LayerMix(Gather):
    """sum_l b_l y_l with b_l = 1 / L at the start: the layer mix of sluice networks (Ruder et al. 2019).

    The layers of the paper have one shape. Here earlier states are resized bilinearly to the last one, and their
    channels are repeated or, where there are more of them, averaged in groups.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.b = nn.Parameter(torch.full((len(widths),), 1 / len(widths)))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        last = states[-1]
        fitted = [*(_fitted(state, last) for state in states[:-1]), last]
        return _sum(b * state for b, state in zip(self.b, fitted, strict=True))

    @staticmethod
    def cost(widths: Sequence[int], pixels: int) -> Cost:
        return Cost(params=len(widths), macs=0)


class Shortcut(Gather):
    """W [y_1, ..., y_L] with a 1x1 convolution W to the last stage's width: NDDR-CNN's shortcut (Gao et al. 2019).

    Earlier stages are resized bilinearly to the last one. The paper's initial weights are not public; here they are
    PyTorch's. Programs that are exported compute the formula as it stands. A training computes sum_l resize(W_l y_l),
    which is the same, since resizing treats all channels alike. It takes half the time, because deep stages have many
    channels of few pixels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.reduce = nn.Conv2d(sum(widths), widths[-1], 1)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        last = states[-1]
        if wants_gradients():
            return _sum(self._by_size(states))
        joined: Tensor = self.reduce(concatenated(*(resized(state, last) for state in states[:-1]), last))
        return joined

    def _by_size(self, states: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yields the part that the stages of each size add to the result."""
        weights = self.reduce.weight.split([state.shape[1] for state in states], dim=1)
        places: dict[torch.Size, list[int]] = {}
        for place, state in enumerate(states):
            places.setdefault(state.shape[2:], []).append(place)
        last = states[-1]
        for size, alike in places.items():
            weight = torch.cat([weights[place] for place in alike], dim=1)
            joined = concatenated(*(states[place] for place in alike))
            if size == last.shape[2:]:
                yield F.conv2d(joined, weight, self.reduce.bias)
            else:
                yield resized(F.conv2d(joined, weight), last)

    @staticmethod
    def cost(widths: Sequence[int], pixels: int) -> Cost:
        return cost.conv(sum(widths), widths[-1], 1, pixels)


class Exchange(nn.Module):
    """Maps the tasks' states of one stage to as many states of the same shapes. The base class exchanges nothing.

    Args:
        width: channels of each state.
        own: initial weight of a task's own features, where the subclass uses it.
    """

    gather: type[Gather] = Gather

    def __init__(self, width: int, own: float) -> None:
        super().__init__()

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        return list(states)

    def penalty(self, weights: Sequence[Tensor]) -> Tensor | None:
        """Returns a term () for the loss, from the weights (C, ...) that write each task's features; None for no
        penalty."""
        return None

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.NOTHING


class _Mixture(torch.autograd.Function):
    """Computes y_i = sum_j a_ij x_j over the subspaces x_j of all states, in one matrix product.

    Torch walks through slices of channels almost one by one. With a product for each pair of subspaces a step of
    `SplitSluice` spent most of its time on that.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(a.device.type, enabled=False):  # states keep their precision, as in the sum of products
            parts = _subspaces(states, len(a))
            ctx.save_for_backward(a, parts)
            return _mixed(a, parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        a, parts = ctx.saved_tensors
        given = _subspaces(gradients, len(a))
        return given.flatten(1) @ parts.flatten(1).T, *_mixed(a.T, given)


def _subspaces(states: Sequence[Tensor], count: int) -> Tensor:
    """Cuts the channels of states (N, C, H, W) into `count` parts in all, (count, N, H, W, C'), in memory of their
    own."""
    parts = [part for state in states for part in state.permute(0, 2, 3, 1).chunk(count // len(states), dim=3)]
    return torch.stack(parts)


def _mixed(a: Tensor, parts: Tensor) -> tuple[Tensor, ...]:
    """Returns the states whose subspaces are ``a @ parts``."""
    mixed = (a.to(parts.dtype) @ parts.flatten(1)).view_as(parts)
    return tuple(torch.cat([*state], dim=3).permute(0, 3, 1, 2) for state in mixed.chunk(COLUMNS))


class CrossStitch(Exchange):
    """y_i = sum_j a_ij x_j with scalars a: cross-stitch units (Misra et al. 2016, eq. 1).

    At the start a is 0.9 for a task's own features and 0.1 for the other's.
    """

    groups = 1
    initial = 0.9, 0.1

    def __init__(self, width: int, own: float) -> None:
        super().__init__(width, own)
        size, (same, other) = COLUMNS * self.groups, self.initial
        self.a = nn.Parameter(torch.full((size, size), other).fill_diagonal_(same))

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        if self.groups > 1 and wants_gradients():
            return list(_Mixture.apply(self.a, *states))
        # litert-torch refuses a program that cuts channels into one part.
        parts = [part for state in states for part in state.chunk(self.groups, dim=1)] if self.groups > 1 else states
        mixed = [_sum(a * part for a, part in zip(row, parts, strict=True)) for row in self.a]
        return [concatenated(*mixed[start : start + self.groups]) for start in range(0, len(mixed), self.groups)]

    @classmethod
    def cost(cls, width: int, pixels: int) -> Cost:
        return Cost(params=(COLUMNS * cls.groups) ** 2, macs=0)


class ChannelCrossStitch(Exchange):
    """y_i = sum_j a_ij x_j with one a_ij for each channel (Misra et al. 2016, section 3.2).

    At the start a is 0.9 for a task's own features and 0.1 for the other's.
    """

    def __init__(self, width: int, own: float) -> None:
        super().__init__(width, own)
        self.a = nn.Parameter(torch.full((COLUMNS, COLUMNS), 0.1).fill_diagonal_(0.9)[..., None].repeat(1, 1, width))

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        return [_sum(a[:, None, None] * state for a, state in zip(row, states, strict=True)) for row in self.a]

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return Cost(params=COLUMNS**2 * width, macs=0)


class Sluice(CrossStitch):
    """Sluice network (Ruder et al. 2019, AAAI): cross-stitch units, and all layers mixed at the last one."""

    gather = LayerMix


class SplitSluice(Sluice):
    """Sluice network with G = 2 subspaces of each task's channels: a is 4 x 4, at the start 0.95 on the diagonal and
    0.05 off it.

    The penalty is 0.1 * ||G1' G2||_F^2 for each task and stage. It vanishes when the subspaces are orthogonal. The
    columns of G_g are the weights of the units that write subspace g; here these are the units of a stage's last
    convolution.
    """

    groups = 2
    initial = 0.95, 0.05
    weight = 0.1

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        halves = (weight.flatten(1).chunk(2) for weight in weights)
        return self.weight * _sum((first @ second.T).square().sum() for first, second in halves)


class Nddr(Exchange):
    """y_i = ReLU(BN_i(W_i [x_1, x_2])), with 1x1 convolutions W_i without bias: NDDR-CNN (Gao et al. 2019, eq. 4).

    W_i starts as `own` * I on the task's own features and (1 - `own`) * I on the other's. BN has the momentum 0.05.
    """

    gather = Shortcut

    def __init__(self, width: int, own: float) -> None:
        super().__init__(width, own)
        mixtures = torch.full((COLUMNS, COLUMNS), 1 - own).fill_diagonal_(own)
        self.tasks = nn.ModuleList(
            nn.Sequential(_diagonal(mixture, width), nn.BatchNorm2d(width, momentum=0.05), nn.ReLU())
            for mixture in mixtures
        )

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        joined = concatenated(*states)
        return [task(joined) for task in self.tasks]

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        one = cost.conv(COLUMNS * width, width, 1, pixels, bias=False), Cost(params=2 * width, macs=0)
        return cost.total(*one * COLUMNS)


SHARINGS: Mapping[spec.Sharing, type[Exchange]] = {
    "none": Exchange,
    "cross_stitch": CrossStitch,
    "channel_cross_stitch": ChannelCrossStitch,
    "sluice": Sluice,
    "sluice_2": SplitSluice,
    "nddr": Nddr,
}


def resized(features: Tensor, like: Tensor) -> Tensor:
    """Resizes features (N, C, H, W) bilinearly to the height and width of `like`."""
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _fitted(features: Tensor, like: Tensor) -> Tensor:
    """Gives features the size and the width of `like`, in channels-last memory.

    Channels that are too many are averaged before they are resized, which is the same and less work.
    """
    width = like.shape[1]
    if features.shape[1] > width:
        averaged = features.permute(0, 2, 3, 1).unflatten(3, (-1, width)).mean(dim=3).permute(0, 3, 1, 2)
        return resized(averaged, like)
    return concatenated(*[resized(features, like)] * (width // features.shape[1]))


def _diagonal(weights: Tensor, width: int) -> nn.Conv2d:
    """Makes a 1x1 convolution of concatenated states that starts as their weighted sum."""
    layer = nn.Conv2d(len(weights) * width, width, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.kron(weights[None], torch.eye(width))[:, :, None, None])
    return layer


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
