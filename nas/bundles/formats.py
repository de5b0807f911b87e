"""The table of formats in which a bundle stores its network for other runtimes than skipnas.

A new format is a file of its own, with a function that writes it and one that opens it, and an entry of `FORMATS`. The
export then writes every format and compares it with the network, the card lists it and shows its use, and the command
names it. Formats that are written on request are made by functions, such as `fixed_size`, and `Further` has an option
for each. `CONVERSIONS` has the less exact forms of the ONNX program, and `Conversions` an option for each of them.
Libraries are imported only when a format is written or opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nas.errors import BundleError, ConfigError
from nas.settings import Setting, Settings, no_file
from nas.types import Task

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from nas.bundles.inference import Predict

PARITY_LIMIT = 1e-4
"""The largest absolute difference of pixels and logits to eager PyTorch that a program may have."""

LOWEST_RUNTIME = "1.17"
"""The first ONNX Runtime that runs the ONNX programs, by a test with the real one."""


@dataclass(frozen=True)
class Exportable:
    """A trained network, ready to be written.

    Attributes:
        network: on the CPU, in evaluation mode.
        program: the same network as a program of torch.export, for every batch, height and width.
        task: the task that it was trained for.
        said: what the file says of itself (see `nas.bundles.description.metadata`).
    """

    network: nn.Module
    program: ExportedProgram
    task: Task
    said: Mapping[str, str]

    @cached_property
    def model(self) -> ModelProto:
        """The program in ONNX, converted once for all files that are made of it. Copies of it are written."""
        from nas.bundles import onnx_export

        return onnx_export.converted(self.program, self.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format, whose program equals the network up to rounding.

    Attributes:
        file: its name in a bundle.
        title: its name in sentences.
        described: its line in the card's list of files. ``{outputs}`` stands there for their names, and
            ``{probabilities}`` says that these are in place of logits, where there are any.
        write: writes a file of this format.
        heading: heading above `usage` in the card.
        usage: a program in Python that uses the file without skipnas, in the bundle's folder. ``{shape}`` stands for an
            image's shape, ``{channels}`` for their number, ``{names}`` for the outputs, ``{outputs}`` for variables of
            these names, and ``{answer}`` for what is printed of the class; ``{likely}`` is that from probabilities. It
            is empty where `heading` says all.
        open: returns the file's program: noisy images (N, C, H, W) -> denoised images and logits. None for a file that
            only holds or names another format's program, which is compared itself.
        size: height and width of the one image that the program takes; None for every batch, height and width.
        expected: the function that the program should be, from the network.
        pixel_limit: the largest absolute difference of its pixels, which is `PARITY_LIMIT` for all other outputs.
    """

    file: str
    title: str
    described: str
    write: Callable[[Exportable, Path], None]
    heading: str
    usage: str
    open: Callable[[Exportable, Path], Predict] | None = None
    size: tuple[int, int] | None = None
    expected: Callable[[Predict], Predict] = lambda network: network
    pixel_limit: float = PARITY_LIMIT

    def limit_of(self, output: str) -> float:
        """Returns the largest absolute difference that an output may have."""
        return self.pixel_limit if output == "denoised" else PARITY_LIMIT


def _write_onnx(made: Exportable, file: Path) -> None:
    from nas.bundles import onnx_export

    onnx_export.write_onnx(made, file)


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
FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        file=ONNX,
        title="ONNX",
        described=f"for ONNX Runtime {LOWEST_RUNTIME} and newer, and its like: `noisy` to {{outputs}}, any batch and "
        "size",
        write=_write_onnx,
        open=_open_onnx,
        heading="With ONNX Runtime alone:",
        usage="""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
noisy = np.random.rand({shape}).astype(np.float32)  # your images: (N, C, H, W), 0 to 1
{outputs} = session.run({names}, {{"noisy": noisy}})
restored = denoised.clip(0, 1)
print(restored.shape{answer})
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
print(restored.shape{answer})
""",
    ),
}
"""The formats by their names in parity.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A less exact form of the program `ONNX`. Its size, time and quality are measured beside those of the program, and
    it is left out when it is neither smaller nor faster.

    Attributes:
        file: its name in a bundle.
        title: its name in sentences.
        setting: the setting of `Conversions` that asks for it.
        convert: makes it of the program and of noisy training images (N, C, H, W), which are None unless `calibrated`.
        calibrated: whether images show it the ranges of its numbers.
    """

    file: str
    title: str
    setting: str
    convert: Callable[[ModelProto, Tensor | None], ModelProto]
    calibrated: bool = False


def _int8(model: ModelProto, images: Tensor | None) -> ModelProto:
    from nas.bundles.int8 import quantize

    assert images is not None
    return quantize(model, images)


def _float16_weights(model: ModelProto, images: Tensor | None) -> ModelProto:
    from nas.bundles.short_weights import float16_weights

    return float16_weights(model)


def _int8_weights(model: ModelProto, images: Tensor | None) -> ModelProto:
    from nas.bundles.short_weights import int8_weights

    return int8_weights(model)


INT8 = "model.int8.onnx"

CONVERSIONS: Mapping[str, Conversion] = {
    "int8": Conversion(file=INT8, title="int8", setting="quantize", convert=_int8, calibrated=True),
    "float16_weights": Conversion(
        file="model.float16-weights.onnx",
        title="float16 weights",
        setting="float16_weights",
        convert=_float16_weights,
    ),
    "int8_weights": Conversion(
        file="model.int8-weights.onnx", title="int8 weights", setting="int8_weights", convert=_int8_weights
    ),
}
"""The less exact forms by their names in the facts of a bundle."""

CALIBRATION_IMAGES = 128
"""The noisy training images that show an int8 program the ranges of its activations."""

INTEGERS = "integers"
"""The name in parity.json of the program with whole numbers in and out."""

WEB = "web.html"
"""The page for browsers, which is written on request."""

BIOIMAGE = "rdf.yaml"
"""The description for bioimage.io, which is written on request, with tensors for its test beside it."""

WEB_RUNTIME = Path("node_modules/onnxruntime-web")
"""Where npm installs the runtime of the page, in the folder in which the export runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversions(Settings):
    """The less exact programs that are asked for."""

    quantize: Annotated[
        bool, Setting(help="Also an int8 ONNX program, if it is smaller or faster; what it loses is on the card.")
    ] = False
    float16_weights: Annotated[
        bool, Setting(help="Also an ONNX program whose weights are float16, if it is smaller or faster.")
    ] = False
    int8_weights: Annotated[
        bool, Setting(help="Also an ONNX program whose convolutions have weights of int8, if it is smaller or faster.")
    ] = False

    @property
    def conversions(self) -> list[str]:
        """The names in `CONVERSIONS` of those that are asked for."""
        return [name for name, each in CONVERSIONS.items() if getattr(self, each.setting)]


NO_CONVERSIONS = Conversions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Further(Conversions):
    """The formats and conversions that are asked for beside `FORMATS`."""

    size: Annotated[
        list[tuple[int, int]] | None,
        Setting(
            help="Also an ONNX program for one image of this size, for OpenCV and ncnn; may be repeated.",
            metavar="HxW",
        ),
    ] = None
    integer_io: Annotated[
        bool, Setting(help="Also an ONNX program that takes and gives pixels as files have them, and probabilities.")
    ] = False
    web: Annotated[
        bool, Setting(help=f"Also {WEB}, a page that restores images in a browser and connects to nothing.")
    ] = False
    web_runtime: Annotated[
        Path | None,
        Setting(
            help=f"Folder of an installed onnxruntime-web, for the page. Default: {WEB_RUNTIME}.",
            metavar="DIR",
            rule=no_file,
        ),
    ] = None
    bioimage: Annotated[
        bool, Setting(help=f"Also {BIOIMAGE} and test tensors, which make the bundle a model of bioimage.io.")
    ] = False

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self.web_runtime is not None and not self.web:
            raise ConfigError(f"`web_runtime` {self.web_runtime} is for a page; give `web` too, or leave it out")

    def formats(self, task: Task, white_level: float | None, *, deep: bool) -> dict[str, Format]:
        """Returns the formats by name, for a network of a task.

        Args:
            task: the task.
            white_level, deep: see `integer_top`.

        Raises:
            BundleError: the network cannot have one of them.
        """
        found = {f"{height}x{width}": fixed_size(height, width) for height, width in self.size or ()}
        if self.integer_io:
            found[INTEGERS] = integer_pixels(integer_top(white_level, deep=deep))
        if self.web:
            from nas.bundles.web import check_page, installed_runtime

            check_page(task.channels, white_level)
            found["web"] = web_page(installed_runtime(self.web_runtime or WEB_RUNTIME))
        if self.bioimage:
            found["bioimage"] = bioimage_model(white_level or (65535.0 if deep else 255.0))
        return found


NOTHING_FURTHER = Further()


def fixed_size(height: int, width: int) -> Format:
    """Returns the format of an ONNX program for one image of a size, in operators that small runtimes know."""
    file = f"model.{height}x{width}.onnx"

    def write(made: Exportable, target: Path) -> None:
        from nas.bundles.onnx_export import write_fixed

        write_fixed(made, height, width, target)

    return Format(
        file=file,
        title=f"ONNX for {height}x{width}",
        described=f"for OpenCV, ncnn and other small runtimes: one image of {height}x{width} pixels",
        write=write,
        open=_open_onnx,
        heading=f"With OpenCV alone, for images of {height}x{width} pixels:",
        usage=f"""\
import cv2
import numpy as np

network = cv2.dnn.readNetFromONNX("{file}")
network.setInput(np.random.rand(1, {{channels}}, {height}, {width}).astype(np.float32))  # your image, 0 to 1
{{outputs}} = network.forward({{names}})
print(denoised.clip(0, 1).shape{{answer}})
""",
        size=(height, width),
    )


def integer_pixels(top: int) -> Format:
    """Returns the format of an ONNX program that takes and gives pixels as files have them, and probabilities.

    Args:
        top: the value of white, 255 to 65535.
    """
    kind = "uint8" if top < 2**8 else "uint16"

    def write(made: Exportable, target: Path) -> None:
        from nas.bundles.onnx_export import write_integers

        write_integers(made, top, target)

    return Format(
        file=f"model.{kind}.onnx",
        title=f"ONNX of {kind}",
        described=f"{ONNX} with {kind} from 0 to {top} in and out{{probabilities}}",
        write=write,
        open=lambda made, file: _open_integers(file, top),
        heading=f"With ONNX Runtime alone, on the pixels of image files ({kind} from 0 to {top}):",
        usage=f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.{kind}.onnx", providers=["CPUExecutionProvider"])
noisy = (np.random.rand({{shape}}) * {top}).astype(np.{kind})  # your images: (N, C, H, W)
denoised, *probabilities = session.run(None, {{{{"noisy": noisy}}}})
print(denoised.dtype, denoised.shape{{likely}})
""",
        expected=partial(_rounding, top),
        pixel_limit=1.001 / top,
    )


def web_page(runtime: Path) -> Format:
    """Returns the format of a page that runs the ONNX program in a browser.

    Args:
        runtime: the folder of an installed ONNX Runtime Web.
    """

    def write(made: Exportable, target: Path) -> None:
        from nas.bundles.web import write_page

        write_page(made, target.with_name(ONNX), runtime, target)

    return Format(
        file=WEB,
        title="a web page",
        described=f"a page that restores images in a browser with {ONNX}, which it holds, and connects to nothing",
        write=write,
        heading=f"In a browser, open {WEB}, from a disk or from any web server.",
        usage="",
    )


def bioimage_model(white: float) -> Format:
    """Returns the format of a description that makes the bundle a model of bioimage.io.

    Args:
        white: value of white in the pixels of image files.
    """

    def write(made: Exportable, target: Path) -> None:
        from nas.bundles.bioimage import write_bioimage

        write_bioimage(made, white, target.with_name(ONNX), target)

    return Format(
        file=BIOIMAGE,
        title="bioimage.io",
        described=f"the description of {ONNX} for bioimage.io, with `test_*.npy` on which `bioimageio test .` runs it",
        write=write,
        heading=f"In programs that use models of bioimage.io, on pixels from 0 to {white:.10g}. In Python:",
        usage="""\
import bioimageio.core
import numpy as np

noisy = np.load("test_noisy.npy")  # your images: (N, C, H, W), pixels as files have them
sample = bioimageio.core.predict(model="rdf.yaml", inputs={{"noisy": noisy}})
print(sample.members["denoised"].data.shape)
""",
    )


def _rounding(top: int, network: Predict) -> Predict:
    """Returns a network that rounds pixels before and after, and gives probabilities."""

    def predict(noisy: Tensor) -> tuple[Tensor, Tensor]:
        denoised, logits = network(noisy.clamp(0, 1).mul(top).round() / top)
        return denoised.clamp(0, 1).mul(top).round() / top, logits.softmax(1)

    return predict


def _open_integers(file: Path, top: int) -> Predict:
    """Returns a program of whole numbers as a function of images from 0 to 1."""
    import numpy as np
    import torch

    from nas.bundles.onnx_model import open_session

    session = open_session(file)
    kind = np.uint8 if top < 2**8 else np.uint16

    def predict(noisy: Tensor) -> tuple[Tensor, Tensor]:
        pixels = noisy.clamp(0, 1).mul(top).round().numpy().astype(kind)
        denoised, *others = session.run(None, {"noisy": pixels})
        shares = others[0] if others else np.zeros((len(pixels), 0), np.float32)
        return torch.from_numpy(denoised.astype(np.float32) / top), torch.from_numpy(shares)

    return predict


def integer_top(white_level: float | None, *, deep: bool) -> int:
    """Returns the value of white in whole numbers.

    Args:
        white_level: the one of the training images, None where each has its type's largest value.
        deep: whether their files have more than 8 bits.

    Raises:
        BundleError: no whole number of 8 to 16 bits stands for white.
    """
    level = white_level if white_level is not None else 65535.0 if deep else 255.0
    if not (level.is_integer() and 255 <= level < 2**16):
        raise BundleError(
            f"`integer_io`: white is {level:.10g} in the training images, and whole numbers need 255 to 65535; "
            "leave it out"
        )
    return int(level)


def is_program(file: str) -> bool:
    """Whether a file of a bundle has the name of one that an export writes."""
    forms = (each.file for each in CONVERSIONS.values())
    always = {WEB, BIOIMAGE, *(each.file for each in FORMATS.values()), *forms}
    on_request = r"model\.(uint8|uint16|[0-9]+x[0-9]+)\.onnx|test_(noisy|denoised|logits)\.npy"
    return file in always or re.fullmatch(on_request, file) is not None


def formats_in_short() -> str:
    """Returns the formats in one line of help: ``ONNX and torch.export``."""
    *most, last = (each.title for each in FORMATS.values())
    return f"{', '.join(most)} and {last}"
