"""What reads class logits from features. AddUNet does not give its classifier; these choices are searched."""

from __future__ import annotations

from torch import Tensor, nn

from nas.types import Cost
from search_spaces.unet import cost


class Head(nn.Module):
    """Mean over all pixels, then linear layers: features (N, C, H, W) -> logits (N, K).

    Dropout stands in front of each linear layer, GELU behind each hidden one. Not ReLU: pooled features
    differ little between images, and about one in 250 hidden layers of 8 ReLUs is silent for all of them.
    """

    def __init__(self, inputs: int, classes: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += nn.Dropout(dropout), nn.Linear(inputs, width), nn.GELU()
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(inputs, classes))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features.mean(dim=(2, 3)))
        return logits

    @staticmethod
    def cost(inputs: int, classes: int, hidden: int, width: int) -> Cost:
        sides = (inputs, *[width] * hidden, classes)
        return cost.total(*map(cost.linear, sides, sides[1:]))


class NoHead(nn.Module):
    """No classes: features (N, C, H, W) -> (N, 0)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros((features.shape[0], 0))
