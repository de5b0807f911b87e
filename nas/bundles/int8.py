"""The ONNX program of a bundle converted to int8, and what that pays: measured in bytes and in milliseconds."""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from nas.bundles.description import metadata
from nas.bundles.onnx_model import INPUT, open_onnx

CALIBRATION_BATCH = 16
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


def convert(original: Path, target: Path, images: Tensor, image: Tensor) -> Gain:
    """Writes the int8 form of a program, and measures both.

    Args:
        original: the program.
        target: the file for its int8 form.
        images: noisy training images (N, C, H, W), float32, that show the activations' ranges.
        image: the image (1, C, H, W) on which both are timed.
    """
    target.write_bytes(quantize(onnx.load(original), images).SerializeToString())
    return measure(target, original, image)


def say(file: Path, measured: Mapping[str, Any]) -> None:
    """Puts a converted program's own figures in its metadata, in the place of the network's."""
    model = onnx.load(file)
    said = {each.key: each.value for each in model.metadata_props} | metadata(
        {"precision": "int8", "measured": measured}
    )
    onnx.helper.set_model_props(model, said)
    file.write_bytes(model.SerializeToString(deterministic=True))


def measure(int8: Path, original: Path, image: Tensor, clock: Callable[[], float] = time.perf_counter) -> Gain:
    """Compares a converted program with the one that it was made of, on one image (1, C, H, W)."""
    times: dict[Path, list[float]] = {int8: [], original: []}
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
        bytes=int8.stat().st_size,
        float_bytes=original.stat().st_size,
        milliseconds=statistics.median(times[int8]),
        float_milliseconds=statistics.median(times[original]),
        size=(image.shape[2], image.shape[3]),
        threads=torch.get_num_threads(),
    )


def quantize(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    """Converts a program to int8: weights per channel, activations by their range over `images`.

    Args:
        model: a program with input `INPUT` and outputs `OUTPUTS`.
        images: noisy training images (N, C, H, W), float32, that show the activations' ranges.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(images.cpu().contiguous().split(CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory(prefix="skipnas-int8-") as folder, _quantizer_quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model.SerializeToString())
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result: onnx.ModelProto = onnx.load_model_from_string(target.read_bytes())
    result.ClearField("metadata_props")
    result.metadata_props.extend(model.metadata_props)
    result.graph.ClearField("value_info")
    onnx.checker.check_model(result)
    return result


@contextlib.contextmanager
def _quantizer_quiet() -> Iterator[None]:
    """Suppresses the quantizer's advice, which is about its own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
