"""Heads that turn features into class logits. AddUNet does not specify its classifier, so the search chooses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.types import Cost
from search_spaces.unet import cost
from search_spaces.unet.blocks import pixel_mean


class Head(nn.Module):
    """Averages features (N, C_i, H_i, W_i) over all pixels and applies linear layers, to logits (N, K).

    Dropout stands in front of each linear layer, and GELU behind each hidden one. GELU replaces ReLU because pooled
    features differ little between images: about one in 250 hidden layers of 8 ReLUs is silent for all of them.
    """

    def __init__(self, inputs: int, classes: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += nn.Dropout(dropout), nn.Linear(inputs, width), nn.GELU()
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(inputs, classes))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.layers(torch.cat([pixel_mean(each).flatten(1) for each in features], dim=1))
        return logits

    @staticmethod
    def cost(inputs: int, classes: int, hidden: int, width: int) -> Cost:
        sides = (inputs, *[width] * hidden, classes)
        return cost.total(*map(cost.linear, sides, sides[1:]))


class NoHead(nn.Module):
    """Returns zeros as logits (N, K), for networks that do not learn to classify."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return features[0].new_zeros((features[0].shape[0], self.classes))
