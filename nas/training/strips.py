"""Images as PNG: single ones, rows with captions, and the strip that every trained network leaves."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.training.batches import DeviceData
from nas.words import visible

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = 6
"""The number of images in a strip."""

SIDE = 64
"""The side in pixels that images are enlarged to, about, by a whole factor."""

LETTERS, GAP, LONGEST = 14, 6, 150
"""The height of the letters of a caption and the white around images with captions, in pixels; the most letters that
are drawn."""


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
    file = io.BytesIO()
    _picture(image).save(file, "PNG")
    return file.getvalue()


def captioned(rows: Sequence[tuple[str, Sequence[Tensor]]], side: int) -> bytes:
    """Returns a PNG with rows of images, each below its caption, on white.

    The PNG's text ``Description`` holds the captions. Letters beyond ASCII are drawn as their escapes, because the font
    that is always there has no others, and long captions are cut.

    Args:
        rows: for each row its caption, and images (C, H, W) in 0..1, which may differ in size.
        side: the longer side that each image is enlarged to, about, by a whole factor.
    """
    from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

    font = ImageFont.load_default(LETTERS)
    told = [visible(caption) for caption, _ in rows]
    captions = [textwrap.shorten(caption.encode("ascii", "backslashreplace").decode(), LONGEST) for caption in told]
    images = [[_enlarged(_picture(image), side) for image in row] for _, row in rows]
    heights = [LETTERS + 2 * GAP + max(image.height for image in row) for row in images]
    widths = [GAP + sum(image.width + GAP for image in row) for row in images]
    widths += [2 * GAP + math.ceil(font.getlength(caption)) for caption in captions]
    page = Image.new("RGB", (max(widths), sum(heights) + GAP), "white")
    drawing, top = ImageDraw.Draw(page), 0
    for caption, row, height in zip(captions, images, heights, strict=True):
        drawing.text((GAP, top + GAP), caption, "black", font)
        left = GAP
        for image in row:
            page.paste(image, (left, top + LETTERS + 2 * GAP))
            left += image.width + GAP
        top += height
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", "; ".join(told))
    file = io.BytesIO()
    page.save(file, "PNG", pnginfo=text)
    return file.getvalue()


def seen(image: Tensor) -> Tensor:
    """Returns the channels of an image (C, H, W) that a picture shows: one or three (see `seen_channels`)."""
    return image[: 3 if len(image) >= 3 else 1]


def _picture(image: Tensor) -> Image:
    from PIL import Image

    values = (seen(image).detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def _enlarged(picture: Image, side: int) -> Image:
    from PIL import Image

    factor = max(1, round(side / max(picture.size)))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


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
