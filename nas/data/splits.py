"""Data sets by name, in three splits that depend on the data alone.

A split never depends on a seed. The test split is the data's own when there is one, else 20 % of it, and validation
comes out of the training data. `nas.data.sources` has the readers of the names.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.data.folders import cut_photographs, has_splits, list_photographs
from nas.data.raw import PARTS, TEST, TRAIN, VALIDATION, RawData
from nas.data.sources import parse_source, source_of
from nas.errors import ConfigError, DataError
from nas.types import Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from nas.data.raw import Images, Labels

log = logging.getLogger(__name__)
DEFAULT_ROOT = Path("~/.cache/skipnas/data")
HELD_OUT = 0.2
"""The share of the training data that each missing split takes."""

MOST_VALIDATION = 2000
"""The largest number of images in a validation split beside the data's own test split."""

JUDGED_IMAGES, MOST_DRAWS = 2000, 8


@dataclass(frozen=True, slots=True)
class Split:
    """Images and labels in plain arrays, which Ray's object store shares without a copy.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].
        labels: (N,) int64 class indices; None without labels.
    """

    images: Images
    labels: Labels | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data source in three splits.

    Attributes:
        name: canonical source, as `parse_source` returns it.
        classes: class names by index; empty without labels.
        fingerprint: 16 hexadecimal digits of the SHA-256 over all images, labels and own splits of the source. It does
            not depend on the subset.
        has_own_splits: whether the source says which of its images are for validation or test.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    has_own_splits: bool = False

    def task(self, noise: str) -> Task:
        """Returns what a network for this data and a noise, given by its canonical name, is built for."""
        _, channels, height, width = self.train.images.shape
        return Task(channels=channels, classes=len(self.classes), height=height, width=width, noise=noise)


def load(source: str, *, root: Path | None = None, subset: int | None = None) -> Dataset:
    """Reads a data source and cuts the splits that it lacks.

    Args:
        source: a name of `nas.data.sources.list_sources`.
        root: folder for torchvision's files and downloads; by default ``~/.cache/skipnas/data``.
        subset: number of training images to keep, stratified; by default all.

    Raises:
        ConfigError: the source is unknown, or the subset is outside [classes, training images].
        DataError: the data cannot be read, or is too small for three splits.
    """
    name = parse_source(source)
    raw = source_of(name).read(name.partition(":")[2] or name, (root or DEFAULT_ROOT).expanduser())
    fingerprint = _fingerprint(raw)
    part = assign(raw, name, fingerprint)
    rows = {code: np.flatnonzero(part == code) for code in (TRAIN, VALIDATION, TEST)}
    if subset is not None:
        rows[TRAIN] = _subset(rows[TRAIN], raw, subset, fingerprint)
    splits = {
        code: Split(raw.images[chosen], None if raw.labels is None else raw.labels[chosen])
        for code, chosen in rows.items()
    }
    return Dataset(
        name, splits[TRAIN], splits[VALIDATION], splits[TEST], raw.classes, fingerprint, has_own_splits=raw.has_splits
    )


def photographs(source: str, part: str | None, *, seen: str | None) -> tuple[list[Path], str]:
    """Returns the photographs of ``images:DIR`` on which a network is judged, whole, and the name of their split.

    Args:
        source: canonical source of the kind ``images``.
        part: ``validation`` or ``test``. None for all photographs if the folder has no splits of its own and the
            network has not seen them, and otherwise for ``test``.
        seen: fingerprint of the data that the network was trained on; None when it is not known.

    Returns:
        Paths, and ``validation``, ``test`` or ``all``.

    Raises:
        DataError: the folder cannot be read, or has no such split.
    """
    folder = Path(source.partition(":")[2])
    paths = [path for path, _ in list_photographs(folder)]
    raw = cut_photographs(folder, tell=log.debug)
    fingerprint = _fingerprint(raw)
    if part is None and seen not in (None, fingerprint) and not has_splits(folder):
        return paths, "all"
    wanted = {"validation": VALIDATION, "test": TEST}[part or "test"]
    split = _split_of_groups(raw, source, fingerprint)
    return [path for path, code in zip(paths, split, strict=True) if code == wanted], part or "test"


def split_photographs(
    source: str, see: Callable[[Path, Image], object] = lambda path, image: None
) -> tuple[list[Path], NDArray[np.int64], str]:
    """Returns the photographs of ``images:DIR``, the split of each (TRAIN, VALIDATION or TEST), and the fingerprint.

    The splits are those of `load`, which cuts the photographs into patches. So a training on whole photographs sees no
    photograph that a search holds out.

    Args:
        source: canonical source of the kind ``images``.
        see: called with each photograph as it is decoded; each is decoded once.

    Raises:
        DataError: the folder cannot be read, or a split would be empty.
    """
    paths: list[Path] = []

    def decoded(path: Path, image: Image) -> None:
        paths.append(path)
        see(path, image)

    raw = cut_photographs(Path(source.partition(":")[2]), tell=log.debug, see=decoded)
    fingerprint = _fingerprint(raw)
    return paths, _split_of_groups(raw, source, fingerprint), fingerprint


def _split_of_groups(raw: RawData, source: str, fingerprint: str) -> NDArray[np.int64]:
    _, first = np.unique(raw.groups, return_index=True)
    split: NDArray[np.int64] = assign(raw, source, fingerprint)[first]
    return split


def assign(raw: RawData, name: str, fingerprint: str) -> NDArray[np.int64]:
    """Returns the split of each image (N,): TRAIN, VALIDATION or TEST, stratified by label, with groups kept together.

    Raises:
        DataError: a class, or data without classes, is too small for every split.
    """
    part = raw.part.copy()
    lacking = [code for code in (TEST, VALIDATION) if code not in part]
    _check_enough(raw, name, needed=1 + len(lacking))
    groups, first = np.unique(raw.groups[part == TRAIN], return_index=True)
    strata = _strata(raw)[part == TRAIN][first]
    size = round(HELD_OUT * len(groups))
    if lacking == [VALIDATION]:
        size = min(size, MOST_VALIDATION)
    free = np.ones(len(groups), bool)
    for index, code in enumerate(lacking):
        drawn = _draw(strata[free], size, fingerprint, reserve=len(lacking) - index)
        chosen = np.flatnonzero(free)[drawn]
        free[chosen] = False
        part[np.isin(raw.groups, groups[chosen])] = code
    return part


def _check_enough(raw: RawData, name: str, needed: int) -> None:
    """Checks that every class reaches every split, when groups (whole photographs, for example) are not divided."""
    what = "image" if len(np.unique(raw.groups)) == len(raw.groups) else "photograph"
    strata = _strata(raw)
    for code in np.unique(raw.part):
        least = needed if code == TRAIN else 1
        inside = raw.part == code
        for index, label in enumerate(raw.classes or ("",)):
            count = len(np.unique(raw.groups[inside & (strata == index)]))
            if count < least:
                where = f"class {label!r} has" if label else "there are"
                raise DataError(
                    f"{name}: {where} {count} {what}(s) for {PARTS[code]}, at least {least} needed so that every split "
                    f"gets one; add images{' or remove the class' if label else ''}"
                )


def _subset(rows: NDArray[np.intp], raw: RawData, size: int, fingerprint: str) -> NDArray[np.intp]:
    least = max(1, len(raw.classes))
    if not least <= size <= len(rows):
        raise ConfigError(
            f"subset {size}: must be at least {least} (one image per class) and at most {len(rows)} (training images)"
        )
    return rows[_draw(_strata(raw)[rows], size, fingerprint)]


def _strata(raw: RawData) -> Labels:
    return np.zeros(len(raw.images), np.int64) if raw.labels is None else raw.labels


def _draw(strata: Labels, size: int, fingerprint: str, *, reserve: int = 0) -> NDArray[np.intp]:
    """Returns sorted indices of about `size` units, in proportion to the strata; `reserve` units of each remain."""
    labels, counts = np.unique(strata, return_counts=True)
    quotas = _quotas(counts, size, counts - reserve)
    # A bit generator's stream is the same in every version of NumPy; the streams of Generator's methods may change.
    order = np.argsort(np.random.PCG64(int(fingerprint, 16)).random_raw(len(strata)))
    chosen = [order[strata[order] == label][:quota] for label, quota in zip(labels, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))


def _quotas(counts: NDArray[np.intp], size: int, most: NDArray[np.intp]) -> NDArray[np.intp]:
    """Divides `size` in proportion to `counts` by largest remainder, at least 1 and at most `most` each."""
    size = min(max(size, len(counts)), int(most.sum()))
    exact = counts * (size / counts.sum())
    quotas: NDArray[np.intp] = np.clip(np.floor(exact).astype(np.intp), 1, most)
    while step := int(np.sign(size - quotas.sum())):
        movable = quotas < most if step > 0 else quotas > 1
        quotas[np.argmax(np.where(movable, (exact - quotas) * step, -np.inf))] += step
    return quotas


def _fingerprint(raw: RawData) -> str:
    digest = hashlib.sha256()
    for array in (raw.images, raw.part, *(() if raw.labels is None else (raw.labels,))):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def noise_seed(fingerprint: str) -> int:
    """Returns the seed of all noise that depends on the data alone."""
    return int(fingerprint, 16) % 2**63


def to_float(batch: Tensor) -> Tensor:
    """Returns images as float32 in [0, 1], from uint8 in 0..255 or from floats in [0, 1]."""
    return batch.float() if batch.is_floating_point() else batch.float() / 255


def validation_draws(images: int) -> int:
    """Returns the number of fixed noise draws for a validation split: enough for about 2,000 judged images, at most
    8."""
    return min(MOST_DRAWS, math.ceil(JUDGED_IMAGES / images))


def majority_accuracy(labels: Sequence[int] | Labels, classes: int) -> float:
    """Returns the accuracy in percent of always answering the largest class of `labels` (N,)."""
    return 100 * float(np.bincount(labels, minlength=classes).max()) / len(labels)
