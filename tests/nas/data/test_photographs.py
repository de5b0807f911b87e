"""Photographs on disk, mapped, and the patches that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import folders
from nas.data.augmentation import NONE, TURNS
from nas.data.image_file import ImageFile
from nas.data.images import open_images
from nas.data.noise import parse_noise
from nas.data.photographs import Photographs
from nas.data.raw import TEST, TRAIN, VALIDATION
from nas.data.splits import load, photographs
from nas.errors import ConfigError, DataError
from nas.training.patches import Patches, _images

NOISE = parse_noise("gaussian:25")
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten gray photographs of their own sizes; pixel values tell the photograph."""
    made = tmp_path / "photographs"
    made.mkdir()
    for i in range(10):
        Image.fromarray(np.full((40 + i, 50 + 2 * i), 20 * i, np.uint8)).save(made / f"{i}.png")
    return made


def patches(photographs: Photographs, **changes: object) -> Patches:
    given = {"patch": 32, "per_epoch": 200, "augmentation": TURNS, "device": CPU, **changes}
    return Patches(photographs, **{"noise": NOISE} | given)  # type: ignore[arg-type]


def test_every_photograph_is_read_and_none_is_in_two_splits(folder: Path, tmp_path: Path) -> None:
    found = Photographs.read(f"images:{folder}", tmp_path)
    assert found.channels == 1
    assert [found[i].shape for i in range(10)] == [(40 + i, 50 + 2 * i, 1) for i in range(10)]
    assert [int(found[i].max()) for i in range(10)] == [20 * i for i in range(10)]
    assert sorted(found.of(TRAIN) + found.of(VALIDATION) + found.of(TEST)) == list(range(10))
    assert [len(found.of(part)) for part in (TRAIN, VALIDATION, TEST)] == [6, 2, 2]
    assert Photographs.read(f"images:{folder}", tmp_path).fingerprint == found.fingerprint
    assert isinstance(found[3], np.memmap)
    assert [path for path in tmp_path.iterdir() if path != folder] == [], "the decoded file has no name"


def test_the_splits_are_those_of_a_search_on_the_folder(folder: Path, tmp_path: Path) -> None:
    source = f"images:{folder}"
    found = Photographs.read(source, tmp_path)
    assert found.fingerprint == load(source).fingerprint
    for name, part in (("validation", VALIDATION), ("test", TEST)):
        paths, _, _ = photographs(source, name, seen=None)
        assert [found.paths[index] for index in found.of(part)] == paths


def test_one_colour_photograph_makes_all_colour_and_16_bits_are_kept(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((44, 44, 3), (10, 20, 30), np.uint8)).save(folder / "colour.png")
    deep = np.add.outer(np.arange(44), 1000 * np.arange(44)).astype(np.uint16) + 20000
    Image.fromarray(deep).save(folder / "deep.png")
    found = Photographs.read(f"images:{folder}", tmp_path)
    assert found.channels == 3
    assert found[10][0, 0].tolist() == [10, 20, 30]
    np.testing.assert_array_equal(found[11][..., 1], deep.astype(np.float32) / np.float32(65535))
    assert found[4][0, 0].tolist() == [80, 80, 80]
    assert (found.shapes[4], found.shapes[10]) == ((44, 58, 1), (44, 44, 3)), "gray ones take a third of the room"
    data = patches(found)
    assert data.probe[0].shape[1] == 3
    clean = _images([found[4][:40, :40], found[11][:40, :40]])
    assert clean[0, 0, 0, 0] == pytest.approx(80 / 255)
    assert clean[1, 0, 3, 2] == pytest.approx(22003 / 65535)


def test_own_splits_are_kept(tmp_path: Path) -> None:
    for name, value in (("train", 10), ("val", 20), ("test", 30)):
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.new("L", (40, 40), value).save(tmp_path / "own" / name / "a.png")
    found = Photographs.read(f"images:{tmp_path / 'own'}", tmp_path)
    assert [int(found[found.of(part)[0]].max()) for part in (TRAIN, VALIDATION, TEST)] == [10, 20, 30]


def test_patches_come_from_training_photographs_by_area(folder: Path, tmp_path: Path) -> None:
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    data = patches(photographs, per_epoch=2000)
    generator = torch.Generator().manual_seed(0)
    rows = data.order(generator)
    _, clean, labels, _ = data.batch(rows, generator)
    assert labels is None
    assert clean.shape == (2000, 1, 32, 32)
    values = torch.round(clean[:, 0, 0, 0] * 255 / 20).long().tolist()
    train = photographs.of(TRAIN)
    assert set(values) == set(train)
    areas = np.array([np.prod(photographs.shapes[i]) for i in train])
    shares = np.array([values.count(i) for i in train]) / 2000
    np.testing.assert_allclose(shares, areas / areas.sum(), atol=0.04)


def test_patches_lie_anywhere_in_a_photograph(tmp_path: Path) -> None:
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8), (64, 64))
    for name, shown in (("train", columns), ("val", columns[:, ::-1]), ("test", columns.T)):
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / "own" / name / "a.png")
    data = patches(Photographs.read(f"images:{tmp_path / 'own'}", tmp_path), augmentation=NONE)
    generator = torch.Generator().manual_seed(0)
    _, clean, *_ = data.batch(data.order(generator), generator)
    assert set(torch.round(clean[:, 0, 0, 0] * 255).int().tolist()) == set(range(33))


def test_validation_sees_the_same_noise_each_time(folder: Path, tmp_path: Path) -> None:
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    first, second = patches(photographs), patches(photographs)
    assert len(first.validation) == 2, "two sizes, two batches"
    for (noisy, clean, *_), (again, *_) in zip(first.validation, second.validation, strict=True):
        torch.testing.assert_close(noisy, again, rtol=0, atol=0)
        assert abs(float((noisy - clean).std()) - 25 / 255) < 0.01
    assert first.trivial == pytest.approx((25 / 255) ** 2, rel=0.05)


def test_validation_does_not_depend_on_the_patches(folder: Path, tmp_path: Path) -> None:
    """Runs with another --patch are compared on the same images."""
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    first, second = patches(photographs, patch=32), patches(photographs, patch=16)
    assert first.probe[0].shape != second.probe[0].shape
    for (noisy, *_), (other, *_) in zip(first.validation, second.validation, strict=True):
        torch.testing.assert_close(noisy, other, rtol=0, atol=0)


def test_what_is_judged_and_probed_is_the_same_on_every_device(folder: Path, tmp_path: Path) -> None:
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    meta = torch.device("meta")
    here, elsewhere = patches(photographs), patches(photographs, device=meta)
    assert elsewhere.trivial == here.trivial
    assert {noisy.device for noisy, *_ in (elsewhere.probe, *elsewhere.validation)} == {meta}


def test_an_epoch_s_patches_are_drawn_at_once(folder: Path, tmp_path: Path) -> None:
    """So that a step on a GPU waits for nothing; and a run that goes on in an epoch sees the rest of its patches."""
    data = patches(Photographs.read(f"images:{folder}", tmp_path), augmentation=NONE, noise=parse_noise("none"))
    order = data.order(torch.Generator().manual_seed(0))
    assert (order.shape, order.device) == ((200, 3), CPU)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    _, whole, *_ = data.batch(order, generator)
    _, rest, *_ = data.batch(order[150:], generator)
    assert torch.equal(whole[150:], rest)
    assert torch.equal(generator.get_state(), before), "nothing is drawn as they are cut"


def test_every_photograph_is_decoded_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def count(path: Path, level: Callable[[ImageFile], float]) -> list[Image.Image]:
        decoded.append(path.name)
        return open_images(path, level)

    monkeypatch.setattr(folders, "open_images", count)
    Photographs.read(f"images:{folder}", tmp_path)
    assert sorted(decoded) == [f"{i}.png" for i in range(10)]


def test_small_photographs_are_left_out_and_too_large_a_patch_is_refused(folder: Path, tmp_path: Path) -> None:
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    chosen = patches(photographs, patch=45).chosen
    assert chosen == [i for i in photographs.of(TRAIN) if i >= 5]
    with pytest.raises(DataError, match=r"no photograph holds a patch of 64; a `patch` of \d+ would fit"):
        patches(photographs, patch=64)


def test_a_subset_is_of_photographs(folder: Path, tmp_path: Path) -> None:
    photographs = Photographs.read(f"images:{folder}", tmp_path)
    assert len(patches(photographs, subset=2).chosen) == 2
    with pytest.raises(ConfigError, match="subset 7: must be 1 to 6"):
        patches(photographs, subset=7)
