"""Image files read once and for all, for training, evaluation and ``denoise`` alike.

A file is refused in one line where its values, channels or pages could be misread.
"""

from __future__ import annotations

from pathlib import Path

from nas.data.image_file import ImageFile, decoding, refuse
from nas.data.npy import NPY_BEGINS, npy_shapes, read_npy
from nas.data.plain import frames_in, read_netpbm, read_plain
from nas.data.tiff import read_tiff, tiff_shapes
from nas.files import open_regular

TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_file(path: Path) -> ImageFile:
    """Reads an image file with all of its pages.

    Raises:
        DataError: the file is missing, damaged or too large, or could be misread.
    """
    try:
        with decoding(path):
            begin = _begin(path)
        if begin.startswith(TIFF_BEGINS):
            return read_tiff(path)
        if begin == NPY_BEGINS:
            return read_npy(path)
        return read_netpbm(path) or read_plain(path)
    except MemoryError:
        refuse(path, "does not fit into memory; cut it")


def shapes_of(path: Path) -> list[tuple[int, int]]:
    """Returns height and width of each page of a file, from its headers alone. Raises DataError."""
    import PIL.Image

    with decoding(path):
        begin = _begin(path)
        if begin.startswith(TIFF_BEGINS):
            return tiff_shapes(path)
        if begin == NPY_BEGINS:
            return npy_shapes(path)
        with PIL.Image.open(path) as image:
            return [(image.height, image.width)] * frames_in(image)


def _begin(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(len(NPY_BEGINS))
