"""What a recipe does about unequal classes, and the smoothing of labels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from nas.data.splits import Dataset, Split
from nas.training.batches import DeviceData
from nas.training.evaluation import judge
from nas.training.loop import Training, balanced_weights
from nas.types import Recipe, Task

TASK = Task(channels=1, classes=3, height=4, width=4, noise="gaussian:50")
RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=0.0, weight_decay=0.0, classification_weight=1.0)
COUNTS = (80, 20, 0)
LOGITS = (1.0, 0.0, -2.0)
LOSSES = -torch.tensor(LOGITS, dtype=torch.float64).log_softmax(0)


class Constant(nn.Module):
    """Answers the same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(LOGITS))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        return noisy * self.scale, self.logits.expand(len(noisy), -1)


def training(**changes: Any) -> Training:
    labels = np.repeat(np.arange(3), COUNTS).astype(np.int64)
    split = Split(np.zeros((len(labels), 1, 4, 4), np.uint8), labels)
    data = Dataset("made", train=split, validation=split, test=split, classes=("a", "b", "c"), fingerprint="00ff")
    recipe = dataclasses.replace(RECIPE, **changes)
    return Training(Constant(), TASK, recipe, DeviceData.of(data, TASK, torch.device("cpu")), seed=0)


def trained_loss(**changes: Any) -> float | None:
    """The mean classification loss of an epoch in which nothing is learned."""
    return training(**changes).run_epoch()[1]


def test_balanced_weights_are_scikit_learns() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [3])
    wanted = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    weights = balanced_weights(labels, 4)
    assert weights[[0, 1, 3]].tolist() == pytest.approx(wanted.tolist())
    assert weights[2] == 0
    assert weights[labels].mean().item() == pytest.approx(1.0)


def test_classes_count_by_their_images_or_alike() -> None:
    assert trained_loss() == pytest.approx(float(0.8 * LOSSES[0] + 0.2 * LOSSES[1]))
    assert trained_loss(class_weights="balanced") == pytest.approx(float(LOSSES[:2].mean()))


def test_sampling_draws_classes_alike() -> None:
    seen: list[int] = []
    run = training(class_weights="sampled")
    original = run.data.batch

    def batch(rows: Tensor, generator: torch.Generator) -> Any:
        seen.extend(rows.tolist())
        return original(rows, generator)

    object.__setattr__(run, "data", _With(run.data, batch))
    loss = run.run_epoch()[1]
    share = np.mean(np.array(seen) >= COUNTS[0])
    assert len(seen) == sum(COUNTS), "an epoch is as long as before"
    assert share == pytest.approx(0.5, abs=0.15)
    assert loss == pytest.approx(float((1 - share) * LOSSES[0] + share * LOSSES[1]))


class _With:
    """Data whose batches are made by another function."""

    def __init__(self, data: Any, batch: Any) -> None:
        self._data, self.batch = data, batch

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


def test_smoothing_spreads_a_part_of_the_target() -> None:
    every = float(LOSSES.mean())
    plain = float(0.8 * LOSSES[0] + 0.2 * LOSSES[1])
    assert trained_loss(label_smoothing=0.3) == pytest.approx(0.7 * plain + 0.3 * every)
    both = trained_loss(label_smoothing=0.3, class_weights="balanced")
    assert both == pytest.approx(0.7 * float(LOSSES[:2].mean()) + 0.3 * every)


@pytest.mark.parametrize("weights", ["none", "balanced", "sampled"])
def test_probes_compare_whatever_the_recipe_and_validation_counts_classes_as_the_training_does(weights: str) -> None:
    run = training(class_weights=weights, label_smoothing=0.3)
    labels = run.data.probe[2]
    assert labels is not None
    assert run.probe_curve().classify[0] == pytest.approx(float(LOSSES[labels].mean()) / math.log(3))
    alike, by_images = float(LOSSES[:2].mean()), float(0.8 * LOSSES[0] + 0.2 * LOSSES[1])
    found = judge(run.network, run.data.validation, class_weights=run.class_weights).classify
    assert found == pytest.approx(by_images if weights == "none" else alike)
