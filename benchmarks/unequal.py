"""Which network does a search find where 95 of 100 images are of one class? ``python -m benchmarks.unequal``.

Coats and shirts of Fashion-MNIST at half their size, 95 : 5 in every split, are searched under ``gaussian:25`` for
accuracy, and for balanced accuracy and AUC. Everything else is the same; class weights are a hyperparameter of both. Of
each search the network is taken that is best on validation in what was searched for, and judged on the test split: by
the class of the largest probability, and by the threshold that is chosen on validation.

It takes a quarter of an hour on two cores. A search that was made already is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.lib.stats import mean_interval
from nas.data.noise import parse_noise
from nas.data.splits import Dataset, load, noise_seed
from nas.search.objectives import METRICS
from nas.training.batches import evaluation_batches, noisy_batches
from nas.training.evaluation import judge
from nas.training.recognition import best_threshold, recognition_of
from studies.bundles import trained_network
from studies.reading.best import choose
from studies.reading.data import study_data
from studies.reading.space import study_space
from studies.reading.study import StudyReader

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {"coat": (4, 950), "shirt": (6, 50)}
"""Class -> its number in Fashion-MNIST, and its images for training."""

SPLITS = {"train": 1, "validation": 1, "test": 4}
"""Split -> its size in units of the training split."""

SEARCHES: Mapping[str, Sequence[str]] = {
    "accuracy": ("--objectives", "psnr,accuracy,stability"),
    "balanced accuracy and AUC": ("--objectives", "psnr,balanced_accuracy,auc"),
}
NOISE, MAX_MACS = "gaussian:25", 250_000
CPU = torch.device("cpu")
SHOWN = ("accuracy", "balanced_accuracy", "auc", "psnr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The network of a search on the test split.

    Attributes:
        values: metrics by name.
        threshold: probability of the second class from which on it is answered, chosen on validation.
        moved: balanced accuracy in percent with this threshold.
    """

    values: Mapping[str, float]
    threshold: float
    moved: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data-root", type=Path, help="where Fashion-MNIST lies or is downloaded to")
    parser.add_argument("--to", type=Path, default=Path("runs/unequal"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    images = options.to / "images"
    if not images.exists():
        write_images(load("fashion-mnist", root=options.data_root), images)
    found: dict[str, list[Found]] = {name: [] for name in SEARCHES}
    for seed in range(options.seeds):
        for name in SEARCHES:
            study = search(name, images, options.to / "studies.db", seed, options.trials, options.epochs)
            found[name].append(judged(StudyReader.open(study, str(options.to / "studies.db"))))
            print(f"seed {seed}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    print("\n".join(table(found)))


def write_images(data: Dataset, to: Path) -> None:
    """Writes class folders of every split, images at half their size."""
    assert data.train.labels is not None
    for name, (label, count) in CLASSES.items():
        ends = np.cumsum([count * size for size in SPLITS.values()])
        rows = np.flatnonzero(data.train.labels == label)[: ends[-1]]
        for split, part in zip(SPLITS, np.split(rows, ends[:-1]), strict=True):
            folder = to / split / name
            folder.mkdir(parents=True)
            for row in part:
                pixels = data.train.images[row, 0].reshape(14, 2, 14, 2).mean((1, 3)).round().astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{row}.png")


def search(name: str, images: Path, storage: Path, seed: int, trials: int, epochs: int) -> str:
    """Makes a search, or the rest of it, and returns the name of its study."""
    study = f"search-{list(SEARCHES).index(name)}-seed-{seed}"
    words = ["search", "--study", study, "--storage", str(storage), "--data", f"folder:{images}", "--noise", NOISE]
    words += ["--trials", str(trials), "--epochs", str(epochs), "--seed", str(seed), "--max-macs", str(MAX_MACS)]
    words += ["--class-weights", "search", "--precision", "fp32", "--quiet", *SEARCHES[name]]
    done = subprocess.run([sys.executable, str(ROOT / "app_cli.py"), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return study


def judged(study: StudyReader) -> Found:
    """Judges the network that is best on validation in the second objective of a study."""
    config = study.config
    chosen = choose(study, pick=config.objectives[1].name).chosen
    space = study_space(study)
    network: nn.Module = trained_network(study, space, space.spec(chosen.spec), chosen.number, chosen.digest).eval()
    data, noise = study_data(study), parse_noise(config.task.noise)
    threshold = best_threshold(recognition_of(network, evaluation_batches(data, "validation", noise, CPU)))
    assert threshold is not None
    test = list(noisy_batches(data.test, noise, CPU, seed=noise_seed(data.fingerprint)))
    answers = recognition_of(network, test, threshold=threshold)
    assert answers is not None
    recalls = [float((answers.answers[answers.labels == k] == k).mean()) for k in range(len(CLASSES))]
    return Found(values=judge(network, test).values, threshold=threshold, moved=100 * float(np.mean(recalls)))


def table(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Writes the means over seeds and their 95 % intervals in Markdown, and the differences to the first search."""
    heads = [METRICS[name].label for name in SHOWN]
    lines = [
        f"| search for | {' | '.join(heads)} | balanced accuracy with threshold (%) |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for name, each in found.items():
        cells = []
        for metric in SHOWN:
            mean = mean_interval([one.values[metric] for one in each])
            cells.append(f"{METRICS[metric].figure(mean.mean)} ± {METRICS[metric].figure(mean.high - mean.mean)}")
        moved = mean_interval([one.moved for one in each])
        lines.append(f"| {name} | {' | '.join(cells)} | {moved.mean:.2f} ± {moved.high - moved.mean:.2f} |")
    first = found["accuracy"]
    lines.append("")
    for name in list(found)[1:]:
        pairs = zip(found[name], first, strict=True)
        gains = [one.values["balanced_accuracy"] - other.values["balanced_accuracy"] for one, other in pairs]
        mean = mean_interval(gains)
        told = f"{mean.mean:+.1f} points of balanced accuracy ({mean.low:+.1f} to {mean.high:+.1f})"
        lines.append(f"{name}: {told}, by seed {', '.join(f'{gain:+.1f}' for gain in gains)}")
    return lines


if __name__ == "__main__":
    main()
