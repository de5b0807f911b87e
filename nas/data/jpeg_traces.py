"""Traces of JPEG in the pixels of an image: coefficients that are whole multiples of a table of a quality.

The image must begin where a block begins, as a whole decoded file does.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.spectrum import cosines

Array = NDArray[np.float64]

SIDE = 8
ROUNDING = 0.4
"""The standard deviation of a coefficient after a decoder has rounded the pixels, with some room."""

HIGHEST = 96
"""The highest quality that is looked for. Its steps are near the rounding of pixels above."""

FEWEST = 50
"""The fewest coefficients other than 0, without the means of blocks, that are enough to tell a quality."""

EVIDENCE = 0.5
"""The least mean logarithm of how much likelier coefficients are with a table than without."""


def jpeg_quality(gray: NDArray[np.float32]) -> int | None:
    """Returns the quality of the JPEG that an image (H, W), 0..255, was compressed to last; None without its traces."""
    height, width = (length // SIDE for length in gray.shape)
    tiles = gray[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE).transpose(0, 2, 1, 3)
    blocks: Array = tiles.reshape(-1, SIDE, SIDE).astype(np.float64)
    blocks = blocks[((blocks > 0) & (blocks < 255)).all((1, 2))][:20_000]  # a decoder has changed clipped ones
    if not len(blocks):
        return None
    basis = cosines(SIDE)
    coefficients = basis @ (blocks - 128) @ basis.T
    best, found = EVIDENCE, None
    for quality in range(1, HIGHEST + 1):
        steps = _table(quality)
        used = (np.abs(coefficients) >= steps / 2) & (steps >= 3)
        used[:, 0, 0] = False  # the mean of a flat block is a multiple of many steps by chance
        if used.sum() < FEWEST:
            continue
        step = np.broadcast_to(steps, coefficients.shape)[used]
        values = coefficients[used]
        off = values - step * np.rint(values / step)
        likelihood = 0.95 * np.exp(-((off / ROUNDING) ** 2) / 2) / (ROUNDING * np.sqrt(2 * np.pi)) + 0.05 / step
        evidence = float(np.log(likelihood * step).mean())
        if evidence > best:
            best, found = evidence, quality
    return found


@functools.cache
def _table(quality: int) -> Array:
    """Returns the steps of luminance (8, 8) that Pillow's encoder uses at a quality."""
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.new("L", (SIDE, SIDE)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with PIL.Image.open(file) as opened:
        tables: Any = opened
        return np.array(tables.quantization[0], np.float64).reshape(SIDE, SIDE)
