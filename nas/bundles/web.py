"""A page that restores and names images in a browser, in one file that asks nothing of any other place.

The file holds the network's ONNX program and ONNX Runtime Web (https://www.npmjs.com/package/onnxruntime-web, MIT
licence), which a user installs with npm, so that the page opens from a disk as it does from a server.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from nas.bundles.inference import Tiling
from nas.data.preparation import KEPT_SIDE, SIDE, Preparation
from nas.errors import BundleError
from nas.files import read_small
from nas.search.objectives import METRICS, titled

if TYPE_CHECKING:
    from nas.bundles.formats import Exportable

ASSETS = Path(__file__).parent / "assets"
RUNTIME = "onnxruntime-web"
TRIED = "1.30.0"
"""The version of ONNX Runtime Web that the tests run."""

SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""Its two files that a page needs."""

CHANNELS = (1, 3)
"""The channels of images that browsers show."""

FULL = 255
"""White in the pixels of a browser."""

LARGEST_TILE = 512
"""The side of tiles that equal the whole image, in pixels: small ones tell sooner how far the page is."""


def installed_runtime(folder: Path) -> Path:
    """Returns the folder of an installed ONNX Runtime Web: the given one, or the one inside that npm names so.

    Raises:
        BundleError: neither is one.
    """
    for each in (folder, folder / RUNTIME):
        if all((each / "dist" / name).is_file() for name in (SCRIPT, WASM)):
            return each
    raise BundleError(
        f"`web`: {folder} is not the folder of an installed {RUNTIME}, nor does it hold one; install it with "
        f"`npm install {RUNTIME}@{TRIED}`, or give its folder with `web_runtime`"
    )


def check_page(channels: int, white_level: float | None) -> None:
    """Raises BundleError for a network of images that browsers do not show as its training images were.

    Args:
        channels: of its images.
        white_level: value of white in its training images; None where this is the largest of their type.
    """
    if channels not in CHANNELS:
        raise BundleError(f"`web`: browsers show no images of {channels} channels; leave it out")
    if white_level is not None and white_level < FULL:
        raise BundleError(
            f"`web`: white is {white_level:.10g} in the training images, and {FULL} in a browser; leave it out"
        )


def write_page(made: Exportable, program: Path, runtime: Path, file: Path) -> None:
    """Writes the page.

    The network and the runtime are those of `check_page` and `installed_runtime`.

    Args:
        made: the network.
        program: its ONNX program for every size.
        runtime: the folder of an installed ONNX Runtime Web.
        file: the page.
    """
    channels = made.task.channels
    file.write_text(page_text(made.said, channels, _tiling(made), program, runtime), "utf-8")


def page_text(said: Mapping[str, str], channels: int, tiling: Tiling, program: Path, runtime: Path) -> str:
    """Returns the page.

    Args:
        said: what the program says of itself (see `nas.bundles.description.metadata`).
        channels: of its images.
        tiling: how images are cut.
        program, runtime: see `write_page`.
    """
    classes = json.loads(said.get("classes", "[]"))
    height, width = map(int, said["trained_size"].split("x"))
    form = Preparation(height=height, width=width, channels=channels)
    network = {
        "channels": channels,
        "classes": classes,
        "threshold": json.loads(said.get("threshold", "null")),
        "preparation": {**form.to_dict(), "side": SIDE, "kept_side": KEPT_SIDE} if "class_of" in said else None,
        "tiling": asdict(tiling),
    }
    heading = f"Restores noisy {'gray' if channels == 1 else 'colour'} images" + (
        f" and names one of {len(classes)} classes" if classes else ""
    )
    page = (ASSETS / "web.html").read_text("utf-8")
    parts = {
        "title": escape(said["title"]),
        "heading": heading,
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _facts(said).items()),
        "style": (ASSETS / "web.css").read_text("utf-8"),
        "program": (ASSETS / "web.js").read_text("utf-8"),
        "network": json.dumps(network, allow_nan=False).replace("<", "\\u003c"),
        "runtime": escape(_version(runtime)),
        "model": _packed(program),
        "script": _packed(runtime / "dist" / SCRIPT),
        "wasm": _packed(runtime / "dist" / WASM),
    }
    return page.format(**parts)


def _tiling(made: Exportable) -> Tiling:
    """Returns the way in which an image is cut: as `skipnas denoise` cuts it, or smaller where tiles equal the
    whole."""
    found = Tiling.of(made.network, made.task.channels)
    if found.blend:
        return found
    return replace(found, side=min(found.side, LARGEST_TILE), whole=min(found.whole, LARGEST_TILE**2))


def _facts(said: Mapping[str, str]) -> dict[str, str]:
    """Returns what the page says of the network."""
    measured = {
        f"on the {split} split": titled(found) for split, found in json.loads(said.get("measured", "{}")).items()
    }
    found = {
        "noise": said["noise"],
        "trained on": said.get("data"),
        "classes": ", ".join(json.loads(said.get("classes", "[]"))),
        "class": said.get("class_of") and f"that of {said['class_of']}",
        "answer": said.get("answer", "").replace("`threshold`", said.get("threshold", "")),
        **measured,
        "parameters": METRICS["params"].figure(float(said["params"])),
        "network": said["digest"],
        "licence": said["licence"],
    }
    return {name: text for name, text in found.items() if text}


def _version(runtime: Path) -> str:
    """Returns the version of an installed ONNX Runtime Web, as its package says."""
    try:
        return str(json.loads(read_small(runtime / "package.json"))["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return "of an unknown version"


def _packed(file: Path) -> str:
    """Returns the content of a file, compressed, as text."""
    return base64.b64encode(gzip.compress(file.read_bytes(), mtime=0)).decode()
