"""Corruptions: every level is a noise by name, and a stronger level changes an image more."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from skimage.data import camera

from nas.data.corruptions import CLEAN, CORRUPTIONS, levels_of_corruption
from nas.data.noise import parse_noise


def test_levels_are_clean_images_and_five_strengths_of_each_kind() -> None:
    levels = list(levels_of_corruption())
    assert levels[0] == (CLEAN, 0, "none")
    assert len(levels) == 1 + 5 * len(CORRUPTIONS)
    assert levels[5] == ("gaussian noise", 5, "gaussian:100")
    assert [parse_noise(words).name for _, _, words in levels] == [words for _, _, words in levels]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_stronger_level_changes_an_image_more(kind: str) -> None:
    image = torch.from_numpy(camera()[100:356, 100:356]).float()[None, None] / 255
    errors = [
        float((parse_noise(words).add(image, torch.Generator().manual_seed(0)) - image).square().mean())
        for words in CORRUPTIONS[kind]
    ]
    assert errors[0] > 0
    assert all(weak < strong for weak, strong in pairwise(errors))
