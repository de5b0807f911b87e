"""The ONNX program of a bundle converted to int8."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from nas.bundles.onnx_model import INPUT

CALIBRATION_BATCH = 16


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
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
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
