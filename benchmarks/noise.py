"""How well ``skipnas noise`` measures: ``python -m benchmarks.noise [--train] [--to runs/noise.jsonl]``.

Known noise is added to the photographs of the package, halved in size so that their own grain is small, and to made
images of a microscope: blurred blobs and filaments on a dark background. The noise is then measured from the noisy
images alone, and from pairs. scikit-image's `estimate_sigma` is measured beside it. ``--train`` also trains a network
under the true noise and one under the words that were printed, and judges both under the true noise.

Every measurement is a line of the file, and the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.lib.records import Record, measured
from benchmarks.lib.stats import mean_interval
from nas.data.installed import read_photographs
from nas.data.measured_noise import Picture, measure_noise
from nas.data.noise import parse_noise
from nas.data.splits import load
from nas.training.batches import DeviceData, evaluation_batches
from nas.training.evaluation import Evaluation, judge
from search_spaces import SPACES
from search_spaces.unet.references import reference_network

Image = NDArray[np.float32]

GAINS, READS = (0.25, 0.5, 1, 2), (3, 6, 10)
SENSORS = [(gain, read) for gain in GAINS for read in READS]
SIGMAS = (5, 10, 15, 25, 50)
COLOURED = ((10, 0.7), (25, 0.7), (10, 1), (25, 1), (25, 1.5), (25, 2), (25, 3))
OTHERS = (
    "poisson-gaussian:1,5+rows:4",
    "gaussian:10+columns:3",
    "gaussian:10+correlated:20,1.5",
    "gaussian:10+saltpepper:0.02",
    "poisson-gaussian:0.5,3+rows:3+saltpepper:0.01",
    "gaussian:5+jpeg:90",
    "jpeg:40",
)
TRAINED = ("gaussian:25", "poisson-gaussian:1,6", "correlated:25,1.5", "poisson-gaussian:1,5+rows:4")
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 8
DEPTH = "+depth:8"
"""All made images are files of 8 bits."""

CELLS, CELL_SIDE, BLACK = 6, 256, 16
CPU = torch.device("cpu")


def main() -> None:
    """Measures what the file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--train", action="store_true", help="also train under true and printed noise")
    parser.add_argument("--to", type=Path, default=Path("runs/noise.jsonl"))
    options = parser.parse_args()
    look = partial(measured, path=options.to, measure=measure)
    for table in (sensors, sigmas, coloured, others):
        print("\n".join(table(look)), end="\n\n")
    if options.train:
        print("\n".join(trained(partial(measured, path=options.to, measure=train))))


# --- images ---
@cache
def photographs() -> tuple[Image, ...]:
    """Returns the gray photographs of scikit-image at half their size, 0..255."""
    halved = []
    for image in read_photographs():
        height, width = (side // 2 for side in image.shape)
        tiles = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
        halved.append(tiles.mean((1, 3), dtype=np.float32))
    return tuple(halved)


@cache
def cells() -> tuple[Image, ...]:
    """Returns made images of a microscope, 0..255: blobs and filaments on a background of 16."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    down, across = np.mgrid[:CELL_SIDE, :CELL_SIDE]
    made = []
    for _ in range(CELLS):
        image = np.zeros((CELL_SIDE, CELL_SIDE))
        for _ in range(40):
            top, left = random.uniform(0, CELL_SIDE, 2)
            far = (down - top) ** 2 + (across - left) ** 2
            image += random.uniform(30, 200) * np.exp(-far / (2 * random.uniform(2, 10) ** 2))
        filaments = np.zeros_like(image)
        for _ in range(12):
            place, angle = random.uniform(0, CELL_SIDE, 2), random.uniform(0, 2 * np.pi)
            for _ in range(300):
                angle += random.normal(0, 0.08)
                place += np.array((np.sin(angle), np.cos(angle)))
                if (place >= 0).all() and (place < CELL_SIDE).all():
                    filaments[int(place[0]), int(place[1])] += random.uniform(0.5, 1)
        filaments = gaussian_filter(filaments, 1.5)
        image += BLACK + 120 * filaments / filaments.max()
        made.append(image.clip(0, 235).astype(np.float32))
    return tuple(made)


SCENES: dict[str, Callable[[], tuple[Image, ...]]] = {"photographs": photographs, "microscope": cells}


# --- measuring ---
def asked(scenes: str, noise: str, pairs: bool) -> Record:
    """Returns the description of a measurement."""
    return {"scenes": scenes, "noise": noise, "pairs": pairs}


def measure(what: Record) -> Record:
    """Measures one noise on one kind of images, and scikit-image's estimate, the mean over images."""
    import skimage.restoration

    estimate_sigma: Any = skimage.restoration.estimate_sigma
    clean = SCENES[what["scenes"]]()
    noise, generator = parse_noise(what["noise"] + DEPTH), torch.Generator().manual_seed(0)
    noisy = [noise.add(torch.from_numpy(each)[None, None] / 255, generator)[0].numpy() * 255 for each in clean]
    known = [np.rint(each)[None] if what["pairs"] else None for each in clean]
    found = measure_noise([Picture(*pair) for pair in zip(noisy, known, strict=True)], 8)
    facts = {name: value for name, value in found.to_dict().items() if name not in ("levels", "remarks", "pairs")}
    return {
        **what,
        "found": facts,
        "level": float(np.sqrt(fmean(found.sigma(float(value)) ** 2 for value in _brightness(clean)))),
        "skimage": fmean(float(estimate_sigma(each[0])) for each in noisy),
    }


def _brightness(clean: Sequence[Image]) -> NDArray[np.float64]:
    """Returns the brightness that a thousandth of the pixels is below, two thousandths, and so on."""
    shares = np.linspace(0.0005, 0.9995, 1000)
    return np.asarray(np.quantile(np.concatenate([each.ravel() for each in clean]), shares), np.float64)


Look = Callable[[Sequence[Record]], list[Record]]


def both(look: Look, scenes: str, noise: str) -> tuple[Record, Record]:
    """Returns the measurements from noisy images alone and from pairs."""
    alone, pairs = look([asked(scenes, noise, False), asked(scenes, noise, True)])
    return alone, pairs


def off(found: float, true: float) -> str:
    """Returns a relative error in percent."""
    return f"{100 * (found / true - 1):+.1f} %"


def sensors(look: Look) -> list[str]:
    """Returns the table of made sensors."""
    lines = [
        "| images | gain, read noise | gain | read noise | level | gain, pairs | read noise, pairs | estimate_sigma |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors: list[float] = []
    for scenes, images in SCENES.items():
        for gain, read in SENSORS:
            alone, pairs = both(look, scenes, f"poisson-gaussian:{gain},{read}")
            true = float(np.sqrt(np.mean(gain * _brightness(images()) + read**2)))
            cells = [
                off(alone["found"]["gain"], gain),
                off(alone["found"]["read"], read),
                off(alone["level"], true),
                off(pairs["found"]["gain"], gain),
                off(pairs["found"]["read"], read),
                off(alone["skimage"], true),
            ]
            errors += [abs(alone["found"]["gain"] / gain - 1), abs(alone["found"]["read"] / read - 1)]
            lines.append(f"| {scenes} | {gain:g}, {read:g} | {' | '.join(cells)} |")
    within = sum(error <= 0.1 for error in errors)
    return [*lines, "", f"{within} of {len(errors)} figures of gain and read noise from noisy images are within 10 %."]


def sigmas(look: Look) -> list[str]:
    """Returns the table of Gaussian noise."""
    lines = ["| images | sigma | words | error | error, pairs | estimate_sigma |", "|---|---|---|---|---|---|"]
    for scenes in SCENES:
        for sigma in SIGMAS:
            alone, pairs = both(look, scenes, f"gaussian:{sigma}")
            errors = [off(each, sigma) for each in (alone["level"], pairs["level"], alone["skimage"])]
            lines.append(f"| {scenes} | {sigma} | `{alone['found']['noise']}` | {' | '.join(errors)} |")
    return lines


def coloured(look: Look) -> list[str]:
    """Returns the table of correlated noise."""
    lines = [
        "| images | sigma, radius | words | words, pairs | radius off by | estimate_sigma |",
        "|---|---|---|---|---|---|",
    ]
    for scenes in SCENES:
        for sigma, radius in COLOURED:
            alone, pairs = both(look, scenes, f"correlated:{sigma},{radius}")
            words = [f"`{each['found']['noise']}`" for each in (alone, pairs)]
            away = f"{alone['found']['radius'] - radius:+.2f}" if alone["found"]["correlated"] else "not found"
            lines.append(
                f"| {scenes} | {sigma}, {radius:g} | {' | '.join(words)} | {away} | {off(alone['skimage'], sigma)} |"
            )
    return lines


def others(look: Look) -> list[str]:
    """Returns the table of other noise and of sums."""
    lines = ["| images | noise | words | words, pairs |", "|---|---|---|---|"]
    for scenes in SCENES:
        for noise in OTHERS:
            alone, pairs = both(look, scenes, noise)
            lines.append(f"| {scenes} | `{noise}` | `{alone['found']['noise']}` | `{pairs['found']['noise']}` |")
    return lines


# --- training ---
def train(what: Record) -> Record:
    """Trains one network on patches of photographs, and judges it on the test split under the true noise."""
    data = load("photos")
    task = data.task(parse_noise(what["noise"]).name)
    candidate = reference_network("unet", task, epochs=EPOCHS)
    space, batches = SPACES["unet"], DeviceData.of(data, task, CPU)
    run = Evaluation(
        lambda: space.build(candidate.spec, task),
        task,
        candidate.recipe,
        batches,
        space.cost(candidate.spec, task),
        seed=what["seed"],
    )
    while not run.done:
        run.advance()
    found = judge(run.training.network, evaluation_batches(data, "test", parse_noise(what["judged"]), CPU))
    return {**what, "psnr": found.values["psnr"]}


def trained(look: Look) -> list[str]:
    """Returns the table of networks under the true noise and under the printed words, with 95 % intervals over seeds
    of the difference."""
    lines = ["| true noise | words | true (dB) | words (dB) | difference |", "|---|---|---|---|---|"]
    for noise in TRAINED:
        true = noise + DEPTH
        words: str = measure(asked("photographs", noise, False))["found"]["noise"]
        first, second = (
            [
                record["psnr"]
                for record in look([{"noise": each, "judged": true, "seed": seed, "epochs": EPOCHS} for seed in SEEDS])
            ]
            for each in (true, words)
        )
        found = mean_interval([after - before for before, after in zip(first, second, strict=True)])
        lines.append(
            f"| `{true}` | `{words}` | {fmean(first):.2f} | {fmean(second):.2f} | {found.mean:+.2f} "
            f"({found.low:+.2f} to {found.high:+.2f}) |"
        )
    return lines


if __name__ == "__main__":
    main()
