"""Folders of images: class folders, and photographs without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.images import SIDE, one_size, open_image, stacked
from nas.data.raw import PARTS, TEST, TRAIN, VALIDATION, RawData, evenly, raw_data
from nas.errors import DataError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from PIL.Image import Image

    from nas.data.raw import Images

PATCHES_PER_IMAGE = 64
"""The largest number of patches from one photograph of `images:`, so that a folder of large ones fits in memory."""

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


def read_folder(argument: str, _root: Path) -> RawData:
    """Reads ``folder:DIR``: one folder per class, with or without train, validation and test folders on top.

    Images of one size with sides up to 128 stay as they are. Others are shrunk by area and cut at the centre to squares
    whose side is the smallest short side, at most 64.

    Raises:
        DataError: the folder cannot be read or is empty, an image is damaged, or there are fewer than two classes.
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
    images = one_size((open_image(path) for path, _, _ in rows), source)
    return raw_data(stacked(images), [row[1] for row in rows], classes, part=[row[2] for row in rows])


def read_images(argument: str, _root: Path) -> RawData:
    """Reads ``images:DIR``: unlabelled photographs, with or without train, validation and test folders on top.

    Each photograph is cut into square patches that do not overlap, of 64 pixels, or of the smallest short side if that
    is less. All patches of a photograph are in one split.

    Raises:
        DataError: the folder cannot be read or is empty, or an image is damaged.
    """
    return cut_photographs(Path(argument), tell=log.info)


def cut_photographs(
    folder: Path, *, tell: Callable[..., None], see: Callable[[Path, Image], object] = lambda path, image: None
) -> RawData:
    """Cuts the photographs of a folder into the patches of `read_images`.

    Args:
        folder: the folder of photographs.
        tell: a logger's method, which reports the numbers of images and patches.
        see: called with each photograph as it is decoded, in the order of the groups.
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
    return raw_data(stacked(patches), None, (), part=part, groups=groups)


def has_splits(folder: Path) -> bool:
    """Tells whether a folder of images has train, validation or test folders on top. Raises DataError."""
    return _parts(folder, f"folder:{folder}") != [(TRAIN, folder)]


def list_photographs(folder: Path) -> list[tuple[Path, int]]:
    """Returns the images of ``images:DIR`` and the split of each, in the order of `read_images`' groups.

    Raises:
        DataError: the folder cannot be read or is empty.
    """
    source = f"images:{folder}"
    rows = [(path, part) for part, top in _parts(folder, source) for path in _image_paths(top, source)]
    if not rows:
        raise _no_images(source)
    return rows


def read_photograph(path: Path) -> Images:
    """Reads an image at its full size: (C, H, W), uint8, or float32 in [0, 1] when it has more than 8 bits.

    Raises:
        DataError: the image cannot be read, or has a side under `SMALLEST_SIDE` pixels.
    """
    image: Images = stacked([open_image(path)])[0]
    return image


def _parts(folder: Path, source: str) -> list[tuple[int, Path]]:
    """Returns the split folders inside `folder`; without any, the whole folder is for training."""
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
    """Returns the images at any depth, in an order that is the same on every machine."""

    def fail(error: OSError) -> None:
        raise _unreadable(source, error) from error

    paths = [Path(top, name) for top, _, names in os.walk(folder, onerror=fail) for name in names]
    return sorted(p for p in paths if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def _unreadable(source: str, error: OSError) -> DataError:
    return DataError(f"{source}: {error.filename} cannot be read ({error.strerror}); give a folder that you can list")


def _no_images(source: str) -> DataError:
    return DataError(f"{source}: holds no images; supported are {', '.join(sorted(_SUFFIXES))}")
