"""Data sets by name, in three splits that depend on the data alone.

A split never depends on a seed. The test split is the data's own when there is one, else 20 % of it, and validation
comes out of the training data. `nas.data.sources` has the readers of the names.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.data.folders import Cut, cut_photographs, has_splits
from nas.data.preparation import Preparation
from nas.data.raw import PARTS, TEST, TRAIN, VALIDATION, RawData, Shots
from nas.data.sources import check_paired, parse_source, source_of
from nas.data.white import DATA, White
from nas.errors import ConfigError, DataError
from nas.types import MAX_CHANNELS, MAX_SIDE, Task
from nas.words import visible

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
        shots: noisy images beside the clean `images`; None where noise is added to these.
        clean: False where no clean images are known (see `nas.data.raw.RawData`).
    """

    images: Images
    labels: Labels | None
    shots: Shots | None = None
    clean: bool = True

    def chosen(self, rows: Sequence[int] | NDArray[np.intp]) -> Split:
        """Returns some of the images, with all that belongs to them."""
        rows = np.asarray(rows, np.intp)
        return Split(
            self.images[rows],
            None if self.labels is None else self.labels[rows],
            None if self.shots is None else self.shots.of(rows),
            self.clean,
        )

    @property
    def draws(self) -> int:
        """The number of fixed draws under which the split is judged (see `validation_draws`)."""
        wanted = validation_draws(len(self.images))
        return wanted if self.shots is None else min(wanted, self.shots.most)

    @property
    def drawn(self) -> str:
        """What is drawn there: ``noise``, ``shots`` or ``hidden pixels``."""
        if self.shots is not None:
            return "shots"
        return "noise" if self.clean else "hidden pixels"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data source in three splits.

    Attributes:
        name: canonical source, as `parse_source` returns it.
        classes: class names by index; empty without labels.
        fingerprint: 16 hexadecimal digits of the SHA-256 over all images, labels and own splits of the source. It does
            not depend on the subset.
        has_own_splits: whether the source says which of its images are for validation or test.
        group_by: the regular expression that kept images together; None without one.
        white_level: value that is white in all images of more than 8 bits; None where each has its type's.
        pair_by: the regular expression that joined clean and noisy images; None without one.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    has_own_splits: bool = False
    group_by: str | None = None
    white_level: float | None = None
    pair_by: str | None = None

    @property
    def deep(self) -> bool:
        """Whether the files of noisy images, as a network gets them, have more than 8 bits; False without files."""
        noisy = self.train.images if self.train.shots is None else self.train.shots.images
        return source_of(self.name).files and str(noisy.dtype) != "uint8"

    def task(self, noise: str) -> Task:
        """Returns what a network for this data and a noise, given by its canonical name, is built for."""
        _, channels, height, width = self.train.images.shape
        return Task(
            channels=channels,
            classes=len(self.classes),
            height=height,
            width=width,
            noise=noise,
            clean=self.train.clean,
        )


def load(
    source: str,
    *,
    root: Path | None = None,
    subset: int | None = None,
    group_by: str | None = None,
    pair_by: str | None = None,
    wanted: Preparation | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> Dataset:
    """Reads a data source and cuts the splits that it lacks.

    Images of a folder that are equal, or equal but for their size, are never in two splits.

    Args:
        source: a name of `nas.data.sources.list_sources`.
        root: folder for torchvision's files and downloads; by default ``~/.cache/skipnas/data``.
        subset: number of training images to keep, stratified; by default all.
        group_by: regular expression that is searched in the path of each image below the folder (and below its split
            folder, if there is one). Images in which it finds the same are kept in one split: frames of a track, slices
            of a patient. It is for folders of images.
        pair_by: regular expression that finds the same in the path of a clean image and in those of its noisy shots,
            below their sides. It is for pairs whose names differ (see `nas.data.pairing.find_scenes`).
        wanted: the form to which the images of class folders are brought, when a network was trained on it; by default
            they decide themselves.
        white: what is known of the value that is white in images of more than 8 bits.

    Raises:
        ConfigError: the source is unknown, or has no files to group, no pairs or no other white level; or the subset is
            outside [classes, training images].
        DataError: the data cannot be read, or is too small for three splits.
    """
    name = parse_source(source)
    raw = _read(name, (root or DEFAULT_ROOT).expanduser(), group_by, pair_by, wanted, white)
    _check_classes(raw.classes, name)
    if raw.images.shape[1] > MAX_CHANNELS:
        raise DataError(
            f"{name}: images of {raw.images.shape[1]} channels, at most {MAX_CHANNELS} are taken; split them"
        )
    fingerprint = _fingerprint(raw)
    part = assign(raw, name, fingerprint)
    rows = {code: np.flatnonzero(part == code) for code in (TRAIN, VALIDATION, TEST)}
    if subset is not None:
        rows[TRAIN] = _subset(rows[TRAIN], raw, subset, fingerprint)
    whole = Split(raw.images, raw.labels, raw.shots, raw.clean)
    splits = {code: whole.chosen(chosen) for code, chosen in rows.items()}
    return Dataset(
        name,
        splits[TRAIN],
        splits[VALIDATION],
        splits[TEST],
        raw.classes,
        fingerprint,
        has_own_splits=raw.has_splits,
        group_by=group_by,
        white_level=raw.white_level,
        pair_by=pair_by,
    )


def _check_classes(classes: Sequence[str], source: str) -> None:
    """Refuses what no bundle may have (`nas.bundles.bundle`) before anything is trained."""
    if len(classes) > MAX_SIDE:
        raise DataError(f"{source}: {len(classes)} classes, a network has at most {MAX_SIDE}; merge some")
    for name in classes:
        if visible(name) != name:
            raise DataError(f"{source}: class '{visible(name)}' has control characters in its name; rename its folder")


def _read(
    name: str, root: Path, group_by: str | None, pair_by: str | None, wanted: Preparation | None, white: White
) -> RawData:
    source = source_of(name)
    if (white.given is not None or white.of_data) and not source.files:
        asked = DATA if white.given is None else f"{white.given:g}"
        raise ConfigError(f"`white_level` {asked}: {name} has a scale of its own; leave it out")
    if group_by is not None and not source.files:
        raise ConfigError(
            f"`group_by` {group_by!r}: {name} has no files to group; it is for folder:DIR, csv:FILE, images:DIR, "
            "pairs:DIR and noisy:DIR"
        )
    check_paired(name, pair_by)
    given: dict[str, object] = {"group_by": group_by, "white": white} if source.files else {}
    if source.paired:
        given["pair_by"] = pair_by
    elif source.files and not source.photographs and not source.own_noise:
        given["wanted"] = wanted
    raw = source.read(name.partition(":")[2] or name, root, **given)
    if source.own_noise and wanted is not None and raw.images.shape[2:] != (wanted.height, wanted.width):
        raise DataError(
            f"{name}: has patches of {raw.images.shape[2]}x{raw.images.shape[3]} pixels, which are never resized, and "
            f"the network names classes of images of {wanted.height}x{wanted.width}; evaluate it on such images"
        )
    if wanted is not None and raw.labels is not None:
        raw = replace(raw, images=wanted.apply_to_all(raw.images))
    return raw


def photographs(
    source: str,
    part: str | None,
    *,
    seen: Collection[str] | None,
    group_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> tuple[list[Path], str, White]:
    """Returns the photographs of ``images:DIR`` on which a network is judged, whole, and the name of their split.

    Args:
        source: canonical source of the kind ``images``.
        part: ``validation`` or ``test``. None for all photographs if the folder has no splits of its own and the
            network has not seen them, and otherwise for ``test``.
        seen: fingerprints of the data that the network was trained on; None when it is not known.
        group_by, white: see `load`.

    Returns:
        Paths of the files, whose pages are photographs; ``validation``, ``test`` or ``all``; and what is known of
        their white level by now.

    Raises:
        DataError: the folder cannot be read, or has no such split.
    """
    folder = Path(source.partition(":")[2])
    cut = cut_photographs(folder, group_by=group_by, white=white, tell=log.info)
    fingerprint = _fingerprint(cut.raw)
    if part is None and seen is not None and fingerprint not in seen and not has_splits(folder):
        return list(dict.fromkeys(cut.paths)), "all", white.fixed(cut.raw.white_level)
    wanted = {"validation": VALIDATION, "test": TEST}[part or "test"]
    split = _split_of_photographs(cut, source, fingerprint)
    found = dict.fromkeys(path for path, code in zip(cut.paths, split, strict=True) if code == wanted)
    return list(found), part or "test", white.fixed(cut.raw.white_level)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPhotographs:
    """The photographs of ``images:DIR`` in three splits.

    Attributes:
        paths: the files of the photographs.
        places: the place of each among those that were decoded.
        part: (N,) the split of each: TRAIN, VALIDATION or TEST.
        fingerprint: the folder's.
        white_level: see `RawData`.
    """

    paths: tuple[Path, ...]
    places: tuple[int, ...]
    part: NDArray[np.int64]
    fingerprint: str
    white_level: float | None

    def files(self, part: int) -> list[Path]:
        """Returns the files of a split, each once; the pages of a file are never in two splits."""
        return list(dict.fromkeys(path for path, code in zip(self.paths, self.part, strict=True) if code == part))


def split_photographs(
    source: str,
    see: Callable[[Path, Image], object] = lambda path, image: None,
    *,
    group_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
    tell: Callable[..., None] = log.info,
) -> SplitPhotographs:
    """Splits the photographs of ``images:DIR``.

    The splits are those of `load`, which cuts the photographs into patches. So a training on whole photographs sees no
    photograph that a search holds out.

    Args:
        source: canonical source of the kind ``images``.
        see: called with each photograph as it is decoded; each is decoded once.
        group_by, white: see `load`.
        tell: a logger's method, which is told of photographs that are left out or equal.

    Raises:
        DataError: the folder cannot be read, or a split would be empty.
    """
    cut = cut_photographs(Path(source.partition(":")[2]), group_by=group_by, white=white, tell=tell, see=see)
    fingerprint = _fingerprint(cut.raw)
    part = _split_of_photographs(cut, source, fingerprint)
    return SplitPhotographs(
        paths=cut.paths, places=cut.places, part=part, fingerprint=fingerprint, white_level=cut.raw.white_level
    )


def _split_of_photographs(cut: Cut, source: str, fingerprint: str) -> NDArray[np.int64]:
    split: NDArray[np.int64] = assign(cut.raw, source, fingerprint)[list(cut.first)]
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
    labels = _strata(raw)[part == TRAIN]
    strata = labels[first]
    size = round(HELD_OUT * len(groups))
    if lacking == [VALIDATION]:
        size = min(size, MOST_VALIDATION)
    free = np.ones(len(groups), bool)
    mixed = _mixed(raw.groups[part == TRAIN], labels, groups, strata, len(raw.classes)) if raw.joined else None
    for index, code in enumerate(lacking):
        reserve = len(lacking) - index
        if mixed is None:
            drawn = _draw(strata[free], size, fingerprint, reserve=reserve)
        else:
            drawn = _draw_mixed(mixed[free], mixed.sum(0) * (size / len(groups)), fingerprint, reserve=reserve)
        chosen = np.flatnonzero(free)[drawn]
        free[chosen] = False
        part[np.isin(raw.groups, groups[chosen])] = code
    for code in (TRAIN, *lacking) if mixed is not None else ():
        missing = np.setdiff1d(_strata(raw), _strata(raw)[part == code])
        if len(missing):
            raise DataError(
                f"{name}: groups that stay together leave no image of class {raw.classes[missing[0]]!r} for "
                f"{PARTS[code]}; add images of other groups, or remove the class"
            )
    return part


def _mixed(
    groups_of_images: NDArray[np.int64], labels: Labels, groups: NDArray[np.int64], strata: Labels, classes: int
) -> NDArray[np.int64] | None:
    """Returns how many images of each class each group holds (G, K); None when every group is of one class."""
    rows = np.searchsorted(groups, groups_of_images)
    if (strata[rows] == labels).all():
        return None
    counts = np.zeros((len(groups), classes), np.int64)
    np.add.at(counts, (rows, labels), 1)
    return counts


def _draw_mixed(
    counts: NDArray[np.int64], wanted: NDArray[np.float64], fingerprint: str, *, reserve: int
) -> NDArray[np.intp]:
    """Returns sorted indices of groups that together hold about the wanted number of images of each class.

    In a random order, a group is taken when it brings the numbers nearer to the wanted ones, relative to each class's
    number of images; every class is begun with one of its groups, the rarest class first. Of each class at least
    `reserve` groups remain.

    Args:
        counts: images of each class in each group (G, K).
        wanted: images of each class (K,).
    """
    order = np.argsort(np.random.PCG64(int(fingerprint, 16)).random_raw(len(counts)))
    holds = counts > 0
    scale = np.maximum(counts.sum(0), 1)
    left, have = holds.sum(0), np.zeros(counts.shape[1])
    taken = np.zeros(len(counts), bool)

    def nearer(group: int) -> float:
        return float(np.sum((abs(have - wanted) - abs(have + counts[group] - wanted)) / scale))

    def spare(group: int) -> bool:
        return not taken[group] and bool((left[holds[group]] > reserve).all())

    def take(group: int) -> None:
        nonlocal have, left
        taken[group] = True
        have, left = have + counts[group], left - holds[group]

    for label in np.argsort(holds.sum(0), kind="stable"):
        choices = [group for group in order if holds[group, label] and spare(group)]
        if have[label] == 0 and choices:
            take(max(choices, key=nearer))
    for group in order:
        if spare(group) and nearer(group) > 0:
            take(group)
    return np.flatnonzero(taken)


def _check_enough(raw: RawData, name: str, needed: int) -> None:
    """Checks that every class reaches every split, when groups (whole photographs, for example) are not divided."""
    what = "image" if len(np.unique(raw.groups)) == len(raw.groups) else "group" if raw.joined else "photograph"
    strata = _strata(raw)
    for code in np.unique(raw.part):
        least = needed if code == TRAIN else 1
        inside = raw.part == code
        for index, label in enumerate(raw.classes or ("",)):
            count = len(np.unique(raw.groups[inside & (strata == index)]))
            if count < least:
                where = f"class {label!r} has" if label else "there are"
                one = " (equal images are one group)" if raw.joined else ""
                raise DataError(
                    f"{name}: {where} {count} {what}(s) for {PARTS[code]}{one}, at least {least} needed so that every "
                    f"split gets one; add images{' or remove the class' if label else ''}"
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
    if raw.shots is not None:
        for array in (raw.shots.images, raw.shots.starts.astype("<i8")):
            digest.update(f"shots{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    if not raw.clean:
        digest.update(b"noisy")
    if raw.joined:
        digest.update(b"groups" + np.ascontiguousarray(raw.groups, "<i8").data)
    return digest.hexdigest()[:16]


def noise_seed(fingerprint: str) -> int:
    """Returns the seed of all noise that depends on the data alone."""
    return int(fingerprint, 16) % 2**63


def to_float(batch: Tensor) -> Tensor:
    """Returns images as float32 in [0, 1], from uint8 in 0..255 or from floats in [0, 1]."""
    return batch.float() if batch.is_floating_point() else batch.float() / 255


def joined_splits(splits: Sequence[Split]) -> Split:
    """Returns the images of several splits of one data set as one."""
    labels = [split.labels for split in splits if split.labels is not None]
    shots = [split.shots for split in splits if split.shots is not None]
    counts = [np.diff(each.starts) for each in shots]
    return Split(
        np.concatenate([split.images for split in splits]),
        np.concatenate(labels) if labels else None,
        Shots(np.concatenate([each.images for each in shots]), np.cumsum(np.concatenate([[0], *counts])))
        if shots
        else None,
        all(split.clean for split in splits),
    )


def validation_draws(images: int) -> int:
    """Returns the number of fixed noise draws for a validation split: enough for about 2,000 judged images, at most
    8."""
    return min(MOST_DRAWS, math.ceil(JUDGED_IMAGES / images))


def class_counts(labels: Sequence[int] | Labels | None, classes: int) -> tuple[int, ...]:
    """Returns the number of images of each class, from their labels (N,); nothing without labels."""
    return () if labels is None else tuple(np.bincount(labels, minlength=classes).tolist())
