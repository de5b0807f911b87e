"""One network for both tasks, or two? ``python -m benchmarks.joint --data npz:pneumoniamnist.npz``.

Noisy images (``gaussian:25``) are to be restored and recognised. All ways have the MACs of the joint network or a
little less, in sum where there are two networks, and all networks have the same blocks, recipe and number of epochs:

- **joint**: one network restores and recognises.
- **side by side**: a network restores, and another one, trained on noisy images, recognises.
- **recognised as it is**: the noisy image goes straight to a classifier that was trained on clean images.
- **classical first**: BM3D or non-local means restores, and the same classifier recognises what it made. The
  denoiser is told the strength of the noise, and its own operations are not counted.
- **network first**: the network of *side by side* restores, and a classifier that was trained on clean images
  recognises what it made.

Beside them stand two bounds: one network of all the MACs that recognises noisy images and restores none, and the
classifier of clean images on clean images.

Every network is trained under each seed and judged on the test split under one draw of the noise. The table has means
over the seeds with their 95 % intervals, and the differences to the joint network, seed by seed. A finished seed is
kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.lib import records
from benchmarks.lib.noisy import trained
from benchmarks.lib.records import Record
from benchmarks.lib.runs import records_of
from benchmarks.lib.stats import mean_interval
from nas.bundles.reference_denoisers import reference_denoiser, restore_batch
from nas.data.noise import parse_noise
from nas.data.splits import Dataset, load, noise_seed
from nas.errors import ConfigError
from nas.files import write_whole
from nas.search.objectives import METRICS
from nas.training.batches import NoisyBatch, noisy_batches
from nas.training.metrics import Answers, Tally
from nas.training.version import TRAINING_VERSION
from nas.types import Cost, Recipe, Task
from search_spaces import get_space
from search_spaces.unet.spec import RANGES, Tasks, UNetSpec

NOISE, CLEAN = "gaussian:25", "none"
BLOCKS: Mapping[str, Any] = {
    "levels": 3,
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "average",
    "block": "residual",
    "norm": "batch",
    "kernel": 3,
    "prediction": "noise",
    "head_norm": "batch",
}
RECIPE: Mapping[str, Any] = {"batch_size": 32, "learning_rate": 0.003, "weight_decay": 1e-4}
CLASSIFICATION_WEIGHT = 0.3
"""The weight of the cross-entropy in the joint network's loss. It was chosen once and not tuned."""

WAYS: Mapping[str, Sequence[str]] = {
    "joint": ["joint"],
    "side by side": ["denoiser", "half classifier"],
    "recognised as it is": ["classifier"],
    "classical first": ["classifier"],
    "network first": ["denoiser", "half classifier"],
    "bound: noisy images, recognised alone": ["classifier"],
    "bound: clean images, clean classifier": ["classifier"],
}
"""The ways, with the networks (see `specs`) that each runs for an image."""

SHOWN = ("psnr", "accuracy", "balanced_accuracy", "auc")
Outputs = Callable[[NoisyBatch], tuple[Tensor | None, Tensor]]


def spec_of(tasks: Tasks, width: int) -> UNetSpec:
    return UNetSpec.from_dict({**BLOCKS, "tasks": tasks, "width": width})


def widest(tasks: Tasks, task: Task, macs: int) -> UNetSpec:
    """Returns the widest network for these tasks that has at most so many MACs."""
    low, high = RANGES["width"]
    fitting = [spec for width in range(low, high + 1) if cost(spec := spec_of(tasks, width), task).macs <= macs]
    if not fitting:
        raise ConfigError(f"no network that can {tasks} has at most {macs:,} MACs; give a larger `width`")
    return fitting[-1]


def cost(spec: UNetSpec, task: Task) -> Cost:
    return get_space("unet").cost(spec, task)


def specs(task: Task, width: int) -> dict[str, UNetSpec]:
    """Returns the networks: the joint one, and those for one task with all of its MACs or about half of them.

    Of the two halves the classifier has what the denoiser leaves.
    """
    joint = spec_of("joint", width)
    whole = cost(joint, task).macs
    denoiser = widest("denoise", task, whole // 2)
    return {
        "joint": joint,
        "denoiser": denoiser,
        "half classifier": widest("classify", task, whole - cost(denoiser, task).macs),
        "classifier": widest("classify", task, whole),
    }


@lru_cache(maxsize=1)
def data_of(source: str, root: str | None) -> Dataset:
    return load(source, root=None if root is None else Path(root))


def noisy_test(data: Dataset) -> list[NoisyBatch]:
    """Returns the test split under one draw of the noise, which depends on the data alone."""
    return list(noisy_batches(data.test, parse_noise(NOISE), torch.device("cpu"), seed=noise_seed(data.fingerprint)))


def restored_by(name: str, data: Dataset, file: Path) -> Tensor:
    """Returns the test images as a classical denoiser restores them, from a file that is made if need be."""
    if not file.exists():
        denoiser = reference_denoiser(name)
        images = torch.cat([restore_batch(denoiser, each.noisy, each.clean) for each in noisy_test(data)]).numpy()

        def write(place: Path) -> None:
            with place.open("wb") as opened:
                np.save(opened, images)

        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, write)
    return torch.from_numpy(np.load(file, allow_pickle=False))


def judged(outputs: Outputs, batches: Sequence[NoisyBatch]) -> dict[str, float]:
    """Returns the metrics of a way, which may restore nothing."""
    tally = Tally()
    with torch.inference_mode():
        for batch in batches:
            denoised, logits = outputs(batch)
            shown = batch.noisy if denoised is None else denoised
            tally.add(Answers(noisy=batch.noisy, clean=batch.clean, denoised=shown, labels=batch.labels, logits=logits))
            restores = denoised is not None
    return {name: value for name, value in tally.values().items() if name in SHOWN and (restores or name != "psnr")}


def measure(what: Record) -> Record:
    """Trains all networks under one seed and judges every way."""
    data = data_of(what["data"], what["root"])
    task, seed = data.task(NOISE), what["seed"]
    found = specs(task, what["width"])

    def train(name: str, noise: str) -> nn.Module:
        weight = CLASSIFICATION_WEIGHT if name == "joint" else 1.0
        recipe = Recipe(epochs=what["epochs"], classification_weight=weight, **RECIPE)
        return trained(data, found[name], recipe, noise=noise, seed=seed, precision="bf16")[0]

    joint, denoiser = train("joint", NOISE), train("denoiser", NOISE)
    small_noisy, small_clean = train("half classifier", NOISE), train("half classifier", CLEAN)
    large_noisy, large_clean = train("classifier", NOISE), train("classifier", CLEAN)
    noisy = noisy_test(data)
    classical = restored_by(what["denoiser"], data, Path(what["restored"]))
    restored = [
        batch._replace(noisy=images)
        for batch, images in zip(noisy, classical.split([len(batch.noisy) for batch in noisy]), strict=True)
    ]
    outputs: dict[str, tuple[Outputs, Sequence[NoisyBatch]]] = {
        "joint": (lambda b: joint(b.noisy), noisy),
        "side by side": (lambda b: (denoiser(b.noisy)[0], small_noisy(b.noisy)[1]), noisy),
        "recognised as it is": (lambda b: (None, large_clean(b.noisy)[1]), noisy),
        "classical first": (lambda b: (b.noisy, large_clean(b.noisy.clamp(0, 1))[1]), restored),
        "network first": (lambda b: _in_turn(denoiser, small_clean, b), noisy),
        "bound: noisy images, recognised alone": (lambda b: (None, large_noisy(b.noisy)[1]), noisy),
        "bound: clean images, clean classifier": (lambda b: (None, large_clean(b.clean)[1]), noisy),
    }
    sizes = {name: cost(spec, task) for name, spec in found.items()}
    results = {
        way: {
            **judged(*outputs[way]),
            "params": sum(sizes[name].params for name in networks),
            "macs": sum(sizes[name].macs for name in networks),
        }
        for way, networks in WAYS.items()
    }
    return {"key": records.key_of(what), **what, "ways": results}


def _in_turn(denoiser: nn.Module, classifier: nn.Module, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
    denoised: Tensor = denoiser(batch.noisy)[0]
    return denoised, classifier(denoised.clamp(0, 1))[1]


def table(found: Sequence[Record]) -> list[str]:
    """Returns the lines of both tables, in Markdown: the ways, and their differences to the joint network."""
    named = {way: way.replace("classical", found[0]["denoiser"].upper()) for way in WAYS}
    heads = [METRICS[name].label for name in SHOWN]
    lines = [f"| way | parameters | MACs | {' | '.join(heads)} |", "|---" * (len(SHOWN) + 3) + "|"]
    for way in WAYS:
        first, cells = found[0]["ways"][way], []
        for name in SHOWN:
            values = [each["ways"][way][name] for each in found if name in each["ways"][way]]
            mean, figure = mean_interval(values), METRICS[name].figure
            cells.append(f"{figure(mean.mean)} ± {figure(mean.high - mean.mean)}" if values else "-")
        lines.append(f"| {named[way]} | {first['params']:,} | {first['macs']:,} | {' | '.join(cells)} |")
    lines += ["", f"| less than joint | {' | '.join(heads)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for way in list(WAYS)[1:]:
        cells = []
        for name in SHOWN:
            pairs = [(each["ways"]["joint"], each["ways"][way]) for each in found]
            less = mean_interval([joint[name] - other[name] for joint, other in pairs if name in other])
            figure = METRICS[name].figure
            cells.append(f"{figure(less.mean)} ({figure(less.low)} to {figure(less.high)})" if less.n else "-")
        lines.append(f"| {named[way]} | {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", required=True, help="as for search, with classes and sides of at least 16 pixels")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=8, help="channels of the joint network's first level")
    parser.add_argument("--denoiser", default="bm3d", help="the classical denoiser: bm3d or nlm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("runs/joint"), help="folder of finished seeds")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    root = None if options.data_root is None else str(options.data_root)
    data = data_of(options.data, root)
    file = options.to / f"{options.denoiser}-{data.fingerprint}.npy"
    restored_by(options.denoiser, data, file)  # once, for all workers
    common = {
        "data": options.data,
        "root": root,
        "epochs": options.epochs,
        "width": options.width,
        "denoiser": options.denoiser,
        "restored": str(file),
        "version": TRAINING_VERSION,
    }
    asked = [{"seed": seed, **common} for seed in range(options.seeds)]
    found, finished = records_of(asked, options.to / "seeds.jsonl", measure, options.workers)
    print("\n".join(table(found)))
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
