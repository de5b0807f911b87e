"""Folders of images: class folders, and photographs without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.alike import Appearances, by_name, joined
from nas.data.images import image_sizes, open_images, stacked
from nas.data.listing import SUFFIXES, Listing, counted, list_folder, list_top
from nas.data.preparation import SIDE, Preparation, one_size, shrunk, without_tiny
from nas.data.raw import PART_NAMES, PARTS, TRAIN, RawData, evenly, raw_data
from nas.data.reader import read_file
from nas.data.white import Levels, White
from nas.errors import DataError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from nas.data.image_file import ImageFile
    from nas.data.raw import Images

PATCHES_PER_IMAGE = 64
"""The largest number of patches from one photograph of `images:`, so that a folder of large ones fits in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePage:
    """A page of an image file, the split that its folder names, and its path below that split's folder."""

    path: Path
    part: int
    name: str
    page: int = 0


def read_folder(
    argument: str,
    _root: Path,
    *,
    group_by: str | None = None,
    wanted: Preparation | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> RawData:
    """Reads ``folder:DIR``: one folder per class, with or without train, validation and test folders on top.

    Images of one size with sides up to 128 stay as they are. Others are shrunk by area and cut at the centre to squares
    whose side is the smallest short side, at most 64.

    Args:
        argument: the folder.
        group_by, wanted, white: see `nas.data.splits.load`.

    Raises:
        DataError: the folder cannot be read or is empty, an image is damaged, or there are fewer than two classes.
    """
    source, folder = f"folder:{argument}", Path(argument)
    parts, listing = _parts(folder, source, classes=True, tell=log.info)
    found: dict[int, dict[str, tuple[Path, ...]]] = {}
    for part, top in parts:
        inside, beside = _top(top, source)
        below = {each.name: _list(each, source) for each in inside}
        found[part] = {name: each.images for name, each in below.items()}
        if top != folder:
            listing += beside
        for each in below.values():
            listing += Listing(hidden=each.hidden, others=each.others)
    classes = sorted(found[TRAIN])
    for part, folders in found.items():
        if strangers := sorted(set(folders) - set(classes)):
            raise DataError(f"{source}: class {strangers[0]!r} of {PARTS[part]} is not in train; add or remove it")
    if len(classes) < 2:
        raise DataError(
            f"{source}: {len(classes)} class folder(s), classification needs at least 2; "
            f"use images:{argument} to denoise without classes"
        )
    tops = dict(parts)
    files = [
        ImagePage(path=path, part=part, name=path.relative_to(tops[part]).as_posix())
        for part, folders in found.items()
        for name in sorted(folders)
        for path in folders[name]
    ]
    if not files:
        raise _no_images(source)
    classless = [counted(len(listing.images), "image") + " beside the class folders"] if listing.images else []
    _tell_left_out(source, [*listing.left_out(), *classless], log.info)
    return labelled(
        source,
        files,
        [classes.index(file.name.partition("/")[0]) for file in files],
        classes,
        group_by=group_by,
        wanted=wanted,
        white=white,
    )


def labelled(
    source: str,
    files: Sequence[ImagePage],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    group_by: str | None,
    column: Column | None = None,
    wanted: Preparation | None,
    white: White,
) -> RawData:
    """Reads image files with the class of each as `read_folder` does; each page of a stack is an image of its class.

    Args:
        source: the source, for messages.
        files: the files.
        labels: the class of each file.
        classes: names of the classes.
        group_by, wanted, white: see `nas.data.splits.load`.
        column: what each file belongs to, instead of `group_by`.

    Raises:
        DataError: an image is damaged, or groups reach into two splits.
    """
    white = white.found(source, files_that_decide(files), log.info)
    appearances, levels = Appearances(), Levels(source, white)
    pages: list[ImagePage] = []
    rows: list[int] = []
    small: list[Image] = []
    sizes: list[tuple[int, int]] = []
    for row, file in enumerate(files):
        for page, image in enumerate(open_images(file.path, levels.of)):
            pages.append(replace(file, page=page))
            rows.append(row)
            appearances.add(image)
            sizes.append(image.size)
            small.append(shrunk(image))
    level = levels.common()
    names = [page.name for page in pages]
    shown = [labels[row] for row in rows]
    of_pages = None if column is None else replace(column, values=[column.values[row] for row in rows])
    usable = without_tiny(sizes, names, source, log.info)
    bound = belonging(source, pages, usable, appearances, levels, of_pages or group_by, shown, tell=log.info)
    images = one_size(
        [small[i] for i in bound.kept],
        [sizes[i] for i in bound.kept],
        source,
        names=[names[i] for i in bound.kept],
        wanted=wanted,
    )
    return raw_data(
        stacked(images, None if wanted is None else wanted.channels),
        [shown[index] for index in bound.kept],
        classes,
        part=[pages[index].part for index in bound.kept],
        groups=bound.groups,
        joined=bound.joined,
        white_level=level,
    )


def read_images(
    argument: str,
    _root: Path,
    *,
    group_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> RawData:
    """Reads ``images:DIR``: unlabelled photographs, with or without train, validation and test folders on top.

    Each photograph is cut into square patches that do not overlap, of 64 pixels, or of the smallest short side if that
    is less. All patches of a photograph are in one split.

    Args:
        argument: the folder.
        group_by, white: see `nas.data.splits.load`.

    Raises:
        DataError: the folder cannot be read or is empty, or an image is damaged.
    """
    return cut_photographs(Path(argument), group_by=group_by, white=white, tell=log.info, tell_patches=log.info).raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Photographs cut into patches.

    Attributes:
        raw: the patches.
        paths: the files of the photographs that have patches, in their order. Each page of a stack is a photograph.
        places: the place of each among the photographs that were decoded.
        first: for each of them the place of its first patch.
    """

    raw: RawData
    paths: tuple[Path, ...]
    places: tuple[int, ...]
    first: tuple[int, ...]


def cut_photographs(
    folder: Path,
    *,
    group_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
    tell: Callable[..., None],
    tell_patches: Callable[..., None] = log.debug,
    see: Callable[[Path, Image], object] = lambda path, image: None,
) -> Cut:
    """Cuts the photographs of a folder into the patches of `read_images`.

    Args:
        folder: the folder of photographs.
        group_by, white: see `nas.data.splits.load`.
        tell: a logger's method, which is told of photographs that are left out or equal.
        tell_patches: a logger's method, which is told the numbers of images and patches.
        see: called with each photograph as it is decoded, in their order, those among them that are left out later.
    """
    source = f"images:{folder}"
    files: list[ImagePage] = []
    sizes: list[tuple[int, int]] = []
    for file in image_files(folder, source, tell):
        found = image_sizes(file.path)
        files += [replace(file, page=page) for page in range(len(found))]
        sizes += found
    usable = without_tiny(sizes, [file.name for file in files], source, tell)
    files = [files[index] for index in usable]
    short = min(min(sizes[index]) for index in usable)
    side = min(SIDE, short - short % 2)
    white = white.found(source, files_that_decide(files), tell)
    appearances, levels = Appearances(), Levels(source, white)
    cut: list[list[Image]] = []
    for path, pages in groupby(files, lambda file: file.path):
        images = open_images(path, levels.of)
        for file in pages:
            image = images[file.page]
            appearances.add(image)
            see(path, image)
            corners = [
                (left, top)
                for top in range(0, image.height - side + 1, side)
                for left in range(0, image.width - side + 1, side)
            ]
            if len(corners) > PATCHES_PER_IMAGE:
                tell_patches("%s: %d of its %d patches are used", path, PATCHES_PER_IMAGE, len(corners))
            chosen = evenly(corners, PATCHES_PER_IMAGE)
            cut.append([image.crop((left, top, left + side, top + side)) for left, top in chosen])
    level = levels.common()
    bound = belonging(source, files, range(len(files)), appearances, levels, group_by, [0] * len(files), tell=tell)
    patches: list[Image] = []
    part: list[int] = []
    groups: list[int] = []
    first: list[int] = []
    for index, group in zip(bound.kept, bound.groups.tolist(), strict=True):
        first.append(len(patches))
        patches += cut[index]
        part += [files[index].part] * len(cut[index])
        groups += [group] * len(cut[index])
    tell_patches("%s: %d images cut into %d patches of %dx%d pixels", source, len(first), len(patches), side, side)
    raw = raw_data(stacked(patches), None, (), part=part, groups=groups, joined=bound.joined, white_level=level)
    paths = tuple(files[index].path for index in bound.kept)
    return Cut(raw=raw, paths=paths, places=tuple(bound.kept), first=tuple(first))


def has_splits(folder: Path) -> bool:
    """Tells whether a folder of images has train, validation or test folders on top. Raises DataError."""
    parts, _ = _parts(folder, f"images:{folder}", classes=False, tell=log.debug)
    return parts != [(TRAIN, folder)]


def read_photographs(path: Path, white: White) -> list[Images]:
    """Reads the images of a file at their full size: (C, H, W), uint8, or float32 in [0, 1] of more than 8 bits.

    Raises:
        DataError: the file cannot be read, or an image has a side under `SMALLEST_SIDE` pixels.
    """
    return [stacked([image])[0] for image in open_images(path, Levels(str(path), white).of)]


# --- what is in a folder ---
def files_that_decide(files: Sequence[ImagePage]) -> Iterator[ImageFile]:
    """Yields the files for training, each once and whole, by which `White.found` looks up the white level.

    Where a source does not say which images are for training, all of its files are: splits are cut by what images show,
    which is not known before their white level.
    """
    return map(read_file, dict.fromkeys(file.path for file in files if file.part == TRAIN))


def image_files(folder: Path, source: str, tell: Callable[..., None]) -> list[ImagePage]:
    """Returns the image files below a folder, or below its split folders. Raises DataError where there are none."""
    parts, listing = _parts(folder, source, classes=False, tell=tell)
    files: list[ImagePage] = []
    for part, top in parts:
        below = _list(top, source)
        files += [ImagePage(path=path, part=part, name=path.relative_to(top).as_posix()) for path in below.images]
        listing = below if top == folder else listing + Listing(hidden=below.hidden, others=below.others)
    if not files:
        raise _no_images(source)
    _tell_left_out(source, listing.left_out(), tell)
    return files


def _parts(
    folder: Path, source: str, *, classes: bool, tell: Callable[..., None]
) -> tuple[list[tuple[int, Path]], Listing]:
    """Returns the split folders inside `folder`, or all of it as the training split; and the files on its top.

    Folders called train or test are split folders only where no other images stand beside them: otherwise they are
    folders as the others are. Class folders beside folders that hold class folders themselves are refused, because
    nobody can tell which of them the classes are.
    """
    inside, listing = _top(folder, source)
    named = [(PART_NAMES[f.name.lower()], f) for f in inside if f.name.lower() in PART_NAMES]
    beside = [f.name for f in inside if f.name.lower() not in PART_NAMES and _list(f, source).images]
    if not classes:
        beside += [path.name for path in listing.images]
    if not named:
        return [(TRAIN, folder)], listing
    names = ", ".join(f.name for _, f in named)
    if beside:
        if classes and (
            nested := [f for _, f in named if any(_list(each, source).images for each in _top(f, source)[0])]
        ):
            raise DataError(
                f"{source}: {beside[0]!r} stands beside {nested[0].name!r}, which holds class folders; keep either "
                "split folders or class folders there, and move the others away"
            )
        tell("%s: %s: no split folder, because %s stands beside it", source, names, beside[0])
        return [(TRAIN, folder)], listing
    codes = [code for code, _ in named]
    if TRAIN in codes and len(set(codes)) == len(codes):
        return sorted(named), listing
    raise DataError(f"{source}: split folders {names}; exactly one must be 'train'")


def _top(folder: Path, source: str) -> tuple[tuple[Path, ...], Listing]:
    try:
        return list_top(folder)
    except OSError as error:
        raise _unreadable(source, error) from error


def _list(folder: Path, source: str) -> Listing:
    try:
        return list_folder(folder)
    except OSError as error:
        raise _unreadable(source, error) from error


def _tell_left_out(source: str, parts: Sequence[str], tell: Callable[..., None]) -> None:
    if parts:
        tell("%s: left out: %s", source, ", ".join(parts))


def _unreadable(source: str, error: OSError) -> DataError:
    return DataError(f"{source}: {error.filename} cannot be read ({error.strerror}); give a folder that you can list")


def _no_images(source: str) -> DataError:
    return DataError(f"{source}: holds no images; supported are {', '.join(sorted(SUFFIXES))}")


# --- what belongs together ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What each file belongs to, by the name of a column in a list of files: the patient of each, for example."""

    name: str
    values: Sequence[str]

    def __str__(self) -> str:
        return f"column {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The images that are used, by their places, the group of each, and whether any group was joined."""

    kept: list[int]
    groups: NDArray[np.int64]
    joined: bool


def belonging(
    source: str,
    files: Sequence[ImagePage],
    usable: Sequence[int],
    appearances: Appearances,
    levels: Levels,
    group_by: str | Column | None,
    labels: Sequence[int],
    *,
    tell: Callable[..., None],
) -> Bound:
    """Groups the usable images that may not lie in two splits, and says in one line how many are equal.

    Pages of one file belong together as well.

    Where folders themselves divide images that are equal, the ones in training give way to those in validation, and
    both to those in test, so that nothing that is judged is trained on.

    Raises:
        DataError: folders divide what `group_by` keeps together, or images have other numbers of channels.
    """
    import numpy as np

    channels = appearances.channels(usable, [file.name for file in files], source)
    if channels not in (1, 3):
        tell("%s: images of %d channels", source, channels)
    equal, resized = appearances.equal(
        usable, lambda index: open_images(files[index].path, levels.of_noisy)[files[index].page]
    )
    places = np.asarray(usable)
    part = np.array([files[index].part for index in usable])
    judged = np.full(len(usable), TRAIN)
    np.maximum.at(judged, equal, part)
    kept = np.flatnonzero(part == judged[equal])
    if copies := int((equal != np.arange(len(usable))).sum()):
        shown = np.asarray(labels)[places]
        told = [f"{copies} of {len(usable)} images are equal to another one"]
        told += [f"{resized} of them but for size"] if resized else []
        told += [f"{other} in another class"] if (other := int((shown != shown[equal]).sum())) else []
        told += [f"{gone} left out of an earlier split"] if (gone := len(usable) - len(kept)) else []
        tell("%s: %s; equal images stay in one split", source, ", ".join(told))
    # Only images that are left belong together, so that no group reaches into two split folders.
    left = [files[usable[index]] for index in kept.tolist()]
    keys: list[Sequence[object]] = [equal[kept].tolist(), [file.path for file in left]]
    by = repr(group_by) if isinstance(group_by, str) else str(group_by)
    if group_by is not None:
        if isinstance(group_by, Column):
            names: list[object] = [group_by.values[usable[index]] for index in kept.tolist()]
        else:
            names = by_name([files[index].name for index in usable], group_by, source)[kept].tolist()
        _check_undivided(source, left, names, f"`group_by` {by}" if isinstance(group_by, str) else by)
        keys.append(names)
    groups = np.arange(len(left))
    for key in keys:
        first: dict[object, int] = {}
        groups = joined(groups, [(index, first.setdefault(value, index)) for index, value in enumerate(key)])
    if group_by is not None:
        tell("%s: %d images in %d groups by %s", source, len(kept), len(np.unique(groups)), by)
    chosen, compact = np.unique(groups, return_inverse=True)
    together = len(chosen) < len(kept)
    return Bound(kept=places[kept].tolist(), groups=compact if together else np.arange(len(kept)), joined=together)


def _check_undivided(source: str, files: Sequence[ImagePage], names: Sequence[object], by: str) -> None:
    seen: dict[object, ImagePage] = {}
    for file, name in zip(files, names, strict=True):
        other = seen.setdefault(name, file)
        if other.part != file.part:
            raise DataError(
                f"{source}: {by} keeps {other.name} of {PARTS[other.part]} and {file.name} of "
                f"{PARTS[file.part]} together; move them into one split folder"
            )
