"""Images of any size made ready for a network: cut and averaged to the one size at which it learns to name classes."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from PIL.Image import Image

    from nas.data.raw import Images

    Size = tuple[int, int]
    """Width and height in pixels, in Pillow's order."""

log = logging.getLogger(__name__)

SIDE = 64
"""The side in pixels to which larger images are brought."""

KEPT_SIDE = 128
"""The largest side with which images of one size stay as they are."""

TINY = 3
"""An image whose short side is more than this many times shorter than the usual one is left out."""

NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The form in which a network was shown the images of its training.

    Images are turned as they are to be seen, cut at the centre to the shape of `width` by `height`, averaged by area to
    this size, and brought to `channels`: to gray from any other number, to colour from gray.
    """

    height: int
    width: int
    channels: int

    def to_dict(self) -> dict[str, object]:
        """Returns the form in words, for people and other programs."""
        size = {"height": self.height, "width": self.width, "channels": self.channels}
        return {"orientation": "as seen", "crop": "centre", "averaged": "by area", **size}

    def apply(self, image: Image) -> Image:
        """Brings an image of `nas.data.images` to this form."""
        if self.channels == 1 and len(image.getbands()) > 1:
            image = image.convert("L")
        return fitted(image, (self.width, self.height))

    def apply_to_all(self, images: Images) -> Images:
        """Brings images (N, C, H, W) of one size to this height and width; their channels stay."""
        import numpy as np
        import PIL.Image

        size = (self.width, self.height)
        if images.shape[2:] == (self.height, self.width):
            return images
        planes = [[np.asarray(fitted(PIL.Image.fromarray(plane), size)) for plane in image] for image in images]
        return cast("Images", np.array(planes, images.dtype))


def shrunk(image: Image) -> Image:
    """Returns a large image as a small square, so that a set of them fits in memory; others stay as they are."""
    return image if max(image.size) <= KEPT_SIDE else _cut(image, (min(SIDE, *image.size),) * 2)


def one_size(
    small: Sequence[Image],
    sizes: Sequence[Size],
    source: str,
    *,
    names: Sequence[str] = (),
    wanted: Preparation | None = None,
) -> list[Image]:
    """Returns small images of one size as they are, and others as squares of the smallest short side, at most 64.

    Args:
        small: the images, each as `shrunk` returned it.
        sizes: their sizes before that.
        source: the source, for a message.
        names: their names, for a message.
        wanted: the form to which they are brought instead.
    """
    if wanted is not None:
        return [wanted.apply(image) for image in small]
    if len(set(sizes)) == 1 and max(sizes[0]) <= KEPT_SIDE:
        return list(small)
    shorts = [min(size) for size in sizes]
    side = min(SIDE, *shorts)
    because = f", the short side of {names[shorts.index(side)]}" if names and side < SIDE else ""
    log.info("%s: images are resized and cut to %dx%d pixels%s", source, side, side, because)
    return [_cut(image, (side, side)) for image in small]


def without_tiny(sizes: Sequence[Size], names: Sequence[str], source: str, tell: Callable[..., None]) -> list[int]:
    """Returns the places of all images but those that are far smaller than the others, and tells of these.

    One icon among photographs would otherwise set the size for all. What counts is the short side, beside the usual
    one, which is the median and at most 64.
    """
    usual = min(SIDE, statistics.median(min(size) for size in sizes))
    tiny = [index for index, size in enumerate(sizes) if TINY * min(size) < usual]
    if tiny:
        shown = ", ".join(f"{names[i]} ({sizes[i][0]}x{sizes[i][1]})" for i in tiny[:NAMED])
        more = ", ..." if len(tiny) > NAMED else ""
        tell("%s: left out, as far smaller than the others: %d image(s): %s%s", source, len(tiny), shown, more)
    return [index for index in range(len(sizes)) if index not in set(tiny)]


def fitted(image: Image, size: Size) -> Image:
    """Returns an image of a width and height: cut at the centre to this shape, and averaged by area.

    Large images pass through `shrunk` as they do in training, so that an image of the training set becomes what it was.
    """
    if size[0] == size[1] <= min(SIDE, *image.size):
        image = shrunk(image)
    return image if image.size == size else _cut(image, size)


def _cut(image: Image, size: Size) -> Image:
    """Cuts out the largest central rectangle of a shape and averages it by area; smaller images are enlarged."""
    import PIL.Image

    width, height = float(image.width), float(image.height)
    if image.width * size[1] <= image.height * size[0]:
        height = image.width * size[1] / size[0]
    else:
        width = image.height * size[0] / size[1]
    left, top = (image.width - width) / 2, (image.height - height) / 2
    way = PIL.Image.Resampling.BOX if width >= size[0] else PIL.Image.Resampling.BILINEAR
    return image.resize(size, way, (left, top, left + width, top + height))
