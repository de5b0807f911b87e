"""Symmetries of images, by what the data shows."""

from __future__ import annotations

import pytest
import torch

from nas.data.augmentation import MIRRORS, NONE, TURNS, Augmentation
from nas.data.sources import SOURCES, augmentation_for
from nas.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "wanted", "found"),
    [
        ("digits", None, NONE),
        ("svhn", None, NONE),
        ("folder:/parts", None, NONE),
        ("folder:/parts", True, MIRRORS),
        ("fashion-mnist", None, MIRRORS),
        ("cifar10", False, NONE),
        ("photos", None, TURNS),
        ("images:/scans", None, TURNS),
        ("images:/scans", False, NONE),
        ("eurosat", None, TURNS),
        ("emnist", None, NONE),
    ],
)
def test_the_source_decides(source: str, wanted: bool | None, found: Augmentation) -> None:
    assert augmentation_for(source, wanted) == found


def test_nothing_is_assumed_of_a_folder_of_classes_alone() -> None:
    unknown = [name for name, source in SOURCES.items() if source.symmetries is None]
    assert unknown == ["folder", "csv", "npz", "pairs", "noisy", "noisy-shots", "noisy-single"]
    assert augmentation_for("pairs:/scans", labelled=False) == TURNS


def test_digits_are_never_turned() -> None:
    with pytest.raises(ConfigError, match="would change what mnist shows"):
        augmentation_for("mnist", True)


@pytest.mark.parametrize(("augmentation", "symmetries"), [(NONE, 1), (MIRRORS, 2), (TURNS, 8)])
def test_each_image_is_under_one_of_its_symmetries_and_all_occur(augmentation: Augmentation, symmetries: int) -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    made = augmentation.apply(image.expand(500, 1, 3, 3), torch.Generator().manual_seed(0))
    turned = [torch.rot90(image, k, (1, 2)) for k in range(4)]
    allowed = {tuple(each.flatten().tolist()) for each in (*turned, *(t.flip(2) for t in turned))}
    found = {tuple(each.flatten().tolist()) for each in made}
    assert found <= allowed
    assert len(found) == symmetries


def test_oblong_images_keep_their_shape() -> None:
    images = torch.rand(20, 3, 4, 6)
    assert TURNS.apply(images, torch.Generator().manual_seed(0)).shape == images.shape
