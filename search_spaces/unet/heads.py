"""Heads that turn features into class logits. AddUNet does not specify its classifier, so the search chooses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost
from search_spaces.unet import cost
from search_spaces.unet.blocks import pixel_mean
from search_spaces.unet.spec import HeadNorm


class FeatureNorm(nn.BatchNorm1d):
    """Normalises pooled features (N, C) by the mean and variance of the batch, without scale and shift.

    The mean of a feature over all pixels differs little between images. It differs least where the feature belongs to a
    shallow level or was only pooled on its way down (the Haar encoder). A linear layer on such means begins with nearly
    the same logits for every image, and takes most of a short training to grow out of that. Scale and shift would
    repeat what the linear layer does.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) == 1:  # the last batch of an epoch: one image has no variance
            return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(features)


class Head(nn.Module):
    """Averages features (N, C_i, H_i, W_i) over all pixels and applies linear layers, to logits (N, K).

    The norm ``batch`` normalises the averages first (see `FeatureNorm`).
    Dropout stands in front of each linear layer, and GELU behind each hidden one. GELU replaces ReLU because pooled
    features differ little between images: about one in 250 hidden layers of 8 ReLUs is silent for all of them.
    """

    def __init__(
        self, inputs: int, classes: int, hidden: int, width: int, dropout: float, norm: HeadNorm = "none"
    ) -> None:
        super().__init__()
        self.norm = FeatureNorm(inputs) if norm == "batch" else nn.Identity()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += nn.Dropout(dropout), nn.Linear(inputs, width), nn.GELU()
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(inputs, classes))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        pooled = torch.cat([pixel_mean(each).flatten(1) for each in features], dim=1)
        logits: Tensor = self.layers(self.norm(pooled))
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
