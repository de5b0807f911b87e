"""Learned parameters and multiply-accumulates (MACs) from shapes alone, without torch.

The parts of the network compose their cost from these primitives, as in pycls ``models/blocks.py``. MACs count
convolutions and linear layers for one image, but no biases, normalisation, pooling or element-wise operations. They are
half of the count of ``torch.utils.flop_counter.FlopCounterMode``.
"""

from __future__ import annotations

from functools import lru_cache

from nas.types import Cost

SHAPES = 2**16
"""Layers whose cost is kept. A search asks for the same few shapes over and over."""

NOTHING = Cost(params=0, macs=0)


def total(*costs: Cost) -> Cost:
    """Adds up parameters and MACs."""
    params = macs = 0
    for cost in costs:
        params += cost.params
        macs += cost.macs
    return Cost(params=params, macs=macs)


@lru_cache(maxsize=SHAPES)
def conv(inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = True) -> Cost:
    """Returns the cost of a square convolution that writes `pixels` pixels in each of `outputs` channels."""
    weights = inputs * outputs * kernel**2
    return Cost(params=weights + bias * outputs, macs=weights * pixels)


@lru_cache(maxsize=SHAPES)
def linear(inputs: int, outputs: int) -> Cost:
    """Returns the cost of a linear layer with bias on one vector."""
    return Cost(params=(inputs + 1) * outputs, macs=inputs * outputs)
