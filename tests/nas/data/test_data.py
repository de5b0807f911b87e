"""Data: three splits that share nothing and depend on the data alone, and one-line errors for bad input."""

import functools
import gzip
import hashlib
import inspect
import itertools
import logging
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from user_rights import rights_of_a_user

from nas.data import folders, installed
from nas.data import splits as data
from nas.data import torchvision as torchvision_sets
from nas.data.installed import PHOTO_PATCH
from nas.data.photographs import Photographs
from nas.data.raw import TEST, TRAIN, VALIDATION, RawData
from nas.data.sources import parse_source, sources_in_short
from nas.data.splits import Dataset, load
from nas.data.torchvision import TORCHVISION
from nas.errors import ConfigError, DataError

DIGITS_FINGERPRINT = "556bccd460710c95"
PINNED_TEST = [2, 3, 11, 13]
ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"test data not at {SHARED}")


def noise_image(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def class_folders(
    top: Path, *, classes: int = 2, images: int = 5, shape: tuple[int, ...] = (16, 16), seed: int = 0
) -> Path:
    for label in range(classes):
        for number in range(images):
            write(top / f"class{label}" / f"{number}.png", noise_image(seed + 100 * label + number, *shape))
    return top


def sizes(dataset: Dataset) -> tuple[int, ...]:
    return tuple(len(split.images) for split in (dataset.train, dataset.validation, dataset.test))


def rows(dataset: Dataset) -> list[list[bytes]]:
    """The bytes of each image of each split."""
    return [[i.tobytes() for i in split.images] for split in (dataset.train, dataset.validation, dataset.test)]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


# --- names ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", "digits"),
        (" Photos ", "photos"),
        ("FashionMNIST", "fashion-mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("CIFAR-10", "cifar10"),
        ("OxfordIIITPet", "oxford-iiit-pet"),
        ("folder:/a/../b", "folder:/b"),
        ("Images:/a:b", "images:/a:b"),
    ],
)
def test_names_are_canonical(text: str, name: str) -> None:
    assert parse_source(text) == name


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_source("folder:pets") == f"folder:{tmp_path}/pets"


@pytest.mark.parametrize("text", ["", "digit", "digits:8", "imagenet22k", "folders:/x"])
def test_an_unknown_name_lists_the_known(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"give one of digits, photos,.*folder:DIR, csv:FILE, npz:FILE, images:DIR"
    ) as error:
        parse_source(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["folder:", "images:", "folder:~nobody-of-this-name/x", "images:\0"])
def test_a_folder_must_be_given(text: str) -> None:
    with pytest.raises(ConfigError, match=r"give (folder|images):DIR"):
        parse_source(text)


def test_sources_are_named_in_a_line_for_help() -> None:
    *most, last = sources_in_short().split(", ")
    assert most == ["digits", "photos", "a torchvision set", "folder:DIR", "csv:FILE", "npz:FILE", "images:DIR"]
    assert last == "pairs:DIR or noisy:DIR"


def test_names_are_known_without_the_large_libraries() -> None:
    code = (
        "import sys; from nas.data.noise import parse_noise; from nas.data.sources import parse_source\n"
        "parse_source('cifar10'); parse_noise('none')\n"
        "print({'torch', 'torchvision', 'sklearn', 'skimage', 'PIL', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"


def test_every_torchvision_entry_can_be_called() -> None:
    from torchvision import datasets

    for name, (set_name, parts, _, _) in TORCHVISION.items():
        signature = inspect.signature(getattr(datasets, set_name))
        assert TRAIN in parts
        assert parse_source(name) == name
        for arguments in parts.values():
            signature.bind("root", download=False, **arguments)


# --- splits ---


def raw(counts: list[int], *, per_group: int = 1, own: int = TRAIN) -> RawData:
    """`counts` groups per class, and one more image per class in the part `own` when that is not TRAIN."""
    labels = np.repeat(np.arange(len(counts)), np.array(counts) * per_group)
    part = np.full(len(labels), TRAIN)
    groups = np.arange(len(labels)) // per_group
    if own != TRAIN:
        labels = np.concatenate([labels, np.arange(len(counts))])
        part = np.concatenate([part, np.full(len(counts), own)])
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(counts))])
    return RawData(
        images=noise_image(0, len(labels), 1, 2, 2),
        labels=labels,
        classes=tuple(f"c{i}" for i in range(len(counts))),
        part=part,
        groups=groups,
    )


fingerprints = st.integers(0, 2**64 - 1).map("{:016x}".format)
counts_lists = st.lists(st.integers(3, 60), min_size=1, max_size=6)


@given(counts_lists, st.integers(1, 3), fingerprints)
def test_sixty_twenty_twenty_stratified_by_whole_groups(counts: list[int], per_group: int, fingerprint: str) -> None:
    whole = raw(counts, per_group=per_group)
    part = data.assign(whole, "x", fingerprint)
    fifth = max(round(0.2 * sum(counts)), len(counts))
    for code in (VALIDATION, TEST):
        assert np.count_nonzero(part == code) == fifth * per_group
        for label, count in enumerate(counts):
            taken = np.count_nonzero((part == code) & (whole.labels == label)) / per_group
            assert taken >= 1
            if min(counts) >= 10:
                assert abs(taken - 0.2 * count) <= 1.5
    assert len(np.unique(np.stack([whole.groups, part]), axis=1).T) == sum(counts)
    assert all(((part == TRAIN) & (whole.labels == label)).any() for label in range(len(counts)))


@given(counts_lists, st.sampled_from([VALIDATION, TEST]), fingerprints)
def test_own_splits_stay_and_the_other_comes_out_of_training(counts: list[int], own: int, fingerprint: str) -> None:
    given = raw(counts, own=own)
    part = data.assign(given, "x", fingerprint)
    cut = VALIDATION + TEST - own
    assert np.array_equal(part == own, given.part == own)
    assert np.count_nonzero(part == cut) == max(round(0.2 * sum(counts)), len(counts))


def test_validation_beside_an_own_test_split_is_at_most_2000() -> None:
    part = data.assign(raw([9000, 3000], own=TEST), "x", "0" * 16)
    assert np.count_nonzero(part == VALIDATION) == 2000
    assert np.count_nonzero(data.assign(raw([9000, 3000]), "x", "0" * 16) == VALIDATION) == 2400


def test_another_fingerprint_is_another_split_and_the_split_is_pinned() -> None:
    whole = raw([10, 10])
    assert not np.array_equal(data.assign(whole, "x", "0" * 16), data.assign(whole, "x", "1" * 16))
    pinned = data.assign(whole, "x", "0" * 16)
    assert np.flatnonzero(pinned == TEST).tolist() == PINNED_TEST


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_quotas_add_up_and_stay_in_their_bounds(counts: list[int], draw: st.DataObject) -> None:
    size = draw.draw(st.integers(len(counts), sum(counts)))
    limits = np.array(counts)
    quotas = data._quotas(limits, size, limits)
    assert quotas.sum() == size
    assert (quotas >= 1).all()
    assert (quotas <= limits).all()


@pytest.mark.parametrize(("counts", "own", "needed"), [([9, 2], TRAIN, 3), ([9, 1], TEST, 2), ([9, 0], TRAIN, 3)])
def test_a_class_too_small_for_every_split_is_named(counts: list[int], own: int, needed: int) -> None:
    rule = rf"x: class 'c1' has {counts[1]} image\(s\) for train, at least {needed} needed.*add images or remove"
    with pytest.raises(DataError, match=rule):
        data.assign(raw(counts, own=own), "x", "0" * 16)


def test_digits(digits: Dataset) -> None:
    assert sizes(digits) == (1079, 359, 359)
    assert digits.train.images.shape[1:] == (1, 8, 8)
    assert digits.train.images.dtype == np.float32
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 1)
    assert digits.classes == tuple("0123456789")
    assert digits.fingerprint == DIGITS_FINGERPRINT
    whole = installed.read_digits().labels
    assert whole is not None
    for split in (digits.train, digits.validation, digits.test):
        assert split.labels is not None
        assert split.labels.dtype == np.int64
        expected = np.bincount(whole) * len(split.images) / len(whole)
        assert np.abs(np.bincount(split.labels) - expected).max() <= 1.5


def test_the_digits_are_scikit_learns_wherever_it_keeps_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = load_digits()
    assert np.array_equal(installed._digits(), np.column_stack([theirs.data, theirs.target]))
    monkeypatch.setattr(installed, "find_spec", lambda name: SimpleNamespace(origin=__file__))
    assert np.array_equal(installed._digits(), np.column_stack([theirs.data, theirs.target]))


def test_digits_are_read_without_importing_scikit_learn() -> None:
    read = "import sys\nfrom nas.data.splits import load\nload('digits')\nassert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", read], check=True, cwd=ROOT)


def test_digits_splits_share_no_image_and_lose_none(digits: Dataset) -> None:
    whole = [image.tobytes() for image in installed.read_digits().images]
    assert sorted(itertools.chain(*rows(digits))) == sorted(whole)
    train, validation, test = map(set, rows(digits))
    assert len(train | validation | test) == len(train) + len(validation) + len(test)


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 1079))
def test_a_subset_cuts_training_images_only_and_stays_stratified(digits: Dataset, size: int) -> None:
    cut = load("digits", subset=size)
    assert sizes(cut) == (size, 359, 359)
    assert rows(cut)[1:] == rows(digits)[1:]
    assert set(rows(cut)[0]) <= set(rows(digits)[0])
    assert cut.fingerprint == digits.fingerprint
    assert cut.train.labels is not None
    assert np.bincount(cut.train.labels, minlength=10).min() >= max(1, size // 11 - 1)


@pytest.mark.parametrize("size", [-1, 0, 9, 1080])
def test_a_subset_outside_its_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"subset {size}: must be at least 10 .* at most 1079"):
        load("digits", subset=size)


def test_photo_splits_share_no_pixel() -> None:
    photos = load("photos")
    whole = installed.read_photos()
    part = data.assign(whole, "photos", photos.fingerprint)
    assert np.array_equal(whole.images[part == TRAIN], photos.train.images)
    photographs = installed.read_photographs()
    owner = [np.full(photograph.shape, -1) for photograph in photographs]
    assert whole.labels is not None
    corners = [
        corner
        for photograph in photographs
        for cell in installed.evenly(installed.photo_cells(*photograph.shape), len(whole.images) // 90)
        for corner in cell
    ]
    for image, label, code, (top, left) in zip(whole.images, whole.labels, part, corners, strict=True):
        box = np.s_[top : top + PHOTO_PATCH, left : left + PHOTO_PATCH]
        assert np.array_equal(photographs[label][box], image[0])
        assert np.isin(owner[label][box], (-1, code)).all()
        owner[label][box] = code


def test_photos_are_balanced_gray_patches() -> None:
    photos = load("photos")
    assert len(photos.classes) == 10
    for split, share in ((photos.train, 0.6), (photos.validation, 0.2), (photos.test, 0.2)):
        assert split.images.shape[1:] == (1, 32, 32)
        assert split.images.dtype == np.uint8
        assert split.labels is not None
        per_class = np.bincount(split.labels)
        assert np.ptp(per_class) <= 9
        assert per_class.mean() == pytest.approx(share * 216, rel=0.05)


# --- folders ---


def test_class_folders_are_split_and_follow_the_pixels(tmp_path: Path) -> None:
    first = load(f"folder:{class_folders(tmp_path)}")
    assert first.name == f"folder:{tmp_path}"
    assert first.classes == ("class0", "class1")
    assert sizes(first) == (6, 2, 2)
    assert first.train.images.dtype == np.uint8
    assert first.fingerprint == load(f"folder:{tmp_path}").fingerprint
    pixels = noise_image(0, 16, 16)
    pixels[3, 4] ^= 1
    write(tmp_path / "class0" / "0.png", pixels)
    assert load(f"folder:{tmp_path}").fingerprint != first.fingerprint


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders_are_kept(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, (name, count) in enumerate(zip(names, (4, 2, 1), strict=True)):
        class_folders(tmp_path / name, images=count, seed=1000 * seed)
    assert sizes(load(f"folder:{tmp_path}")) == (8, 4, 2)


def test_a_test_folder_alone_leaves_validation_to_training(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", images=10)
    class_folders(tmp_path / "test", images=2, seed=1000)
    assert sizes(load(f"folder:{tmp_path}")) == (16, 4, 4)


def test_gray_stays_gray_and_becomes_colour_beside_colour(tmp_path: Path) -> None:
    assert load(f"folder:{class_folders(tmp_path)}").train.images.shape[1:] == (1, 16, 16)
    write(tmp_path / "class1" / "colour.png", noise_image(7, 16, 16, 3))
    both = load(f"folder:{tmp_path}")
    assert both.train.images.shape[1:] == (3, 16, 16)
    gray = sum(bool((image == image[:1]).all()) for s in (both.train, both.validation, both.test) for image in s.images)
    assert gray == 10


def test_transparent_palette_and_bilevel_images_are_read(tmp_path: Path) -> None:
    class_folders(tmp_path)
    colour = Image.fromarray(noise_image(1, 16, 16, 3))
    for number, mode in enumerate(("RGBA", "P", "1", "CMYK")):
        colour.convert(mode).save(tmp_path / "class0" / f"more{number}.tif")
    assert sizes(load(f"folder:{tmp_path}")) == (8, 3, 3)


def test_sixteen_bits_become_floats(tmp_path: Path) -> None:
    class_folders(tmp_path, images=3)
    deep = np.full((16, 16), 52428, np.uint16)
    for label in range(2):
        write(tmp_path / f"class{label}" / "deep.png", deep)
    raw = folders.read_folder(str(tmp_path), tmp_path)
    assert raw.images.dtype == np.float32
    assert raw.images[3] == pytest.approx(0.8)
    assert raw.images[0, 0] * 255 == pytest.approx(noise_image(0, 16, 16).astype(float), abs=1e-4)


@pytest.mark.parametrize(("dtype", "deep"), [(np.uint8, False), (np.uint16, True)])
def test_images_are_deep_where_their_files_have_more_than_8_bits(
    tmp_path: Path, digits: Dataset, dtype: type[np.generic], deep: bool
) -> None:
    for scene in range(6):
        waves = np.sin(np.mgrid[:24, :24] * (scene + 2) / 10).sum(0)[..., None] / 4 + 0.5
        for shot, place in enumerate(("pairs/clean/{}.png", "pairs/noisy/{}.png", "shots/{}/1.png", "shots/{}/2.png")):
            noise = np.random.default_rng([scene, shot]).normal(0, 0.1 * min(shot, 1), (24, 24, 1))
            values = (waves + noise).clip(0, 1) * np.iinfo(dtype).max
            write(tmp_path / place.format(scene), values[..., 0].astype(dtype))
    for source in (f"images:{tmp_path}/pairs/clean", f"pairs:{tmp_path}/pairs", f"noisy-shots:{tmp_path}/shots"):
        assert load(source).deep is deep, source
    assert Photographs.read(f"images:{tmp_path}/pairs/clean", tmp_path).deep is deep
    assert not digits.deep, "its 17 levels are in no file"


def test_floats_outside_the_unit_interval_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path)
    write(tmp_path / "class0" / "float.tif", np.full((16, 16), 3, np.float32))
    with pytest.raises(DataError, match=r"float.tif: has values from 3 to 3, and black is 0 and white 1; give"):
        load(f"folder:{tmp_path}")


def test_different_sizes_become_squares_of_the_smallest_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class_folders(tmp_path, shape=(40, 30))
    wide = np.zeros((20, 200), np.uint8)
    wide[:, 90:110] = 77
    write(tmp_path / "class0" / "wide.png", wide)
    with caplog.at_level(logging.INFO):
        raw = folders.read_folder(str(tmp_path), tmp_path)
    assert raw.images.shape == (11, 1, 20, 20)
    assert (raw.images[5] == 77).all()
    assert "resized and cut to 20x20 pixels" in caplog.text


def test_large_images_of_one_size_are_averaged_by_area(tmp_path: Path) -> None:
    class_folders(tmp_path, images=3, shape=(128, 192))
    raw = folders.read_folder(str(tmp_path), tmp_path)
    centre = noise_image(0, 128, 192)[:, 32:160].reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert raw.images[0, 0] == pytest.approx(centre, abs=1)  # Pillow rounds after rows and after columns
    assert load(f"folder:{class_folders(tmp_path / 'odd', shape=(128, 100))}").train.images.shape[1:] == (1, 128, 100)


def test_photographs_are_cut_into_patches_that_stay_together(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.png", np.full((130, 200), number, np.uint8))
    photographs = load(f"images:{tmp_path}")
    assert photographs.classes == ()
    assert photographs.train.labels is None
    assert sizes(photographs) == (36, 12, 12)
    assert photographs.train.images.shape[1:] == (1, 64, 64)
    seen = [set(np.unique(s.images)) for s in (photographs.train, photographs.validation, photographs.test)]
    assert [len(values) for values in seen] == [6, 2, 2]
    assert len(set.union(*seen)) == 10
    assert sizes(load(f"images:{tmp_path}", subset=5)) == (5, 12, 12)


def test_small_photographs_set_an_even_side_and_large_ones_are_limited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        write(tmp_path / "train" / f"{number}.jpg", noise_image(number, 33, 50))
    write(tmp_path / "train" / "large.bmp", noise_image(9, 400, 400))
    write(tmp_path / "test" / "a.png", noise_image(10, 70, 70))
    with caplog.at_level(logging.INFO):
        photographs = load(f"images:{tmp_path}")
    assert photographs.train.images.shape[1:] == (1, 32, 32)
    assert sizes(photographs)[2] == 4
    assert sum(sizes(photographs)) == 3 + folders.PATCHES_PER_IMAGE + 4
    assert "64 of its 144 patches are used" in caplog.text


def test_two_photographs_are_too_few(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.png", noise_image(number, 130, 130))
    with pytest.raises(DataError, match=r"there are 2 photograph\(s\) for train, at least 3 needed .*; add images$"):
        load(f"images:{tmp_path}")


@pytest.mark.parametrize("kind", ["folder", "images"])
@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_a_damaged_image_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    class_folders(tmp_path, images=4)
    damaged = tmp_path / "class1" / "2.png"
    damaged.write_bytes(b"not an image" if damage == "text" else damaged.read_bytes()[:150])
    with pytest.raises(DataError, match=r"class1/2.png: cannot be read \(.*\); repair or remove it") as error:
        load(f"{kind}:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["folder", "images"])
def test_folders_that_hold_nothing_useful(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"absent cannot be read \(No such file or directory\); give a folder"):
        load(f"{kind}:{tmp_path}/absent")
    file = write(tmp_path / "file.png", noise_image(0, 8, 8))
    with pytest.raises(DataError, match=r"file.png cannot be read \(Not a directory\)"):
        load(f"{kind}:{file}")
    for name in "ab":
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no images; supported are .*\.png"):
        load(f"{kind}:{tmp_path}/empty")
    write(tmp_path / "empty" / "a" / "tiny.png", noise_image(0, 7, 20))
    with pytest.raises(DataError, match=r"tiny.png: 20x7, sides must be at least 8"):
        load(f"{kind}:{tmp_path}/empty")


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    closed = class_folders(tmp_path) / "class1"
    closed.chmod(0)
    try:
        with rights_of_a_user(), pytest.raises(DataError, match=r"class1 cannot be read \(Permission denied\)"):
            load(f"folder:{tmp_path}")
    finally:
        closed.chmod(0o700)


def test_one_class_is_refused_with_the_way_out(tmp_path: Path) -> None:
    class_folders(tmp_path, classes=1)
    with pytest.raises(DataError, match=rf"1 class folder\(s\).*at least 2; use images:{tmp_path} to denoise"):
        load(f"folder:{tmp_path}")


def test_a_class_missing_from_a_split_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", classes=3)
    class_folders(tmp_path / "test", classes=2, seed=1000)
    with pytest.raises(DataError, match=r"class 'class2' has 0 image\(s\) for test, at least 1 needed"):
        load(f"folder:{tmp_path}")
    class_folders(tmp_path / "test", classes=4, seed=1000)
    with pytest.raises(DataError, match=r"class 'class3' of test is not in train"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("names", [("val", "test"), ("train", "training")])
def test_split_folders_need_one_train(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        class_folders(tmp_path / name)
    with pytest.raises(DataError, match="exactly one must be 'train'"):
        load(f"folder:{tmp_path}")


# --- torchvision, without a network ---


def idx(values: np.ndarray) -> bytes:
    """The file format of MNIST, packed."""
    return gzip.compress(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that torchvision takes for the server of a small MNIST of 8x8 images."""
    from torchvision.datasets import MNIST

    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for prefix, count in (("train", 100), ("t10k", 20)):
        contents = {
            "images-idx3": noise_image(count, count, 8, 8),
            "labels-idx1": np.arange(count, dtype=np.uint8) % 10,
        }
        for kind, values in contents.items():
            file = folder / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(idx(values))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def test_a_download_is_kept_and_read_again(mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    first = load("mnist", root=root)
    assert sizes(first) == (80, 20, 20)
    assert first.classes[3] == "3 - three"
    assert first.test.images[:, 0].tobytes() == noise_image(20, 20, 8, 8).tobytes()
    shutil.rmtree(mirror)
    assert load("mnist", root=root).fingerprint == first.fingerprint
    assert [entry.name for entry in root.iterdir()] == ["MNIST"]
    assert capsys.readouterr().out == ""


def test_a_download_leaves_modes_as_they_were(mirror: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (root / "other").touch()
    modes = {root: 0o775, root / "MNIST": 0o755, raw: 0o711}
    for folder, mode in modes.items():
        folder.chmod(mode)
    load("mnist", root=root)
    assert {folder: folder.stat().st_mode & 0o777 for folder in modes} == modes
    assert sorted(entry.name for entry in root.iterdir()) == ["MNIST", "other"]
    assert len(list(raw.iterdir())) == 8, "four archives and what was in them"


def test_a_broken_download_leaves_nothing(mirror: Path, tmp_path: Path) -> None:
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half a file")
    with pytest.raises(
        DataError, match=r"data 'mnist': not found under .*, and no download .*t10k-labels.*MNIST"
    ) as error:
        load("mnist", root=tmp_path / "root")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "root").exists()


def test_archives_are_unpacked_aside_and_never_written(mirror: Path, tmp_path: Path) -> None:
    raw = tmp_path / "root" / "MNIST" / "raw"
    shutil.copytree(mirror, raw)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    before = {file: file.read_bytes() for file in raw.parents[1].rglob("*") if file.is_file()}
    assert sizes(load("mnist", root=tmp_path / "root")) == (80, 20, 20)
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half a file")
    with pytest.raises(DataError, match="no download"):
        load("mnist", root=tmp_path / "root")
    assert before == {file: file.read_bytes() for file in raw.parents[1].rglob("*") if file.is_file()}


def test_equal_images_of_a_published_set_are_told_and_its_test_split_is_kept(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = noise_image(100, 100, 8, 8)
    images[50:60] = images[40:50]
    tests = noise_image(20, 20, 8, 8)
    tests[:3] = images[:3]
    resources = []
    for prefix, values in (("train", images), ("t10k", tests)):
        for kind, content in (("images-idx3", values), ("labels-idx1", np.arange(len(values), dtype=np.uint8) % 10)):
            file = mirror / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(idx(content))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    with caplog.at_level("INFO"):
        data = load("mnist", root=tmp_path / "root")
    assert caplog.messages == [
        "mnist: 3 of 20 test images are equal to a training image; published splits are kept",
        "mnist: 10 of 100 training images are equal to another one; equal images stay in one split",
    ]
    assert len(data.test.images) == 20
    assert len(data.train.images) + len(data.validation.images) == 100
    assert not {i.tobytes() for i in data.train.images} & {i.tobytes() for i in data.validation.images}


@pytest.mark.parametrize(("kind", "shape"), [("FashionMNIST", ()), ("CIFAR10", (3,))])
def test_images_in_arrays_are_those_that_the_set_gives(kind: str, shape: tuple[int, ...]) -> None:
    sets = []
    for count in (4, 3):
        own = getattr(torchvision.datasets, kind).__new__(getattr(torchvision.datasets, kind))
        own.transform = own.target_transform = None
        values = noise_image(count, count, 6, 5, *shape)
        own.data, own.targets = (values if shape else torch.from_numpy(values)), list(range(count))
        sets.append(own)
    found = torchvision_sets._in_memory(sets)
    assert found is not None
    given = [np.asarray(own[index][0]) for own in sets for index in range(len(own))]
    assert (found == [np.atleast_3d(image).transpose(2, 0, 1) for image in given]).all()
    sets[1].data = sets[1].data[:, 1:]
    assert torchvision_sets._in_memory(sets) is None, "they are of two sizes"
    assert torchvision_sets._in_memory([sets[0], torchvision.datasets.SVHN.__new__(torchvision.datasets.SVHN)]) is None


def test_frames_of_a_track_of_gtsrb_stay_in_one_split(tmp_path: Path) -> None:
    base = tmp_path / "gtsrb"
    for label in range(2):
        folder = base / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        for track in range(6):
            for frame in range(3):  # the middle value tells class and track
                values = noise_image(100 * label + 10 * track + frame, 9, 9, 3)
                values[0, 0] = 100 * label + 10 * track
                Image.fromarray(values).save(folder / f"{track:05d}_{frame:05d}.ppm")
    tests = base / "GTSRB" / "Final_Test" / "Images"
    tests.mkdir(parents=True)
    for index in range(4):
        Image.fromarray(noise_image(900 + index, 9, 9, 3)).save(tests / f"{index:05d}.ppm")
    rows = "".join(f"{index:05d}.ppm;9;9;0;0;8;8;{index % 2}\n" for index in range(4))
    (base / "GT-final_test.csv").write_text(f"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n{rows}")
    data = load("gtsrb", root=tmp_path)
    train, validation = ([int(image[0, 0, 0]) for image in split.images] for split in (data.train, data.validation))
    assert (len(train), len(validation), len(data.test.images)) == (30, 6, 4)
    assert not set(train) & set(validation), "a track lies in one split"
    assert {value // 100 for value in validation} == {0, 1}


@pytest.mark.parametrize(
    ("path", "name", "belongs"),
    [
        ("FashionMNIST/raw/train-images-idx3-ubyte.gz", "fashion-mnist", True),
        ("FashionMNIST/raw/train-images-idx3-ubyte.gz", "mnist", False),
        ("cifar-10-python.tar.gz", "cifar10", True),
        ("cifar-100-python.tar.gz", "cifar10", False),
        ("imagenette2-160.tgz", "imagenette", True),
        ("dtd/dtd-r1.0.1.tar.gz", "dtd", True),
    ],
)
def test_archives_belong_to_one_set(path: str, name: str, belongs: bool) -> None:
    assert torchvision_sets._belongs(Path(path), name) is belongs


@needs_shared
def test_the_official_fashion_mnist() -> None:
    before = sorted((SHARED / "FashionMNIST").rglob("*"))
    fashion = load("FashionMNIST", root=SHARED, subset=6000)
    assert fashion.name == "fashion-mnist"
    assert sizes(fashion) == (6000, 2000, 10000)
    assert fashion.train.images.shape[1:] == (1, 28, 28)
    assert fashion.classes[9] == "Ankle boot"
    assert fashion.train.labels is not None
    assert np.ptp(np.bincount(fashion.train.labels)) == 0
    assert sorted((SHARED / "FashionMNIST").rglob("*")) == before


@needs_shared
def test_the_cifar10_folder_keeps_its_test_split() -> None:
    cifar = load(f"folder:{SHARED / 'cifar10-subset'}")
    assert sizes(cifar) == (4068, 1017, 1017)
    assert cifar.train.images.shape[1:] == (3, 32, 32)
    assert len(cifar.classes) == 10


@needs_shared
def test_gray_photographs_are_split_by_photograph() -> None:
    assert sizes(load(f"images:{SHARED / 'train400'}")) == (960, 320, 320)


# --- small functions ---


def test_to_float_brings_bytes_and_floats_to_the_unit_interval() -> None:
    assert data.to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert data.to_float(torch.tensor([0.25], dtype=torch.float64)).dtype == torch.float32
    images = torch.rand(3)
    assert data.to_float(images) is images


@pytest.mark.parametrize(("images", "draws"), [(1, 8), (250, 8), (359, 6), (1000, 2), (1999, 2), (2000, 1), (10000, 1)])
def test_validation_draws_reach_2000_images(images: int, draws: int) -> None:
    assert data.validation_draws(images) == draws


def test_classes_are_counted() -> None:
    assert data.class_counts([0, 2, 2, 1], 4) == (1, 1, 2, 0)
    assert data.class_counts(None, 4) == ()
