"""Folders of noisy images without clean ones: which of the images are shots of one scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.folders import ImagePage, image_files
from nas.data.images import image_sizes
from nas.data.listing import counted
from nas.data.pairing import CLEAN, NOISY, SIDES
from nas.data.pairs import gray_values
from nas.data.raw import TRAIN, evenly
from nas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Gray = NDArray[np.float32]

ALIKE = 0.9
"""Images look like shots of one scene when they correlate by more than this once they are smoothed."""

LOOKED_AT, COMPARED = 8, 4
"""The number of supposed scenes that are looked at, spread evenly, and of the shots of each."""

NAMED = 3

WAYS: Mapping[str, str] = {
    "folder": "images of one folder",
    "series": "images whose names differ in the number at their end",
    "pages": "pages of one file",
}
"""The ways in which shots of one scene may lie, in the order in which they are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyScene:
    """A scene with its noisy shots.

    Attributes:
        shots: the shots.
        label: its class; empty without classes.
        name: the path of its first shot, below its split folder.
    """

    shots: tuple[ImagePage, ...]
    label: str
    name: str


def find_noisy(
    folder: Path,
    source: str,
    together: bool | None,
    opened: Callable[[ImagePage], Image],
    tell: Callable[..., None],
) -> tuple[list[NoisyScene], bool]:
    """Finds the scenes of a folder of noisy images.

    Images may be shots of one scene because they lie in one folder, because their names differ in the number at the
    end, or because they are the pages of one file. None of this says that they are, so it is looked whether they are
    alike.

    Args:
        folder: may have split folders on top, and class folders below them.
        source: the source, for messages.
        together: True where every scene must have two shots, False where each image is a scene of its own, and None to
            look.
        opened: opens an image.
        tell: a logger's method, which is told what was found.

    Returns:
        The scenes, and whether they have classes. Either each has two shots or more, or each has one.

    Raises:
        DataError: there are no images, a scene has one shot where it must have two, or the classes do not fit.
    """
    pages = [
        ImagePage(path=file.path, part=file.part, name=file.name, page=page)
        for file in image_files(folder, source, tell)
        for page in range(len(image_sizes(file.path)))
    ]
    way = None if together is False else _way(pages, opened, together=bool(together))
    if together and way is None:
        raise DataError(
            f"{source}: {pages[0].name} is a single shot, and Noise2Noise needs two or more of each scene; put them "
            f"into a folder for each scene, or give noisy:{folder}"
        )
    found = _grouped(pages, way)
    if way is not None:
        single = [shots[0].name for shots in found if len(shots) == 1]
        if single and together:
            told = ", ".join(single[:NAMED]) + (f" and {len(single) - NAMED:,} more" if single[NAMED:] else "")
            raise DataError(
                f"{source}: {counted(len(single), 'scene')} with a single shot: {told}; Noise2Noise needs two or more "
                "of each, so add shots or move them away"
            )
        if single:
            tell("%s: left out: %s with one shot", source, counted(len(single), "scene"))
        found = [shots for shots in found if len(shots) > 1]
        why = "" if together else ", as they look alike; if they are scenes of their own, give noisy-single:DIR"
        tell("%s: %s are taken for shots of one scene%s", source, WAYS[way], why)
    elif together is None and (supposed := [WAYS[each] for each in WAYS if _several(_grouped(pages, each))]):
        asked = "if they are shots of one scene, give noisy-shots:DIR"
        tell("%s: %s look different and are taken for scenes of their own; %s", source, " and ".join(supposed), asked)
    scenes, classified = _with_labels(found, way)
    _check_classes(scenes, classified, source)
    return scenes, classified


# --- shots that belong together ---
def _key(page: ImagePage, way: str | None) -> tuple[object, ...]:
    """Returns what is the same for all shots of a scene."""
    folder, _, name = page.name.rpartition("/")
    if way == "folder" and folder:
        return page.part, folder
    if way == "series" and (numbered := re.fullmatch(r"(.*[^_\-. ])[_\-. ]+[0-9]+", name.rpartition(".")[0])):
        return page.part, folder, numbered[1]
    if way == "pages":
        return (page.path,)
    return page.path, page.page


def _grouped(pages: Sequence[ImagePage], way: str | None) -> list[list[ImagePage]]:
    groups: dict[tuple[object, ...], list[ImagePage]] = {}
    for page in pages:
        groups.setdefault(_key(page, way), []).append(page)
    return list(groups.values())


def _several(groups: Sequence[list[ImagePage]]) -> list[list[ImagePage]]:
    return [shots for shots in groups if len(shots) > 1]


def _way(pages: Sequence[ImagePage], opened: Callable[[ImagePage], Image], *, together: bool) -> str | None:
    """Returns the first way in which shots look alike and of which most scenes have several.

    Where there must be one, the first of which all scenes have several is taken unseen, if none looks alike.
    """
    usual = []
    for way in WAYS:
        groups = _grouped(pages, way)
        several = _several(groups)
        if 2 * len(several) <= len(groups):
            continue
        usual.append(way)
        looked = evenly(several, LOOKED_AT)
        if 2 * sum(_look_alike(shots, opened) for shots in looked) > len(looked):
            return way
    if not together:
        return None
    whole = [way for way in usual if len(_several(_grouped(pages, way))) == len(_grouped(pages, way))]
    return next(iter([*whole, *usual]), None)


def _look_alike(shots: Sequence[ImagePage], opened: Callable[[ImagePage], Image]) -> bool:
    first, *others = (gray_values(opened(page)) for page in evenly(shots, COMPARED))
    return all(alike(first, other) for other in others)


def alike(one: Gray, other: Gray) -> bool:
    """Tells whether two noisy images (H, W) look like shots of one scene, so that they differ by fine noise alone."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    if one.shape != other.shape:
        return False
    radius = 2.0 if min(one.shape) >= 32 else 1.0
    smooth = [gaussian_filter(image, radius).ravel() for image in (one, other)]
    if not all(values.std() for values in smooth):
        return False
    return bool(np.corrcoef(*smooth)[0, 1] > ALIKE)


# --- classes ---
def _with_labels(found: Sequence[list[ImagePage]], way: str | None) -> tuple[list[NoisyScene], bool]:
    """Takes the folders on top for classes, where every scene lies in one of them, below its own folder if any."""
    above = [shots[0].name.split("/")[: -2 if way == "folder" else -1] for shots in found]
    classified = all(above) and len({parts[0] for parts in above}) > 1
    return [
        NoisyScene(shots=tuple(shots), label=parts[0] if classified else "", name=shots[0].name)
        for shots, parts in zip(found, above, strict=True)
    ], classified


def _check_classes(scenes: Sequence[NoisyScene], classified: bool, source: str) -> None:
    labels = {scene.label for scene in scenes}
    trained = {scene.label for scene in scenes if scene.shots[0].part == TRAIN}
    if classified and (strangers := sorted(labels - trained)):
        raise DataError(f"{source}: class {strangers[0]!r} of another split is not in train; add or remove it")
    sides = {SIDES[label.lower()]: label for label in labels if len(label) > 1 and label.lower() in SIDES}
    if classified and len(sides) > 1:
        raise DataError(
            f"{source}: the folders {sides[NOISY]} and {sides[CLEAN]} are the sides of pairs and no classes; give "
            f"pairs:DIR, or {sides[NOISY]} alone"
        )
