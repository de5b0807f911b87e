"""TIFF files, page by page: every value that tifffile decodes, and every tag that is worth keeping."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.image_file import (
    ORIENTATION,
    ImageFile,
    Page,
    check_size,
    decoding,
    finite,
    full_of,
    known_orientation,
    refuse,
)
from nas.data.tiff_directories import DIRECTORIES, EXIF, Budget, Form, read_directory
from nas.types import MAX_CHANNELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPage

    from nas.data.image_file import Pixels
    from nas.data.tiff_directories import Tag

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)
PHOTOMETRIC = 262
COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
"""Photometric interpretations that are read, and the samples of each."""

UNSPECIFIED, PREMULTIPLIED, STRAIGHT = range(3)
JPEG = {6, 7, 34892, 33007}
"""Compressions whose decoder turns YCbCr into RGB."""

DESCRIPTION, MAX_SAMPLE, S_MAX_SAMPLE, NODATA = 270, 281, 341, 42113
RESOLUTION = (282, 283, 296)

LAYOUT = {
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        264,
        265,
        266,
        273,
        277,
        278,
        279,
        282,
        283,
        284,
        288,
        289,
        292,
        293,
        296,
    ),
    *(
        317,
        320,
        321,
        322,
        323,
        324,
        325,
        330,
        332,
        333,
        334,
        336,
        338,
        339,
        347,
        512,
        513,
        514,
        515,
        517,
        518,
        519,
        520,
    ),
    *(521, 529, 530, 531, 532, 32997, 32998),
}
"""Tags that describe how the pixels lie in the file, which the writer writes anew."""

ELSEWHERE = {
    *(400, 34665, 34853, 40965),  # directories of their own, see `nas.data.tiff_directories`
    *(33628, 33629, 33630, 33631, 34412, 33560, 34361, 37724, 50740, 65330),  # with places in the file, or old pixels
}
"""Tags whose content points to other places of the file, which would be wrong in another one."""

MOST_TAG = 2**26
"""The size in bytes of the largest tag that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Samples:
    """What a page says of its samples, checked.

    Attributes:
        height, width: in pixels.
        planar: whether the samples of all pixels come one after the other.
        photometric: one of `COLOURS`.
        alpha: `PREMULTIPLIED`, `STRAIGHT`, or None.
        bands: samples that are neither gray nor colours nor alpha, but channels of their own.
        bits: bits of a sample.
        nodata: value of pixels without data; None without one.
        palette: (colours, 3), uint16; None without one.
        stated: the white level that MaxSampleValue or SMaxSampleValue state.
        tags, kind, resolution, orientation: see `nas.data.image_file.Page`.
    """

    height: int
    width: int
    planar: bool
    photometric: int
    alpha: int | None
    bands: int
    bits: int
    nodata: float | None
    palette: NDArray[np.uint16] | None
    stated: float | None
    tags: tuple[tuple[int, int, int, bytes], ...]
    kind: int
    resolution: tuple[tuple[int, int], tuple[int, int], int] | None
    orientation: int


def read_tiff(path: Path) -> ImageFile:
    """Reads a TIFF with all of its pages; pages of smaller copies of an image (pyramids, thumbnails) are left out.

    Raises:
        DataError: the file is damaged, its pages cannot all be read, or its samples could be misread.
    """
    with decoding(path), _opened(path) as file:
        images = _images(path, file)
        contents = _Contents(file)
        samples = [_samples(path, page, contents) for page in images]
        planes = _planes(path, file, images)
        if planes == 1:
            values = [page.asarray() for page in images]
        else:
            values = list(file.series[0].asarray().reshape(planes, *images[0].shape))
            # The first page tells of the whole stack.
            samples += [replace(samples[0], tags=())] * (planes - 1)
        budget = Budget()
        below = [_directories(file, page, budget) for page in images]
        kept = {
            "byteorder": file.byteorder,
            "bigtiff": file.is_bigtiff,
            "directories": [found for found, _ in below],
        }
        lost = dict.fromkeys(what for _, page in below for what in page)
        if contents.refused:
            lost["tags whose contents overlap"] = None
        if len(images) < len(file.pages) or any(330 in page.tags for page in images):
            lost["the smaller copies of its images (pyramid or thumbnail)"] = None
    pages = tuple(_page(path, told, stored) for told, stored in zip(samples, values, strict=True))
    first, dtype = samples[0], pages[0].pixels.dtype
    if len({(page.pixels.dtype, told.bits) for page, told in zip(pages, samples, strict=True)}) > 1:
        refuse(path, "has pages of different types; split it")
    packed = dtype.kind == "u" and 8 < first.bits < 8 * dtype.itemsize
    full = float(2**first.bits - 1) if packed else full_of(dtype)
    whites = sorted(
        {told.stated for told in samples if told.stated is not None and (dtype.kind == "f" or told.stated < full)}
    )
    stated = whites[0] if len(whites) == 1 else None
    return ImageFile(
        path=path,
        format="TIFF",
        pages=pages,
        full=full,
        stated=full if packed and not whites else stated,
        disagreeing=tuple(whites) if len(whites) > 1 else (),
        converted="CMYK" if any(told.photometric == CMYK for told in samples) else "",
        kept=kept,
        lost=tuple(lost),
    )


def tiff_shapes(path: Path) -> list[tuple[int, int]]:
    """Returns height and width of each page of a TIFF, from its headers (see `nas.data.reader.shapes_of`)."""
    with _opened(path) as file:
        images = _images(path, file)
        planes = _planes(path, file, images)
        shapes = [(int(page.imagelength), int(page.imagewidth)) for page in images]
        return shapes * planes


def _opened(path: Path) -> TiffFile:
    import tifffile

    return tifffile.TiffFile(path, _multifile=False)


def _images(path: Path, file: TiffFile) -> list[TiffPage]:
    """Returns the pages that are images of their own, and refuses a file whose list of pages is cut off."""
    import tifffile

    count = len(file.pages)
    pages = [page for page in (file.pages.get(index) for index in range(count)) if isinstance(page, tifffile.TiffPage)]
    if not pages or len(pages) < count or _next_directory(file, pages[-1]) != 0:
        refuse(path, "cannot be read, it is damaged (its list of pages is cut off); repair or remove it")
    if any(page.subfiletype & 4 or page.photometric == MASK for page in pages):
        refuse(path, "has a page that is a mask for another one; give the mask to the image as alpha, or remove it")
    return [page for page in pages if not page.subfiletype & 1] or pages


def _next_directory(file: TiffFile, page: TiffPage) -> int:
    handle, tiff = file.filehandle, file.tiff
    handle.seek(page.offset)
    (tags,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    handle.seek(page.offset + tiff.tagnosize + tags * tiff.tagsize)
    (offset,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
    return int(offset)


def _planes(path: Path, file: TiffFile, images: list[TiffPage]) -> int:
    """Returns the number of images that lie behind the only page of a file, as ImageJ, tifffile and MetaMorph store
    large stacks."""
    first = images[0]
    size = math.prod(first.shape)
    planes = 1
    if len(images) == 1 and size and (file.is_imagej or file.is_shaped or file.is_stk):
        series = file.series[0]
        if series.size > size and series.size % size == 0 and series.dataoffset is not None:
            planes = series.size // size
    told = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if isinstance(told, int) and told > max(planes, len(images)):
        refuse(path, f"says that it has {told} images, and has {max(planes, len(images))}; repair or remove it")
    return planes


def _page(path: Path, told: _Samples, values: NDArray[Any]) -> Page:
    """Makes a page from its values, which tifffile has decoded but not interpreted."""
    import numpy as np

    if told.planar:
        values = values.transpose(1, 2, 0)
    values = values.reshape(told.height, told.width, -1)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if told.bits < 8 and told.photometric != PALETTE:
        values = values * np.uint8(255 // (2**told.bits - 1))
    values = finite(path, values)
    if told.nodata is not None and (values == told.nodata).any():
        refuse(path, f"marks pixels without data by {told.nodata:g} (GDAL_NODATA); fill them")
    colours = COLOURS[told.photometric] + told.bands
    pixels = values[..., :colours]
    if told.palette is not None:
        pixels = _coloured(path, pixels[..., 0], told.palette)
    elif told.photometric == CMYK:
        pixels = _from_cmyk(path, pixels)
    return Page(
        pixels=pixels,
        alpha=None if told.alpha is None else values[..., colours],
        inverted=told.photometric == MIN_IS_WHITE,
        premultiplied=told.alpha == PREMULTIPLIED,
        tags=told.tags,
        kind=told.kind,
        bands=told.bands,
        planar=told.planar,
        resolution=told.resolution,
        orientation=told.orientation,
    )


def _samples(path: Path, page: TiffPage, contents: _Contents) -> _Samples:
    """Returns what a page says of its samples, and refuses everything that would be misread."""
    _check_samples(path, page)
    more = page.samplesperpixel - COLOURS[page.photometric]
    alpha = int(page.extrasamples[0]) if more == 1 and page.extrasamples[0] != UNSPECIFIED else None
    return _Samples(
        height=int(page.imagelength),
        width=int(page.imagewidth),
        planar=page.axes == "SYX",
        photometric=int(page.photometric),
        alpha=alpha,
        bands=more if alpha is None else 0,
        bits=int(page.bitspersample),
        nodata=float(page.nodata) if NODATA in page.tags and page.nodata != 0 else None,
        palette=_palette(path, page) if page.photometric == PALETTE else None,
        stated=_stated(page),
        tags=_tags(page, contents),
        kind=int(page.subfiletype),
        resolution=_resolution(page),
        orientation=known_orientation(page.tags.valueof(ORIENTATION)),
    )


def _check_samples(path: Path, page: TiffPage) -> None:
    """Refuses everything that would be misread, before anything is decoded into memory."""
    check_size(path, page.imagelength, page.imagewidth)
    if not page.imagelength or not page.imagewidth:
        refuse(path, f"has a page of {page.imagewidth}x{page.imagelength} pixels; repair or remove it")
    if page.axes not in ("YX", "YXS", "SYX"):
        refuse(path, f"has a page with the axes {page.axes}; save its planes as pages")
    if PHOTOMETRIC not in page.tags:
        refuse(path, "does not say whether 0 is black (PhotometricInterpretation is missing); save it again")
    if page.photometric not in COLOURS:
        name = getattr(page.photometric, "name", page.photometric)
        refuse(path, f"has the photometric interpretation {name}; gray, RGB and palettes are read, convert it")
    if page.photometric == YCBCR and page.compression not in JPEG:
        refuse(path, "has YCbCr colours without JPEG; convert it to RGB")
    if page.dtype is None or page.dtype.kind not in "buif" or isinstance(page.bitspersample, tuple):
        refuse(path, f"has samples of {page.bitspersample} bits in format {int(page.sampleformat)}; convert it")
    if page.dtype.itemsize == 8 and page.dtype.kind != "f":
        refuse(path, "has integers of 64 bits; at most 32 are read, convert it")
    if page.bitspersample < 8 and page.bitspersample not in (1, 2, 4):
        refuse(path, f"has {page.bitspersample} bits a sample; convert it")
    more = page.samplesperpixel - COLOURS[page.photometric]
    if more < 0:
        refuse(path, f"has {page.samplesperpixel} samples a pixel, too few for its colours; save it again")
    said = page.extrasamples[:more]
    if more == 1 and not said:
        refuse(
            path, "does not say whether its last sample is alpha or a channel (ExtraSamples is missing); save it again"
        )
    if more > 1 and any(each != UNSPECIFIED for each in said):
        refuse(path, f"has alpha among {page.samplesperpixel} samples a pixel; save it without")
    if more and page.photometric not in (MIN_IS_BLACK, RGB):
        refuse(path, "has more samples beside a palette or inverted or printing colours; convert it to gray or RGB")
    if page.samplesperpixel > MAX_CHANNELS:
        refuse(path, f"has {page.samplesperpixel} samples a pixel; at most {MAX_CHANNELS} channels are read, split it")
    needed = math.prod(page.chunked)
    if len(page.dataoffsets) < needed or not all(page.dataoffsets[:needed]):
        refuse(path, "cannot be read, it is damaged (parts of its pixels are missing); repair or remove it")
    end = page.parent.filehandle.size
    ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
    if any(last > end for last in ends):
        refuse(path, "cannot be read, it is damaged (it ends before its pixels do); repair or remove it")


def _palette(path: Path, page: TiffPage) -> NDArray[np.uint16]:
    import numpy as np

    palette = np.asarray(page.colormap, np.uint16) if page.colormap is not None else np.zeros((0, 0), np.uint16)
    if palette.shape != (3, 2**page.bitspersample):
        refuse(path, "cannot be read, it is damaged (its palette lacks colours); repair or remove it")
    return palette.T


def _coloured(path: Path, indices: Pixels, palette: NDArray[np.uint16]) -> Pixels:
    """Returns the colours of a palette's indices: uint8 where 8 bits tell them, else uint16."""
    import numpy as np

    if palette.max() < 256:  # old programs wrote 8 bits
        return palette.astype(np.uint8)[indices]
    high, low = palette >> 8, palette & 255
    if (low == 0).all() or (low == high).all() or (low == 255).all():
        return high.astype(np.uint8)[indices]
    return palette[indices]


def _from_cmyk(path: Path, pixels: Pixels) -> Pixels:
    import numpy as np
    import PIL.Image

    if pixels.dtype != np.uint8:
        refuse(path, "has CMYK colours of more than 8 bits; convert it to RGB")
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(pixels), "CMYK").convert("RGB"))


def _stated(page: TiffPage) -> float | None:
    """Returns the white level that SMaxSampleValue or MaxSampleValue state of samples of more than 8 bits."""
    if page.bitspersample <= 8:
        return None
    for code in (S_MAX_SAMPLE, MAX_SAMPLE):
        found = page.tags.valueof(code)
        values = found if isinstance(found, tuple) else (found,)
        usual = code == S_MAX_SAMPLE or page.sampleformat != 3  # floats
        if usual and all(isinstance(value, int | float) and 0 < value < math.inf for value in values):
            return float(max(values))
    return None


def _resolution(page: TiffPage) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Returns XResolution and YResolution as fractions, and their unit, which is the inch where none is told."""
    x, y, unit = (page.tags.valueof(code) for code in RESOLUTION)
    if not all(isinstance(value, tuple) and len(value) == 2 and value[0] > 0 < value[1] for value in (x, y)):
        return None
    return x, y, int(unit) if unit in range(1, 6) else 2  # 1 is no unit, which is false for tifffile


class _Contents:
    """The contents of the tags of all pages, each read once.

    Together they are at most as large as the file, so that tags that overlap cannot stand for any amount of memory.

    Attributes:
        refused: whether a content was left out for this.
    """

    def __init__(self, file: TiffFile) -> None:
        self.refused = False
        self._handle = file.filehandle
        self._left = int(file.filehandle.size)
        self._known: dict[tuple[int, int], bytes] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Returns the bytes at a place, fewer at the end of the file, and none where all are read that there can be."""
        if (known := self._known.get((offset, size))) is not None:
            return known
        if size > self._left:
            self.refused |= offset + size <= self._handle.size
            return b""
        self._left -= size
        self._handle.seek(offset)
        return self._known.setdefault((offset, size), self._handle.read(size))


def _tags(page: TiffPage, contents: _Contents) -> tuple[tuple[int, int, int, bytes], ...]:
    """Returns the tags that stay true of a restored page, each as it is stored."""
    kept = []
    for tag in page.tags:
        if tag.code in LAYOUT or tag.code in ELSEWHERE or tag.dtype in (13, 18):
            continue
        size = tag.valuebytecount
        if not 0 < size <= MOST_TAG:
            continue
        content = contents.read(tag.valueoffset, size)
        if len(content) == size:
            content = _description(content) if tag.code == DESCRIPTION else content
            kept.append(
                (int(tag.code), int(tag.dtype), len(content) if tag.code == DESCRIPTION else int(tag.count), content)
            )
    return tuple(kept)


def _directories(file: TiffFile, page: TiffPage, budget: Budget) -> tuple[dict[int, tuple[Tag, ...]], list[str]]:
    """Returns the EXIF and GPS directories of a page by their tags, and what of them cannot be kept.

    The budget is the file's; a directory beyond it counts as damaged.
    """
    form = Form(file.byteorder, file.is_bigtiff)
    kept, lost = {}, []
    for code, _, _, field in form.fields(file.filehandle, page.offset)[0]:
        if code not in DIRECTORIES:
            continue
        try:
            kept[code], noted = read_directory(file.filehandle, form.offset(field), form, budget, inner=code == EXIF)
        except (OSError, ValueError, struct.error):
            lost.append(f"its damaged {DIRECTORIES[code]} directory")
        else:
            lost += ["the maker's note of its EXIF"] if noted else []
    return kept, lost


def _description(content: bytes) -> bytes:
    """Returns a description that stays true when a stack in one directory is written as pages of their own."""
    if not content.startswith(b'{"shape": '):
        return content
    try:
        told = json.loads(content.rstrip(b"\0"))
    except ValueError:
        return content
    told.pop("truncated", None)
    return json.dumps(told).encode() + b"\0"
