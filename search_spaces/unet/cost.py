"""Learned parameters and multiply-accumulates (MACs) from shapes alone. No torch.

The parts of the network have their cost beside them, as in pycls ``models/blocks.py``, made of these
primitives. MACs are those of convolutions and linear layers for one image, half of what
``torch.utils.flop_counter.FlopCounterMode`` counts: no biases, normalisation, pooling or element-wise work.
"""

from __future__ import annotations

from nas.types import Cost

NOTHING = Cost(params=0, macs=0)


def total(*costs: Cost) -> Cost:
    """Sum of both quantities."""
    return Cost(params=sum(cost.params for cost in costs), macs=sum(cost.macs for cost in costs))


def conv(inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = True) -> Cost:
    """A square convolution that writes `pixels` pixels of each of `outputs` channels."""
    weights = inputs * outputs * kernel**2
    return Cost(params=weights + bias * outputs, macs=weights * pixels)


def linear(inputs: int, outputs: int) -> Cost:
    """A linear layer with bias on one vector."""
    return Cost(params=(inputs + 1) * outputs, macs=inputs * outputs)
