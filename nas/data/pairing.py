"""Folders of pairs: which of them holds the noisy side, which the clean one, and which files belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.data.listing import Listing, counted, list_folder, list_top
from nas.data.raw import PART_NAMES, TRAIN
from nas.errors import DataError

NOISY, CLEAN = "noisy", "clean"
SIDES: Mapping[str, str] = {
    **dict.fromkeys(("noisy", "lq", "low", "input", "source", "l", "raw"), NOISY),
    **dict.fromkeys(("clean", "gt", "hq", "target", "groundtruth", "h"), CLEAN),
}
"""The names of the two sides, in small letters without signs, as BasicSR (lq, gt), KAIR (L, H), CARE (low, GT) and
others call them."""

MOST_SHOTS = 16
"""The largest number of noisy shots of a clean image that are used, spread evenly."""

NAMED = 3
_NAMES = "noisy and clean, lq and gt, input and target, or low and GT"
_SIDE_IN_NAME = re.compile(
    rf"(?:^|(?<=[^a-z0-9]))(?:{'|'.join(name for name in SIDES if len(name) > 1)})(?=$|[^a-z0-9])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A clean image file with its noisy shots.

    Attributes:
        clean, shots: the files.
        part: the split that their folders name.
        label: its class; empty without classes.
        name: path of the clean file below its side, with the class.
    """

    clean: Path
    shots: tuple[Path, ...]
    part: int
    label: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """The two folders of a split."""

    part: int
    noisy: Path
    clean: Path


def find_scenes(folder: Path, source: str, pair_by: str | None, tell: Callable[..., None]) -> tuple[list[Scene], bool]:
    """Finds the clean images of a folder of pairs, each with its shots.

    Args:
        folder: has two folders, one for each side, or split folders with two each. Below a side may be class folders.
        source: the source, for messages.
        pair_by: regular expression that finds the same in the paths of a clean image and its shots; by default they
            have the same name, or the shots lie in a folder of its name or have a number behind it.
        tell: a logger's method, which is told of what is left out.

    Returns:
        The scenes, and whether they have classes.

    Raises:
        DataError: there are not two sides, or an image has no partner.
    """
    parts = _parts(folder, source)
    left_out = Listing()
    listed: list[tuple[_Sides, Sequence[Path], Sequence[Path]]] = []
    for sides in parts:
        noisy, clean = _list(sides.noisy, source), _list(sides.clean, source)
        for each in (noisy, clean):
            left_out += Listing(hidden=each.hidden, others=each.others)
        for side, found in ((sides.noisy, noisy), (sides.clean, clean)):
            if not found.images:
                raise DataError(f"{source}: {side} holds no images; each side needs them")
        listed.append((sides, noisy.images, clean.images))
    classes = _have_classes([(sides.clean, clean) for sides, _, clean in listed], source)
    scenes = [scene for each in listed for scene in _matched(*each, classes, source, pair_by)]
    if parts_left := left_out.left_out():
        tell("%s: left out: %s", source, ", ".join(parts_left))
    found_labels = {scene.label for scene in scenes}
    if classes and len(found_labels) < 2:
        raise DataError(
            f"{source}: 1 class folder, classification needs at least 2; move its images up to denoise without classes"
        )
    trained = {scene.label for scene in scenes if scene.part == TRAIN}
    if strangers := sorted(found_labels - trained):
        raise DataError(f"{source}: class {strangers[0]!r} of another split is not in train; add or remove it")
    return scenes, classes


def noisy_side(folder: Path) -> Path | None:
    """Returns the noisy side of a folder of pairs, of its first split; None where a folder has no two sides."""
    try:
        return _parts(folder, "")[0].noisy
    except DataError:
        return None


# --- the two sides ---
def _parts(folder: Path, source: str) -> list[_Sides]:
    try:
        inside, beside = list_top(folder)
    except OSError as error:
        raise DataError(
            f"{source}: {error.filename} cannot be read ({error.strerror}); give a folder that you can list"
        ) from error
    splits = [each for each in inside if each.name.lower() in PART_NAMES]
    if not splits or len(splits) < len(inside):
        by_part: dict[int, list[Path]] = {}
        for each in inside:
            part, side = _part_and_side(each.name)
            by_part.setdefault(TRAIN if part is None else part, []).append(each)
            if side is None or beside.images:
                raise _no_sides(source, folder, [*(path.name for path in inside), *(p.name for p in beside.images)])
        found = [_two_sides(source, folder, part, names) for part, names in sorted(by_part.items())]
    else:
        codes = [PART_NAMES[each.name.lower()] for each in splits]
        if len(set(codes)) < len(codes):
            raise DataError(f"{source}: split folders {', '.join(p.name for p in splits)}; exactly one of each kind")
        found = []
        for part, each in sorted(zip(codes, splits, strict=True)):
            names, _ = list_top(each)
            found.append(_two_sides(source, each, part, names))
    if not found:
        raise _no_sides(source, folder, [path.name for path in beside.images])
    if TRAIN not in [sides.part for sides in found]:
        raise DataError(f"{source}: has no images for training; name one folder train")
    return found


def _part_and_side(name: str) -> tuple[int | None, str | None]:
    """Reads ``noisy``, ``train_gt`` or ``trainH`` as a split, if it names one, and a side."""
    plain = "".join(filter(str.isalnum, name.lower()))
    for word in sorted(PART_NAMES, key=len, reverse=True):
        if plain.startswith(word) and plain[len(word) :] in SIDES:
            return PART_NAMES[word], SIDES[plain[len(word) :]]
    return None, SIDES.get(plain)


def _two_sides(source: str, folder: Path, part: int, inside: Sequence[Path]) -> _Sides:
    sides = {side: [each for each in inside if _part_and_side(each.name)[1] == side] for side in (NOISY, CLEAN)}
    if any(len(found) != 1 for found in sides.values()) or len(inside) != 2:
        raise _no_sides(source, folder, [each.name for each in inside])
    return _Sides(part=part, noisy=sides[NOISY][0], clean=sides[CLEAN][0])


def _no_sides(source: str, folder: Path, names: Sequence[str]) -> DataError:
    held = f"holds {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "is empty"
    return DataError(f"{source}: {folder} {held}; it needs exactly two folders: {_NAMES}")


def _list(folder: Path, source: str) -> Listing:
    try:
        return list_folder(folder)
    except OSError as error:
        raise DataError(f"{source}: {error.filename} cannot be read ({error.strerror})") from error


def _have_classes(sides: Sequence[tuple[Path, Sequence[Path]]], source: str) -> bool:
    """Tells whether the folders on top of the clean sides are classes.

    They are not where a side has images of its own, or where each folder holds one clean image: it is a scene then.

    Raises:
        DataError: some sides have folders alone, and others have not.
    """
    below = [[path.relative_to(side).parts for path in clean] for side, clean in sides]
    if all(len({parts[0] for parts in side}) == len(side) for side in below):
        return False
    labelled = {all(len(parts) > 1 for parts in side) for side in below}
    if len(labelled) > 1:
        raise DataError(f"{source}: some splits have class folders and others none; give all of them classes, or none")
    return labelled.pop()


# --- the files of a scene ---
def _matched(
    sides: _Sides, noisy: Sequence[Path], clean: Sequence[Path], classes: bool, source: str, pair_by: str | None
) -> Iterator[Scene]:
    """Yields the scenes of a split. Raises DataError for images without a partner."""
    names = [
        [path.relative_to(side).as_posix() for path in paths]
        for side, paths in ((sides.clean, clean), (sides.noisy, noisy))
    ]
    if pair_by is not None:
        keys = [
            _found(side, each, source, pair_by) for side, each in zip((sides.clean, sides.noisy), names, strict=True)
        ]
        match = _match(*keys, series=False, scenes=False)
    else:
        stems = [[name.rpartition(".")[0] for name in each] for each in names]
        match = _match(*stems, series=True, scenes=not classes)
        if match.alone:
            short = _match(*([_without_side(stem) for stem in each] for each in stems), series=True, scenes=not classes)
            match = match if short.alone else short
        if match.twice is None and match.alone and not _match(*reversed(stems), series=True, scenes=not classes).alone:
            raise DataError(
                f"{source}: the sides look swapped, as {sides.clean.name} has several images for one in "
                f"{sides.noisy.name}; exchange the names of the two folders"
            )
    if match.twice is not None:
        one, other = (_shown(clean[index]) for index in match.twice)
        if pair_by is not None:
            raise DataError(
                f"{source}: `pair_by` {pair_by!r} finds the same in {one} and {other}; give an expression whose group "
                "is what the two sides of one pair alone have in common"
            )
        raise DataError(f"{source}: {one} and {other} are two clean images of one name; keep one of them")
    if match.alone:
        paths = [*(clean[index] for index in match.alone[0]), *(noisy[index] for index in match.alone[1])]
        told = ", ".join(map(_shown, paths[:NAMED])) + (f" and {len(paths) - NAMED:,} more" if paths[NAMED:] else "")
        raise DataError(
            f"{source}: {counted(len(paths), 'image')} without a partner on the other side: {told}; give both the "
            "same name, or `pair_by`, or move them away"
        )
    for path, name, shots in zip(clean, names[0], match.shots, strict=True):
        yield Scene(
            clean=path,
            shots=tuple(noisy[index] for index in shots),
            part=sides.part,
            label=name.partition("/")[0] if classes else "",
            name=name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """Which shots belong to which clean images, by their places.

    Attributes:
        shots: the shots of each clean image.
        alone: clean images, and shots, without a partner; empty where there are none.
        twice: two clean images with the same key.
    """

    shots: list[list[int]]
    alone: tuple[list[int], list[int]] | None
    twice: tuple[int, int] | None


def _match(clean: Sequence[str], noisy: Sequence[str], *, series: bool, scenes: bool) -> _Match:
    """Gives each shot to the clean image of its key.

    Args:
        clean, noisy: the key of each image.
        series: whether ``scene/3`` and ``scene_3`` are shots of ``scene`` too.
        scenes: whether shots in a folder belong to the only clean image in the folder of that name.
    """
    known: dict[str, int] = {}
    twice = None
    for index, key in enumerate(clean):
        if known.setdefault(key, index) != index:
            twice = (known[key], index)
    folders = [key.rpartition("/")[0] for key in clean]
    if scenes:
        known = {folder: index for index, folder in enumerate(folders) if folder and folders.count(folder) == 1} | known
    shots: list[list[int]] = [[] for _ in clean]
    alone = []
    for index, key in enumerate(noisy):
        wanted = (key, *_of_a_series(key)) if series else (key,)
        found = next((known[each] for each in wanted if each in known), None)
        if found is None:
            alone.append(index)
        else:
            shots[found].append(index)
    without = [index for index, found in enumerate(shots) if not found]
    return _Match(shots=shots, alone=(without, alone) if without or alone else None, twice=twice)


def _found(side: Path, names: Sequence[str], source: str, pair_by: str) -> list[str]:
    """Returns what an expression finds in the path of each image below its side."""
    pattern = re.compile(pair_by)
    found = [pattern.search(name) for name in names]
    if missed := [name for name, match in zip(names, found, strict=True) if match is None]:
        raise DataError(
            f"{source}: `pair_by` {pair_by!r} finds nothing in {side.name}/{missed[0]}; give an expression that "
            "matches the path of every image"
        )
    return ["\0".join(str(part) for part in match.groups() or (match[0],)) for match in found if match is not None]


def _without_side(stem: str) -> str:
    """Returns ``7_NOISY_010`` and ``7_GT_010`` as the same. A name that is nothing but a word for a side stays."""
    folder, slash, name = stem.rpartition("/")
    short = re.sub(r"[_\-. ]{2,}", "_", _SIDE_IN_NAME.sub("", name)).strip("_-. ")
    return folder + slash + (short or name)


def _of_a_series(key: str) -> Iterator[str]:
    """Yields the names that a clean image may have whose shot is called `key`."""
    folder, _, name = key.rpartition("/")
    if (number := re.fullmatch(r"(.*[^_\-. ])[_\-. ]+[0-9]+", name)) is not None:
        yield f"{folder}/{number[1]}" if folder else number[1]
    if folder:
        yield folder


def _shown(path: Path) -> str:
    return "/".join(path.parts[-3:])
