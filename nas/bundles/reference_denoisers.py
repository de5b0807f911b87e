"""Classical denoisers from well-kept libraries, to compare a network with. Each is told the noise's strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.float32]
Denoiser = Callable[[Image, float], Image]
BM3D_SIDE = 16
"""The smallest side in pixels. BM3D works on blocks of 8 pixels and crashes on images that hardly contain one."""


def reference_denoiser(name: str) -> Denoiser:
    """Returns a function from a noisy image (H, W, C), and the standard deviation of its noise, to the restored image.

    Args:
        name: ``nlm`` or ``bm3d``.

    Raises:
        ConfigError: the name is unknown, or the library is not installed.
    """
    if name not in DENOISERS:
        raise ConfigError(f"reference {name!r} is not known; choose from {', '.join(DENOISERS)}")
    return DENOISERS[name]()


def restore_batch(denoiser: Denoiser, noisy: Tensor, clean: Tensor) -> Tensor:
    """Restores a batch (N, C, H, W) image by image, with the true strength of each image's noise.

    The strength is the root mean square of the difference to the clean image, whatever the kind of noise.
    """
    import torch

    restored = []
    for before, wanted in zip(noisy, clean, strict=True):
        sigma = float((before - wanted).square().mean().sqrt())
        image = before.permute(1, 2, 0).cpu().numpy()
        restored.append(torch.from_numpy(np.ascontiguousarray(denoiser(image, sigma) if sigma > 0 else image)))
    return torch.stack(restored).permute(0, 3, 1, 2).float()


def _non_local_means() -> Denoiser:
    """Non-local means (Buades 2005) in scikit-image's fast form, with the settings that are best on Set12 at sigma
    25."""
    from skimage.restoration import denoise_nl_means

    def run(image: Image, sigma: float) -> Image:
        colours = {"image": image, "channel_axis": 2} if image.shape[2] > 1 else {"image": image[:, :, 0]}
        restored: Image = denoise_nl_means(
            **colours, patch_size=5, patch_distance=6, h=0.7 * sigma, sigma=sigma, fast_mode=True
        )
        return restored.reshape(image.shape)

    return run


def _bm3d() -> Denoiser:
    """BM3D (Dabov 2007) from its authors' package, which is free for non-commercial use."""
    try:
        import bm3d
    except ImportError:
        raise ConfigError(
            "reference 'bm3d' needs a package that is not installed; pip install 'skipnas[bm3d]', or use nlm"
        ) from None

    def run(image: Image, sigma: float) -> Image:
        if min(image.shape[:2]) < BM3D_SIDE:
            raise DataError(
                f"BM3D of images with a side of {min(image.shape[:2])} pixels: at least {BM3D_SIDE} are needed; "
                "use the reference nlm"
            )
        call: Any = bm3d.bm3d_rgb if image.shape[2] == 3 else bm3d.bm3d
        restored: Image = np.asarray(call(image, sigma), np.float32).reshape(image.shape)
        return restored

    return run


DENOISERS: Mapping[str, Callable[[], Denoiser]] = {"nlm": _non_local_means, "bm3d": _bm3d}
