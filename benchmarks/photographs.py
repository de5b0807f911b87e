"""A small gray network trained on 387 crops and judged on Set12 at full size, beside published figures.

    python -m benchmarks.photographs --data-root DIR [--minutes 40] [--threads 2] [--to runs/photographs]

`DIR` holds ``train400`` (400 gray 180x180 crops of BSD500) and ``set12``. The budget is a number of minutes on free
cores: steps are timed once, in CPU seconds, and the schedule has as many steps as fit. The plan is kept in ``--to``, so
that the same command goes on after a stop. Set12 is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nas.bundles.assess import assess_photographs
from nas.data.augmentation import TURNS
from nas.data.noise import parse_noise
from nas.data.photographs import Photographs
from nas.training.fit import FitProgress
from nas.training.loop import Training
from nas.training.patches import Patches
from nas.types import Recipe, Task
from search_spaces import get_space
from studies.bundles import open_bundle
from studies.commands.train import train
from studies.commands.train_display import TrainDisplay
from studies.settings import TrainRequest

NOISE = "gaussian:25"
SPEC: dict[str, Any] = {
    "levels": 4,
    "width": 32,
    "growth": "constant",
    "fusion": "concat",
    "gate": "none",
    "resampling": "average",
    "block": "residual",
    "norm": "none",
    "kernel": 3,
    "extra_blocks": 1,
    "prediction": "noise",
    "tasks": "denoise",
}
PATCH, BATCH, LEARNING_RATE, WEIGHT_DECAY, EMA = 64, 16, 0.003, 0.0, 0.999
STEPS_PER_EPOCH = 400
VALIDATION_EVERY = 32
"""Every 32nd crop is for validation: 13 of 400."""
SPEED_UP = 0.9
"""The speed that each further thread adds, in units of the first one's."""

PUBLISHED = (
    ("BM3D", None, None, 29.97),
    ("IRCNN", 186, 12.2, 30.37),
    ("FFDNet", 485, 7.9, 30.43),
    ("DnCNN-S", 557, 36.3, 30.44),
    ("DRUNet", 32_600, 138.6, 30.94),
)
"""Published figures on Set12 at sigma 25: thousands of parameters, GMACs at 256x256, dB."""


def main() -> None:
    """Trains the network, or goes on with it, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("runs/photographs"))
    options = parser.parse_args()
    lay_out(options.data_root, options.to / "data")
    plan = planned(options.to, options.minutes, options.threads)
    started, before = time.process_time(), plan["cpu_seconds"]

    def observe(progress: FitProgress) -> None:
        display.observe(progress)
        if progress.step % STEPS_PER_EPOCH == 0:
            write(options.to, {**plan, "cpu_seconds": before + time.process_time() - started})

    (options.to / "spec.json").write_text(json.dumps(SPEC, indent=2) + "\n")
    with TrainDisplay() as display:
        result = train(
            TrainRequest(
                what=str(options.to / "spec.json"),
                to=options.to / "training",
                data=f"images:{options.to / 'data'}",
                noise=NOISE,
                epochs=plan["epochs"],
                batch_size=BATCH,
                learning_rate=LEARNING_RATE,
                weight_decay=WEIGHT_DECAY,
                ema=EMA,
                patch=PATCH,
                patches_per_epoch=STEPS_PER_EPOCH * BATCH,
                threads=options.threads,
            ),
            observe,
            display.say,
        )
    report(Path(result["bundle"]), options.to, result["seconds"])


def lay_out(root: Path, folder: Path) -> None:
    """Links to the images as ``images:`` wants them, in the folders train, val and test."""
    crops, test = sorted((root / "train400").glob("*.png")), sorted((root / "set12").glob("*.png"))
    if len(crops) != 400 or len(test) != 12:
        raise SystemExit(f"{root}: {len(crops)} images in train400 and {len(test)} in set12; 400 and 12 are needed")
    for part, images in (
        ("train", [image for number, image in enumerate(crops) if number % VALIDATION_EVERY]),
        ("val", crops[::VALIDATION_EVERY]),
        ("test", test),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for image in images:
            link = folder / part / image.name
            if not link.is_symlink():
                link.symlink_to(image.resolve())


def planned(folder: Path, minutes: float, threads: int) -> dict[str, Any]:
    """Returns the plan that the folder has, or makes one from timed steps."""
    file = folder / "plan.json"
    if file.exists():
        plan: dict[str, Any] = json.loads(file.read_text())
        return plan
    seconds = step_seconds(folder)
    speed = 1 + SPEED_UP * (threads - 1)
    epochs = max(1, int(minutes * 60 * speed / seconds / STEPS_PER_EPOCH))
    plan = {"minutes": minutes, "threads": threads, "step_cpu_seconds": seconds, "epochs": epochs, "cpu_seconds": 0.0}
    write(folder, plan)
    return plan


def step_seconds(folder: Path, steps: int = 12) -> float:
    """Times a step in CPU seconds on one thread, the least of some; waiting for a core does not count."""
    torch.set_num_threads(1)
    photographs = Photographs.read(f"images:{folder / 'data'}", folder)
    data = Patches(
        photographs,
        parse_noise(NOISE),
        patch=PATCH,
        per_epoch=BATCH,
        augmentation=TURNS,
        device=torch.device("cpu"),
    )
    task = Task(channels=1, classes=0, height=PATCH, width=PATCH, noise=NOISE)
    # With so many epochs the training probes itself after none of the timed steps.
    recipe = Recipe(epochs=100_000, batch_size=BATCH, learning_rate=1e-6, weight_decay=0.0, classification_weight=0.0)
    space = get_space("unet")
    training = Training(space.build(space.spec(SPEC), task), task, recipe, data, seed=0, precision="bf16")
    times = []
    for _ in range(steps):
        started = time.process_time()
        training.run_epoch()
        times.append(time.process_time() - started)
    return min(times)


def report(bundle: Path, folder: Path, seconds: float) -> None:
    """Prints the table with this network beside published ones, and the PSNR of each image."""
    opened = open_bundle(bundle)
    paths = sorted((folder / "data" / "test").iterdir())
    each = [assess_photographs(opened.network, 1, [path], parse_noise(NOISE)).values["psnr"] for path in paths]
    task = Task(channels=1, classes=0, height=256, width=256, noise=NOISE)
    cost = opened.space.cost(opened.candidate.spec, task)
    plan = json.loads((folder / "plan.json").read_text())
    print(f"Set12, {NOISE}: " + ", ".join(f"{path.stem} {value:.2f}" for path, value in zip(paths, each, strict=True)))
    print(
        f"{plan['epochs'] * STEPS_PER_EPOCH} steps of {BATCH} patches of {PATCH}x{PATCH}; {seconds / 60:.0f} minutes, "
        f"{plan['cpu_seconds'] / 60:.0f} of CPU time"
    )
    print("| model | params | GMAC at 256x256 | Set12 PSNR (dB) |\n|---|---|---|---|")
    for name, params, gmac, quality in PUBLISHED:
        print(f"| {name} | {f'{params}k' if params else '-'} | {gmac or '-'} | {quality} |")
    print(f"| **this network** | {cost.params / 1e3:.0f}k | {cost.macs / 1e9:.1f} | **{fmean(each):.2f}** |")


def write(folder: Path, plan: dict[str, Any]) -> None:
    """Keeps the plan in the folder."""
    (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")


if __name__ == "__main__":
    main()
