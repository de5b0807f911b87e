"""A bundle written: spec, weights, ONNX, torch.export, parity and a card, complete or not at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas.bundles.bundle import FORMAT, Bundle, read_bundle
from nas.bundles.card import card
from nas.bundles.conversion import convert, say
from nas.bundles.description import metadata
from nas.bundles.files import ARCHITECTURE, CARD, PARITY, WEIGHTS
from nas.bundles.formats import (
    CONVERSIONS,
    FORMATS,
    NOTHING_FURTHER,
    ONNX,
    PARITY_LIMIT,
    Conversion,
    Exportable,
    Format,
    Further,
)
from nas.bundles.inference import Tiling, tiled
from nas.bundles.onnx_export import exporters_quiet
from nas.bundles.onnx_model import OUTPUTS, open_onnx
from nas.bundles.sums import write_sums
from nas.data.sources import preparation_for
from nas.errors import BundleError
from nas.files import drop_partials
from nas.protocols import SearchSpace
from nas.types import Candidate, Task, without_defaults

PARITY_IMAGES = 16
"""The number of validation images that go through every program of a bundle."""

PARITY_SIZES = ((1, 17, 23), (3, 29, 35), (2, 32, 48))
"""(batch, height, width) beside the task's own size: every U-Net must pad the first two, and none of 5 levels the
last."""

PASSES = 8
"""A program for one size may need so many times the memory of the largest image that skipnas does not cut."""

PHOTOGRAPH = 256
"""The side in pixels of the image on which programs without classes are timed. They were trained on smaller patches."""

Judge = Callable[[Callable[[Tensor], tuple[Tensor, Tensor]]], dict[str, Any]]
"""Measures a function from noisy images to denoised ones and logits: split -> figures."""


def export_bundle(
    target: Path,
    *,
    space: SearchSpace,
    candidate: Candidate,
    task: Task,
    classes: Sequence[str],
    network: nn.Module,
    images: Tensor,
    facts: Mapping[str, Any],
    judge: Judge | None = None,
    calibration: Tensor | None = None,
    white_level: float | None = None,
    further: Further = NOTHING_FURTHER,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Writes a bundle and proves that its programs compute the same as the network.

    Args:
        target: the folder to make, parents included; it may exist when it is empty.
        space: the space that built the network.
        candidate: spec and recipe of the network.
        task: the task that it was trained for.
        classes: names by index, as many as the task's classes.
        network: trained network, on any device, in any mode.
        images: a few real noisy images (N, C, H, W), float32, on which the programs are compared.
        facts: origin and measurements of the network, as JSON values without paths of this machine. All are kept; the
            card shows ``study``, ``trial``, ``seed``, ``data`` (of ``folder:DIR`` only the folder's name is kept),
            ``images`` (split -> number), ``values`` (as in `nas.types.Measurement`, and ``noisy_psnr``), ``split``
            (from which the values are), ``hardware`` (of the latency), ``latency_of``
            (how it was measured), ``confirmed`` (``seeds``, and ``values`` as name
            -> mean, sd, low, high, n), ``licence``, ``start`` (see `nas.bundles.start.origin`). Those on request need
            ``deep`` (see `nas.data.splits.Dataset`).
        judge: measures the network as it was written; kept as the fact ``measured``.
        calibration: noisy training images (N, C, H, W), for the conversions that are `calibrated`.
        white_level: value of white in the training images, if they have more than 8 bits and it is not their type's
            largest. It is written into the ONNX programs too.
        further: the formats that are written beside `FORMATS`, and the conversions. Each of these is told in the fact
            of its name in `CONVERSIONS`: a `nas.bundles.conversion.Gain`, whether it ``pays``, the largest
            ``difference`` of its pixels, and ``measured`` by `judge`. One that does not pay is not written.
        threshold: the probability of the second of two classes from which on it is answered; see
            `nas.training.recognition.best_threshold`.

    Returns:
        The content of parity.json: ``limit``, ``holds``, ``sizes`` (N, C, H, W) and ``differences``, the largest
        absolute one by program (`FORMATS` and those of `further`, such as ``64x48``) and output (denoised, logits).

    Raises:
        BundleError: `target` is taken or cannot be written, a program that is asked for cannot be made, or a program
            differs from the network by more than its limit. Nothing of the bundle is left behind then.
    """
    target = target.resolve()
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    cost = space.cost(candidate.spec, task)
    preparation = preparation_for(str(facts.get("data")), task)
    formats = {**FORMATS, **further.formats(task, white_level, deep=facts.get("deep") is True)}
    architecture = {
        "format": FORMAT,
        "versions": _versions(),
        "space": {"name": space.name, "version": space.version},
        "spec": candidate.spec.to_dict(),
        "recipe": candidate.recipe.to_dict(),
        "digest": candidate.digest,
        "task": without_defaults(task),
        "classes": list(classes),
        "preparation": None if preparation is None else preparation.to_dict(),
        "cost": asdict(cost),
        "facts": _without_folders(facts),
        "white_level": white_level,
        "threshold": threshold,
    }
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise BundleError(f"{target} exists and is not an empty folder; give a new one, or remove it")
        drop_partials(target.parent, f".{target.name}.*.partial")
        partial.mkdir(parents=True)
        parity = _write(partial, architecture, space, network, formats, images, judge, calibration, further.conversions)
        partial.replace(target)
    except OSError as error:
        raise BundleError(f"{target} cannot be written ({error.strerror}); give a folder that can be") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def _write(
    folder: Path,
    architecture: dict[str, Any],
    space: SearchSpace,
    network: nn.Module,
    formats: Mapping[str, Format],
    images: Tensor,
    judge: Judge | None,
    calibration: Tensor | None,
    converted: Sequence[str],
) -> dict[str, Any]:
    _write_json(folder / ARCHITECTURE, architecture)
    # safetensors accepts neither shared memory nor the layout that training leaves, so the tensors are copied.
    state = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()
    }
    (folder / WEIGHTS).write_bytes(save(state))

    # From here on, the written network is measured, described, exported and compared.
    bundle = read_bundle(folder, lambda name: space)
    _check_sizes(bundle, formats)
    if judge is not None:
        architecture["facts"]["measured"] = judge(bundle.network)
    said = metadata(replace(bundle, facts=architecture["facts"]).description)
    # One entry, because safetensors writes several in another order each time.
    (folder / WEIGHTS).write_bytes(save(state, {"skipnas": json.dumps(said, ensure_ascii=False)}))
    with exporters_quiet():
        made = Exportable(bundle.network, _program(bundle), bundle.task, said)
        for each in formats.values():
            each.write(made, folder / each.file)
    programs = {name: each.open(made, folder / each.file) for name, each in formats.items() if each.open is not None}
    parity = _parity(bundle.network, formats, programs, images)
    for name, differences in parity["differences"].items():
        for output, found in differences.items():
            if not found <= (limit := formats[name].limit_of(output)):
                raise BundleError(
                    f"{formats[name].file} differs from PyTorch by {found:.2g} in {output}, at most {limit:.2g} is "
                    "allowed; export another network"
                )
    _write_json(folder / PARITY, parity)
    for name in converted:
        architecture["facts"][name] = _converted(folder, CONVERSIONS[name], calibration, images, judge, bundle)
    _write_json(folder / ARCHITECTURE, architecture)
    (folder / CARD).write_text(card(architecture, parity, formats), "utf-8")
    write_sums(folder)
    return parity


def _converted(
    folder: Path, form: Conversion, calibration: Tensor | None, images: Tensor, judge: Judge | None, bundle: Bundle
) -> dict[str, Any]:
    """Writes a less exact program, unless it is neither smaller nor faster. Returns what is told of it."""
    file = folder / form.file
    gain = convert(form, folder / ONNX, file, calibration, _timed(images, bundle.task))
    quality: dict[str, Any] = {}
    if gain.pays:
        run = open_onnx(file, trusted=True)
        with torch.no_grad():
            difference = _largest_difference([run(images.cpu())[0]], [bundle.network(images.cpu())[0]])
        measured = {} if judge is None else judge(tiled(bundle.network, bundle.task.channels, run))
        say(file, form.title, measured)
        gain = replace(gain, bytes=file.stat().st_size)  # what it says of itself counts
        quality = {"difference": difference, "measured": measured}
    if not gain.pays:
        file.unlink()
        quality = {}
    if form.calibrated and calibration is not None:
        quality["images"] = len(calibration)
    return {**asdict(gain), "size": list(gain.size), "pays": gain.pays, "told": gain.text(), **quality}


def _check_sizes(bundle: Bundle, formats: Mapping[str, Format]) -> None:
    """Raises BundleError for a size whose pass would need more memory than is sensible."""
    sizes = [each.size for each in formats.values() if each.size is not None]
    if not sizes:
        return
    largest = PASSES * Tiling.of(bundle.network, bundle.task.channels).whole
    for height, width in sizes:
        if height * width > largest:
            raise BundleError(
                f"`size` {height}x{width}: a pass over {height * width:,} pixels needs too much memory; give at most "
                f"{largest:,} pixels for this network, and cut larger images into tiles"
            )


def _timed(images: Tensor, task: Task) -> Tensor:
    """Returns the image on which programs are timed: of the task's size where it has classes, and else of a photograph
    that is not small."""
    least = 1 if task.classifies else PHOTOGRAPH
    return _tiled(images.cpu(), 1, max(task.height, least), max(task.width, least))


def _program(bundle: Bundle) -> ExportedProgram:
    """Exports the network for every batch, height and width, without paths of this machine."""
    # A program keeps its example, which should be nobody's image. It has two images, because torch takes one for a
    # constant.
    example = torch.zeros(2, bundle.task.channels, bundle.task.height, bundle.task.width)
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(bundle.network, (example,), dynamic_shapes=(dynamic,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _parity(
    network: nn.Module,
    formats: Mapping[str, Format],
    programs: Mapping[str, Callable[[Tensor], Any]],
    images: Tensor,
) -> dict[str, Any]:
    """Compares programs with the network on the images as they are, and tiled to `PARITY_SIZES`; a program for one size
    on an image of that size."""
    images = images.cpu().contiguous()
    batches = [images, *(_tiled(images, *size) for size in PARITY_SIZES)]
    differences = {}
    with torch.no_grad():
        for name, program in programs.items():
            each = formats[name]
            given = batches if each.size is None else [_tiled(images, 1, *each.size)]
            pairs = zip(
                zip(*map(program, given), strict=True),
                zip(*map(each.expected(network), given), strict=True),
                strict=True,
            )
            differences[name] = {
                output: _largest_difference(*pair) for output, pair in zip(OUTPUTS, pairs, strict=True)
            }
    return {
        "limit": PARITY_LIMIT,
        "holds": all(
            found <= formats[name].limit_of(output)
            for name, outputs in differences.items()
            for output, found in outputs.items()
        ),
        "sizes": [list(batch.shape) for batch in batches],
        "differences": differences,
    }


def _largest_difference(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """Returns the largest absolute difference over all values of all batches.

    It is 0 when there are none (no classes), and NaN when one is NaN.
    """
    differences = torch.cat([(a - b).abs().flatten() for a, b in zip(found, wanted, strict=True)])
    return float(differences.max()) if len(differences) else 0.0


def _tiled(images: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Repeats images (N, C, H, W) along every axis and cuts them to (batch, C, height, width)."""
    sides = zip((batch, height, width), (images.shape[0], *images.shape[2:]), strict=True)
    many, down, right = (-(-wanted // there) for wanted, there in sides)
    return images.repeat(many, 1, down, right)[:batch, :, :height, :width].contiguous()


def _without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns facts with ``folder:/home/someone/set`` as ``folder:set``."""
    kind, colon, folder = str(facts.get("data", "")).partition(":")
    return {**facts, "data": f"{kind}:{Path(folder).name}"} if colon else dict(facts)


def _versions() -> dict[str, str]:
    try:
        own = version("skipnas")
    except PackageNotFoundError:  # a clone that is not installed
        own = "unknown"
    packages = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    return {"skipnas": own, "python": platform.python_version(), **packages}


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8")
