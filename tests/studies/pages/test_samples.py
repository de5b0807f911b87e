"""What was removed from images: its autocorrelation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.pages.samples import REACH, autocorrelation


def noise(height: int, width: int, channels: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (channels, height, width)))


@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_has_none(channels: int) -> None:
    found = autocorrelation(3 + noise(200, 160, channels))
    assert found.shape == (2 * REACH + 1, 2 * REACH + 1)
    assert found[REACH, REACH] == pytest.approx(1)
    found[REACH, REACH] = 0
    assert float(found.abs().max()) < 0.05


def test_neighbours_that_share_noise_are_alike() -> None:
    white = noise(200, 200)
    found = autocorrelation((white[..., :-1] + white[..., 1:]) / 2)
    assert found[REACH, REACH + 1] == pytest.approx(0.5, abs=0.02)
    assert found[REACH, REACH - 1] == pytest.approx(0.5, abs=0.02)
    assert found[REACH + 1, REACH] == pytest.approx(0, abs=0.02)
    assert found[REACH, REACH + 2] == pytest.approx(0, abs=0.02)


def test_rows_that_share_noise_are_alike_however_far() -> None:
    found = autocorrelation(noise(200, 1).expand(1, 200, 160))
    assert found[REACH].tolist() == pytest.approx([1] * (2 * REACH + 1))
    assert found[REACH + 3, REACH] == pytest.approx(0, abs=0.15)


def test_small_and_flat_images_have_one_too() -> None:
    assert autocorrelation(noise(8, 11)).shape == (9, 9)
    assert not autocorrelation(torch.full((1, 16, 16), 0.3)).any()
