"""The images of one file as they are to be seen, in the form that training takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas.data.image_file import SMALLEST_SIDE, ImageFile, turned
from nas.data.reader import read_file, shapes_of
from nas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image, Resampling

    from nas.data.image_file import Shown
    from nas.data.raw import Images

SHOWN = 3
"""The number of channels of a picture that people see: red, green and blue."""


class Planes:
    """An image that Pillow has no mode for: of 2 or more than 3 channels, or in colour with more than 8 bits.

    It has the methods of Pillow's images that are used here, each of which works on its planes. These have the mode L
    (8 bits) or F ([0, 1]).
    """

    def __init__(self, planes: Sequence[Image]) -> None:
        self.planes = planes
        self.mode = planes[0].mode
        self.size = planes[0].size
        self.width, self.height = self.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.stack([np.asarray(plane, dtype) for plane in self.planes], axis=2)

    def getbands(self) -> tuple[str, ...]:
        return tuple(map(str, range(len(self.planes))))

    def convert(self, mode: str) -> Image:
        """Returns the gray image in the mode of the planes; there is no other conversion.

        Colours are weighed as Pillow does it (ITU-R 601), and other channels all alike.
        """
        import numpy as np
        import PIL.Image

        assert mode == "L", mode
        count = len(self.planes)
        weights = np.array((0.299, 0.587, 0.114) if count == SHOWN else (1 / count,) * count, np.float32)
        gray = np.asarray(self, np.float32) @ weights
        return PIL.Image.fromarray(gray if self.mode == "F" else np.rint(gray).astype(np.uint8))

    def resize(
        self, size: tuple[int, int], resample: Resampling, box: tuple[float, float, float, float] | None = None
    ) -> Planes:
        return Planes([plane.resize(size, resample, box) for plane in self.planes])

    def crop(self, box: tuple[int, int, int, int]) -> Planes:
        return Planes([plane.crop(box) for plane in self.planes])


def shown_images(file: ImageFile, level: float) -> list[Image]:
    """Returns the pages of a file as they are to be seen: turned by EXIF, and on black where they are transparent.

    They have mode L or RGB (8 bits) or F (gray, [0, 1], from more bits), or are `Planes`.

    Args:
        file: the file.
        level: its white level.
    """
    return [_image(turned(page.shown(level), page.orientation)) for page in file.pages]


def _image(values: Shown) -> Image:
    import numpy as np
    import PIL.Image

    if values.shape[2] == 3 and values.dtype == np.uint8:
        return PIL.Image.fromarray(np.ascontiguousarray(values))
    planes = [PIL.Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(values.shape[2])]
    return planes[0] if len(planes) == 1 else cast("Image", Planes(planes))


def may_become(channels: int, wanted: int) -> bool:
    """Tells whether an image is taken where others are wanted: gray ones are colour ones too, and no others are."""
    return channels == wanted or (channels, wanted) == (1, SHOWN)


def open_images(path: Path, level: Callable[[ImageFile], float]) -> list[Image]:
    """Reads the images of a file as `shown_images` returns them.

    Args:
        path: the file. Each of its pages is an image.
        level: returns the white level of the file (see `nas.data.white`).

    Raises:
        DataError: the file cannot be read, or an image has a side under `SMALLEST_SIDE`.
    """
    file = read_file(path)
    images = shown_images(file, level(file))
    for image in images:
        _check_sides(path, image.size)
    return images


def image_sizes(path: Path) -> list[tuple[int, int]]:
    """Returns width and height of each image of a file as it is stored, from its headers.

    Raises:
        DataError: the headers cannot be read, or a side is under `SMALLEST_SIDE`.
    """
    sizes = [(width, height) for height, width in shapes_of(path)]
    for size in sizes:
        _check_sides(path, size)
    return sizes


def _check_sides(path: Path, size: tuple[int, int]) -> None:
    if min(size) < SMALLEST_SIDE:
        raise DataError(f"image {path}: {size[0]}x{size[1]}, sides must be at least {SMALLEST_SIDE}")


def stacked(images: Sequence[Image], channels: int | None = None) -> Images:
    """Stacks images to (N, C, H, W): gray when all of them are gray, float32 when one has more than 8 bits.

    Args:
        images: of one size and one number of channels; gray ones may stand among colour ones.
        channels: the number of channels, such as 3 for colour even where all of them are gray; the images' by default.

    Raises:
        DataError: an image has another number of channels.
    """
    import numpy as np

    found = {len(image.getbands()) for image in images}
    channels = channels or max(found)
    if foreign := sorted(count for count in found if not may_become(count, channels)):
        raise DataError(
            f"images of {foreign[0]} channel(s) among those of {channels}, or for a network of {channels}; give images "
            "of one kind"
        )
    dtype: type[np.generic] = np.float32 if any(image.mode == "F" for image in images) else np.uint8
    stack = np.empty((len(images), channels, images[0].height, images[0].width), dtype)
    for row, image in zip(stack, images, strict=True):
        values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        # Images of 8 bits among deeper ones are brought to their scale.
        row[:] = values / np.float32(255) if dtype is np.float32 and image.mode != "F" else values
    return stack
