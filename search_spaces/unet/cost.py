"""Learned parameters and multiply-accumulates (MACs) from shapes alone, without torch.

The parts of the network compose their cost from these primitives, as in pycls ``models/blocks.py``. MACs count
convolutions and linear layers for one image, but no biases, normalisation, pooling or element-wise operations. They are
half of the count of ``torch.utils.flop_counter.FlopCounterMode``.
"""

from __future__ import annotations

from nas.types import Cost

NOTHING = Cost(params=0, macs=0)


def total(*costs: Cost) -> Cost:
    """Adds up parameters and MACs."""
    return Cost(params=sum(cost.params for cost in costs), macs=sum(cost.macs for cost in costs))


def conv(inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = True) -> Cost:
    """Returns the cost of a square convolution that writes `pixels` pixels in each of `outputs` channels."""
    weights = inputs * outputs * kernel**2
    return Cost(params=weights + bias * outputs, macs=weights * pixels)


def linear(inputs: int, outputs: int) -> Cost:
    """Returns the cost of a linear layer with bias on one vector."""
    return Cost(params=(inputs + 1) * outputs, macs=inputs * outputs)
