"""Image files that are no TIFF: PNG of 8 and 16 bits, JPEG, WebP, BMP and others by Pillow, PGM and PPM of 16 bits."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.image_file import (
    ORIENTATION,
    SHALLOW_WHITE,
    ImageFile,
    Page,
    check_size,
    decoding,
    finite,
    full_of,
    known_orientation,
    refuse,
)
from nas.data.listing import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.data.image_file import Pixels

MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA", "CMYK": "RGB"}
"""Pillow's modes of 8 bits, and the modes in which their images are read."""


def frames_in(image: Any) -> int:
    """Returns the number of images in a file; 1 for a JPEG with previews behind its image."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def read_plain(path: Path) -> ImageFile:
    """Reads a file that Pillow opens, with the values that it stores. Raises DataError."""
    import PIL.Image

    with decoding(path), PIL.Image.open(path) as image:
        found = "JPEG" if image.format == "MPO" else str(image.format)
        chunks = png_chunks(path) if found == "PNG" else None
        converted = image.mode if image.mode == "CMYK" else ""
        frames = []
        for number in range(frames_in(image)):
            image.seek(number)
            frames.append((_plain_values(path, image), image.info.get("transparency")))
        orientation = known_orientation(image.getexif().get(ORIENTATION))
        behind = getattr(image, "n_frames", 1) - frames_in(image)
        kept = {"chunks": chunks} if chunks is not None else _plain_kept(image)
    pages = tuple(replace(_page(finite(path, _keyed(*frame))), orientation=orientation) for frame in frames)
    first = pages[0].pixels
    return ImageFile(
        path=path,
        format=found,
        pages=pages,
        full=full_of(first.dtype),
        stated=None if chunks is None else _significant(chunks, first),
        converted=converted,
        kept=kept,
        lost=(f"the {counted(behind, 'image')} behind its first one",) if behind else (),
    )


def _plain_values(path: Path, image: Any) -> Pixels:
    """Returns (H, W, 1 to 4): gray, gray and alpha, RGB, RGB and alpha."""
    import numpy as np

    layout = image.tile[0].args if image.tile else None
    if image.format == "PNG" and layout in ("RGB;16B", "RGBA;16B", "LA;16B"):
        return _read_deep_png(path, layout)
    if image.format == "PNG" and image.mode in ("I;16", "I;16B", "I"):
        return np.atleast_3d(np.asarray(image).astype(np.uint16))
    if image.mode == "F":
        return np.atleast_3d(np.asarray(image))
    if image.mode not in MODES:
        refuse(path, f"has the mode {image.mode}; gray and RGB are read, convert it")
    mode = MODES[image.mode]
    if image.info.get("transparency") is not None and mode in ("L", "RGB"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.atleast_3d(np.asarray(image.convert(mode)))


def _page(values: Pixels) -> Page:
    """Makes a page of `_plain_values`."""
    if values.shape[2] in (2, 4):
        return Page(pixels=values[..., :-1], alpha=values[..., -1])
    return Page(pixels=values)


def _keyed(values: Pixels, transparent: int | tuple[int, ...] | None) -> Pixels:
    """Adds alpha to a PNG of 16 bits that names one colour as transparent; Pillow does so for 8 bits."""
    import numpy as np

    if transparent is None or values.dtype != np.uint16 or values.shape[2] not in (1, 3):
        return values
    opaque = (values != np.array(transparent)).any(axis=2, keepdims=True)
    return np.concatenate((values, opaque * np.uint16(65535)), axis=2)


def _read_deep_png(path: Path, layout: str) -> Pixels:
    """Reads (H, W, C) of 16 bits. Pillow keeps a layout's high bytes; under another layout's name it reads the low
    ones."""
    import numpy as np

    if layout == "LA;16B":  # it has as many bytes as RGBA of 8 bits
        every = _decoded(path, "RGBA")
        high, low = every[..., ::2], every[..., 1::2]
    else:
        high, low = _decoded(path, layout), _decoded(path, layout.replace("16B", "16L"))
    return np.left_shift(high, 8, dtype=np.uint16) | low


def _decoded(path: Path, layout: str) -> NDArray[np.uint8]:
    import numpy as np
    import PIL.Image

    with PIL.Image.open(path) as image:
        image.tile = [tile._replace(args=layout) for tile in image.tile]
        return np.asarray(image)


def _plain_kept(image: Any) -> dict[str, Any]:
    """Returns what Pillow's writers take: ICC profile, EXIF, XMP, comment and resolution."""
    names = {"icc_profile": "icc_profile", "exif": "exif", "xmp": "xmp", "comment": "comment"}
    kept = {name: image.info[said] for name, said in names.items() if image.info.get(said)}
    try:
        x, y = (float(value) for value in image.info.get("dpi"))
        if 0 < x < 1e6 and 0 < y < 1e6:
            kept["dpi"] = (x, y)
    except (TypeError, ValueError, ZeroDivisionError):
        pass
    return kept


def png_chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """Returns name and content of each chunk of a PNG, in their order; the content of pixels is left out.

    A file that ends too soon gives the chunks before its end, as its pixels decide whether it can be read.
    """
    found = []
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"IDAT", b"fdAT"):
                file.seek(length + 4, 1)
                content = b""
            else:
                content = file.read(length)
                file.seek(4, 1)
                if len(content) < length:
                    break
            found.append((name, content))
    return found


def _significant(chunks: list[tuple[bytes, bytes]], pixels: Pixels) -> float | None:
    """Returns the white level that sBIT states of a PNG of 16 bits.

    Writers that keep to the specification scale their values to 16 bits, so white is 65535. Others store them as they
    come, so white is the largest value of that many bits. The values show which: scaled ones are large, or multiples.
    """
    bits = max((b for name, content in chunks if name == b"sBIT" for b in content), default=16)
    if full_of(pixels.dtype) != 65535 or not 8 <= bits < 16:
        return None
    level = 2**bits - 1
    scaled = pixels.max() > level or (pixels.any() and not (pixels % (1 << (16 - bits))).any())
    return 65535.0 if scaled else float(level)


# --- PGM and PPM of more than 8 bits ---
def read_netpbm(path: Path) -> ImageFile | None:
    """Reads a PGM or PPM of more than 8 bits, which Pillow would scale or cut to 8; None for every other file.

    Raises:
        DataError: the file is damaged.
    """
    import numpy as np

    header = rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s"
    with decoding(path), path.open("rb") as file:
        begin = re.match(header, file.read(4096))
        if begin is None or (level := int(begin[4])) <= SHALLOW_WHITE:
            return None
        width, height, channels = int(begin[2]), int(begin[3]), 3 if begin[1] in b"36" else 1
        check_size(path, height, width)
        count = width * height * channels
        file.seek(begin.end())
        if begin[1] in b"56":
            values = np.frombuffer(file.read(2 * count), ">u2")
        else:
            values = np.array(file.read().split()[:count], dtype=np.int64)
        if not 0 < count == values.size or level > 65535 or values.max() > level or values.min() < 0:
            refuse(
                path, f"cannot be read, it is damaged (its values are not {count} up to {level}); repair or remove it"
            )
    pixels = values.astype(np.uint16).reshape(height, width, channels)
    page = Page(pixels=pixels)
    return ImageFile(path=path, format="PPM", pages=(page,), full=65535.0, stated=float(level), kept={"maxval": level})
