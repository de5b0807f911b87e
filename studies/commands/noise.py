"""The noise of a folder of images, or of pairs: read, measured and told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.data.images import image_sizes, shown_images
from nas.data.listing import SUFFIXES, counted, list_folder, list_top
from nas.data.measured_noise import MeasuredNoise, Picture, measure_noise
from nas.data.pairing import Scene, find_scenes, noisy_side
from nas.data.pairs import Problems
from nas.data.raw import PART_NAMES, TRAIN, evenly
from nas.data.reader import read_file, shapes_of
from nas.data.white import Levels, White, WhiteLevel, check_range
from nas.errors import ConfigError, DataError
from studies.commands.text import columns

if TYPE_CHECKING:
    from nas.data.image_file import ImageFile

MOST_IMAGES = 48
"""The number of images that are measured, spread evenly over the folder."""

MOST_SIDE = 1024
"""The side in pixels of the middle of an image that is measured."""

JPEG_BLOCK = 8


def measure(
    folder: Path,
    *,
    pairs: bool = False,
    pair_by: str | None = None,
    white_level: WhiteLevel | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> MeasuredNoise:
    """Measures the noise of the images of a folder, or of those of one file.

    Args:
        folder: a file, or noisy images at any depth, or with `pairs` a noisy and a clean side (see `nas.data.pairing`).
            Where it has split folders, the training images alone are measured.
        pairs: whether there are clean images.
        pair_by: see `nas.data.pairing.find_scenes`.
        white_level: value of white in images of more than 8 bits, or the word for the largest value of all images for
            training, with pairs of their clean ones.
        tell: called with a line about what is left out.

    Raises:
        DataError: the folder or an image cannot be read, there are no images, the two sides do not fit, or there are
            two sides without `pairs`.
        ConfigError: `pair_by` is given without `pairs`.
    """
    if pair_by is not None and not pairs:
        raise ConfigError(
            f"`pair_by` {pair_by!r}: {folder} is measured without clean images; add --pairs, or leave it out"
        )
    source = f"{'pairs:' if pairs else ''}{folder}"
    if not pairs and (noisy := noisy_side(folder)) is not None:
        raise DataError(
            f"{folder}: has a noisy and a clean side; add --pairs to measure them together, or give {noisy} alone"
        )
    white = White.asked(white_level)
    bits: list[int | None] = []
    pictures: list[Picture] = []

    def told(text: str, *values: object) -> None:
        tell(text % values)

    if pairs:
        scenes, _ = find_scenes(folder, source, pair_by, told)
        trained = [scene for scene in scenes if scene.part == TRAIN]
        if len(trained) < len(scenes):
            tell(f"{source}: {_training_alone(len(trained), len(scenes), 'scene')}")
        files = [
            (scene, shot, page) for scene in trained for shot in scene.shots for page in range(len(image_sizes(shot)))
        ]
        white = white.found(source, map(read_file, [scene.clean for scene in trained]), told)
        levels = Levels(source, white)
        pictures = _pairs(source, evenly(files, MOST_IMAGES), levels, bits)
        number = len(files)
    else:
        paths = _files(folder, tell)
        levels = Levels(source, white.found(source, map(read_file, paths), told))
        pages = [(path, page) for path in paths for page in range(len(shapes_of(path)))]
        for path, wanted in _by_file(evenly(pages, MOST_IMAGES)).items():
            file, level = _read(path, levels.of_noisy, bits)
            if not file.is_float and file.most > level:  # what a sensor counts ends at white, and would be cut there
                check_range(file, level)
            pictures += [Picture(_middle(file, page, level)) for page in wanted]
        number = len(pages)
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
    if found.strength is not None:
        away = f", {20 * math.log10(255 / found.strength):.2f} dB" if found.strength else ""
        figures.append(("noisy beside clean", f"{found.strength:.3g} levels apart{away}"))
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


def _training_alone(number: int, of: int, name: str) -> str:
    return f"the training images alone are measured, {number:,} of {counted(of, name)}; the other splits judge networks"


def _files(folder: Path, tell: Callable[[str], None]) -> Sequence[Path]:
    """Returns a file, or the images of a folder, those for training alone where the folders inside are splits."""
    if folder.is_file():
        return (folder,)
    try:
        found = list_folder(folder)
        inside, beside = list_top(folder)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); give a folder or an image file that can be"
        ) from error
    if not found.images:
        raise DataError(f"{folder}: holds no images; {', '.join(sorted(SUFFIXES))} are read")
    if left_out := found.left_out():
        tell(f"{folder}: left out: {', '.join(left_out)}")
    parts = {each: PART_NAMES.get(each.name.lower()) for each in inside}
    if beside.images or None in parts.values() or TRAIN not in parts.values():
        return found.images
    train = [each for each, part in parts.items() if part == TRAIN]
    trained = [path for path in found.images if any(path.is_relative_to(each) for each in train)]
    if len(trained) == len(found.images) or not trained:
        return found.images
    tell(f"{folder}: {_training_alone(len(trained), len(found.images), 'image')}")
    return trained


def _by_file(asked: Sequence[tuple[Path, int]]) -> dict[Path, list[int]]:
    """Returns the pages of each file that are asked for."""
    pages: dict[Path, list[int]] = {}
    for path, page in asked:
        pages.setdefault(path, []).append(page)
    return pages


def _read(path: Path, level: Callable[[ImageFile], float], bits: list[int | None]) -> tuple[ImageFile, float]:
    """Reads a file, and notes its depth. Returns its white level too."""
    file = read_file(path)
    white = level(file)
    bits.append(None if file.is_float else min(16, math.ceil(math.log2(white + 1))))
    return file, white


def _pairs(
    source: str, asked: Sequence[tuple[Scene, Path, int]], levels: Levels, bits: list[int | None]
) -> list[Picture]:
    """Reads pages of shots with their clean images; a clean file of one page belongs to all pages of its shots.

    Raises:
        DataError: pairs do not fit together, by the same rules as in a training (see `nas.data.pairs`).
    """
    problems, pictures = Problems(source), []
    for scene, of_scene in itertools.groupby(asked, key=lambda each: each[0]):
        clean, clean_white = _read(scene.clean, levels.of, [])
        shown_clean = shown_images(clean, clean_white)
        for shot, pages in _by_file([(shot, page) for _, shot, page in of_scene]).items():
            noisy, white = _read(shot, levels.of_noisy, bits)
            if len(clean.pages) not in (1, len(noisy.pages)):
                problems.add(scene.name, f"{len(noisy.pages)} pages beside {len(clean.pages)}")
                continue
            shown_noisy = shown_images(noisy, white)
            for page in pages:
                place = page if len(clean.pages) > 1 else 0
                problems.check(scene.name, shown_clean[place], [shown_noisy[page]])
                pictures.append(Picture(_middle(noisy, page, white), _middle(clean, place, clean_white)))
    problems.tell()
    if any(each.clean is None or each.clean.shape != each.noisy.shape for each in pictures):
        raise DataError(f"{source}: the two sides are turned differently in their files; save them upright")
    return pictures


def _middle(file: ImageFile, page: int, white: float) -> NDArray[np.float32]:
    """Returns the middle of a page as (C, H, W) on the 0..255 scale, from where a block of JPEG begins."""
    values = file.pages[page].floats(white)
    top, left = (max(0, (side - MOST_SIDE) // 2 // JPEG_BLOCK * JPEG_BLOCK) for side in values.shape[:2])
    cut = (values[top : top + MOST_SIDE, left : left + MOST_SIDE] * 255).clip(0, 255)
    return np.ascontiguousarray(cut.transpose(2, 0, 1))
