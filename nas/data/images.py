"""One image file as an array of the size and mode that training takes."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import DataError, in_short

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from nas.data.raw import Images

SIDE = 64
"""The side in pixels to which larger images are brought."""

KEPT_SIDE = 128
"""The largest side with which images of one size stay as they are."""

SMALLEST_SIDE = 8
log = logging.getLogger(__name__)


def open_image(path: Path, *, decode: bool = True) -> Image:
    """Opens an image in mode L or RGB (8 bits) or F (gray, [0, 1], from 16 bits or floats); as it is when not decoded.

    Raises:
        DataError: the image cannot be read, has a side under `SMALLEST_SIDE`, or has values outside its mode's range.
    """
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            if min(image.size) < SMALLEST_SIDE:
                raise DataError(f"image {path}: {image.width}x{image.height}, sides must be at least {SMALLEST_SIDE}")
            return _plain_mode(image, path) if decode else image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"image {path}: cannot be read ({in_short(error)}); repair or remove it") from error


def _plain_mode(image: Image, path: Path) -> Image:
    import numpy as np
    import PIL.Image

    if image.mode in ("L", "LA", "1"):
        return image.convert("L")
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image, np.float32) / np.float32(1 if image.mode == "F" else 65535)
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"image {path}: values must be 8 or 16 bit integers, or floats in [0, 1]; convert or remove it")
    return PIL.Image.fromarray(values)


def one_size(images: Iterable[Image], source: str) -> list[Image]:
    """Returns small images of one size as they are, and others as squares of the smallest short side, at most 64."""
    sizes: set[tuple[int, int]] = set()
    small: list[Image] = []
    for image in images:
        sizes.add(image.size)
        # Large images are shrunk one by one, so that a set of them fits in memory.
        small.append(image if max(image.size) <= KEPT_SIDE else _square(image, min(SIDE, *image.size)))
    if len(sizes) == 1 and max(map(max, sizes)) <= KEPT_SIDE:
        return small
    side = min(SIDE, *(min(size) for size in sizes))
    log.info("%s: images are resized and cut to %dx%d pixels", source, side, side)
    return [_square(image, side) for image in small]


def _square(image: Image, side: int) -> Image:
    """Cuts out the central square and averages it by area."""
    import PIL.Image

    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    return image.resize((side, side), PIL.Image.Resampling.BOX, (left, top, left + short, top + short))


def stacked(images: Sequence[Image]) -> Images:
    """Stacks images to (N, C, H, W): gray when all of them are gray, float32 when one has more than 8 bits."""
    import numpy as np

    channels = max(len(image.getbands()) for image in images)
    dtype: type[np.generic] = np.float32 if any(image.mode == "F" for image in images) else np.uint8
    stack = np.empty((len(images), channels, images[0].height, images[0].width), dtype)
    for row, image in zip(stack, images, strict=True):
        values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        # Images of 8 bits among deeper ones are brought to their scale.
        row[:] = values / np.float32(255) if dtype is np.float32 and image.mode != "F" else values
    return stack
