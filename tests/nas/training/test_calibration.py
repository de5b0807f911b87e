"""Noisy training images that show an int8 program the ranges of its activations."""

from __future__ import annotations

from typing import Any

import torch

from nas.data.splits import load, to_float
from nas.training.batches import DeviceData, NoisyBatch, calibration


def test_they_are_training_images_under_the_noise_of_training() -> None:
    data = load("digits", subset=100)
    drawn = DeviceData.of(data, data.task("gaussian:50"), torch.device("cpu"))
    shown = calibration(drawn, 16, seed=3)
    assert shown.shape == (16, 1, 8, 8)
    clean = to_float(drawn.images)
    apart = [(clean - image).square().mean((1, 2, 3)).sqrt().min().item() for image in shown]
    assert max(apart) < 0.3  # the noise alone, 0.2, lies between each and a training image
    assert torch.equal(calibration(drawn, 16, seed=3), shown)
    assert not torch.equal(calibration(drawn, 16, seed=4), shown)


class Elsewhere:
    """Training data on another device, which takes generators of that device alone, as CUDA does."""

    device = torch.device("meta")

    def order(self, generator: Any) -> torch.Tensor:
        assert generator.device == self.device
        return torch.arange(4)

    def batch(self, rows: torch.Tensor, generator: Any) -> NoisyBatch:
        assert generator.device == self.device
        images = torch.rand(len(rows), 1, 2, 2)
        return NoisyBatch(images, images)


def test_they_are_drawn_on_the_device_of_the_training(monkeypatch: Any) -> None:
    class Generator:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def manual_seed(self, seed: int) -> Generator:
            return self

    monkeypatch.setattr(torch, "Generator", Generator)
    assert calibration(Elsewhere(), 3, seed=0).shape == (3, 1, 2, 2)  # type: ignore[arg-type]
