"""Less exact programs made of a bundle's ONNX program, and what they pay: measured in bytes and in milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from nas.bundles.description import metadata
from nas.bundles.formats import Conversion
from nas.bundles.onnx_model import open_onnx

LEAST_GAIN = 0.05
"""The share of bytes or milliseconds that a conversion must save; less is no more than chance or a header."""

ROUNDS, SECONDS = 30, 2.0
"""Runs of each program that are timed, and the time after which no more are begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A converted program beside the one that it was made of.

    Attributes:
        bytes, float_bytes: size of each file.
        milliseconds, float_milliseconds: median time of each for one image, run in turn.
        size: height and width of that image.
        threads: threads of each run.
    """

    bytes: int
    float_bytes: int
    milliseconds: float
    float_milliseconds: float
    size: tuple[int, int]
    threads: int

    @property
    def smaller(self) -> bool:
        return self.bytes <= (1 - LEAST_GAIN) * self.float_bytes

    @property
    def faster(self) -> bool:
        return self.milliseconds <= (1 - LEAST_GAIN) * self.float_milliseconds

    @property
    def pays(self) -> bool:
        """Whether the converted program is smaller or faster."""
        return self.smaller or self.faster

    def text(self) -> str:
        """Returns what the conversion pays, and the figures, in words."""
        found = {
            (True, True): "smaller and faster",
            (True, False): "smaller but not faster",
            (False, True): "faster but not smaller",
            (False, False): "neither smaller nor faster",
        }[self.smaller, self.faster]
        height, width = self.size
        return (
            f"{found}: {self.bytes:,} bytes beside {self.float_bytes:,}, {self.milliseconds:.3g} ms beside "
            f"{self.float_milliseconds:.3g} for an image of {height}x{width} with {self.threads} thread(s)"
        )


def convert(conversion: Conversion, original: Path, target: Path, images: Tensor | None, image: Tensor) -> Gain:
    """Writes a less exact form of a program, and measures both.

    Args:
        conversion: the form.
        original: the program.
        target: the file for its form.
        images: noisy training images (N, C, H, W), float32, for a form that is `calibrated`.
        image: the image (1, C, H, W) on which both are timed.
    """
    target.write_bytes(conversion.convert(onnx.load(original), images).SerializeToString())
    return measure(target, original, image)


def say(file: Path, precision: str, measured: Mapping[str, Any]) -> None:
    """Puts a converted program's own figures in its metadata, in the place of the network's."""
    model = onnx.load(file)
    said = {each.key: each.value for each in model.metadata_props} | metadata(
        {"precision": precision, "measured": measured}
    )
    onnx.helper.set_model_props(model, said)
    file.write_bytes(model.SerializeToString(deterministic=True))


def measure(converted: Path, original: Path, image: Tensor, clock: Callable[[], float] = time.perf_counter) -> Gain:
    """Compares a converted program with the one that it was made of, on one image (1, C, H, W)."""
    times: dict[Path, list[float]] = {converted: [], original: []}
    runs = {file: open_onnx(file, trusted=True) for file in times}
    for run in runs.values():
        run(image)
    begun = clock()
    for done in range(ROUNDS):
        for file, run in runs.items():
            start = clock()
            run(image)
            times[file].append(1000 * (clock() - start))
        if clock() - begun > SECONDS and done >= 2:
            break
    return Gain(
        bytes=converted.stat().st_size,
        float_bytes=original.stat().st_size,
        milliseconds=statistics.median(times[converted]),
        float_milliseconds=statistics.median(times[original]),
        size=(image.shape[2], image.shape[3]),
        threads=torch.get_num_threads(),
    )
