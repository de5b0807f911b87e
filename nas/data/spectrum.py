"""Noise by frequency: the cosine transform of small blocks, in the flattest of which it is the noise's alone.

A block is chosen by its low frequencies and judged by its high ones. These are independent in noise, so the choice does
not bias the noise that is found (Ponomarenko et al., An automatic approach to lossy compression of AVIRIS images, 2007;
Colom and Buades, Analysis and extension of the Ponomarenko et al. method, IPOL 2013).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.noise import REACH

Array = NDArray[np.float64]
Plane = NDArray[np.float32]

BINS = 24
"""Ranges of brightness in which the flattest blocks are looked for, from 0 to 255."""

FEWEST = 200
"""A range with fewer blocks is joined with the next."""

RADII = np.arange(0.45, 8.01, 0.05)
"""Radii in pixels that are looked for. Noise of a smaller one is all but white."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of N x N pixels.

    Attributes:
        power: (blocks, N, N) squares of the orthonormal cosine transform.
        brightness: (blocks,) mean of each block, on the 0..255 scale.
        clipped: (blocks,) share of pixels that are 0 or 255.
        overlap: number of blocks that hold a pixel, on average; 1 when they do not overlap.
        content: (blocks,) standard deviation of what a block shows, where clean images say so. Its power is then that
            of the noise alone. None otherwise.
    """

    power: NDArray[np.float32]
    brightness: Array
    clipped: Array
    overlap: float
    content: Array | None

    @classmethod
    def of(cls, planes: Sequence[tuple[Plane, Plane | None]], side: int, most: int) -> Blocks:
        """Cuts planes into blocks.

        Args:
            planes: noisy planes (H, W) with the clean ones, or None.
            side: of a block. Planes that are smaller are passed over.
            most: number of blocks at most.
        """
        pairs = all(clean is not None for _, clean in planes)
        power, brightness, clipped, overlaps, content = [], [], [], [], []
        basis = cosines(side).astype(np.float32)
        for noisy, clean in planes:
            height, width = (length - side + 1 for length in noisy.shape)
            if min(height, width) < 1:
                continue
            step = max(1, math.ceil(math.sqrt(height * width * len(planes) / most)))
            step = max(step, side) if pairs else min(step, 4 * side)
            overlaps.append((side / min(step, side)) ** 2)
            seen = _cut(noisy, side, step)
            noise = seen
            if clean is not None:
                shown = _cut(clean, side, step)
                noise = seen - shown
                content.append(shown.std((1, 2), dtype=np.float64))
            power.append((basis @ noise @ basis.T) ** 2)
            brightness.append(seen.mean((1, 2), dtype=np.float64))
            clipped.append(((seen <= 0) | (seen >= 255)).mean((1, 2)))
        if not power:
            empty = np.zeros(0)
            return cls(np.zeros((0, side, side), np.float32), empty, empty, 1.0, None)
        return cls(
            np.concatenate(power),
            np.concatenate(brightness),
            np.concatenate(clipped),
            float(np.mean(overlaps)),
            np.concatenate(content) if pairs else None,
        )

    @property
    def side(self) -> int:
        return int(self.power.shape[1])


@dataclass(frozen=True, slots=True)
class Flat:
    """The flattest blocks of a range of brightness.

    Attributes:
        brightness: their mean.
        spectrum: (N, N) mean power by frequency.
        peakedness: (N, N) fourth moment of the coefficients over that of a normal variable: 1 for noise, more where
            blocks differ by what they show.
        independent: number of blocks, less what they overlap.
        clipped: share of pixels that are 0 or 255.
    """

    brightness: float
    spectrum: Array
    peakedness: Array
    independent: float
    clipped: float


def flattest(
    blocks: Blocks, low: tuple[int, int], high: int, share: float, fewest: int, *, all_below: bool = False
) -> list[Flat]:
    """Returns the flattest blocks of each range of brightness; the flatter half where clean images are known.

    Args:
        blocks: the blocks.
        low: first and last sum of the two frequencies by which a block is chosen. Rows and columns, whose other
            frequency is 0, are left out.
        high: first sum of the frequencies by which noise is judged.
        share: part of the blocks that is chosen, at least `fewest` of them.
        all_below: whether every block is chosen that has no more power at low frequencies than at high ones, where
            these are more. So has half of all blocks that show white noise alone.
    """
    total, inside = frequencies(blocks.side)
    lows, highs = inside & (total >= low[0]) & (total <= low[1]), inside & (total >= high)
    found = []
    for rows in _ranges(blocks.brightness):
        if blocks.content is not None:
            chosen = rows[blocks.content[rows] <= np.median(blocks.content[rows])]
        else:
            unevenness = blocks.power[rows][:, lows].mean(1)
            number = min(max(fewest, int(share * len(rows))), len(rows))
            chosen = rows[np.argpartition(unevenness, number - 1)[:number]]
            for _ in range(3 if all_below else 0):
                more = rows[unevenness < blocks.power[chosen][:, highs].mean()]
                if len(more) <= number:
                    break
                chosen = more
        power = blocks.power[chosen].astype(np.float64)
        spectrum = power.mean(0)
        found.append(
            Flat(
                brightness=float(blocks.brightness[chosen].mean()),
                spectrum=spectrum,
                peakedness=(power**2).mean(0) / np.maximum(spectrum**2, 1e-12) / 3,
                independent=len(chosen) / blocks.overlap,
                clipped=float(blocks.clipped[chosen].mean()),
            )
        )
    return found


def frequencies(side: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the sum of both frequencies of each coefficient (N, N), and whether neither of them is 0."""
    down, across = np.mgrid[:side, :side]
    return down + across, (down > 0) & (across > 0)


def common_spectrum(found: Sequence[Flat]) -> tuple[Array, Array]:
    """Returns spectrum and peakedness that flat areas of most brightnesses have in common.

    They are medians over brightnesses, of spectra that are scaled to equal power, so that neither strong noise nor
    brightnesses at which nothing is flat count for more.
    """
    levels = np.array([each.spectrum[1:, 1:].mean() for each in found])
    scaled = [each.spectrum / max(level, 1e-9) for each, level in zip(found, levels, strict=True)]
    spectrum: Array = np.median(scaled, 0) * np.median(levels)
    return spectrum, np.median([each.peakedness for each in found], 0)


@dataclass(frozen=True, slots=True)
class Colour:
    """A spectrum as white noise and correlated noise.

    Attributes:
        radius: of the Gaussian that white noise was blurred with, in pixels.
        white, correlated: variances of both parts.
    """

    radius: float
    white: float
    correlated: float


def fit_colour(spectrum: Array, first: int) -> Colour:
    """Fits white noise and noise of one radius to the frequencies of a spectrum whose sum is at least `first`."""
    from scipy.optimize import nnls

    total, inside = frequencies(len(spectrum))
    used = inside & (total >= first)
    values = spectrum[used]
    # Errors are relative, but what is small beside the largest power says nothing of correlated noise.
    weights = 1 / (values + 0.02 * values.max() + 1e-9)
    best, colour = math.inf, Colour(0.0, 0.0, 0.0)
    for radius in RADII:
        shape = np.stack([np.ones_like(values), correlated_spectrum(float(radius), len(spectrum))[used]], 1)
        (white, correlated), error = nnls(shape * weights[:, None], values * weights)
        if error < best:
            best, colour = error, Colour(float(radius), float(white), float(correlated))
    return colour


@functools.cache
def cosines(side: int) -> Array:
    """Returns the orthonormal cosine transform (frequency, pixel), DCT-II."""
    from scipy.fft import dct

    basis: Array = dct(np.eye(side), norm="ortho", axis=0)
    return basis


@functools.lru_cache(maxsize=1024)
def correlated_spectrum(radius: float, side: int) -> Array:
    """Returns the power by frequency (N, N) of noise as `nas.data.noise.Correlated` makes it, with variance 1."""
    from scipy.linalg import toeplitz

    reach = math.ceil(REACH * radius)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * radius**2))
    alike = np.correlate(weights, weights, "full")[len(weights) - 1 :] / (weights**2).sum()
    covariance = toeplitz(np.pad(alike, (0, side))[:side])
    along = np.einsum("ki,ij,kj->k", cosines(side), covariance, cosines(side))
    return np.outer(along, along)


def _cut(plane: Plane, side: int, step: int) -> NDArray[np.float32]:
    views = np.lib.stride_tricks.sliding_window_view(plane, (side, side))[::step, ::step]
    return np.ascontiguousarray(views.reshape(-1, side, side))


def _ranges(brightness: Array) -> Iterator[NDArray[np.intp]]:
    """Yields the blocks of each range of brightness; ranges with few blocks are joined."""
    place = np.clip(brightness / 255 * BINS, 0, BINS - 1).astype(int)
    fewest = min(FEWEST, len(brightness))
    rows = np.zeros(0, np.intp)
    for number in range(BINS):
        rows = np.concatenate([rows, np.flatnonzero(place == number)])
        if len(rows) >= fewest and len(rows):
            yield rows
            rows = np.zeros(0, np.intp)
