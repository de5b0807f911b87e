"""Arrays in .npy files of NumPy as images. Nothing in them is ever unpickled.

A .npy file does not say what its axes are. HxW is a gray image. Of three axes, the channels are the last one (HxWxC) or
the first one (CxHxW): that which leaves 1 to 16 channels and sides of at least 8 pixels, the smallest that are trained
on. Where both do, as in 16x64x16, or neither, the file is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.image_file import SMALLEST_SIDE, ImageFile, Page, check_size, decoding, finite, full_of, refuse
from nas.files import open_regular
from nas.types import MAX_CHANNELS

if TYPE_CHECKING:
    from typing import Any, BinaryIO

    import numpy as np

NPY_BEGINS = b"\x93NUMPY"
TYPES = {"u1", "u2", "f2", "f4", "f8"}
"""The types that are read, in either byte order."""


def read_npy(path: Path) -> ImageFile:
    """Reads one image. Raises DataError for any other type or shape, and for a damaged file."""
    import numpy as np

    with decoding(path), open_regular(path) as file:
        shape, fortran, dtype = _header(file)
        axes = _axes(path, shape, dtype)
        if path.stat().st_size < file.tell() + math.prod(shape) * dtype.itemsize:
            refuse(path, "cannot be read, it is damaged (it ends before its values do); repair or remove it")
        file.seek(0)
        values = np.lib.format.read_array(file, allow_pickle=False)
    pixels = values[..., None] if axes == "HW" else values.transpose(1, 2, 0) if axes == "CHW" else values
    page = Page(pixels=finite(path, pixels))
    kept = {"axes": axes, "fortran": fortran}
    return ImageFile(path=path, format="NPY", pages=(page,), full=full_of(dtype), kept=kept)


def npy_shapes(path: Path) -> list[tuple[int, int]]:
    """Returns height and width of the image, from its header (see `nas.data.reader.shapes_of`)."""
    with open_regular(path) as file:
        shape, _, dtype = _header(file)
    axes = _axes(path, shape, dtype)
    return [(shape[axes.index("H")], shape[axes.index("W")])]


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns the shape, whether the first axis varies fastest, and the type."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _axes(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Returns ``HW``, ``HWC`` or ``CHW``, and refuses everything else before it takes memory."""
    told = "x".join(map(str, shape)) or "one number"
    if dtype.hasobject or dtype.str[1:] not in TYPES:
        refuse(path, f"holds values of type {dtype.name}; uint8, uint16 and floats are read, convert it")
    ways: dict[str, tuple[int, ...]] = {"HW": shape} if len(shape) == 2 and all(shape) else {}
    if len(shape) == 3:
        for name, (height, width, channels) in (("HWC", shape), ("CHW", (*shape[1:], shape[0]))):
            if 1 <= channels <= MAX_CHANNELS and min(height, width) >= SMALLEST_SIDE:
                ways[name] = height, width
    if not ways:
        refuse(
            path,
            f"is an array of {told}; HxW, HxWxC and CxHxW are read, with 1 to {MAX_CHANNELS} channels and sides of at "
            f"least {SMALLEST_SIDE}; save each image as a file of its own",
        )
    if len(ways) > 1:
        refuse(
            path,
            f"is an array of {told}, which may be HxWxC or CxHxW; save it as a TIFF, which says what its axes are",
        )
    ((axes, found),) = ways.items()
    check_size(path, found[0], found[1])
    return axes
