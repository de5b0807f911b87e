"""Networks found on real pairs, beside BM3D and non-local means: ``python -m benchmarks.pairs --microscope DIR``.

``DIR`` holds the mixed test set of the Fluorescence Microscopy Denoising dataset (Zhang et al., CVPR 2019): ``raw``
with four shots of each of twelve scenes, and ``gt`` with the mean of fifty. The upper half of a scene is for training,
the lower left quarter for validation and the lower right one for testing. With ``--photographs DIR`` bursts are made of
the photographs in a folder, and without both of those that scikit-image installs: gray, with the noise of a sensor,
clipped and rounded. No photograph is in two splits.

``skipnas search`` runs for a time, its best network is exported, and trained for longer under several seeds. All are
judged on the test images at full size, and so are classical denoisers, which are told the noise: `nlm` and `bm3d` the
true root mean square of each shot, the stabilised one gain and read noise that were measured in training pairs. The
figures of an image are means over its shots, those of a network over its seeds, and intervals are over images. What has
been done already is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.lib.commands import skipnas
from benchmarks.lib.records import Record, measured
from benchmarks.lib.stats import mean_interval
from nas.bundles.assess import ssim
from nas.bundles.inference import Predict, tiled
from nas.bundles.reference_denoisers import Denoiser, reference_denoiser, restore_batch
from nas.data.installed import PHOTOGRAPHS, read_photographs
from nas.data.noise import parse_noise
from nas.data.sensor import Sensor, fit_sensor
from nas.training.metrics import psnr
from studies.bundles import open_bundle

Pixels = NDArray[np.uint8]

TRAIN, VALIDATION, TEST = "train", "val", "test"
NOISE = "poisson-gaussian:2,6+clip+depth:8"
"""The noise of the bursts: a dim scene in a sensor of two levels for an electron, in a file of 8 bits."""

SHOTS = 4
PARTS = (TRAIN, TRAIN, TRAIN, TEST, TRAIN, VALIDATION, TRAIN, TEST)
"""The splits of eight photographs after each other, in the order of their names."""

CLASSICAL: Mapping[str, str] = {
    "noisy": "noisy",
    "nlm": "non-local means",
    "bm3d": "BM3D",
    "bm3d-stabilised": "BM3D, variance stabilised",
}
"""The rows that nothing was trained for."""

RIVALS = ("BM3D", "BM3D, variance stabilised")
"""The rows that others are compared with."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A clean image (H, W) and its noisy shots."""

    name: str
    clean: Pixels
    shots: tuple[Pixels, ...]


# --- the pairs ---
def write_scene(folder: Path, part: str, scene: Scene) -> None:
    """Writes a scene as `nas.data.pairs` reads it."""
    for side in ("clean", "noisy"):
        (folder / part / side).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.clean).save(folder / part / "clean" / f"{scene.name}.png")
    for number, shot in enumerate(scene.shots):
        Image.fromarray(shot).save(folder / part / "noisy" / f"{scene.name}_{number}.png")


def read_scenes(folder: Path, part: str) -> list[Scene]:
    """Reads what `write_scene` has written."""
    scenes = []
    for path in sorted((folder / part / "clean").glob("*.png")):
        shots = sorted((folder / part / "noisy").glob(f"{path.stem}_[0-9].png"))
        scenes.append(Scene(path.stem, pixels_of(path), tuple(map(pixels_of, shots))))
    return scenes


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def microscope_scenes(source: Path) -> Iterator[tuple[str, Scene]]:
    """Yields areas of each scene with their split, which share no pixel."""
    for first in sorted((source / "gt").glob("*_1.png")):
        name = first.stem.removesuffix("_1")
        clean = pixels_of(first)
        shots = [pixels_of(path) for path in sorted((source / "raw").glob(f"{name}_[0-9].png"))]
        down, right = (side // 2 for side in clean.shape)
        lower, left = slice(down, None), slice(0, right)
        areas = ((TRAIN, slice(0, down), slice(None)), (VALIDATION, lower, left), (TEST, lower, slice(right, None)))
        for part, rows, columns in areas:
            yield part, Scene(name, clean[rows, columns], tuple(shot[rows, columns] for shot in shots))


def burst_scenes(photographs: Iterable[tuple[str, Pixels]]) -> Iterator[tuple[str, Scene]]:
    """Yields photographs with their split and shots that a sensor could have made."""
    noise = parse_noise(NOISE)
    for number, (name, clean) in enumerate(photographs):
        generator = torch.Generator().manual_seed(number)
        light = torch.tensor(clean)[None, None] / 255
        shots = [noise.add(light, generator)[0, 0].mul(255).round().byte().numpy() for _ in range(SHOTS)]
        yield PARTS[number % len(PARTS)], Scene(name, clean, tuple(shots))


def photographs_of(folder: Path | None) -> list[tuple[str, Pixels]]:
    """Returns the photographs of a folder, or those that scikit-image installs, gray and sorted by name."""
    if folder is None:
        return [(Path(name).stem, pixels) for name, pixels in zip(PHOTOGRAPHS, read_photographs(), strict=True)]
    return [(path.stem, pixels_of(path)) for path in sorted(folder.glob("*.png"))]


def write_images(folder: Path, options: argparse.Namespace) -> None:
    """Writes the pairs, or the bursts, that were asked for. The test split comes last, and says that all is there."""
    scenes = (
        microscope_scenes(options.microscope)
        if options.microscope
        else burst_scenes(photographs_of(options.photographs))
    )
    for part, scene in sorted(scenes, key=lambda each: each[0] == TEST):
        write_scene(folder, part, scene)


# --- what is compared ---
def sensor_of(scenes: Sequence[Scene]) -> Sensor:
    """Fits gain and read noise to pairs: their squared errors at each brightness of the clean image."""
    clean = np.concatenate([scene.clean.ravel() for scene in scenes for _ in scene.shots])
    noisy = np.concatenate([shot.ravel() for scene in scenes for shot in scene.shots])
    errors = np.square(noisy.astype(np.float64) - clean)
    counts = np.bincount(clean, minlength=256)
    seen = counts > 0
    variance = np.bincount(clean, errors, minlength=256)[seen] / counts[seen]
    return fit_sensor(np.flatnonzero(seen).astype(np.float64), variance, counts[seen].astype(np.float64), 1 / 12)


def stabilised(denoiser: Denoiser, sensor: Sensor) -> Denoiser:
    """Returns a denoiser for the noise of a sensor, of one for white noise of one strength.

    The generalised Anscombe transform gives all brightnesses about the same noise, and the closed form of Mäkitalo and
    Foi (Optimal inversion of the generalized Anscombe transformation for Poisson-Gaussian noise, 2013) takes it back
    without bias. The strength that is given to it is not used.
    """
    gain, read = max(sensor.gain, 1e-3) / 255, sensor.read / 255
    floor = 3 / 8 + (read / gain) ** 2

    def forward(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(2 * np.sqrt(np.maximum(values / gain + floor, 0)), np.float32)

    low, high = map(float, forward(np.array([0, 1], np.float32)))

    def run(image: NDArray[np.float32], _sigma: float) -> NDArray[np.float32]:
        scaled = denoiser((forward(image) - low) / (high - low), 1 / (high - low))
        values = np.maximum(scaled * (high - low) + low, 2 * np.sqrt(3 / 8)).astype(np.float64)
        root = np.sqrt(3 / 2)
        electrons = values**2 / 4 + root / 4 / values - 11 / 8 / values**2 + 5 / 8 * root / values**3 - 1 / 8
        return np.asarray((electrons - (read / gain) ** 2) * gain, np.float32)

    return run


def restored(method: str, scene: Scene, training: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the shots of a scene as a method restores them, and the clean image for each: (N, 1, H, W) in [0, 1].

    Args:
        method: a name of `CLASSICAL`, or the folder of a bundle.
        scene: an image of the test split.
        training: the scenes of the training split. The noise of an instrument is measured in those of the image's own
            name, and where there are none in all of them.
    """
    noisy = torch.tensor(np.stack(scene.shots))[:, None] / 255
    clean = (torch.tensor(scene.clean)[None, None] / 255).expand_as(noisy)
    if method == "noisy":
        return noisy, clean
    if method in CLASSICAL:
        name, _, way = method.partition("-")
        denoiser = reference_denoiser(name)
        if way:
            own = [each for each in training if each.name == scene.name]
            denoiser = stabilised(denoiser, sensor_of(own or training))
        return restore_batch(denoiser, noisy, clean), clean
    with torch.inference_mode():
        return network_of(method)(noisy)[0], clean


@lru_cache(maxsize=1)
def network_of(bundle: str) -> Predict:
    return tiled(open_bundle(bundle).network, 1)


def judged(method: str, scene: Scene, training: Sequence[Scene]) -> dict[str, float]:
    """Returns mean PSNR in dB and mean SSIM over the shots of a scene."""
    images, clean = restored(method, scene, training)
    return {"psnr": float(psnr(images, clean).mean()), "ssim": fmean(ssim(images, clean))}


# --- the table ---
def table(rows: Mapping[str, Sequence[Sequence[Record]]]) -> list[str]:
    """Returns the lines of the table, in Markdown.

    Args:
        rows: by the name of a row, the records of its images for each of its seeds, images in one order everywhere.
    """
    heads = [f"{what} | {' | '.join(f'to {rival}' for rival in RIVALS)}" for what in ("PSNR (dB)", "SSIM")]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (2 * len(RIVALS) + 3) + "|"]
    figures = {name: {what: by_image(seeds, what) for what in ("psnr", "ssim")} for name, seeds in rows.items()}
    for name, found in figures.items():
        cells = []
        for what, digits in (("psnr", 2), ("ssim", 3)):
            mean = mean_interval(found[what])
            cells.append(f"{mean.mean:.{digits}f} ± {mean.high - mean.mean:.{digits}f}")
            cells += ["" if name == rival else gain(found[what], figures[rival][what], digits) for rival in RIVALS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, seeds in rows.items():
        if len(seeds) > 1:
            means = ", ".join(f"{fmean(each['psnr'] for each in images):.2f}" for images in seeds)
            lines += ["", f"{name}: {means} dB by seed."]
    return lines


def gain(ours: Sequence[float], theirs: Sequence[float], digits: int) -> str:
    """Returns the mean difference of the same images with its interval."""
    mean = mean_interval([one - other for one, other in zip(ours, theirs, strict=True)])
    return f"{mean.mean:+.{digits}f} ({mean.low:+.{digits}f} to {mean.high:+.{digits}f})"


def by_image(seeds: Sequence[Sequence[Record]], what: str) -> list[float]:
    """Returns a figure of each image, the mean over seeds."""
    return [fmean(image[what] for image in images) for images in zip(*seeds, strict=True)]


def instrument_table(rows: Mapping[str, Sequence[Sequence[Record]]]) -> list[str]:
    """Returns the lines of a table with the PSNR at each instrument, beside the stronger rival, in Markdown.

    An image's name begins with its instrument.
    """
    of_image = [record["image"].partition("_")[0] for record in next(iter(rows.values()))[0]]
    instruments = sorted(set(of_image))
    heads = [f"{name} ({of_image.count(name)} images)" for name in instruments]
    lines = [f"| PSNR (dB), to {RIVALS[-1]} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rival = by_image(rows[RIVALS[-1]], "psnr")
    for name, seeds in rows.items():
        values, cells = by_image(seeds, "psnr"), []
        for instrument in instruments:
            chosen = [place for place, each in enumerate(of_image) if each == instrument]
            ours, theirs = ([figures[place] for place in chosen] for figures in (values, rival))
            told = "" if name == RIVALS[-1] else f", {gain(ours, theirs, 2)}"
            cells.append(f"{fmean(ours):.2f}{told}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def image_table(rows: Mapping[str, Sequence[Sequence[Record]]]) -> list[str]:
    """Returns the lines of a table with the PSNR of each image, in Markdown."""
    lines = [f"| image | {' | '.join(rows)} |", "|---" * (len(rows) + 1) + "|"]
    columns = [by_image(seeds, "psnr") for seeds in rows.values()]
    names = [record["image"] for record in next(iter(rows.values()))[0]]
    lines += [
        f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"
        for name, *values in zip(names, *columns, strict=True)
    ]
    return lines


# --- the experiment ---
def search_and_train(to: Path, options: argparse.Namespace) -> dict[str, list[Path]]:
    """Makes the bundles that are missing. Returns those of each row."""
    data, storage, study = f"pairs:{to / 'images'}", str(to / "studies.db"), to.name
    found = to / "found"
    if not found.exists():
        words = ["--study", study, "--storage", storage, "--data", data, "--objectives", "psnr"]
        words += ["--epochs", str(options.search_epochs), "--time-limit", options.time_limit]
        skipnas("search", *words)
        skipnas("export", study, "--pick", "psnr", "--storage", storage, "--to", str(found))
    rows = {f"found, {options.search_epochs} epochs": [found]}
    trained = []
    for seed in range(options.seeds):
        folder = to / f"trained-{options.epochs}-seed-{seed}"
        if not (folder / "bundle").exists():
            words = ["--data", data, "--storage", storage, "--epochs", str(options.epochs), "--seed", str(seed)]
            skipnas("train", f"{study}:psnr", *words, "--to", str(folder))
        trained.append(folder / "bundle")
    return rows | ({f"found, {options.epochs} epochs": trained} if trained else {})


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=(__doc__ or "").split(":")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--microscope", type=Path, metavar="DIR", help="the mixed test set of FMD: gt and raw")
    source.add_argument("--photographs", type=Path, metavar="DIR", help="PNG photographs of which bursts are made")
    parser.add_argument("--to", type=Path, help="folder of what is made (runs/pairs-...)")
    parser.add_argument("--time-limit", default="10m", help="time of the search (10m)")
    parser.add_argument("--search-epochs", type=int, default=12, help="epochs of each candidate (12)")
    parser.add_argument("--epochs", type=int, default=120, help="epochs of each longer training (120)")
    parser.add_argument("--seeds", type=int, default=3, help="longer trainings (3)")
    options = parser.parse_args(arguments)
    options.to = options.to or Path("runs", "pairs-microscope" if options.microscope else "pairs-bursts")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what is missing and prints the tables. Returns the exit code."""
    options = parsed(arguments)
    to: Path = options.to
    if not (to / "images" / TEST).exists():
        write_images(to / "images", options)
    try:
        bundles = search_and_train(to, options)
    except subprocess.CalledProcessError as error:  # the command has said why
        return error.returncode
    training, test = (read_scenes(to / "images", part) for part in (TRAIN, TEST))
    scenes = {scene.name: scene for scene in test}

    def measure(what: Record) -> Record:
        return {**what, **judged(what["method"], scenes[what["image"]], training)}

    def rows_of(method: str, weights: str = "") -> list[Record]:
        asked = [{"method": method, "weights": weights, "image": name} for name in scenes]
        return measured(asked, to / "figures.jsonl", measure)

    rows = {label: [rows_of(method)] for method, label in CLASSICAL.items()}
    for label, paths in bundles.items():
        rows[label] = [rows_of(str(path), open_bundle(path).weights_digest) for path in paths]
    tables = [table(rows), *([instrument_table(rows)] if options.microscope else []), image_table(rows)]
    print("\n\n".join("\n".join(lines) for lines in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
