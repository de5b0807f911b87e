"""A network on an image of any size: on the whole image where it fits into memory, else on overlapping tiles.

Where an output pixel depends on its neighbourhood alone, tiles overlap by this reach and equal the whole image. Where
it depends on the whole image (norms over an image, squeeze-excitation, ...) a tile's own statistics replace the
image's. The tiles are then blended, and their largest difference at a seam is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from nas.errors import BundleError
from nas.machine import return_memory
from nas.protocols import Abilities

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Noisy (N, C, H, W) -> denoised (N, C, H, W) and logits (N, K)."""

WHOLE_MEMORY, TILE_MEMORY = 2**30, 3 * 2**26
"""The bytes of features that a pass over a whole image, and one over a tile, may need. Smaller tiles take less memory
and hardly more time, as their features stay in the processor's caches, but a whole image has no seams."""

ALIVE = 8
"""The approximate number of feature maps of the widest layer that a pass keeps at once."""

GRID = 16
"""Tiles start at multiples of this, which is the deepest reduction of a U-Net of 5 levels."""

BLEND = 64
"""The pixels by which tiles overlap on either side where their values are blended."""

SMALLEST_TILE = 64


@dataclass(frozen=True, slots=True)
class Tiling:
    """The way in which a network's images are cut.

    Attributes:
        side: side of a tile without its overlap, in pixels.
        whole: pixels of a pass: larger images are cut, and images that have more pixels together go one by one.
        overlap: overlap in pixels on either side.
        blend: whether values are mixed over the overlap; otherwise each pixel is taken from one tile.
    """

    side: int
    whole: int
    overlap: int
    blend: bool

    @classmethod
    def of(cls, network: nn.Module, channels: int, *, side: int | None = None) -> Tiling:
        """Chooses the tiling for a network in evaluation mode, from its reach and the size of its features.

        Args:
            network: tiles overlap by its reach (see `nas.protocols.Abilities`).
            channels: channels of its images.
            side: side of a tile, and of the largest image that is not cut; by default as `WHOLE_MEMORY` and
                `TILE_MEMORY` allow.
        """
        reach = Abilities.of(network).reach
        overlap = BLEND if reach is None else _up(reach)
        if side is not None:
            return cls(_up(side), side**2, overlap, reach is None)
        each = _bytes_per_pixel(network, channels)
        side = max(SMALLEST_TILE, (math.isqrt(TILE_MEMORY // each) - 2 * overlap) // GRID * GRID)
        return cls(side, WHOLE_MEMORY // each, overlap, reach is None)


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored image.

    Attributes:
        image: (N, C, H, W), not clipped.
        logits: (N, K), the mean over tiles by area.
        tiles: number of tiles of each image; 1 for a whole image at once.
        seam: largest difference of two tiles where they meet; 0 without tiles.
    """

    image: Tensor
    logits: Tensor
    tiles: int
    seam: float


def restore(predict: Predict, noisy: Tensor, tiling: Tiling, *, ensemble: bool = False) -> Restored:
    """Runs a network over images (N, C, H, W) of one size, float32 in about [0, 1], on the CPU.

    With `ensemble` the images are turned whole, and each turn is cut anew: a network that halves images begins to count
    pixels at the corner of what it is given.
    """
    if ensemble:
        turns: list[Restored] = []

        def whole(images: Tensor) -> tuple[Tensor, Tensor]:
            turns.append(restore(predict, images, tiling))
            return turns[-1].image, turns[-1].logits

        image, logits = self_ensemble(whole)(noisy)
        return Restored(image, logits, max(each.tiles for each in turns), max(each.seam for each in turns))
    count, _, height, width = noisy.shape
    if count * height * width <= tiling.whole:
        image, logits = _run(predict, noisy)
        return Restored(image, logits, tiles=1, seam=0.0)
    if count > 1:  # so that a pass has larger tiles, of which less is margin
        return _one_by_one(predict, noisy, tiling)
    rows, columns = list(_spans(height, tiling)), list(_spans(width, tiling))
    restored = torch.zeros_like(noisy)
    seam, total = 0.0, None
    above: dict[int, Tensor] = {}  # for each column of tiles, the values at the seam below
    for down in rows:
        left: Tensor | None = None
        for number, right in enumerate(columns):
            return_memory()  # pieces that earlier passes have freed would otherwise add up
            image, logits = _run(predict, noisy[..., down.start : down.stop, right.start : right.stop])
            weights = down.weights[:, None] * right.weights
            restored[..., down.start : down.stop, right.start : right.stop] += image * weights
            share = logits * (down.core * right.core / (height * width))
            total = share if total is None else total + share
            # Tiles that meet are compared on the first line behind the seam.
            if left is not None:
                at = right.first - right.start
                seam = max(seam, _difference(left, image[..., down.inner, at]))
            if number in above:
                at = down.first - down.start
                seam = max(seam, _difference(above[number], image[..., at, right.inner]))
            after_right, after_down = right.first + right.core - right.start, down.first + down.core - down.start
            if after_right < image.shape[-1]:
                left = image[..., down.inner, after_right].clone()
            if after_down < image.shape[-2]:
                above[number] = image[..., after_down, right.inner].clone()
    assert total is not None
    return Restored(restored, total, tiles=len(rows) * len(columns), seam=seam)


def _one_by_one(predict: Predict, noisy: Tensor, tiling: Tiling) -> Restored:
    restored, logits, seam = torch.empty_like(noisy), [], 0.0
    for place, image in enumerate(noisy.split(1)):
        found = restore(predict, image, tiling)
        restored[place] = found.image[0]
        logits.append(found.logits)
        seam = max(seam, found.seam)
    return Restored(restored, torch.cat(logits), tiles=found.tiles, seam=seam)


def check_numbers(answers: Iterable[Tensor]) -> None:
    """Raises BundleError where a network answers something else than numbers, which no image and no class shows."""
    if not all(bool(answer.isfinite().all()) for answer in answers):
        raise BundleError("the network answers values that are no numbers (NaN or infinity); give another bundle")


def tiled(network: nn.Module, channels: int, run: Predict | None = None) -> Predict:
    """Returns `network`, in evaluation mode, as a function for images of any one size (see `restore`).

    With `run`, a program of that network, the function runs this in its place.
    """
    tiling = Tiling.of(network, channels)

    def predict(noisy: Tensor) -> tuple[Tensor, Tensor]:
        found = restore(run or network, noisy, tiling)
        return found.image, found.logits

    return predict


def self_ensemble(predict: Predict) -> Predict:
    """Returns a function that restores images under all eight flips and quarter turns, and answers the mean of what is
    turned back (Timofte et al. 2016, arXiv 1511.02228, section 3.5).

    It takes eight times as long. The logits are those of the images as they are, because a class may depend on their
    direction. Results for images whose directions differ, such as digits, may be worse.
    """

    def mean(noisy: Tensor) -> tuple[Tensor, Tensor]:
        total, logits = predict(noisy)
        for transposed, flipped in product((False, True), ((), (2,), (3,), (2, 3))):
            if transposed or flipped:
                turned = (noisy.transpose(2, 3) if transposed else noisy).flip(flipped)
                back = predict(turned.contiguous(memory_format=torch.channels_last))[0].flip(flipped)
                total = total + (back.transpose(2, 3) if transposed else back)
        return total / 8, logits

    return mean


@dataclass(frozen=True, slots=True)
class _Span:
    """A tile along one axis. It reads from start to stop, and owns `core` pixels from `first`."""

    start: int
    stop: int
    first: int
    core: int
    weights: Tensor

    @property
    def inner(self) -> slice:
        """The tile's own part, within the part that it reads."""
        return slice(self.first - self.start, self.first - self.start + self.core)


def _spans(length: int, tiling: Tiling) -> Iterator[_Span]:
    """Yields tiles that cover an axis. The weights of all tiles sum to 1 at every pixel."""
    count = math.ceil(length / tiling.side)
    core = _up(math.ceil(length / count))
    ramp = min(tiling.overlap, core) if tiling.blend else 0
    for first in range(0, length, core):
        last = min(first + core, length)
        start, stop = max(0, first - tiling.overlap), min(length, last + tiling.overlap)
        place = torch.arange(start, stop) + 0.5
        yield _Span(
            start,
            stop,
            first,
            last - first,
            _rise(place - first, ramp, first > 0) * _rise(last - place, ramp, last < length),
        )


def _rise(distance: Tensor, ramp: int, cut: bool) -> Tensor:
    """Returns 0 outside an edge and 1 inside, linear over `ramp` pixels around it; 1 everywhere at the image's own
    edge."""
    if not cut:
        return torch.ones_like(distance)
    return (distance > 0).float() if ramp == 0 else (distance / ramp + 0.5).clamp(0, 1)


def _run(predict: Predict, noisy: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return predict(noisy.contiguous(memory_format=torch.channels_last))


def _difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _bytes_per_pixel(network: nn.Module, channels: int, side: int = 64) -> int:
    """Returns the memory of a pass over one pixel: `ALIVE` times the largest output of a layer."""
    largest = 0

    def watch(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    hooks = [module.register_forward_hook(watch) for module in network.modules() if not list(module.children())]
    try:
        _run(network, torch.zeros(1, channels, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, ALIVE * largest // side**2)


def _up(value: int) -> int:
    """Returns the next multiple of `GRID`."""
    return math.ceil(value / GRID) * GRID
