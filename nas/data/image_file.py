"""An image file in memory: every value as it is stored, and everything that the file says of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nas.errors import DataError, in_short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[Any]
    Shown = NDArray[np.uint8] | NDArray[np.float32]

ORIENTATION = 0x0112
"""The tag of EXIF and TIFF that says how an image is turned."""

SHALLOW_WHITE = 255.0

SMALLEST_SIDE = 8
"""The smallest side in pixels of an image that is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One image of a file.

    Attributes:
        pixels: (H, W, C) as they are stored, of the file's type; C is 1 for gray, 3 for colour, and at most 16.
        alpha: (H, W) of the same type; None when the image is opaque.
        inverted: whether 0 is white.
        premultiplied: whether the colours are multiplied by alpha.
        tags: what a page of a TIFF says beside its pixels: code, type, count and content of each tag.
        kind: the kind of page in a TIFF (its NewSubfileType).
        bands: how many of the channels a TIFF has beside gray or RGB.
        planar: whether a TIFF stores one channel after the other.
        resolution: pixels per unit in x and y as fractions, and the unit, as a TIFF tells them; None without them.
        orientation: how a viewer turns the page, by EXIF's numbers 1 to 8.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    inverted: bool = False
    premultiplied: bool = False
    tags: tuple[tuple[int, int, int, bytes], ...] = field(default=(), repr=False)
    kind: int = 0
    bands: int = 0
    planar: bool = False
    resolution: tuple[tuple[int, int], tuple[int, int], int] | None = field(default=None, repr=False)
    orientation: int = 1

    def opacity(self, level: float) -> NDArray[np.float32] | None:
        """Returns alpha from 0 to 1, (H, W, 1); None for an opaque image."""
        import numpy as np

        if self.alpha is None:
            return None
        full = level if self.alpha.max(initial=0) <= level else full_of(self.alpha.dtype)
        return np.asarray(self.alpha[..., None], np.float32) / np.float32(full)

    def floats(self, level: float) -> NDArray[np.float32]:
        """Returns the colours (H, W, C), from 0 for black to 1 for white; 0 where the image is transparent."""
        import numpy as np

        # Photographs are large: each step in a place of its own would take as much memory again.
        values: NDArray[np.float32] = np.divide(self.pixels, np.float32(level), dtype=np.float32)
        if self.inverted:
            np.subtract(1, values, out=values)
        opacity = self.opacity(level)
        if opacity is not None:
            if self.premultiplied:
                values = np.minimum(np.divide(values, opacity, out=np.zeros_like(values), where=opacity > 0), 1)
            values = np.where(opacity > 0, values, np.float32(0))
        return values

    def with_floats(self, values: NDArray[np.float32], level: float) -> Page:
        """Returns the page with other colours (H, W, C), clipped to [0, 1]. Transparent pixels keep their own."""
        import numpy as np

        opacity = self.opacity(level)
        # 16 bits are exact in float32, more are not.
        made = np.clip(values, 0, 1, dtype=np.float32 if level <= 65535 else np.float64)
        if self.premultiplied and opacity is not None:
            made *= opacity
        if self.inverted:
            np.subtract(1, made, out=made)
        made *= made.dtype.type(level)
        if self.pixels.dtype.kind != "f":
            np.rint(made, out=made)
        stored = made.astype(self.pixels.dtype)
        if opacity is not None:
            stored = np.where(opacity > 0, stored, self.pixels)
        return replace(self, pixels=np.ascontiguousarray(stored))

    def shown(self, level: float) -> Shown:
        """Returns the image (H, W, C) as it looks on black: uint8 when it has 8 bits, else float32 in [0, 1]."""
        import numpy as np

        deep = self.pixels.dtype != np.uint8 or level != SHALLOW_WHITE
        opacity = self.opacity(level)
        if deep:
            values = self.floats(level)
            return values if opacity is None else values * opacity
        shallow: NDArray[np.uint8] = 255 - self.pixels if self.inverted else self.pixels
        if opacity is None or self.premultiplied or opacity.min() == 1:
            return shallow
        seen: NDArray[np.uint8] = np.rint(shallow * opacity).astype(np.uint8)
        return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image file in memory.

    Attributes:
        path: the file.
        format: its format, as Pillow calls it.
        pages: its images.
        full: the largest value of the samples' type; 1 for floats.
        stated: white level that the file states (sBIT, MaxSampleValue, SMaxSampleValue); None without one, and for 8
            bits, and where pages state different ones.
        disagreeing: the white levels that its pages state, where these are several.
        converted: colours in which it is stored, such as CMYK, where they were converted to RGB for good.
        kept: what its format keeps beside the pixels, in the format's own terms (see `nas.bundles.pictures`).
        lost: what it has that a restored file does not keep, in words.
    """

    path: Path
    format: str
    pages: tuple[Page, ...]
    full: float
    stated: float | None = None
    disagreeing: tuple[float, ...] = ()
    converted: str = ""
    kept: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lost: tuple[str, ...] = ()

    @property
    def is_float(self) -> bool:
        return self.pages[0].pixels.dtype.kind == "f"

    @property
    def most(self) -> float:
        """The largest value of all pages."""
        return float(max(page.pixels.max() for page in self.pages))

    @property
    def least(self) -> float:
        """The smallest value of all pages."""
        return float(min(page.pixels.min() for page in self.pages))


def full_of(dtype: np.dtype[Any]) -> float:
    """Returns the value of white in a type where nothing else is said: the largest integer, or 1 for floats."""
    import numpy as np

    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def refuse(path: Path, reason: str) -> NoReturn:
    raise DataError(f"image {path}: {reason}") from None


def known_orientation(told: object) -> int:
    """Returns the orientation that a file tells; 1 where it tells none, or none that there is."""
    return told if isinstance(told, int) and told in range(1, 9) else 1


def finite(path: Path, values: Pixels) -> Pixels:
    """Returns floats as they are, and refuses NaN and infinity."""
    import numpy as np

    if values.dtype.kind == "f" and not np.isfinite(values).all():
        refuse(path, "has values that are no finite numbers (NaN or infinity); replace them")
    return values


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turns (H, W, C) as it is to be seen, by the orientation of EXIF, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def check_size(path: Path, height: int, width: int) -> None:
    """Refuses an image of more pixels than Pillow reads, before it takes memory."""
    import PIL.Image

    if PIL.Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * PIL.Image.MAX_IMAGE_PIXELS:
        refuse(path, f"is too large, at most {2 * PIL.Image.MAX_IMAGE_PIXELS} pixels are read; cut it")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Surrounds calls of decoders, which may raise anything for damaged files. Nothing of ours is called damaged."""
    import PIL.Image

    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its notes about metadata are for programmers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and sizes that Pillow does not refuse yet
            yield
    except (DataError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        refuse(path, f"is too large, at most {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)} pixels are read; cut it")
    except OSError as error:
        refuse(path, f"cannot be read ({in_short(error)}); repair or remove it")
    except Exception as error:
        refuse(path, f"cannot be read, it is damaged ({in_short(error)}); repair or remove it")
    finally:
        logger.setLevel(before)
