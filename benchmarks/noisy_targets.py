"""What is lost in training without clean images? ``python -m benchmarks.noisy_targets --data-root DIR``.

`DIR` holds ``train400`` (400 gray 180x180 crops of BSD500) and ``set12``. One small network is trained with the same
steps and seeds on patches of the crops, whose gaussian noise of sigma 25 is drawn once: with clean targets, from one
shot to another (Noise2Noise), and on the hidden pixels of one shot (blind spot). It is then judged on Set12 at full
size, under the noise of `skipnas evaluate`.

The table has the mean PSNR over the seeds with its interval of 95 %, and the difference to clean targets, seed by seed.
Every finished training is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.lib import records
from benchmarks.lib.noisy import noisy_data, trained
from benchmarks.lib.records import Record
from benchmarks.lib.runs import records_of
from benchmarks.lib.stats import mean_interval
from nas.bundles.assess import assess_photographs
from nas.data.augmentation import TURNS
from nas.data.noise import parse_noise
from nas.data.splits import Dataset, load
from nas.training.version import TRAINING_VERSION
from nas.types import Recipe
from search_spaces.unet.spec import UNetSpec

NOISE = "gaussian:25"
WAYS: Mapping[str, int] = {"clean targets": 2, "Noise2Noise": 2, "blind spot": 1}
"""The ways of training, with the number of shots of a patch."""

SPEC: dict[str, Any] = {
    "levels": 3,
    "width": 16,
    "growth": "constant",
    "fusion": "concat",
    "gate": "none",
    "resampling": "average",
    "block": "residual",
    "norm": "none",
    "kernel": 3,
    "prediction": "noise",
    "tasks": "denoise",
}


@lru_cache(maxsize=1)
def data_of(root: str, shots: int) -> tuple[Dataset, Dataset]:
    """Returns noisy patches alone, and the clean ones with the same shots."""
    return noisy_data(load(f"images:{root}/train400"), NOISE, shots)


def measure(what: Record) -> Record:
    """Trains the network in one way under one seed and judges it on Set12."""
    alone, known = data_of(what["root"], WAYS[what["way"]])
    data = known if what["way"] == "clean targets" else alone
    recipe = Recipe(
        epochs=what["epochs"], batch_size=16, learning_rate=0.003, weight_decay=0.0, classification_weight=0.0
    )
    network, _ = trained(
        data, UNetSpec.from_dict(SPEC), recipe, seed=what["seed"], precision="bf16", augmentation=TURNS
    )
    photographs = sorted(Path(what["root"], "set12").glob("*.png"))
    found = assess_photographs(network, 1, photographs, parse_noise(NOISE))
    return {"key": records.key_of(what), **what, "psnr": found.values["psnr"], "noisy": found.noisy["psnr"]}


def table(found: Sequence[Record]) -> list[str]:
    """Returns the lines of the table, in Markdown."""
    psnr = {(each["way"], each["seed"]): each["psnr"] for each in found}
    clean = {seed: value for (way, seed), value in psnr.items() if way == "clean targets"}
    lines = ["| trained on | seeds | Set12 (dB) | less than clean targets (dB) |", "|---|---|---|---|"]
    for way in WAYS:
        values = {seed: value for (each, seed), value in psnr.items() if each == way and seed in clean}
        if len(values) < 2:
            continue
        mean = mean_interval(list(values.values()))
        less = mean_interval([clean[seed] - value for seed, value in values.items()])
        told = "" if way == "clean targets" else f"{less.mean:.2f} ({less.low:.2f} to {less.high:.2f})"
        lines.append(f"| {way} | {len(values)} | {mean.mean:.2f} ± {(mean.high - mean.low) / 2:.2f} | {told} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noisy_targets", description=(__doc__ or "").split("?")[0]
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of train400 and set12")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("runs/noisy-targets.jsonl"), help="file of finished trainings")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    common = {"root": str(options.data_root), "epochs": options.epochs, "version": TRAINING_VERSION}
    asked = [{"way": way, "seed": seed, **common} for seed in range(options.seeds) for way in WAYS]
    found, finished = records_of(asked, options.to, measure, options.workers)
    print("\n".join(table(found)))
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
