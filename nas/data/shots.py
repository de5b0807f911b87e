"""Folders of noisy images without clean ones: which of the images are shots of one scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
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

FAR, LITTLE = 0.5, 0.1
"""By how much shots of one scene correlate above images of different scenes, in Fisher's z; by less than `LITTLE`
they do not, and between the two it is open. In fine structure shots correlate by more than `LITTLE`, though noise may
hide most of it."""

ALIKE, UNLIKE = 0.6, 0.2
"""The same where there are no other scenes: the correlation without coarse structure above which images are shots, and
below which they are not. No images that correlate by less than `ALIKE` are shots beyond doubt."""

LOOKED_AT, COMPARED = 8, 4
"""The number of supposed scenes that are looked at, spread evenly, and of the shots of each."""

MIDDLE = 512
"""The largest side of the middle of an image that is looked at."""

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
    more alike than those of different scenes.

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
        DataError: there are no images, a scene has one shot where it must have two, it is open whether images are
            shots, or the classes do not fit.
    """
    pages = [
        ImagePage(path=file.path, part=file.part, name=file.name, page=page)
        for file in image_files(folder, source, tell)
        for page in range(len(image_sizes(file.path)))
    ]
    looked = {} if together is False else _looked(pages, opened)
    way = _way(pages, looked, source, together=bool(together))
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
        why = "" if together else f", as {looked[way]}; if they are scenes of their own, give noisy-single:DIR"
        tell("%s: %s are taken for shots of one scene%s", source, WAYS[way], why)
    for each, likeness in looked.items() if way is None else ():
        asked = "if they are shots of one scene, give noisy-shots:DIR"
        tell("%s: %s are taken for scenes of their own, as %s; %s", source, WAYS[each], likeness, asked)
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


def _looked(pages: Sequence[ImagePage], opened: Callable[[ImagePage], Image]) -> dict[str, Likeness]:
    """Returns how alike shots are in each way by which most scenes have several."""
    looked = {}
    for way in WAYS:
        groups = _grouped(pages, way)
        several = _several(groups)
        if 2 * len(several) > len(groups):
            seen = [[_middle(opened(page)) for page in evenly(shots, COMPARED)] for shots in evenly(several, LOOKED_AT)]
            looked[way] = likeness_of(seen)
    return looked


def _way(pages: Sequence[ImagePage], looked: Mapping[str, Likeness], source: str, *, together: bool) -> str | None:
    """Returns the first way in which images look like shots; None where there is none.

    A later way is taken where its images are far more alike: subjects of one class in one folder resemble each other,
    and less than shots of each of them do. Where there must be one and none looks so, the first by which all scenes
    have several is taken, or else most.

    Raises:
        DataError: it is open whether there is one.
    """
    found = [way for way in looked if looked[way].shots]
    for way in found[1:]:
        if looked[way].closeness > looked[found[0]].closeness + FAR:
            found.insert(0, way)
    if together:
        whole = [way for way in looked if len(_several(groups := _grouped(pages, way))) == len(groups)]
        found = [*found, *whole, *looked]
    elif not found and (unclear := [way for way in looked if looked[way].shots is None]):
        raise DataError(
            f"{source}: it is not clear whether {WAYS[unclear[0]]} are shots of one scene, as {looked[unclear[0]]}; "
            "give noisy-shots:DIR or noisy-single:DIR, which say it"
        )
    return next(iter(found), None)


def _middle(image: Image) -> Gray:
    """Returns the brightness (H, W) of the middle of an image."""
    left, top = (max(side - MIDDLE, 0) // 2 for side in image.size)
    return gray_values(image.crop((left, top, left + min(image.size[0], MIDDLE), top + min(image.size[1], MIDDLE))))


@dataclass(frozen=True, slots=True)
class Correlated:
    """How images of supposed scenes correlate.

    Attributes:
        within: the median correlation of two images of one scene.
        between: the correlation that one in ten pairs of different scenes exceeds; None where there is no such pair.
    """

    within: float
    between: float | None

    @property
    def above(self) -> float:
        """By how much images of one scene correlate above those of different scenes, in Fisher's z."""
        import numpy as np

        return float(np.arctanh(self.within) - np.arctanh(self.between or 0.0))


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike the images of supposed scenes are.

    Attributes:
        smooth: of smoothed images. Light that differs from scene to scene makes them alike too.
        fine: of their finer structure, which light does not have, and which noise may hide.
    """

    smooth: Correlated
    fine: Correlated

    @property
    def shots(self) -> bool | None:
        """Whether they are shots; None where that is open."""
        if self.fine.between is None:
            return True if self.fine.within > ALIKE else None if self.fine.within > UNLIKE else False
        both = self.smooth, self.fine
        if any(each.above > FAR and each.within > ALIKE for each in both):
            return True if self.fine.above > LITTLE else None
        return None if any(each.above > LITTLE for each in both) else False

    @property
    def closeness(self) -> float:
        """How alike images of one scene are, coarsely or in fine structure, in Fisher's z."""
        import numpy as np

        return float(np.arctanh(max(self.smooth.within, self.fine.within)))

    def __str__(self) -> str:
        if self.fine.between is None:
            return (
                f"they correlate by {self.fine.within:.2f} in fine structure (there is no other scene to compare with)"
            )
        return (
            f"they correlate by {self.smooth.within:.2f}, and images of different scenes by up to "
            f"{self.smooth.between:.2f} (in fine structure by {self.fine.within:.2f} and {self.fine.between:.2f})"
        )


def likeness_of(scenes: Sequence[Sequence[Gray]]) -> Likeness:
    """Compares noisy images (H, W) within supposed scenes, and between them.

    Images are smoothed, since noise hides what shots have in common. What all images have in common, such as
    vignetting, makes them correlate within and between scenes alike. What the images of one scene have in common need
    not be their subject: where each folder is a sample under a light of its own, only fine structure tells. With one
    scene alone nothing tells of coarse structure at all.
    """
    import numpy as np

    def correlated(*, fine: bool) -> Correlated:
        seen = [(number, _structure(image, fine=fine)) for number, shots in enumerate(scenes) for image in shots]
        within: list[float] = []
        between: list[float] = []
        for (scene, one), (other_scene, other) in combinations(seen, 2):
            if one.shape == other.shape:
                (within if scene == other_scene else between).append(float((one * other).sum()))
            elif scene == other_scene:
                within.append(0.0)
        return Correlated(_below_1(np.median(within)), _below_1(np.quantile(between, 0.9)) if between else None)

    return Likeness(smooth=correlated(fine=False), fine=correlated(fine=True))


def _structure(image: Gray, *, fine: bool) -> Gray:
    """Returns a smoothed image, or its finer structure, with a mean of 0 and a norm of 1; zeros where it is flat."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    radius = 2.0 if min(image.shape) >= 32 else 1.0
    smooth = gaussian_filter(image, radius)
    for _ in range(2 if fine else 0):  # once leaves some of a light that changes within a fourth of the image
        smooth = smooth - gaussian_filter(smooth, 4 * radius)
    smooth = smooth - smooth.mean()
    norm = np.linalg.norm(smooth)
    return smooth / norm if norm > 1e-6 * smooth.size**0.5 else np.zeros_like(smooth)


def _below_1(correlation: float) -> float:
    """Returns a correlation whose z is finite."""
    return min(float(correlation), 1 - 1e-6)


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
