"""Arrays of images and labels in one file: MedMNIST's ``.npz``, and the form that Keras gives MNIST."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas.data.alike import together_in_training
from nas.data.image_file import SMALLEST_SIDE
from nas.data.preparation import KEPT_SIDE, SIDE, Preparation
from nas.data.raw import MISSING, PART_NAMES, PARTS, TRAIN, RawData, raw_data
from nas.data.white import is_far_below
from nas.errors import DataError, in_short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nas.data.raw import Images

log = logging.getLogger(__name__)

FORMS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
"""The names of a split's arrays: MedMNIST's, and Keras's."""

CHANNELS = (1, 3)

ROUNDING = 1e-5
"""How far resizing and dividing may have led fractions beyond 0 and 1."""


def read_npz(argument: str, _root: Path) -> RawData:
    """Reads ``npz:FILE``: ``train_images`` and ``train_labels``, and those of ``val`` and ``test`` where there are any.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels. They hold whole numbers from 0 to
    255, of any type, or fractions from 0 to 1. Labels are (N,) or (N, 1), of any numbers or words; the classes are the
    labels that occur. A file without labels is for denoising alone. Images with a side over 128 are cut at the centre
    and averaged to squares of at most 64 pixels, as those of folders are.

    Args:
        argument: the file. Nothing in it is unpickled.

    Raises:
        DataError: the file cannot be read, or its arrays are not as described.
    """
    import numpy as np

    source = f"npz:{argument}"
    stored = _read(Path(argument), source)
    arrays: dict[str, NDArray[Any]] = {}
    labels, part, unlabelled = list[Any](), list[int](), list[str]()
    for code, (shown, answer) in _parts(stored, source).items():
        found = _channels_first(stored[shown], f"{source}: {shown}")
        for name, others in arrays.items():
            if found.shape[1:] != others.shape[1:]:
                raise DataError(
                    f"{source}: {shown} has images (C, H, W) of {found.shape[1:]} and {name} of {others.shape[1:]}; "
                    "give all images one size"
                )
        arrays[shown] = found
        part += [code] * len(found)
        if answer is None:
            unlabelled.append(shown)
        else:
            labels.append(_labels(stored[answer], len(found), f"{source}: {answer}"))
    if labels and unlabelled:
        raise DataError(f"{source}: {unlabelled[0]} has no labels and others have; give all of them labels")
    stack = _scaled(arrays, source)
    side = min(SIDE, *stack.shape[2:])
    if max(stack.shape[2:]) > KEPT_SIDE:
        log.info("%s: images are resized and cut to %dx%d pixels", source, side, side)
        stack = Preparation(height=side, width=side, channels=stack.shape[1]).apply_to_all(stack)
    groups, joined = together_in_training(source, stack, part)
    if not labels:
        return raw_data(stack, None, (), part=part, groups=groups, joined=joined)
    classes, compact = np.unique(np.concatenate(labels), return_inverse=True)
    strange = ~np.isin(compact, compact[np.asarray(part) == TRAIN])
    if strange.any():
        first = int(strange.argmax())
        raise DataError(
            f"{source}: label {classes[compact[first]]} of {PARTS[part[first]]} is not in train; add images of it, or "
            "remove it"
        )
    if len(classes) < 2:
        raise DataError(f"{source}: 1 class, classification needs at least 2; remove the labels to denoise alone")
    return raw_data(stack, compact, [str(each) for each in classes], part=part, groups=groups, joined=joined)


def _read(path: Path, source: str) -> dict[str, NDArray[Any]]:
    """Reads all arrays of a file whose names may be those of a split."""
    import numpy as np

    wanted = {form.format(name) for name in PART_NAMES for forms in FORMS for form in forms}
    if not path.is_file():
        found = "is no regular file" if path.exists() else "there is no such file"
        raise DataError(f"{source}: {found}; give a .npz file")
    try:
        with path.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise DataError(
                    f"{source}: is no .npz file, or a part of one; give a whole one with train_images and train_labels"
                )
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if name in wanted}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or in_short(error)}); give a .npz file") from error
    except MemoryError as error:
        raise DataError(f"{source}: its arrays need more memory than there is; give a smaller file") from error
    except Exception as error:  # NumPy passes on what zipfile, zlib and its parser of headers raise
        raise DataError(
            f"{source}: cannot be read ({in_short(error)}); give a .npz file of plain arrays, none of Python objects"
        ) from error


def _parts(stored: dict[str, NDArray[Any]], source: str) -> dict[int, tuple[str, str | None]]:
    """Returns for each split of the file the names of its images and labels; None for no labels."""
    found: dict[int, tuple[str, str | None]] = {}
    for image_form, label_form in FORMS:
        for name, code in PART_NAMES.items():
            images, labels = image_form.format(name), label_form.format(name)
            if images not in stored:
                continue
            if code in found:
                raise DataError(f"{source}: {found[code][0]} and {images} are both {PARTS[code]}; keep one of them")
            found[code] = images, labels if labels in stored else None
    if TRAIN not in found:
        raise DataError(f"{source}: has no train_images; give a file as those of MedMNIST, with train_images (N, H, W)")
    return dict(sorted(found.items()))


def _channels_first(images: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns images as (N, C, H, W)."""
    shape = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[3] in CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or shape[1] not in CHANNELS:
        raise DataError(f"{name} is {shape}; give (N, H, W), (N, H, W, 3) or (N, 3, H, W)")
    if not len(images) or min(images.shape[2:]) < SMALLEST_SIDE:
        raise DataError(f"{name} is {shape}; give at least one image, with sides of at least {SMALLEST_SIDE}")
    return images


def _scaled(arrays: Mapping[str, NDArray[Any]], source: str) -> Images:
    """Returns all images as uint8 in 0..255, or as float32 in 0..1 where they are fractions."""
    import numpy as np

    fractions = {name: _are_fractions(images, f"{source}: {name}") for name, images in arrays.items()}
    if len(set(fractions.values())) > 1:
        told = [next(name for name, each in fractions.items() if each is kind) for kind in (True, False)]
        raise DataError(
            f"{source}: {told[0]} has fractions from 0 to 1, and {told[1]} has whole numbers from 0 to 255; give all "
            "images one scale"
        )
    most, full = float(max(images.max() for images in arrays.values())), 1 if all(fractions.values()) else 255
    if is_far_below(most, full):
        raise DataError(
            f"{source}: images have values up to {most:.6g}, far below {full}; divide them by the value that is white"
        )
    if full == 1:
        return np.concatenate([images.astype(np.float32).clip(0, 1) for images in arrays.values()])
    return cast("Images", np.concatenate([images.astype(np.uint8) for images in arrays.values()]))


def _are_fractions(images: NDArray[Any], name: str) -> bool:
    """Tells whether an array of images holds fractions from 0 to 1; otherwise it holds whole numbers from 0 to 255."""
    import numpy as np

    if images.dtype.kind not in "uif":
        raise DataError(f"{name} is of the type {images.dtype}; give numbers from 0 to 255, or from 0 to 1")
    finite = np.isfinite(images).all(axis=(1, 2, 3)) if images.dtype.kind == "f" else np.True_
    if not finite.all():
        raise DataError(f"{name}: image {np.flatnonzero(~finite)[0]} has values that are no numbers; mend or drop it")
    least, most = float(images.min()), float(images.max())
    if images.dtype.kind == "f" and least >= -ROUNDING and most <= 1 + ROUNDING:
        return True
    if not 0 <= least <= most <= 255 or (images.dtype.kind == "f" and (images % 1).any()):
        raise DataError(
            f"{name} has values from {least:.6g} to {most:.6g}; give whole numbers from 0 to 255, or divide them by "
            "the value that is white"
        )
    return False


def _labels(labels: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    """Returns the label of each image, (N,): whole numbers or words."""
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{name} has {labels.shape[1]} labels an image, and a network names one class; keep one column, or give "
            "the place of the 1 where each image has a single one"
        )
    if labels.ndim not in (1, 2) or labels.size != count:
        raise DataError(f"{name} is {labels.shape}, and there are {count} images; give one label an image")
    flat = labels.reshape(count)
    if flat.dtype.kind in "SU":
        words = np.char.decode(flat, "utf-8") if flat.dtype.kind == "S" else flat
        missing = np.isin(np.char.lower(words), ["", *MISSING])
        if missing.any():
            first = int(missing.argmax())
            raise DataError(
                f"{name}: label '{words[first]}' of image {first} stands for a missing value; name it, or drop it"
            )
        return words
    if flat.dtype.kind not in "biuf":
        raise DataError(f"{name} is of the type {flat.dtype}; give whole numbers or words")
    if flat.dtype.kind == "f" and not (np.isfinite(flat) & (flat % 1 == 0)).all():
        raise DataError(f"{name} has values that are no whole numbers; give one whole number for each class")
    return flat.astype(np.int64)
