"""Image and label figures on tensors. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

PSNR_CAP = 60.0
"""dB; what an exact restoration is given, so that means stay finite."""


def psnr(image: Tensor, clean: Tensor, *, clip: bool = True) -> Tensor:
    """Peak signal-to-noise ratio of each image, shape (N,), in dB up to `PSNR_CAP`.

    The mean squared error runs over all channels and pixels of an image, both arguments of shape
    (N, C, H, W), and is taken in float32 whatever their type. A network's output is clipped to [0, 1]
    first, where `clean` lies; the noisy input is judged as it is (``clip=False``), so that
    ``gaussian:S`` stands at 20 log10(255 / S) dB as in the literature.
    """
    image = image.float().clamp(0.0, 1.0) if clip else image.float()
    error = (image - clean.float()).square().flatten(1).mean(1)
    return (-10.0 * torch.log10(error)).clamp(max=PSNR_CAP)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest logit is the label's, shape (N,), boolean. `logits` (N, K), `labels` (N,)."""
    return logits.argmax(1) == labels
