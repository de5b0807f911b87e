"""One image file as an array of the size and mode that training takes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import DataError, in_short

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from nas.data.raw import Images

SMALLEST_SIDE = 8


def open_image(path: Path, *, decode: bool = True, smallest: int = SMALLEST_SIDE) -> Image:
    """Opens an image in mode L or RGB (8 bits) or F (gray, [0, 1], from 16 bits or floats); as it is when not decoded.

    A decoded image is turned as it is to be seen, by the orientation in its EXIF.

    Raises:
        DataError: the image cannot be read, has a side under `smallest`, or has values outside its mode's range.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with PIL.Image.open(path) as image:
            if min(image.size) < smallest:
                raise DataError(f"image {path}: {image.width}x{image.height}, sides must be at least {smallest}")
            return _plain_mode(PIL.ImageOps.exif_transpose(image), path) if decode else image
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


def stacked(images: Sequence[Image], channels: int | None = None) -> Images:
    """Stacks images to (N, C, H, W): gray when all of them are gray, float32 when one has more than 8 bits.

    `channels` is 3 for colour even where all of them are gray.
    """
    import numpy as np

    channels = channels or max(len(image.getbands()) for image in images)
    dtype: type[np.generic] = np.float32 if any(image.mode == "F" for image in images) else np.uint8
    stack = np.empty((len(images), channels, images[0].height, images[0].width), dtype)
    for row, image in zip(stack, images, strict=True):
        values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        # Images of 8 bits among deeper ones are brought to their scale.
        row[:] = values / np.float32(255) if dtype is np.float32 and image.mode != "F" else values
    return stack
