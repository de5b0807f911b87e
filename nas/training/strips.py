"""Images as PNG: one by itself, and the strip that every trained network leaves: noisy, denoised and clean."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.training.batches import DeviceData

IMAGES = 6
"""Images in a strip."""

SIDE = 64
"""Images are enlarged, by a whole factor, to at least about this many pixels a side."""


def strip(network: nn.Module, data: DeviceData) -> bytes:
    """A PNG of the first validation images: noisy ones above, what the network makes of them, the clean ones below."""
    noisy, clean, _ = data.validation[0]
    noisy, clean = noisy[:IMAGES], clean[:IMAGES]
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        denoised, _ = network(noisy.contiguous(memory_format=torch.channels_last))
    network.train(was_training)
    return png(_table([noisy, denoised, clean]))


def png(image: Tensor) -> bytes:
    """A (C, H, W) image in 0..1, gray or colour, as a PNG; what lies outside is clipped."""
    from PIL import Image

    values = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _table(rows: Sequence[Tensor]) -> Tensor:
    """Rows of (N, C, H, W) images as one image, enlarged, with white lines between."""
    factor = max(1, round(SIDE / max(rows[0].shape[-2:])))
    gap = max(2, SIDE // 16)
    enlarged = [row.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for row in rows]
    padded = [torch.nn.functional.pad(row, (0, gap, 0, gap), value=1.0) for row in enlarged]
    lines = [torch.cat(list(row), dim=-1) for row in padded]
    return torch.cat(lines, dim=-2)[:, :-gap, :-gap]
