"""Readers of data sources. A new source is one function that returns a `Pool`, and one line in a table below.

Libraries that hold or open images are imported where they are used: names are known without them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError, in_short

if TYPE_CHECKING:
    from PIL.Image import Image

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]
Reader = Callable[[str, Path], "Pool"]
T = TypeVar("T")

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)

SIDE = 64
"""Side in pixels that larger images are brought to."""
KEPT_SIDE = 128
"""Images that all have the same size stay as they are up to this side."""
SMALLEST_SIDE = 8
PATCHES_PER_IMAGE = 64
"""Limit for one photograph of `images:`, so that a folder of large ones fits in memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything that a source holds, before the splits that it lacks are cut from its training images.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].
        labels: (N,) class indices; None without classes.
        classes: class names; empty without classes.
        part: (N,) the source's own split of each image: TRAIN, VALIDATION or TEST.
        groups: (N,) images of one group never part; of equal label and part.
    """

    images: Images
    labels: Labels | None
    classes: tuple[str, ...]
    part: NDArray[np.int64]
    groups: NDArray[np.int64]


# --- scikit-learn and scikit-image: shipped inside the packages ---


def read_digits() -> Pool:
    """The 1,797 8x8 handwritten digits of scikit-learn (UCI, 1998), 17 gray levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    return _pool(images, digits.target, [str(name) for name in digits.target_names])


# PNG only: what a JPEG decodes to, and with it the fingerprint, depends on the decoder's version.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_left.png",
)
PHOTO_CELL, PHOTO_PATCH, PHOTO_STRIDE = 64, 32, 16


def photo_cells(height: int, width: int) -> list[list[tuple[int, int]]]:
    """Disjoint square cells of a photograph, each a list of the (top, left) corners of its patches.

    Patches overlap within their cell and never leave it, so splits made of whole cells share no pixel.
    """
    steps = range(0, PHOTO_CELL - PHOTO_PATCH + 1, PHOTO_STRIDE)
    return [
        [(top + down, left + right) for down in steps for right in steps]
        for top in range(0, height - PHOTO_CELL + 1, PHOTO_CELL)
        for left in range(0, width - PHOTO_CELL + 1, PHOTO_CELL)
    ]


def read_photographs() -> list[NDArray[np.uint8]]:
    """The photographs that scikit-image installs, gray, each (H, W)."""
    from skimage.data import data_dir

    return [np.asarray(open_image(Path(data_dir, name)).convert("L")) for name in PHOTOGRAPHS]


def read_photos() -> Pool:
    """Gray 32x32 patches; the class is the photograph, and all have as many cells as the smallest."""
    photographs = read_photographs()
    cells = [photo_cells(*photograph.shape) for photograph in photographs]
    kept = min(map(len, cells))
    images, labels, groups = [], [], []
    for label, (photograph, candidates) in enumerate(zip(photographs, cells, strict=True)):
        for number, cell in enumerate(evenly(candidates, kept)):
            for top, left in cell:
                images.append(photograph[None, top : top + PHOTO_PATCH, left : left + PHOTO_PATCH])
                labels.append(label)
                groups.append(label * kept + number)
    return _pool(np.stack(images), labels, [Path(name).stem for name in PHOTOGRAPHS], groups=groups)


# --- torchvision ---

_BY_FLAG: dict[int, dict[str, Any]] = {TRAIN: {"train": True}, TEST: {"train": False}}
_BY_NAME: dict[int, dict[str, Any]] = {TRAIN: {"split": "train"}, TEST: {"split": "test"}}
_BY_TRAINVAL: dict[int, dict[str, Any]] = {TRAIN: {"split": "trainval"}, TEST: {"split": "test"}}
_ALL_THREE: dict[int, dict[str, Any]] = {**_BY_NAME, VALIDATION: {"split": "val"}}
_WHOLE: dict[int, dict[str, Any]] = {TRAIN: {}}

TORCHVISION: dict[str, tuple[str, Mapping[int, Mapping[str, Any]]]] = {
    "caltech101": ("Caltech101", _WHOLE),
    "caltech256": ("Caltech256", _WHOLE),
    "cifar10": ("CIFAR10", _BY_FLAG),
    "cifar100": ("CIFAR100", _BY_FLAG),
    # The labels of CLEVR's and Imagenette's test images are not public; their "val" is the test split.
    "clevr": ("CLEVRClassification", {TRAIN: {"split": "train"}, TEST: {"split": "val"}}),
    "country211": ("Country211", {**_BY_NAME, VALIDATION: {"split": "valid"}}),
    "dtd": ("DTD", _ALL_THREE),
    "emnist": ("EMNIST", {part: {"split": "balanced", **flag} for part, flag in _BY_FLAG.items()}),
    "eurosat": ("EuroSAT", _WHOLE),
    "fashion-mnist": ("FashionMNIST", _BY_FLAG),
    "fgvc-aircraft": ("FGVCAircraft", _BY_TRAINVAL),
    "flowers102": ("Flowers102", _ALL_THREE),
    "food101": ("Food101", _BY_NAME),
    "gtsrb": ("GTSRB", _BY_NAME),
    "imagenette": (
        "Imagenette",
        {TRAIN: {"split": "train", "size": "160px"}, TEST: {"split": "val", "size": "160px"}},
    ),
    "kmnist": ("KMNIST", _BY_FLAG),
    "mnist": ("MNIST", _BY_FLAG),
    "oxford-iiit-pet": ("OxfordIIITPet", _BY_TRAINVAL),
    "qmnist": ("QMNIST", _BY_FLAG),
    "rendered-sst2": ("RenderedSST2", _ALL_THREE),
    "semeion": ("SEMEION", _WHOLE),
    "stanford-cars": ("StanfordCars", _BY_NAME),
    "stl10": ("STL10", _BY_NAME),
    "sun397": ("SUN397", _WHOLE),
    "svhn": ("SVHN", _BY_NAME),
    "usps": ("USPS", _BY_FLAG),
}
"""Name -> class in `torchvision.datasets`, and the arguments that open each of its own splits."""

_ARCHIVES = {".bz2", ".gz", ".mat", ".tar", ".tgz", ".zip"}
_FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    ImportError,
    HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
)


def read_torchvision(name: str, root: Path) -> Pool:
    """A classification set of torchvision from the files under `root`, its archives there, or the network.

    Archives are unpacked in a temporary directory, so `root` may be read-only and is never written to.
    A download appears under `root` only when it is complete.

    Raises:
        DataError: when there are neither files nor a network.
    """
    try:
        return _open_torchvision(name, root, download=False)
    except _FAILURES as error:
        missing = error
    try:
        archives = [f for f in root.rglob("*") if f.suffix in _ARCHIVES and _belongs(f.relative_to(root), name)]
        with _network_timeout(seconds=30):
            return _unpack(name, root, archives) if archives else _download(name, root)
    except _FAILURES as error:
        raise DataError(
            f"data {name!r}: not found under {root} ({in_short(missing)}), and no download ({in_short(error)}); "
            "connect to the network, or give as --data-root a folder with the files of torchvision's "
            f"{TORCHVISION[name][0]}"
        ) from error


def _belongs(path: Path, name: str) -> bool:
    """Whether a part of the path starts with the set's name; ``cifar-100-python.tar.gz`` is not of ``cifar10``."""
    return any(re.match(plain(name) + r"(?!(?<=[0-9])[0-9])", plain(part)) for part in path.parts)


def _unpack(name: str, root: Path, archives: Iterable[Path]) -> Pool:
    with tempfile.TemporaryDirectory(prefix="skipnas-") as folder:
        for archive in archives:
            copy = Path(folder, archive.relative_to(root))
            copy.parent.mkdir(parents=True, exist_ok=True)
            # Copied, not linked: torchvision writes over an archive whose checksum is wrong.
            shutil.copyfile(archive, copy)
        return _open_torchvision(name, Path(folder), download=True)


def _download(name: str, root: Path) -> Pool:
    made = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".skipnas-", dir=root) as folder:
            pool = _open_torchvision(name, Path(folder), download=True)
            # One by one: copytree would give `root` the mode of the temporary folder, which nobody else may enter.
            for file in [f for f in Path(folder).rglob("*") if f.is_file()]:
                target = root / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
            return pool
    finally:
        if made:
            with contextlib.suppress(OSError):  # it stays when it holds the download
                root.rmdir()


def _open_torchvision(name: str, root: Path, *, download: bool) -> Pool:
    import torchvision

    set_name, parts = TORCHVISION[name]
    labels: list[int] = []
    part: list[int] = []

    def images() -> Iterator[Image]:
        for code, own in sets.items():
            for index in range(len(own)):
                image, label = own[index]
                labels.append(int(label))
                part.append(code)
                yield image

    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to --json
        cls = getattr(torchvision.datasets, set_name)
        sets = {code: cls(str(root), download=download, **arguments) for code, arguments in parts.items()}
        stack = _stack(_fit(images(), name))
    # Some sets skip numbers, or have no names: classes are the labels that occur.
    numbers, compact = np.unique(labels, return_inverse=True)
    names = getattr(sets[TRAIN], "classes", None) or range(int(numbers.max()) + 1)
    classes = [names[n][0] if isinstance(names[n], tuple) else str(names[n]) for n in numbers]
    return _pool(stack, compact, classes, part=part)


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its addresses without a limit; a silent firewall would hold it for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- folders ---

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_PART_FOLDERS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


def read_folder(argument: str, _root: Path) -> Pool:
    """``folder:DIR``: one folder per class, with or without train, validation and test folders on top.

    Images of one size with sides up to 128 stay as they are. Others are shrunk by area and cut at the
    centre to squares: of the smallest short side, at most 64.

    Raises:
        DataError: for a folder that cannot be read or is empty, a damaged image, fewer than two classes.
    """
    source = f"folder:{argument}"
    found: dict[int, dict[str, list[Path]]] = {
        part: {folder.name: _image_paths(folder, source) for folder in _subfolders(top, source)}
        for part, top in _parts(Path(argument), source)
    }
    classes = sorted(found[TRAIN])
    for part, folders in found.items():
        if strangers := sorted(set(folders) - set(classes)):
            raise DataError(f"{source}: class {strangers[0]!r} of {PARTS[part]} is not in train; add or remove it")
    if len(classes) < 2:
        raise DataError(
            f"{source}: {len(classes)} class folder(s), classification needs at least 2; "
            f"use images:{argument} to denoise without classes"
        )
    rows = [
        (path, classes.index(name), part)
        for part, folders in found.items()
        for name in sorted(folders)
        for path in folders[name]
    ]
    if not rows:
        raise _no_images(source)
    images = _fit((open_image(path) for path, _, _ in rows), source)
    return _pool(_stack(images), [row[1] for row in rows], classes, part=[row[2] for row in rows])


def read_images(argument: str, _root: Path) -> Pool:
    """``images:DIR``: unlabelled photographs, with or without train, validation and test folders on top.

    Each is cut into non-overlapping square patches of 64 pixels, or of the smallest short side if that
    is less; patches of a photograph stay together in one split.

    Raises:
        DataError: for a folder that cannot be read or is empty, or a damaged image.
    """
    return cut_photographs(Path(argument), tell=log.info)


def cut_photographs(
    folder: Path, *, tell: Callable[..., None], see: Callable[[Path, Image], object] = lambda path, image: None
) -> Pool:
    """The patches of `read_images`.

    Args:
        folder: of photographs.
        tell: a logger's method that hears what was cut.
        see: given each photograph as it is decoded, in the order of the groups.
    """
    source = f"images:{folder}"
    rows = list_photographs(folder)
    short = min(min(open_image(path, decode=False).size) for path, _ in rows)
    side = min(SIDE, short - short % 2)
    patches: list[Image] = []
    part: list[int] = []
    groups: list[int] = []
    for group, (path, code) in enumerate(rows):
        image = open_image(path)
        see(path, image)
        corners = [
            (left, top)
            for top in range(0, image.height - side + 1, side)
            for left in range(0, image.width - side + 1, side)
        ]
        if len(corners) > PATCHES_PER_IMAGE:
            tell("%s: %d of its %d patches are used", path, PATCHES_PER_IMAGE, len(corners))
        for left, top in evenly(corners, PATCHES_PER_IMAGE):
            patches.append(image.crop((left, top, left + side, top + side)))
            part.append(code)
            groups.append(group)
    tell("%s: %d images cut into %d patches of %dx%d pixels", source, len(rows), len(patches), side, side)
    return _pool(_stack(patches), None, (), part=part, groups=groups)


def has_splits(folder: Path) -> bool:
    """Whether a folder of images has train, validation or test folders on top. Raises DataError."""
    return _parts(folder, f"folder:{folder}") != [(TRAIN, folder)]


def list_photographs(folder: Path) -> list[tuple[Path, int]]:
    """The images of ``images:DIR`` and the split that each lies in, in the order of `read_images`' groups.

    Raises:
        DataError: the folder cannot be read or is empty.
    """
    source = f"images:{folder}"
    rows = [(path, part) for part, top in _parts(folder, source) for path in _image_paths(top, source)]
    if not rows:
        raise _no_images(source)
    return rows


def read_photograph(path: Path) -> Images:
    """An image at its full size, (C, H, W), uint8, or float32 in [0, 1] when it has more than 8 bits.

    Raises:
        DataError: it cannot be read, or has a side under `SMALLEST_SIDE` pixels.
    """
    image: Images = _stack([open_image(path)])[0]
    return image


def _parts(folder: Path, source: str) -> list[tuple[int, Path]]:
    """The split folders inside `folder`; when there are none, all of it is for training."""
    subfolders = _subfolders(folder, source)
    named = [(_PART_FOLDERS[f.name.lower()], f) for f in subfolders if f.name.lower() in _PART_FOLDERS]
    codes = [code for code, _ in named]
    if TRAIN in codes and len(set(codes)) == len(codes):
        return sorted(named)
    if named and len(named) == len(subfolders):
        raise DataError(f"{source}: split folders {', '.join(f.name for f in subfolders)}; exactly one must be 'train'")
    return [(TRAIN, folder)]


def _subfolders(folder: Path, source: str) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise _unreadable(source, error) from error


def _image_paths(folder: Path, source: str) -> list[Path]:
    """Images at any depth, in an order that is the same on every machine."""

    def fail(error: OSError) -> None:
        raise _unreadable(source, error) from error

    paths = [Path(top, name) for top, _, names in os.walk(folder, onerror=fail) for name in names]
    return sorted(p for p in paths if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def _unreadable(source: str, error: OSError) -> DataError:
    return DataError(f"{source}: {error.filename} cannot be read ({error.strerror}); give a folder that you can list")


def _no_images(source: str) -> DataError:
    return DataError(f"{source}: holds no images; supported are {', '.join(sorted(_SUFFIXES))}")


# --- images ---


def open_image(path: Path, *, decode: bool = True) -> Image:
    """An image in mode L or RGB (8 bits) or F (gray, [0, 1], from 16 bits or floats); unchanged if not decoded."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            if min(image.size) < SMALLEST_SIDE:
                raise DataError(f"image {path}: {image.width}x{image.height}, sides must be at least {SMALLEST_SIDE}")
            return _plain_mode(image, path) if decode else image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"image {path}: cannot be read ({in_short(error)}); repair or remove it") from error


def _plain_mode(image: Image, path: Path) -> Image:
    import PIL.Image

    if image.mode in ("L", "LA", "1"):
        return image.convert("L")
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image, np.float32) / np.float32(1 if image.mode == "F" else 65535)
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"image {path}: values must be 8 or 16 bit integers, or floats in [0, 1]; convert or remove it")
    return PIL.Image.fromarray(values)


def _fit(images: Iterable[Image], source: str) -> list[Image]:
    """Small images of one size as they are; others as squares of the smallest short side, at most 64."""
    sizes: set[tuple[int, int]] = set()
    small: list[Image] = []
    for image in images:
        sizes.add(image.size)
        # Large images shrink as they come, so that a set of them fits in memory.
        small.append(image if max(image.size) <= KEPT_SIDE else _square(image, min(SIDE, *image.size)))
    if len(sizes) == 1 and max(map(max, sizes)) <= KEPT_SIDE:
        return small
    side = min(SIDE, *(min(size) for size in sizes))
    log.info("%s: images are resized and cut to %dx%d pixels", source, side, side)
    return [_square(image, side) for image in small]


def _square(image: Image, side: int) -> Image:
    """The central square, averaged by area."""
    import PIL.Image

    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    return image.resize((side, side), PIL.Image.Resampling.BOX, (left, top, left + short, top + short))


def _stack(images: Sequence[Image]) -> Images:
    """(N, C, H, W): gray when all images are gray, float32 when one has more than 8 bits."""
    channels = max(len(image.getbands()) for image in images)
    dtype: type[np.generic] = np.float32 if any(image.mode == "F" for image in images) else np.uint8
    stack = np.empty((len(images), channels, images[0].height, images[0].width), dtype)
    for row, image in zip(stack, images, strict=True):
        values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        # Eight bits among deeper images are brought to their scale.
        row[:] = values / np.float32(255) if dtype is np.float32 and image.mode != "F" else values
    return stack


# --- helpers ---


def _pool(
    images: Images,
    labels: Sequence[int] | Labels | None,
    classes: Sequence[str],
    *,
    part: Sequence[int] | None = None,
    groups: Sequence[int] | None = None,
) -> Pool:
    """A pool; by default every image is for training and a group of its own."""
    return Pool(
        images=images,
        labels=None if labels is None else np.asarray(labels, np.int64),
        classes=tuple(classes),
        part=np.full(len(images), TRAIN) if part is None else np.asarray(part, np.int64),
        groups=np.arange(len(images)) if groups is None else np.asarray(groups, np.int64),
    )


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, spread evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def plain(name: str) -> str:
    """Letters and digits only, so that ``FashionMNIST`` and ``fashion-mnist`` are one name."""
    return "".join(filter(str.isalnum, name.lower()))


NAMED: dict[str, Reader] = {
    "digits": lambda _name, _root: read_digits(),
    "photos": lambda _name, _root: read_photos(),
    **dict.fromkeys(TORCHVISION, read_torchvision),
}
"""Sources by name; the reader is given the name and the data root."""

IN_FOLDER: dict[str, Reader] = {"folder": read_folder, "images": read_images}
"""Sources in a folder of the user's, ``KIND:DIR``; the reader is given the folder and the data root."""
