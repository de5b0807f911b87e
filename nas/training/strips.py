"""Images as PNG: single ones, and the strip of noisy, denoised and clean images that every trained network leaves."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.training.batches import DeviceData

IMAGES = 6
"""The number of images in a strip."""

SIDE = 64
"""The side in pixels that images are enlarged to, about, by a whole factor."""


def strip(network: nn.Module, data: DeviceData) -> bytes:
    """Returns a PNG of the first validation images: noisy above, denoised by the network, and below them clean ones or
    those that stand in their place."""
    noisy, clean, *_ = data.validation[0]
    noisy, clean = noisy[:IMAGES], clean[:IMAGES]
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        denoised, _ = network(noisy.contiguous(memory_format=torch.channels_last))
    network.train(was_training)
    return png(_table([noisy, denoised, clean]))


def png(image: Tensor) -> bytes:
    """Returns a (C, H, W) image in 0..1 as a PNG: gray or in colour. Values outside are clipped.

    Of other numbers of channels those are seen that `seen_channels` tells.
    """
    from PIL import Image

    image = image[:3] if len(image) >= 3 else image[:1]
    values = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def seen_channels(channels: int) -> str:
    """Returns a sentence that says which channels of an image are seen in a `png`; empty where all of them are."""
    if channels in (1, 3):
        return ""
    if channels == 2:
        return "Of 2 channels the first one is shown."
    return f"The first three of {channels} channels are shown, as red, green and blue."


def _table(rows: Sequence[Tensor]) -> Tensor:
    """Arranges rows of (N, C, H, W) images in one image, enlarged, with white lines between."""
    factor = max(1, round(SIDE / max(rows[0].shape[-2:])))
    gap = max(2, SIDE // 16)
    enlarged = [row.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for row in rows]
    padded = [torch.nn.functional.pad(row, (0, gap, 0, gap), value=1.0) for row in enlarged]
    lines = [torch.cat(list(row), dim=-1) for row in padded]
    return torch.cat(lines, dim=-2)[:, :-gap, :-gap]
