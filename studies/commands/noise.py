"""The noise of a folder of images, or of pairs: read, measured and told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.data.listing import SUFFIXES, counted, list_folder
from nas.data.measured_noise import MeasuredNoise, Picture, measure_noise
from nas.data.pairing import find_scenes
from nas.data.raw import evenly
from nas.data.reader import read_file, shapes_of
from nas.data.white import Levels, White
from nas.errors import DataError
from studies.commands.text import columns

if TYPE_CHECKING:
    from nas.data.image_file import ImageFile

MOST_IMAGES = 48
"""The number of images that are measured, spread evenly over the folder."""

MOST_SIDE = 1024
"""The side in pixels of the middle of an image that is measured."""

JPEG_BLOCK = 8

Pages = list[NDArray[np.float32]]


def measure(
    folder: Path,
    *,
    pairs: bool = False,
    white_level: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> MeasuredNoise:
    """Measures the noise of the images of a folder.

    Args:
        folder: noisy images at any depth, or with `pairs` a noisy and a clean side (see `nas.data.pairing`).
        pairs: whether there are clean images.
        white_level: value of white in images of more than 8 bits.
        tell: called with a line about what is left out.

    Raises:
        DataError: the folder or an image cannot be read, there are no images, or the two sides do not fit.
    """
    source = f"{'pairs:' if pairs else ''}{folder}"
    levels = Levels(source, White(given=white_level))
    bits: list[int | None] = []
    pictures: list[Picture] = []
    if pairs:
        scenes, _ = find_scenes(folder, source, None, lambda text, *values: tell(text % values))
        asked = evenly([(scene, shot) for scene in scenes for shot in scene.shots], MOST_IMAGES)
        for scene, shot in asked:
            noisy, clean = _pages(shot, levels.of_noisy, bits), _pages(scene.clean, levels.of, [])
            pictures += _paired(source, shot, scene.clean, noisy, clean)
        number = sum(len(scene.shots) for scene in scenes)
    else:
        files = [(path, page) for path in _files(folder, tell) for page in range(len(shapes_of(path)))]
        asked_pages = evenly(files, MOST_IMAGES)
        for path in dict.fromkeys(path for path, _ in asked_pages):
            pages = _pages(path, levels.of_noisy, bits)
            pictures += [Picture(pages[page]) for each, page in asked_pages if each == path]
        number = len(files)
    levels.common()
    if len(pictures) < number:
        tell(f"{source}: {len(pictures)} of {counted(number, 'image')} are measured, spread evenly")
    known = [each for each in bits if each is not None]
    return measure_noise(pictures, max(known) if len(known) == len(bits) else None)


def noise_lines(found: MeasuredNoise) -> Iterator[str]:
    """Yields what was found as people read it: figures, a table by brightness, remarks, and the words."""
    yield f"{counted(found.images, 'pair' if found.pairs else 'image')}, on the scale from 0 to 255"
    figures: list[tuple[str, str]] = []
    if found.sensor.gain:
        figures.append(("gain", f"{found.sensor.gain:.3g} levels for an electron"))
        figures.append(("read noise", f"{found.sensor.read:.3g}"))
    elif found.sensor.read:
        figures.append(("noise", f"{found.sensor.read:.3g}, the same at every brightness"))
    if found.correlated:
        figures.append(("correlated noise", f"{found.correlated:.3g}, with a radius of {found.radius:.3g} pixels"))
    figures += [(name, f"{value:.3g}") for name, value in (("rows", found.rows), ("columns", found.columns)) if value]
    if found.saltpepper:
        figures.append(("salt and pepper", f"{100 * found.saltpepper:.2g} % of the pixels"))
    if found.jpeg is not None:
        low, high = found.jpeg
        figures.append(("JPEG", f"quality {low}" if low == high else f"qualities {low} to {high}"))
    figures.append(("black or white", f"{100 * found.clipped:.2g} % of the pixels"))
    yield from columns(("found", ""), figures)
    yield ""
    rows = [
        (f"{each.brightness:.0f}", f"{each.sigma:.2f}", f"{found.sigma(each.brightness):.2f}", f"{each.areas:.0f}")
        for each in found.levels
    ]
    yield from columns(("brightness", "noise", "fit", "areas"), rows)
    yield from found.remarks
    yield f"--noise {found.words}"


def _files(folder: Path, tell: Callable[[str], None]) -> Sequence[Path]:
    try:
        found = list_folder(folder)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); give a folder that can be") from error
    if not found.images:
        raise DataError(f"{folder}: holds no images; {', '.join(sorted(SUFFIXES))} are read")
    if left_out := found.left_out():
        tell(f"{folder}: left out: {', '.join(left_out)}")
    return found.images


def _pages(path: Path, level: Callable[[ImageFile], float], bits: list[int | None]) -> Pages:
    """Reads the middle of each image of a file, (C, H, W) on the 0..255 scale, and notes the depth of the file."""
    file = read_file(path)
    white = level(file)
    bits.append(None if file.is_float else min(16, math.ceil(math.log2(white + 1))))
    return [_middle(page.floats(white) * 255) for page in file.pages]


def _middle(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the middle of (H, W, C) as (C, H, W), from where a block of JPEG begins."""
    top, left = (max(0, (side - MOST_SIDE) // 2 // JPEG_BLOCK * JPEG_BLOCK) for side in values.shape[:2])
    cut = values[top : top + MOST_SIDE, left : left + MOST_SIDE].clip(0, 255)
    return np.ascontiguousarray(cut.transpose(2, 0, 1))


def _paired(source: str, shot: Path, clean: Path, noisy: Pages, wanted: Pages) -> list[Picture]:
    """Puts the pages of two files together; a clean file of one page belongs to all pages of a shot."""
    if len(wanted) == 1:
        wanted = wanted * len(noisy)
    if [page.shape for page in noisy] != [page.shape for page in wanted]:
        raise DataError(
            f"{source}: {shot} and {clean} differ in size, colours or number of pages; give images that fit"
        )
    return [Picture(one, other) for one, other in zip(noisy, wanted, strict=True)]
