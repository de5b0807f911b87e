"""Arrays of images and labels in one file: the right images and classes, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.data.npz import read_npz
from nas.data.raw import TEST, TRAIN, VALIDATION
from nas.data.splits import load
from nas.errors import DataError, SkipnasError

RNG = np.random.default_rng(0)
COUNTS = {"train": 40, "val": 10, "test": 12}


def images(count: int, *shape: int) -> Any:
    found = RNG.integers(0, 256, (count, *(shape or (28, 28))), dtype=np.uint8)
    found[:1] = 255
    return found


def medmnist(shape: tuple[int, ...] = (28, 28)) -> dict[str, Any]:
    """Arrays as MedMNIST's files have them."""
    found: dict[str, Any] = {}
    for name, count in COUNTS.items():
        found[f"{name}_images"] = images(count, *shape)
        found[f"{name}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    return found


def written(folder: Path, arrays: dict[str, Any]) -> str:
    np.savez(folder / "set.npz", **arrays)
    return f"npz:{folder / 'set.npz'}"


def test_its_splits_and_labels_are_read(tmp_path: Path) -> None:
    arrays = medmnist()
    data = load(written(tmp_path, arrays))
    for split, name in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        assert split.labels is not None
        np.testing.assert_array_equal(split.images[:, 0], arrays[f"{name}_images"])
        np.testing.assert_array_equal(split.labels, arrays[f"{name}_labels"][:, 0])
    assert (data.classes, data.has_own_splits, data.train.images.dtype) == (("0", "1"), True, np.dtype("uint8"))


@pytest.mark.parametrize("shape", [(28, 28, 3), (3, 28, 28), (64, 64, 1), (1, 64, 64)])
def test_channels_are_found_where_they_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = medmnist(shape)
    given = arrays["train_images"]
    right = given if shape[0] in (1, 3) else given.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(load(written(tmp_path, arrays)).train.images, right)


def test_images_of_224_pixels_become_squares_of_64(tmp_path: Path) -> None:
    arrays = medmnist((224, 224, 3))
    for name in ("train", "val", "test"):
        arrays[f"{name}_images"] = arrays[f"{name}_images"][:6]
        arrays[f"{name}_labels"] = arrays[f"{name}_labels"][:6]
    arrays["train_images"][0] = 200
    data = load(written(tmp_path, arrays))
    assert data.train.images.shape == (6, 3, 64, 64)
    assert (data.train.images[0] == 200).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64"])
def test_whole_numbers_up_to_255_are_levels_whatever_their_type(tmp_path: Path, dtype: str) -> None:
    arrays = medmnist()
    right = arrays["train_images"]
    typed = {name: each.astype(dtype) if name.endswith("images") else each for name, each in arrays.items()}
    found = load(written(tmp_path, typed)).train.images
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, 0], right)


def test_fractions_stay_what_they_are(tmp_path: Path) -> None:
    arrays = medmnist()
    typed = {name: each / 255 if name.endswith("images") else each for name, each in arrays.items()}
    found = load(written(tmp_path, typed)).train.images
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], arrays["train_images"] / 255, rtol=1e-6)
    rounded = {name: each * (1 + 1e-6) if name.endswith("images") else each for name, each in typed.items()}
    found = load(written(tmp_path, rounded)).train.images
    np.testing.assert_allclose(found[:, 0], arrays["train_images"] / 255, rtol=2e-6)
    assert found.max() == 1


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1, 2, 3, 4], ("1", "2", "3", "4")),
        ([7.0, 3.0, 3.0, 7.0], ("3", "7")),
        (["cat", "dog", "dog", "cat"], ("cat", "dog")),
        ([b"cat", b"dog", b"dog", b"cat"], ("cat", "dog")),
        ([True, False, True, False], ("0", "1")),
    ],
)
def test_classes_are_the_labels_that_occur(tmp_path: Path, labels: list[Any], classes: tuple[str, ...]) -> None:
    arrays = {"train_images": images(40), "train_labels": np.array(labels * 10)}
    data = load(written(tmp_path, arrays))
    assert data.classes == classes
    assert not data.has_own_splits
    place = {name: index for index, name in enumerate(classes)}
    words = [label.decode() if isinstance(label, bytes) else label for label in labels * 10]
    right = [place[word if isinstance(word, str) else str(int(word))] for word in words]
    known = {image.tobytes(): label for image, label in zip(arrays["train_images"], right, strict=True)}
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [known[image.tobytes()] for image in data.test.images]


def test_the_form_of_keras_and_a_file_without_labels_are_read(tmp_path: Path) -> None:
    keras = {"x_train": images(40), "y_train": np.arange(40) % 2, "x_test": images(8), "y_test": np.arange(8) % 2}
    data = load(written(tmp_path, keras))
    np.testing.assert_array_equal(data.test.images[:, 0], keras["x_test"])
    alone = load(written(tmp_path, {"train_images": keras["x_train"]}))
    assert (alone.classes, alone.train.labels) == ((), None)


def test_equal_training_images_are_never_divided(tmp_path: Path) -> None:
    base = images(20)
    arrays = {"train_images": np.concatenate([base, base]), "train_labels": np.tile(np.arange(20) % 2, 2)}
    data = load(written(tmp_path, arrays))
    seen = [{image.tobytes() for image in split.images} for split in (data.train, data.validation, data.test)]
    assert not seen[TRAIN] & seen[VALIDATION]
    assert not seen[TRAIN] & seen[TEST]
    assert not seen[VALIDATION] & seen[TEST]


def changed(**arrays: Any) -> dict[str, Any]:
    return {name: each for name, each in {**medmnist(), **arrays}.items() if each is not None}


def with_nan() -> Any:
    found = images(40) / 255
    found[7, 3, 3] = np.nan
    return found


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (changed(train_images=None), "has no train_images"),
        (changed(test_labels=None), "test_images has no labels and others have; give all of them labels"),
        (changed(train_labels=np.zeros((40, 14), int)), "has 14 labels an image, and a network names one class"),
        (changed(train_labels=np.zeros(39, int)), r"is \(39,\), and there are 40 images"),
        (changed(train_labels=np.full(40, np.nan)), "has values that are no whole numbers"),
        (changed(train_labels=np.array([None] * 40)), "none of Python objects"),
        (changed(train_labels=np.array(["0", "1", "NaN", "1"] * 10)), "label 'NaN' of image 2 stands for a missing"),
        (changed(train_labels=np.array([b"0", b""] * 20)), "train_labels: label '' of image 1 stands for a missing"),
        (changed(test_labels=np.full((12, 1), 5)), "label 5 of test is not in train"),
        ({"train_images": images(9), "train_labels": np.ones(9, int)}, "1 class, classification needs at least 2"),
        (changed(test_images=images(12, 32, 32)), r"test_images .* \(1, 32, 32\) and train_images of \(1, 28, 28\);"),
        (changed(train_images=images(40, 28, 28, 28)), r"train_images is \(40, 28, 28, 28\); give"),
        (changed(train_images=images(40, 4, 4)), "sides of at least 8"),
        (changed(train_images=images(0, 28, 28), train_labels=np.zeros(0, int)), "at least one image"),
        (changed(train_images=with_nan()), "train_images: image 7 has values that are no numbers"),
        (changed(test_images=images(12) * 1.5), "test_images has values from .*; give whole numbers from 0 to 255, or"),
        (
            changed(val_images=images(10) / 255),
            "val_images has fractions from 0 to 1, and train_images has whole numbers from 0 to 255; give all images",
        ),
        (changed(train_images=images(40).astype(int) * 16), "values from 0 to 4080"),
        (changed(train_images=images(40).astype(int) - 9), "values from -9 to"),
        (changed(train_images=np.full((40, 28, 28), "x")), "train_images is of the type <U1; give numbers"),
        (changed(validation_images=images(10)), "val_images and validation_images are both validation"),
        ({name: each // 16 if "images" in name else each for name, each in medmnist().items()}, "far below 255"),
        (
            {name: each / 255**2 if "images" in name else each for name, each in medmnist().items()},
            "images have values up to 0.00392157, far below 1; divide them",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        load(written(tmp_path, arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00", b"no arrays", b"\x80\x04N."])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"set.npz: is no .npz file, or a part of one; give a whole one") as caught:
        load(f"npz:{tmp_path / 'set.npz'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_read_or_one_line(tmp_path: Path, save: Any) -> None:
    """Damaged archives raise errors of zlib, and of zipfile where a changed bit says that they are encrypted."""
    shown = RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    shown[:1] = 255
    save(tmp_path / "whole.npz", train_images=shown, train_labels=np.arange(12) % 2)
    whole = (tmp_path / "whole.npz").read_bytes()
    target, refused = tmp_path / "set.npz", list[str]()
    for place in range(len(whole)):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        try:
            read_npz(str(target), tmp_path)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > len(whole) / 2
    assert not [told for told in refused if "\n" in told]
    for length in (0, 100, len(whole) - 1):
        target.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"is no \.npz file, or a part of one"):
            read_npz(str(target), tmp_path)


def test_a_single_array_a_folder_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", images(3))
    with pytest.raises(DataError, match=r"is no \.npz file"):
        load(f"npz:{tmp_path / 'one.npy'}")
    for path, told in ((tmp_path, "is no regular file"), (tmp_path / "none.npz", "there is no such file")):
        with pytest.raises(DataError, match=told):
            load(f"npz:{path}")
    with pytest.raises(SkipnasError, match="no files to group"):
        load(written(tmp_path, medmnist()), group_by="a")
