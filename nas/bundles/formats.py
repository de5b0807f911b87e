"""The table of formats in which a bundle stores its network for other runtimes than skipnas.

A new format is a file of its own, with a function that writes it and one that opens it, and an entry of `FORMATS`. The
export then writes every format and compares it with the network, the card lists it and shows its use, and the command
names it. Libraries are imported only when a format is written or opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from nas.bundles.inference import Predict


@dataclass(frozen=True, slots=True)
class Exportable:
    """A trained network, ready to be written.

    Attributes:
        network: on the CPU, in evaluation mode.
        program: the same network as a program of torch.export, for every batch, height and width.
        white_level: see `nas.bundles.bundle.Bundle`.
    """

    network: nn.Module
    program: ExportedProgram
    white_level: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format, whose program equals the network up to rounding.

    Attributes:
        file: its name in a bundle.
        title: its name in sentences.
        described: its line in the card's list of files.
        write: writes a file of this format.
        open: returns the file's program: noisy images (N, C, H, W) -> denoised images and logits.
        heading: heading above `usage` in the card.
        usage: a program in Python that uses the file without skipnas, in the bundle's folder. ``{shape}`` stands for an
            image's shape, ``{answer}`` for the expression of the logits that it prints.
    """

    file: str
    title: str
    described: str
    write: Callable[[Exportable, Path], None]
    open: Callable[[Exportable, Path], Predict]
    heading: str
    usage: str


def _write_onnx(made: Exportable, file: Path) -> None:
    from nas.bundles.onnx_model import write_onnx

    write_onnx(made.program, file, made.white_level)


def _open_onnx(made: Exportable, file: Path) -> Predict:
    from nas.bundles.onnx_model import open_onnx

    return open_onnx(file, trusted=True)


def _write_program(made: Exportable, file: Path) -> None:
    import io

    import torch

    buffer = io.BytesIO()  # a file would name itself in its content
    torch.export.save(made.program, buffer)
    file.write_bytes(buffer.getvalue())


def _open_program(made: Exportable, file: Path) -> Predict:
    """Runs the program that was written. Its file is not opened, because this can run code."""
    run: Predict = made.program.module()
    return run


ONNX = "model.onnx"
INT8 = "model.int8.onnx"
"""The quantised form of `ONNX`, which is written on request. It has no entry in `FORMATS`, because it is less exact."""

FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        file=ONNX,
        title="ONNX",
        described="for ONNX Runtime and its like: `noisy` to `denoised` and `logits`, any batch and size",
        write=_write_onnx,
        open=_open_onnx,
        heading="With ONNX Runtime alone:",
        usage="""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
noisy = np.random.rand({shape}).astype(np.float32)  # your images: (N, C, H, W), 0 to 1
denoised, logits = session.run(["denoised", "logits"], {{"noisy": noisy}})
restored = denoised.clip(0, 1)
print(restored.shape, {answer})
""",
    ),
    "torch_export": Format(
        file="model.pt2",
        title="torch.export",
        described="for `torch.export.load`, any batch and size; **open model.pt2 only from a source you trust**",
        write=_write_program,
        open=_open_program,
        heading="With PyTorch alone. Open model.pt2 only from a source you trust: it can run code when it is loaded.",
        usage="""\
import torch

program = torch.export.load("model.pt2")  # can run code: open model.pt2 only from a source you trust
network = program.module()
noisy = torch.rand({shape})  # your images: (N, C, H, W), 0 to 1
with torch.inference_mode():
    denoised, logits = network(noisy)
restored = denoised.clamp(0, 1)
print(restored.shape, {answer})
""",
    ),
}
"""The formats by their names in parity.json."""


def formats_in_short() -> str:
    """Returns the formats in one line of help: ``ONNX and torch.export``."""
    *most, last = (each.title for each in FORMATS.values())
    return f"{', '.join(most)} and {last}"
