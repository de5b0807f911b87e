"""Noisy images without clean ones, as most people with a camera or a microscope have them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.alike import Appearances
from nas.data.folders import PATCHES_PER_IMAGE, ImagePage, belonging, files_that_decide, image_files
from nas.data.images import image_sizes, open_images, stacked
from nas.data.listing import counted
from nas.data.pairing import MOST_SHOTS
from nas.data.pairs import Problems, corners_of, patch_size
from nas.data.preparation import without_tiny
from nas.data.raw import RawData, Shots, evenly, raw_data
from nas.data.shots import find_noisy
from nas.data.white import Levels, White

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from nas.data.raw import Images

log = logging.getLogger(__name__)

NOISY_KINDS: Mapping[str, bool | None] = {"noisy": None, "noisy-shots": True, "noisy-single": False}
"""The kinds of sources, with whether images are shots that belong together; None where they are looked at."""


def read_noisy(
    argument: str,
    _root: Path,
    *,
    kind: str = "noisy",
    group_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> RawData:
    """Reads ``noisy:DIR``: noisy images, with or without split folders on top and class folders below.

    Where there are several shots of each scene, they become the `Shots` of the mean of them; otherwise the noisy images
    are returned alone. They stay whole or are cut into patches as `nas.data.pairs.read_pairs` does it. All shots and
    patches of a scene are in one split.

    Args:
        argument: the folder.
        kind: one of `NOISY_KINDS`.
        group_by: see `nas.data.splits.load`.
        white: see `nas.data.splits.load`.

    Raises:
        DataError: the folder cannot be read, or its images do not fit together (see `nas.data.shots.find_noisy`).
    """
    import numpy as np

    source = f"{kind}:{argument}"
    if white.of_data:
        white = white.found(source, files_that_decide(image_files(Path(argument), source, log.debug)), log.info)
    otherwise = "" if NOISY_KINDS[kind] else ", or give noisy-single:DIR if they are scenes of their own"
    levels, appearances, problems = Levels(source, white), Appearances(), Problems(source, "shot", otherwise)
    scenes, classified = find_noisy(
        Path(argument), source, NOISY_KINDS[kind], _Files(Levels(source, white)).opened, log.info
    )
    known = {path: image_sizes(path) for path in dict.fromkeys(scene.shots[0].path for scene in scenes)}
    sizes = [known[scene.shots[0].path][scene.shots[0].page] for scene in scenes]
    usable = without_tiny(sizes, [scene.name for scene in scenes], source, log.info)
    scenes = [scenes[index] for index in usable]
    patch = patch_size([sizes[index] for index in usable])
    first = [scene.shots[0] for scene in scenes]
    files = _Files(levels)
    patches: list[list[list[Image]]] = []
    for scene in scenes:
        pages = evenly(scene.shots, MOST_SHOTS)
        shots = [files.opened(page) for page in pages]
        appearances.add(shots[0])
        for number, shot in enumerate(shots[1:], start=1):
            name = _shown(pages[number])
            problems.fits(f"{name} beside {_shown(pages[0])}", shots[0], shot)
            if equal := [page for page, earlier in zip(pages, shots[:number], strict=False) if _equal(shot, earlier)]:
                problems.add(name, f"equal to {_shown(equal[0])}, and so not independent")
        corners = evenly(corners_of(shots[0].size, patch), PATCHES_PER_IMAGE)
        boxes = [(left, top, left + patch[0], top + patch[1]) for left, top in corners]
        patches.append([[shot.crop(box) for shot in shots] for box in boxes])
    problems.tell()
    level = levels.common()
    classes = sorted({scene.label for scene in scenes}) if classified else []
    labels = [classes.index(scene.label) if classified else 0 for scene in scenes]
    bound = belonging(source, first, range(len(first)), appearances, levels, group_by, labels, tell=log.info)
    numbers = [len(patches[index]) for index in bound.kept]
    shots_of = [shots for index in bound.kept for shots in patches[index]]
    noisy = stacked([shot for shots in shots_of for shot in shots])
    several = any(len(shots) > 1 for shots in shots_of)
    found = Shots(noisy, np.cumsum([0, *map(len, shots_of)])) if several else None
    log.info(
        "%s: %s, %s of %dx%d pixels%s; %s",
        source,
        f"{counted(len(bound.kept), 'scene')} with {counted(sum(len(patches[i][0]) for i in bound.kept), 'shot')}"
        if several
        else counted(len(bound.kept), "noisy image"),
        f"{len(shots_of):,} patches",
        *patch,
        f" in {len(classes)} classes" if classified else "",
        "trained from shot to shot (Noise2Noise)" if several else "trained on hidden pixels (blind spot)",
    )
    return raw_data(
        noisy if found is None else _means(found),
        np.repeat([labels[index] for index in bound.kept], numbers) if classified else None,
        classes,
        part=np.repeat([first[index].part for index in bound.kept], numbers).tolist(),
        groups=np.repeat(bound.groups, numbers),
        joined=bound.joined,
        white_level=level,
        shots=found,
        clean=False,
    )


def _shown(page: ImagePage) -> str:
    """Returns the name of a shot: its file, and its page from the second one on."""
    return page.name if page.page == 0 else f"{page.name} page {page.page + 1}"


class _Files:
    """Opens pages of files; the last file stays open, so that the pages of a stack are read once."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._path: Path | None = None
        self._images: list[Image] = []

    def opened(self, page: ImagePage) -> Image:
        if page.path != self._path:
            self._path, self._images = page.path, open_images(page.path, self._levels.of_noisy)
        return self._images[page.page]


def _equal(one: Image, other: Image) -> bool:
    import numpy as np

    return np.array_equal(np.asarray(one), np.asarray(other))


def _means(shots: Shots) -> Images:
    """Returns the mean of the shots of each scene (N, C, H, W), where 1 is white."""
    import numpy as np

    ends = zip(shots.starts[:-1], shots.starts[1:], strict=True)
    scale = np.float32(255 if shots.images.dtype == np.uint8 else 1)
    means: NDArray[np.float32] = np.stack([shots.images[a:b].mean(0, dtype=np.float32) / scale for a, b in ends])
    return means
