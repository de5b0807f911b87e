"""Exported programs in the runtimes that people have: ``python -m benchmarks.clients [--clients NAME ...]``.

Each kind of network is trained for some steps and exported, and each runtime restores images of several sizes with it.
A table of the largest differences to PyTorch is printed, by kind and runtime. The exit code is 1 when one of them is
above `MOST`, or a runtime refuses a program.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.lib.clients import CLIENTS, Job, NotInstalledError, Takes, differences
from nas.bundles.bundle import open_bundle
from nas.bundles.export import export_bundle
from nas.bundles.formats import CONVERSIONS, FORMATS, ONNX, Further, fixed_size
from nas.types import Candidate, Recipe, Task
from search_spaces import get_space

SPACE = get_space("unet")
MOST = 1e-5
"""The largest difference that a runtime may have: pixels are numbers from 0 to 1, logits a few units."""

SIZES = ((32, 32), (27, 38))
"""Sizes of the images: one that needs no padding, and one that does."""

STEPS, IMAGES = 40, 16
BASE = {
    "levels": 3,
    "width": 8,
    "growth": "doubling",
    "fusion": "add",
    "gate": "scalar",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
}
RECIPE = Recipe(epochs=1, batch_size=IMAGES, learning_rate=0.001, weight_decay=0.0, classification_weight=0.1)
FOLDER = Path("runs/clients")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of network, by what differs from `BASE`.

    Attributes:
        changes: fields of its spec.
        channels, classes: of its task.
        form: name of the less exact program that is run, whose difference is shown and not judged; empty for the
            program itself.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 1
    classes: int = 5
    form: str = ""


KINDS: Mapping[str, Kind] = {
    "add, scalar gate": Kind(),
    "concat": Kind({"fusion": "concat", "gate": "none"}),
    "no skips, kernels 5": Kind({"fusion": "none", "gate": "none", "kernel": 5}),
    "NDDR fusion, residual": Kind({"fusion": "nddr", "gate": "none", "block": "residual"}),
    "selective kernel, group norm": Kind({"fusion": "selective_kernel", "gate": "none", "norm": "group"}),
    "dense, attention gate": Kind({"fusion": "dense", "gate": "attention"}),
    "squeeze-excitation, strided": Kind({"gate": "squeeze_excitation", "resampling": "strided"}),
    "NAF, noise predicted": Kind({"block": "naf", "prediction": "noise"}),
    "no norm, deep head": Kind({"norm": "none", "head_attach": "all", "head_hidden": 2, "head_norm": "batch"}),
    "Haar encoder, extra blocks": Kind({"encoder": "haar", "resampling": "average", "extra_blocks": 2}),
    "AddUNet": Kind({"update": "subtractive", "growth": "constant", "resampling": "none", "head_attach": "decoder"}),
    "channel gate, residual update": Kind({"gate": "channel", "update": "residual", "kernel_schedule": "growing"}),
    "two columns": Kind({"columns": 2}),
    "cross-stitch": Kind({"columns": 2, "sharing": "cross_stitch"}),
    "channel cross-stitch": Kind({"columns": 2, "sharing": "channel_cross_stitch"}),
    "sluice": Kind({"columns": 2, "sharing": "sluice"}),
    "sluice, 2 subspaces": Kind({"columns": 2, "sharing": "sluice_2"}),
    "NDDR": Kind({"columns": 2, "sharing": "nddr"}),
    "colour": Kind(channels=3),
    "no classes": Kind(classes=0),
    **{form.title: Kind(form=name) for name, form in CONVERSIONS.items()},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS), metavar="NAME")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--installed", type=Path, default=FOLDER, help=f"where clients are installed ({FOLDER})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="skipnas-clients-") as work:
        jobs = {kind: exported(kind, Path(work, str(place))) for place, kind in enumerate(options.kinds)}
        cells: dict[str, list[str]] = {kind: [] for kind in options.kinds}
        bad, titles = [], []
        for name in options.clients:
            print(f"{name} ...", file=sys.stderr, flush=True)
            flat = [(kind, job) for kind in options.kinds for job in jobs[kind][CLIENTS[name].takes]]
            (folder := Path(work, name)).mkdir()
            try:
                found = differences(name, [job for _, job in flat], options.installed, folder)
            except NotInstalledError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            titles.append(CLIENTS[name].title)
            for kind in options.kinds:
                own = [each for (of, _), each in zip(flat, found, strict=True) if of == kind]
                errors = [each for each in own if isinstance(each, str)]
                largest = max((each for each in own if isinstance(each, float)), default=0.0)
                cells[kind].append("-" if not own else "refused" if errors else f"{largest:.0e}")
                if errors or (not KINDS[kind].form and not largest <= MOST):
                    bad.append(f"{kind}, {CLIENTS[name].title}: {errors[0] if errors else f'differs by {largest:.1e}'}")
    for row in (["", *titles], ["---"] * (1 + len(titles)), *([kind, *cells[kind]] for kind in options.kinds)):
        print(f"| {' | '.join(row)} |")
    for line in bad:
        print(line)
    return int(bool(bad))


def exported(name: str, folder: Path) -> dict[Takes, list[Job]]:
    """Trains and exports a kind of network.

    Returns:
        The jobs of clients by what they take; of a form there are those for every size alone.
    """
    kind = KINDS[name]
    task = Task(channels=kind.channels, classes=kind.classes, height=32, width=32, noise="gaussian:50")
    candidate = Candidate(spec=SPACE.spec({**BASE, **kind.changes}), recipe=RECIPE)
    generator = torch.Generator().manual_seed(0)
    clean = F.interpolate(torch.rand(IMAGES, kind.channels, 6, 6, generator=generator), (32, 32), mode="bilinear")
    noisy = clean + torch.randn(clean.shape, generator=generator) * (50 / 255)
    torch.manual_seed(0)
    network = SPACE.build(candidate.spec, task)
    _train(network, noisy, clean, torch.arange(IMAGES) % max(kind.classes, 1) if kind.classes else None)
    export_bundle(
        folder,
        space=SPACE,
        candidate=candidate,
        task=task,
        classes=[str(number) for number in range(kind.classes)],
        network=network,
        images=noisy[:4],
        facts={},
        calibration=noisy if kind.form == "int8" else None,
        further=Further(
            size=[] if kind.form else list(SIZES),
            quantize=kind.form == "int8",
            float16_weights=kind.form == "float16_weights",
            int8_weights=kind.form == "int8_weights",
        ),
    )
    network = open_bundle(folder, get_space).network
    jobs: dict[Takes, list[Job]] = {takes: [] for takes in get_args(Takes)}
    with torch.no_grad():
        for height, width in SIZES:
            images = F.interpolate(noisy[:2], (height, width), mode="nearest")
            wanted = [each.numpy() for each in network(images)[: 2 if kind.classes else 1]]
            program = folder / (CONVERSIONS[kind.form].file if kind.form else ONNX)
            jobs["every size"].append(Job(program, images.numpy(), tuple(wanted)))
            if not kind.form:
                one = images[:1].numpy(), tuple(each[:1] for each in wanted)
                jobs["one size"].append(Job(folder / fixed_size(height, width).file, *one))
                jobs["model.pt2"].append(Job(folder / FORMATS["torch_export"].file, *one))
    return jobs


def _train(network: nn.Module, noisy: Tensor, clean: Tensor, labels: Tensor | None) -> None:
    """Trains for some steps, after which outputs are images and activations have their usual size."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RECIPE.learning_rate)
    network.train()
    for _ in range(STEPS):
        denoised, logits = network(noisy)
        loss = F.mse_loss(denoised, clean)
        if labels is not None:
            loss = loss + RECIPE.classification_weight * F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    sys.exit(main())
