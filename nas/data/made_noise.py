"""How much noise the words of a noise make, beside the noise that pairs of noisy and clean images have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.data.noise import parse_noise
from nas.data.raw import evenly

MOST_SIDE, MOST_IMAGES = 256, 16
"""The side of the middle of an image that noise is made on, a multiple of JPEG's blocks, and the number of images."""

STRONGEST = 255.0
"""The largest standard deviation of noise before JPEG that is looked for."""

HALVINGS = 10
"""How often the interval of the standard deviation is halved; it is known to a quarter of a level then."""

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A noisy image and its clean one (C, H, W), on the 0..255 scale."""


def middles_of(pairs: Sequence[Pair]) -> list[Pair]:
    """Returns the middles of some pairs, on which noise is made and compared."""
    return [(_middle(noisy), _middle(clean)) for noisy, clean in evenly(pairs, MOST_IMAGES)]


def strength_of(pairs: Sequence[Pair]) -> float:
    """Returns the root mean square of noisy minus clean pixels over all pairs."""
    return float(np.sqrt(np.mean([np.mean((noisy - clean) ** 2) for noisy, clean in pairs])))


def strength_made(words: str, pairs: Sequence[Pair]) -> float:
    """Returns the root mean square of the noise that words make on the clean images of pairs, as `strength_of` does.

    The noise is the same at each call with the same words.
    """
    import torch

    noise, generator = parse_noise(words), torch.Generator().manual_seed(0)
    made = []
    for _, clean in pairs:
        image = torch.from_numpy(clean)[None] / 255
        made.append(float(((noise.add(image, generator).clamp(0, 1) - image) ** 2).mean()))
    return 255 * float(np.sqrt(np.mean(made)))


def sigma_before_jpeg(jpeg: str, pairs: Sequence[Pair]) -> float:
    """Returns the standard deviation of Gaussian noise that leaves as much noise as pairs have after JPEG; 0 for none.

    JPEG takes the high frequencies of noise, so that what is left in flat areas says little of what was there.

    Args:
        jpeg: words of the JPEG that the noisy images went through.
        pairs: noisy and clean images.
    """
    wanted, low, high = strength_of(pairs), 0.0, STRONGEST
    if strength_made(jpeg, pairs) >= wanted:
        return 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = strength_made(f"gaussian:{middle:.4g}+{jpeg}", pairs) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return (low + high) / 2


def _middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    top, left = (max(0, (side - MOST_SIDE) // 16 * 8) for side in image.shape[1:])
    return np.ascontiguousarray(image[:, top : top + MOST_SIDE, left : left + MOST_SIDE])
