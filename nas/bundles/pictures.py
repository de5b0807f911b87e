"""Image files written as they were, with other pixels: with every page, depth, transparency and all that they say.

Pixels stay as they are stored, and so does the tag by which a viewer turns them. A PNG keeps all of its chunks and a
TIFF the tags of each page, so that scale, axes, place on earth and history go with the restored image.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.image_file import ImageFile, Page, refuse
from nas.data.reader import read_file
from nas.data.tiff_directories import Form, with_directories
from nas.data.white import White, level_to_restore
from nas.errors import in_short
from nas.files import write_whole

QUALITY = 95
"""The quality of a JPEG, whose colours keep their full resolution."""

NOISE_MARGIN = 1.0
"""How far noise may lead beyond black and white, in units of the white level, where this is stated."""

ITS_OWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST", b"acTL", b"fcTL", b"fdAT"}
"""Chunks of a PNG that describe its pixels, which the writer writes anew."""

OF_COLOUR_TYPE = {b"sBIT", b"bKGD"}
"""Chunks that are true only while a PNG keeps its colour type."""


def read_picture(path: Path, white: White) -> tuple[ImageFile, float]:
    """Reads an image file to be restored, and its white level.

    Raises:
        DataError: the file is missing, damaged, too large, or of a kind that could be misread or not be written as it
            was; or its white level is not known.
    """
    file = read_file(path)
    if file.converted:
        refuse(path, f"has the mode {file.converted}; gray and RGB are restored, convert it")
    if file.format not in WRITERS:
        refuse(path, f"is {file.format}; only {', '.join(WRITERS)} are restored, convert it")
    if len(file.pages) > 1 and file.format != "TIFF":
        refuse(path, f"holds {len(file.pages)} images that follow each other; split it")
    return file, level_to_restore(file, white, margin=NOISE_MARGIN)


def write_picture(path: Path, file: ImageFile, pages: Sequence[Page]) -> None:
    """Writes an image file with other pages, whole or not at all.

    Args:
        path: the new file.
        file: the file that the pages come from.
        pages: as many as the file's, of their sizes and types.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        content = WRITERS[file.format](replace(file, pages=tuple(pages)))
        write_whole(path, lambda target: target.write_bytes(content))
    except (OSError, ValueError, struct.error) as error:
        refuse(path, f"cannot be written ({in_short(error)}); choose another folder")


def _values(page: Page) -> NDArray[Any]:
    """Returns colours and alpha as (H, W, 1 to 4)."""
    values: NDArray[Any] = page.pixels
    return values if page.alpha is None else np.concatenate((values, page.alpha[..., None]), axis=2)


def _plain(file: ImageFile, **options: Any) -> bytes:
    import PIL.Image

    values = _values(file.pages[0])
    image = PIL.Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, format=file.format, **file.kept, **options)
    return buffer.getvalue()


def _jpeg(file: ImageFile) -> bytes:
    return _plain(file, quality=QUALITY, subsampling=0)


def _webp(file: ImageFile) -> bytes:
    return _plain(file, lossless=True, exact=True)


def _bmp(file: ImageFile) -> bytes:
    kept = {name: value for name, value in file.kept.items() if name == "dpi"}
    if file.pages[0].alpha is None:
        return _plain(replace(file, kept=kept))
    return _bmp_with_alpha(_values(file.pages[0]), kept.get("dpi", (96, 96)))


def _bmp_with_alpha(values: NDArray[Any], dpi: tuple[float, float]) -> bytes:
    """Writes (H, W, 4) with a header that says which samples are alpha (BITMAPV4HEADER), as Pillow's has not."""
    height, width, _ = values.shape
    samples = values[::-1, :, (2, 1, 0, 3)].tobytes()  # rows from below, each pixel as blue, green, red, alpha
    x, y = (round(value / 0.0254) for value in dpi)
    start = 14 + 108
    begin = struct.pack("<2sIHHI", b"BM", start + len(samples), 0, 0, start)
    size = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(samples), x, y, 0, 0)
    masks = struct.pack("<4I4s48x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    return begin + size + masks + samples


def _netpbm(file: ImageFile) -> bytes:
    """Writes a PGM or PPM, with the white level that it had."""
    values = _values(file.pages[0])
    height, width, channels = values.shape
    level = file.kept.get("maxval", 255)
    kind = {1: "P5", 3: "P6"}.get(channels)
    if kind is None:
        raise ValueError("this format has no alpha")
    return f"{kind}\n{width} {height}\n{level}\n".encode() + values.astype(">u2" if level > 255 else "u1").tobytes()


def _tiff(file: ImageFile) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    with tifffile.TiffWriter(
        buffer, byteorder=file.kept.get("byteorder"), bigtiff=file.kept.get("bigtiff", False), shaped=False
    ) as writer:
        for page in file.pages:
            values = _values(page)
            several = values.shape[2] > 1
            gray = "miniswhite" if page.inverted else "minisblack"
            alpha = [] if page.alpha is None else ["assocalpha" if page.premultiplied else "unassalpha"]
            writer.write(
                values.transpose(2, 0, 1) if several and page.planar else values if several else values[..., 0],
                photometric="rgb" if page.pixels.shape[2] - page.bands == 3 else gray,
                planarconfig=("separate" if page.planar else "contig") if several else None,
                extrasamples=["unspecified"] * page.bands + alpha or None,
                compression="zlib",
                subfiletype=page.kind or None,
                resolution=None if page.resolution is None else page.resolution[:2],
                resolutionunit=None if page.resolution is None else page.resolution[2],
                software=False,
                metadata=None,
                extratags=[(code, kind, count, content, False) for code, kind, count, content in page.tags],
            )
        form = Form(writer.tiff.byteorder, writer.tiff.is_bigtiff)
    return with_directories(buffer.getvalue(), file.kept.get("directories", ()), form)


def _npy(file: ImageFile) -> bytes:
    """Writes an array with the axes, the type and the order of elements that it had."""
    values = file.pages[0].pixels
    axes = file.kept["axes"]
    values = values[..., 0] if axes == "HW" else values.transpose(2, 0, 1) if axes == "CHW" else values
    buffer = io.BytesIO()
    fortran = file.kept["fortran"]
    np.lib.format.write_array(buffer, np.asarray(values, order="F" if fortran else "C"), allow_pickle=False)
    return buffer.getvalue()


def _png(file: ImageFile) -> bytes:
    """Writes a PNG of 8 or 16 bits a channel, with all other chunks of the file (PNG specification, third edition).

    Each row is stored as the difference to the row above (filter 2), because photographs compress better so.
    """
    values = _values(file.pages[0])
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    depth = 8 * values.dtype.itemsize
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))]
    kept: Sequence[tuple[bytes, bytes]] = file.kept.get("chunks", ())
    names = [name for name, _ in kept]
    pixels_at = names.index(b"IDAT") if b"IDAT" in names else len(names)
    same_type = any(name == b"IHDR" and content[8:10] == bytes((depth, colour_type)) for name, content in kept)
    dropped = ITS_OWN if same_type else ITS_OWN | OF_COLOUR_TYPE
    chunks += [chunk for chunk in kept[:pixels_at] if chunk[0] not in dropped]
    chunks.append((b"IDAT", zlib.compress(filtered.tobytes(), 6)))
    chunks += [chunk for chunk in kept[pixels_at:] if chunk[0] not in dropped]
    chunks.append((b"IEND", b""))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(parts)


WRITERS = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "BMP": _bmp, "WEBP": _webp, "PPM": _netpbm, "NPY": _npy}
"""The formats that are restored, by Pillow's names."""
