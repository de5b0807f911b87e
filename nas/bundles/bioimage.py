"""A bundle as a model of bioimage.io: rdf.yaml beside the ONNX program, with tensors on which others test it.

The form is version 0.5 of the model description, https://bioimage-io.github.io/spec-bioimage-io/. Pixels are those of
image files, from 0 to white: the description divides them by white before the program, and multiplies after it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas.bundles.files import CARD
from nas.bundles.onnx_model import INPUT, OUTPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nas.bundles.formats import Exportable

FORMAT_VERSION = "0.5.12"

SMALLEST = 32
"""The smallest side in pixels of which the description says that the program takes it; most take smaller ones."""

TEST_SIZE = (64, 96)
"""Height and width of the test image."""

NOISE = 0.1
"""The standard deviation of its noise, where white is 1."""

LICENCE = re.compile(r"[A-Za-z0-9.+-]+")
"""The form of an SPDX identifier."""


def write_bioimage(made: Exportable, white: float, program: Path, file: Path) -> None:
    """Writes the description, and beside it the tensors that it names.

    The test image is made up, because a bundle has nobody's images in it.

    Args:
        made: the network.
        white: value of white in the pixels of image files.
        program: its ONNX program for every size, beside `file`.
        file: rdf.yaml.
    """
    import onnx

    noisy = np.rint(_test_image(made.task.channels) * white)
    with torch.no_grad():
        denoised, logits = made.network(torch.from_numpy(noisy / np.float32(white)))
    tensors = {INPUT: noisy, OUTPUTS[0]: denoised.clamp(0, 1).numpy() * np.float32(white)}
    if made.task.classifies:
        tensors[OUTPUTS[1]] = logits.numpy()
    sources = {name: _saved(file.with_name(f"test_{name}.npy"), values) for name, values in tensors.items()}
    opset = onnx.load(program).opset_import[0].version
    scale = {"id": "scale_linear", "kwargs": {"gain": 1 / white, "offset": 0.0}}
    back = [
        {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
        {"id": "scale_linear", "kwargs": {"gain": white, "offset": 0.0}},
    ]
    outputs = [
        {
            **_tensor(OUTPUTS[0], "restored images, with pixels as those of the noisy ones", sources),
            "axes": _image_axes(made, {axis: {"tensor_id": INPUT, "axis_id": axis} for axis in "yx"}),
            "data": {"type": "float32", "range": [0.0, white]},
            "postprocessing": back,
        }
    ]
    if made.task.classifies:
        names = [f"class_{number}" for number in range(made.task.classes)]
        axes = [{"type": "batch"}, {"type": "channel", "channel_names": names}]
        outputs.append(
            {
                **_tensor(OUTPUTS[1], "one number for each class, of which a softmax makes probabilities", sources),
                "axes": axes,
                "data": {"type": "float32"},
            }
        )
    said = made.said
    licence = said["licence"]
    described = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"skipnas {said['digest'][:12]}",
        "description": f"{said['title']}. Trained under the noise {said['noise']}. Licence: {licence}.",
        "version": "0.1.0",
        "documentation": {"source": CARD},  # people may edit it, so it has no sum
        **({"license": licence} if LICENCE.fullmatch(licence) else {}),
        "tags": ["denoising", "image-restoration", "2d", *(["classification"] if made.task.classifies else [])],
        "inputs": [
            {
                **_tensor(INPUT, f"noisy images with pixels as they are stored, of which {white:g} is white", sources),
                "axes": _image_axes(made, {axis: {"min": SMALLEST, "step": 1} for axis in "yx"}),
                "data": {"type": "float32"},
                "preprocessing": [scale],
            }
        ],
        "outputs": outputs,
        "weights": {"onnx": {**_source(program), "opset_version": opset}},
        "config": {"skipnas": dict(said)},
    }
    # JSON is YAML too.
    file.write_text(json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def _test_image(channels: int) -> NDArray[np.float32]:
    """Returns waves under noise, (1, C, H, W) from 0 to 1."""
    height, width = TEST_SIZE
    down, right = np.mgrid[:height, :width]
    clean = 0.5 + 0.4 * np.sin(down / 7) * np.cos(right / 11)
    noise = np.random.default_rng(0).normal(0, NOISE, (1, channels, height, width))
    return np.asarray(np.clip(clean + noise, 0, 1), np.float32)


def _tensor(name: str, description: str, sources: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "description": description, "test_tensor": sources[name]}


def _image_axes(made: Exportable, sizes: dict[str, Any]) -> list[dict[str, Any]]:
    names = {1: ["intensity"], 3: ["red", "green", "blue"]}
    channels = names.get(made.task.channels, [f"channel_{number}" for number in range(made.task.channels)])
    space = [{"type": "space", "id": axis, "size": size} for axis, size in sizes.items()]
    return [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *space]


def _saved(file: Path, values: NDArray[np.float32]) -> dict[str, str]:
    np.save(file, np.ascontiguousarray(values))
    return _source(file)


def _source(file: Path) -> dict[str, str]:
    return {"source": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
