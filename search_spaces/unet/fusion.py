"""How a decoder state u takes in a skip s of its level, both (N, C, H, W): a gate on s, then a fusion.

A new fusion is a class here and an entry in `FUSIONS`, and its name in `spec.Fusion`; so is a new gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost
from search_spaces.unet import cost, spec


class Gate(nn.Module):
    """Multiplies a skip by learned non-spatial weights. The base class has none: s."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def value(self) -> Tensor | None:
        """What the skip is multiplied by, () or (C,); None when nothing is learned."""
        return None

    def forward(self, skip: Tensor) -> Tensor:
        return skip

    @staticmethod
    def cost(width: int) -> Cost:
        return cost.NOTHING


class ScalarGate(Gate):
    """softplus(b) * s with one b, the gate of AddUNet (arXiv 2601.13208). Starts at 1, as b = ln(e - 1).

    The paper does not give its initial value.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.b = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def value(self) -> Tensor:
        return F.softplus(self.b)

    def forward(self, skip: Tensor) -> Tensor:
        return self.value() * skip

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(params=1, macs=0)


class ChannelGate(Gate):
    """g_c * s with one g for each channel, of either sign. Starts at 1."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.g = nn.Parameter(torch.ones(width))

    def value(self) -> Tensor:
        return self.g

    def forward(self, skip: Tensor) -> Tensor:
        return self.g[:, None, None] * skip

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(params=width, macs=0)


GATES: Mapping[spec.Gate, type[Gate]] = {"none": Gate, "scalar": ScalarGate, "channel": ChannelGate}


class Fusion(nn.Module):
    """Joins the state and the gated skip. The base class ignores the skip: u.

    Attributes:
        multiple: channels of the result, in units of C.
    """

    multiple = 1

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return state

    @staticmethod
    def cost(width: int, pixels: int) -> Cost:
        return cost.NOTHING


class Concat(Fusion):
    """[u, s], the fusion of U-Net (Ronneberger et al. 2015): 2C channels."""

    multiple = 2

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((state, skip), dim=1)


class Add(Fusion):
    """u + s, the fusion of AddUNet (arXiv 2601.13208)."""

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return state + skip


FUSIONS: Mapping[spec.Fusion, type[Fusion]] = {"none": Fusion, "concat": Concat, "add": Add}
