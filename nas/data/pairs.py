"""Pairs of noisy and clean images of the same scenes, as a camera or a microscope made them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.alike import Appearances
from nas.data.folders import PATCHES_PER_IMAGE, ImagePage, belonging, files_that_decide
from nas.data.images import image_sizes, open_images, stacked
from nas.data.listing import counted
from nas.data.pairing import MOST_SHOTS, NAMED, Scene, find_scenes
from nas.data.preparation import KEPT_SIDE, SIDE, without_tiny
from nas.data.raw import RawData, Shots, evenly, raw_data
from nas.data.white import Levels, White
from nas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Gray = NDArray[np.float32]

log = logging.getLogger(__name__)

MOST_SHIFT = 1.0
"""The largest shift in pixels between a clean image and its shots."""

COMPARED_SIDE = 512
"""The largest side of the centre in which a shift is looked for."""

ALIKE, BETTER = 0.6, 0.8
"""A shift is believed where the smoothed images correlate by more than `ALIKE` with it, and what is missing to a
correlation of 1 is less than `BETTER` of what it is without."""

SMOOTHER = 1.5
"""The sides are swapped when fine structure of the clean side is this many times stronger in the flattest parts of the
images, and by `GRAIN` levels of 255."""

GRAIN = 3.0

OWN, FOREIGN = 0.6, 0.8
"""A shot shows another scene when its correlation with its own clean image is below `OWN`, of either sign, and that
with another one above `FOREIGN`. Both images are shrunk and smoothed."""

SHRUNK_SIDE, NEIGHBOURS = 32, 200
"""The longest side of shrunk images, and how many clean images before and behind its own a shot is compared with."""


def read_pairs(
    argument: str,
    _root: Path,
    *,
    group_by: str | None = None,
    pair_by: str | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> RawData:
    """Reads ``pairs:DIR``: a noisy and a clean side, with or without split folders on top and class folders below.

    Images are never resized, because that would change their noise. Where all have one size and sides up to 128 they
    stay whole; otherwise each is cut into square patches that do not overlap, of 64 pixels, or of the smallest short
    side if that is less. All patches and all shots of an image are in one split.

    Args:
        argument: the folder.
        group_by: see `nas.data.splits.load`; it is searched in the paths of the clean images.
        pair_by: see `nas.data.pairing.find_scenes`.
        white: see `nas.data.splits.load`.

    Raises:
        DataError: the folder cannot be read, has no two sides, or holds images that do not fit together.
    """
    import numpy as np

    source = f"pairs:{argument}"
    scenes, classified = find_scenes(Path(argument), source, pair_by, log.info)
    found = [(scene, page, size) for scene in scenes for page, size in enumerate(image_sizes(scene.clean))]
    sizes = [size for _, _, size in found]
    usable = without_tiny(sizes, [scene.name for scene, _, _ in found], source, log.info)
    of_scene = [found[index][0] for index in usable]
    pages = [
        ImagePage(path=scene.clean, part=scene.part, name=scene.name, page=page)
        for scene, page, _ in (found[index] for index in usable)
    ]
    patch = patch_size([sizes[index] for index in usable])
    white = white.found(source, files_that_decide(pages), log.info)
    appearances, levels, problems = Appearances(), Levels(source, white), Problems(source)
    clean_patches: list[list[Image]] = []
    noisy_patches: list[list[list[Image]]] = []
    for scene, group in itertools.groupby(zip(of_scene, pages, strict=True), key=lambda each: each[0]):
        cleans, files = open_images(scene.clean, levels.of), _shots(scene, levels)
        for _, page in group:
            clean = cleans[page.page]
            shots = _shots_of_page(files, page.page, len(cleans), page.name, problems)
            appearances.add(clean)
            problems.check(page.name, clean, shots)
            corners = evenly(corners_of(clean.size, patch), PATCHES_PER_IMAGE)
            boxes = [(left, top, left + patch[0], top + patch[1]) for left, top in corners]
            clean_patches.append([clean.crop(box) for box in boxes])
            noisy_patches.append([[shot.crop(box) for shot in shots] for box in boxes])
    problems.tell()
    level = levels.common()
    classes = sorted({scene.label for scene in scenes}) if classified else []
    labels = [classes.index(scene.label) if classified else 0 for scene in of_scene]
    if classes:
        log.info(
            "%s: %d classes (%s), one for each folder below the sides; if the folders are scenes, move their images "
            "up, as %s_1.png, and keep those of a scene together with `group_by`",
            source,
            len(classes),
            ", ".join(classes[:NAMED]) + (", ..." if classes[NAMED:] else ""),
            classes[0],
        )
    bound = belonging(source, pages, range(len(pages)), appearances, levels, group_by, labels, tell=log.info)
    numbers = [len(clean_patches[index]) for index in bound.kept]
    shots_of = [shots for index in bound.kept for shots in noisy_patches[index]]
    images = [image for index in bound.kept for image in clean_patches[index]]
    noisy = [shot for shots in shots_of for shot in shots]
    channels = max(len(image.getbands()) for image in images)
    log.info(
        "%s: %s with %s, %s of %dx%d pixels",
        source,
        counted(len(bound.kept), "clean image"),
        counted(sum(len(noisy_patches[index][0]) for index in bound.kept), "noisy shot"),
        f"{len(images):,} patches",
        *patch,
    )
    return raw_data(
        stacked(images),
        np.repeat([labels[index] for index in bound.kept], numbers) if classified else None,
        classes,
        part=np.repeat([pages[index].part for index in bound.kept], numbers).tolist(),
        groups=np.repeat(bound.groups, numbers),
        joined=bound.joined,
        white_level=level,
        shots=Shots(stacked(noisy, channels), np.cumsum([0, *map(len, shots_of)])),
    )


# --- images of one scene ---
def patch_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns width and height of all patches of images with these sizes."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= KEPT_SIDE:
        return sizes[0]
    short = min(min(size) for size in sizes)
    side = min(SIDE, short - short % 2)
    return side, side


def corners_of(size: tuple[int, int], patch: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns left and top of the patches of an image."""
    return [
        (left, top)
        for top in range(0, size[1] - patch[1] + 1, patch[1])
        for left in range(0, size[0] - patch[0] + 1, patch[0])
    ]


def _shots(scene: Scene, levels: Levels) -> list[list[Image]]:
    """Reads the files of a scene's shots; each may have several pages."""
    return [open_images(path, levels.of_noisy) for path in evenly(scene.shots, MOST_SHOTS)]


def _shots_of_page(files: Sequence[list[Image]], page: int, pages: int, name: str, problems: Problems) -> list[Image]:
    """Returns the shots of a page of a clean file: the same page of each noisy file, or all pages of them where the
    clean file has one."""
    if pages == 1:
        return evenly([image for images in files for image in images], MOST_SHOTS)
    if any(len(images) != pages for images in files):
        problems.add(name, f"{pages} pages beside {', '.join(str(len(images)) for images in files)}")
        return []
    return [images[page] for images in files]


class Problems:
    """Images that should fit together and do not, gathered so that one line names them.

    Args:
        source: the source, for messages.
        what: what fits together: ``pair``.
        otherwise: another way out than to mend or remove them, if there is one.
    """

    def __init__(self, source: str, what: str = "pair", otherwise: str = "") -> None:
        self.source, self.what, self.otherwise = source, what, otherwise
        self._found: dict[str, str] = {}
        self._grain: list[tuple[float, float]] = []
        self._clean: dict[tuple[int, int], list[tuple[str, Gray]]] = {}
        self._doubtful: list[tuple[tuple[int, int], int, Gray]] = []

    def add(self, name: str, problem: str) -> None:
        self._found.setdefault(name, problem)

    def check(self, name: str, clean: Image, shots: Sequence[Image]) -> None:
        """Looks whether shots fit a clean image: size, colours, depth, place, and whether they are alike at all."""
        known = self._clean.setdefault(clean.size, [])
        small = shrunk(gray_values(clean))
        known.append((name, small))
        for shot in shots:
            if self.fits(name, clean, shot):
                one, other = gray_values(clean), gray_values(shot)
                self._grain.append((grain(one), grain(other)))
                shot_small = shrunk(other)
                if small.any() and shot_small.any() and abs(float((small * shot_small).sum())) < OWN:
                    self._doubtful.append((clean.size, len(known) - 1, shot_small))

    def fits(self, name: str, one: Image, other: Image) -> bool:
        """Looks whether two images of one scene fit: size, colours, depth, and place. False where they cannot be
        compared pixel by pixel."""
        if other.size != one.size:
            self.add(name, f"{other.width}x{other.height} beside {one.width}x{one.height} pixels")
        elif len(other.getbands()) != len(one.getbands()):
            counts = len(other.getbands()), len(one.getbands())
            told = "gray beside colour" if {*counts} == {1, 3} else "{} beside {} channels".format(*counts)
            self.add(name, told)
        elif (other.mode == "F") != (one.mode == "F"):
            self.add(name, "8 bits beside more")
        else:
            if (shift := shift_between(gray_values(one), gray_values(other))) > MOST_SHIFT:
                self.add(name, f"shifted by {shift:.1f} pixels")
            return True
        return False

    def tell(self) -> None:
        """Raises DataError where images do not fit, or the sides are swapped."""
        swapped = sum(clean > max(SMOOTHER * noisy, noisy + GRAIN) for clean, noisy in self._grain)
        if 2 * swapped > len(self._grain):
            raise DataError(
                f"{self.source}: the sides look swapped, as the clean images are noisier than the noisy ones in "
                f"{swapped} of {counted(len(self._grain), 'pair')}; exchange the names of the two folders"
            )
        for size, index, shot in self._doubtful:
            self._compare(self._clean[size], index, shot)
        if self._found:
            told = [f"{name} ({problem})" for name, problem in self._found.items()]
            more = f" and {len(told) - NAMED:,} more" if told[NAMED:] else ""
            raise DataError(
                f"{self.source}: {counted(len(told), self.what)} not fitting together: {', '.join(told[:NAMED])}{more}"
                f"; mend or remove them{self.otherwise}"
            )

    def _compare(self, known: Sequence[tuple[str, Gray]], index: int, shot: Gray) -> None:
        """Looks whether a shot is alike another clean image than its own."""
        import numpy as np

        near = known[max(index - NEIGHBOURS, 0) : index + NEIGHBOURS + 1]
        alike = np.tensordot(np.stack([small for _, small in near]), shot, 2)
        best = int(alike.argmax())
        if alike[best] > FOREIGN:
            self.add(known[index][0], f"shows another scene, that of {near[best][0]}")


def shrunk(gray: Gray) -> Gray:
    """Returns a small smooth copy of an image (H, W) with mean 0 and norm 1, so that the sum over the product of two is
    their correlation; 0 where the image is flat."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    height, width = gray.shape
    scale = max(height, width, SHRUNK_SIDE) / SHRUNK_SIDE
    size = max(1, round(width / scale)), max(1, round(height / scale))
    small = gaussian_filter(np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX)), 1.5)
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    # Rounding alone leaves a flat image a norm of about 1e-6.
    return np.asarray(small / norm if norm > 1e-4 else np.zeros_like(small), np.float32)


def gray_values(image: Image) -> Gray:
    """Returns an image's brightness (H, W), where 1 is white."""
    import numpy as np

    gray = image if len(image.getbands()) == 1 else image.convert("L")
    values = np.asarray(gray, np.float32)
    return values if gray.mode == "F" else values / np.float32(255)


def shift_between(clean: Gray, noisy: Gray) -> float:
    """Returns by how many pixels two images (H, W) of one scene are shifted, found by phase correlation.

    Noise alone may lead to any shift. So one is believed where the smoothed images are alike with it, and less so
    without; otherwise 0 is returned, as where it would be more than a quarter of the image.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter
    from scipy.ndimage import shift as moved
    from skimage.registration import phase_cross_correlation

    height, width = (min(COMPARED_SIDE, side) for side in clean.shape)
    top, left = ((side - kept) // 2 for side, kept in zip(clean.shape, (height, width), strict=True))
    middle = np.s_[top : top + height, left : left + width]
    one, other = clean[middle], noisy[middle]
    if not one.std() or not other.std():
        return 0.0
    correlate: Any = phase_cross_correlation
    shift = correlate(one, other, upsample_factor=10)[0]
    found = float(np.hypot(*shift))
    margin = int(np.ceil(np.abs(shift).max()))
    if found <= MOST_SHIFT or 4 * margin > min(height, width):
        return 0.0
    inside = np.s_[margin : height - margin, margin : width - margin]
    one, other = gaussian_filter(one, 1.5), gaussian_filter(other, 1.5)
    before, after = (
        np.corrcoef(one[inside].ravel(), each[inside].ravel())[0, 1] for each in (other, moved(other, shift, order=1))
    )
    return found if after > ALIKE and 1 - after < BETTER * (1 - before) else 0.0


def grain(gray: Gray) -> float:
    """Returns the standard deviation of fine structure in the flattest tenth of an image (H, W), in levels of 255.

    It is about the noise's where noise is white; what images show adds little in their flattest parts.
    """
    import numpy as np

    diagonal = (gray[:-1, :-1] - gray[1:, :-1] - gray[:-1, 1:] + gray[1:, 1:]) / 2
    side = 8 if min(diagonal.shape) >= 8 else min(diagonal.shape)
    height, width = (length - length % side for length in diagonal.shape)
    blocks = diagonal[:height, :width].reshape(height // side, side, width // side, side)
    return float(255 * np.sqrt(np.quantile(np.square(blocks).mean((1, 3)), 0.1)))
