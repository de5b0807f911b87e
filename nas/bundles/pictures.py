"""Image files read for a network and written as they were: with depth, transparency, profile, resolution and EXIF.

Images are gray or in colour, of 8 or 16 bits, with or without alpha, as PNG, JPEG or TIFF. Pixels of a PNG or JPEG stay
as they are stored. EXIF is kept with its orientation, so that a viewer turns the restored image as it turned the first.
A TIFF is turned as it is to be seen, and loses the tag.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError, in_short
from nas.files import write_whole

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
IMAGE_FORMATS = {"PNG", "JPEG", "MPO", "TIFF"}
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "I;16": "I;16", "I;16B": "I;16"}
"""Pillow's modes, and the modes in which their images are read."""

JPEG_QUALITY = 95
ORIENTATION = 0x0112
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image file in memory.

    Attributes:
        pixels: (H, W, C), with C 1 or 3, uint8 or uint16.
        alpha: (H, W) of the same type; None when the image is opaque.
        format: ``PNG``, ``JPEG`` or ``TIFF``.
        profile: ICC profile, or None.
        exif: EXIF as in a JPEG, or None.
        dpi: resolution (x, y), or None.
    """

    pixels: Pixels
    alpha: Pixels | None
    format: str
    profile: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None

    @property
    def white(self) -> int:
        """The largest value: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def floats(self) -> NDArray[np.float32]:
        """Returns the pixels as (C, H, W) in [0, 1]."""
        return np.ascontiguousarray(self.pixels.transpose(2, 0, 1), np.float32) / np.float32(self.white)

    def with_floats(self, values: NDArray[np.float32]) -> Picture:
        """Returns the picture with other pixels (C, H, W), clipped to [0, 1] and rounded."""
        rounded = np.rint(np.clip(values, 0, 1) * np.float32(self.white)).astype(self.pixels.dtype)
        return replace(self, pixels=np.ascontiguousarray(rounded.transpose(1, 2, 0)))


def read_picture(path: Path) -> Picture:
    """Reads an image file.

    Raises:
        DataError: the file is missing, damaged, too large, or of a kind that could not be written as it was.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and sizes that Pillow does not refuse yet
            return _read(path)
    except MemoryError:
        raise _refusal(path, "does not fit into memory; cut it") from None


def write_picture(path: Path, picture: Picture) -> None:
    """Writes an image file whole or not at all; a JPEG with quality 95 and full colour resolution.

    Raises:
        DataError: the file cannot be written.
    """
    buffer = io.BytesIO()
    values: NDArray[Any] = picture.pixels
    if picture.alpha is not None:
        values = np.concatenate((values, picture.alpha[..., None]), axis=2)
    try:
        if picture.pixels.dtype == np.uint16 and picture.format == "PNG":
            buffer.write(_deep_png(values, picture))
        elif picture.pixels.dtype == np.uint16:
            _write_deep_tiff(buffer, values, picture)
        else:
            _write_plain(buffer, values, picture)
        content = buffer.getvalue()
        write_whole(path, lambda file: file.write_bytes(content))
    except (OSError, ValueError, struct.error) as error:
        raise _refusal(path, f"cannot be written ({in_short(error)}); choose another folder") from error


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Surrounds calls of a decoder, which may raise anything for damaged files."""
    import PIL.Image

    try:
        yield
    except MemoryError:
        raise
    except PIL.Image.DecompressionBombError:
        most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
        raise _refusal(path, f"is too large, at most {most} pixels are read; cut it") from None
    except OSError as error:
        raise _refusal(path, f"cannot be read ({in_short(error)}); repair it or leave it out") from error
    except Exception as error:
        raise _refusal(path, f"is damaged ({in_short(error)}); repair it or leave it out") from error


def _read(path: Path) -> Picture:
    import PIL.Image

    with _decoding(path):
        opened = PIL.Image.open(path)
    with opened as image:
        if image.format not in IMAGE_FORMATS:
            raise _refusal(path, f"is {image.format}; only PNG, JPEG and TIFF are read, convert it")
        with _decoding(path):
            frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # the first of a JPEG's images counts
            raise _refusal(path, f"holds {frames} images; split it")
        values = _deep(path, image)
        if values is None:
            if image.mode not in MODES:
                raise _refusal(path, f"has the mode {image.mode}; gray and RGB of 8 or 16 bits are read, convert it")
            mode = MODES[image.mode]
            if "transparency" in image.info and mode in ("L", "RGB"):
                mode = {"L": "LA", "RGB": "RGBA"}[mode]
            with _decoding(path):
                values = np.atleast_3d(np.asarray(image if image.mode == "I;16" else image.convert(mode)))
        told: Mapping[str, Any] = {
            "format": "JPEG" if image.format == "MPO" else image.format,
            "profile": image.info.get("icc_profile") or None,
            "exif": _exif(image),
            "dpi": _dpi(image),
        }
        return _picture(_keyed(values, image.info.get("transparency")), told)


def _keyed(values: Pixels, transparent: int | tuple[int, ...] | None) -> Pixels:
    """Adds alpha to a PNG of 16 bits that names one colour as transparent; Pillow does so for 8 bits."""
    if transparent is None or values.dtype != np.uint16 or values.shape[2] not in (1, 3):
        return values
    opaque = (values != np.array(transparent)).any(axis=2, keepdims=True)
    return np.concatenate((values, opaque * np.uint16(65535)), axis=2)


def _picture(values: Pixels, told: Mapping[str, Any]) -> Picture:
    """Makes a picture from (H, W, 1 to 4): gray, gray and alpha, RGB, RGB and alpha."""
    channels = values.shape[2]
    if channels in (2, 4):
        return Picture(pixels=values[..., :-1], alpha=values[..., -1], **told)
    return Picture(pixels=values, alpha=None, **told)


def _deep(path: Path, image: Any) -> Pixels | None:
    """Returns pixels of 16 bits in several channels, which Pillow would read as 8 bits; None for all other images."""
    if image.format == "PNG" and image.tile and image.tile[0].args in ("RGB;16B", "RGBA;16B", "LA;16B"):
        return _read_deep_png(path, image.tile[0].args)
    with _decoding(path):
        deep = image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) == 16
    if deep and image.mode not in ("I;16", "I;16B"):
        import tifffile

        with _decoding(path), tifffile.TiffFile(path) as file:
            page = file.pages.first
            values = np.asarray(page.asarray())
            planar = page.planarconfig == 2  # the channels come one after the other
            turn = page.tags.valueof(ORIENTATION, 1)
        if values.ndim == 3 and planar:
            values = values.transpose(1, 2, 0)
        if values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (3, 4):
            raise _refusal(path, f"has values {values.dtype} {values.shape}; gray and RGB of 8 or 16 bits are read")
        return _turned(values, turn)
    return None


def _read_deep_png(path: Path, layout: str) -> Pixels:
    """Reads (H, W, C) of 16 bits. Pillow keeps a layout's high bytes; under another layout's name it reads the low
    ones."""
    if layout == "LA;16B":  # it has as many bytes as RGBA of 8 bits
        every = _decoded(path, "RGBA")
        high, low = every[..., ::2], every[..., 1::2]
    else:
        high, low = _decoded(path, layout), _decoded(path, layout.replace("16B", "16L"))
    return np.left_shift(high, 8, dtype=np.uint16) | low


def _decoded(path: Path, layout: str) -> NDArray[np.uint8]:
    import PIL.Image

    with _decoding(path), PIL.Image.open(path) as image:
        image.tile = [tile._replace(args=layout) for tile in image.tile]
        return np.asarray(image)


def _exif(image: Any) -> bytes | None:
    """Returns EXIF as a JPEG or PNG has it; none of a TIFF, because its tags describe its own layout too."""
    return None if image.format == "TIFF" else image.info.get("exif") or None


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns (H, W, C) as it is to be seen, by the orientation of EXIF, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def _dpi(image: Any) -> tuple[float, float] | None:
    found = image.info.get("dpi")
    try:
        x, y = (float(value) for value in found)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _write_plain(buffer: io.BytesIO, values: NDArray[Any], picture: Picture) -> None:
    import PIL.Image

    image = PIL.Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    options: dict[str, Any] = {"format": picture.format}
    if picture.profile:
        options["icc_profile"] = picture.profile
    if picture.dpi:
        options["dpi"] = picture.dpi
    if picture.exif and picture.format != "TIFF":
        options["exif"] = picture.exif
    if picture.format == "JPEG":
        options |= {"quality": JPEG_QUALITY, "subsampling": 0}
    if picture.format == "TIFF":
        options["compression"] = "tiff_adobe_deflate"
    image.save(buffer, **options)


def _write_deep_tiff(buffer: io.BytesIO, values: NDArray[Any], picture: Picture) -> None:
    import tifffile

    colour = picture.pixels.shape[2] == 3
    tifffile.imwrite(
        buffer,
        values[..., 0] if values.shape[2] == 1 else values,
        photometric="rgb" if colour else "minisblack",
        planarconfig="contig" if values.shape[2] > 1 else None,
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        metadata=None,
        iccprofile=picture.profile,
        resolution=picture.dpi,
        resolutionunit="INCH" if picture.dpi else None,
    )


def _deep_png(values: NDArray[Any], picture: Picture) -> bytes:
    """Writes a PNG of 16 bits a channel, which Pillow does not write in colour (PNG specification, third edition).

    Each row is stored as the difference to the row above (filter 2), because photographs compress better so.
    """
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if picture.profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.profile)))
    if picture.dpi:
        x, y = (round(value / 0.0254) for value in picture.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(parts)


def _refusal(path: Path, reason: str) -> DataError:
    return DataError(f"image {path}: {reason}")
