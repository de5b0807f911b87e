"""A small network on the digits that scikit-learn brings, and a bundle of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nas.bundles.export import export_bundle
from nas.data.splits import Split
from nas.types import Candidate, Recipe, Task
from search_spaces import get_space

SPACE = get_space("unet")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
CLASSES = tuple("0123456789")
SPEC = {
    "levels": 2,
    "width": 4,
    "growth": "doubling",
    "fusion": "add",
    "gate": "scalar",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
}
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.001, weight_decay=0.0, classification_weight=0.1)
FACTS = {
    "study": "digits-gaussian-50",
    "trial": 17,
    "seed": 4711,
    "data": "digits",
    "images": {"train": 1077, "validation": 360, "test": 360},
    "values": {"psnr": 20.125, "accuracy": 97.53, "stability": 0.8761, "noisy_psnr": 14.61, "latency": 0.4321},
    "split": "validation",
    "hardware": "Abacus 3000, 1 thread",
}


def digits(count: int) -> Split:
    """The first digits, (count, 1, 8, 8) uint8."""
    data = load_digits()
    images = (data.images[:count, None] * (255 / 16)).round().astype("uint8")
    return Split(images, data.target[:count].astype("int64"))


def noisy_digits(count: int) -> Tensor:
    clean = torch.tensor(digits(count).images) / 255
    return clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * (50 / 255)


def candidate(**changes: Any) -> Candidate:
    return Candidate(spec=SPACE.spec(SPEC | changes), recipe=RECIPE)


def network_of(one: Candidate, task: Task = TASK) -> nn.Module:
    """As training leaves it: statistics of normalisation from data, channels last, training mode."""
    torch.manual_seed(0)
    network = SPACE.build(one.spec, task).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(16, task.channels, task.height, task.width)
    with torch.no_grad():
        network.train()(images)
    return network


def write_bundle(target: Path, one: Candidate, network: nn.Module, task: Task = TASK, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "classes": CLASSES if task.classifies else (),
        "images": noisy_digits(6),
        "facts": FACTS,
    }
    return export_bundle(target, space=SPACE, candidate=one, task=task, network=network, **(arguments | changes))
