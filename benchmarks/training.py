"""Is training fast, and is it as good? ``python -m benchmarks.training`` and ``... --quality``.

The first command measures images per second of the project's loop against the usual one (`benchmarks.lib.loops`), for
six networks at four image sizes. Probes are counted as a study of 27 epochs has them on data of that size
(`benchmarks.lib.loops.TRAINING_IMAGES`); the last column counts them as in a run as short as one on digits. The
precision is the one that timing chooses for the network, as ``train`` does and as a study does for its space.

With ``--quality`` the same candidates are trained under the same seeds in fp32 and in bf16, and the paired differences
are shown.

Finished measurements are kept in a file, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.lib.loops import NETWORKS, NOISE, SIZES, STUDY_EPOCHS, candidate, faster, speed, study_steps
from benchmarks.lib.records import Record, measured
from benchmarks.lib.stats import Cell, mean_interval, non_inferiority
from nas.data.splits import load
from nas.training.batches import DeviceData
from nas.training.evaluation import Evaluation
from nas.types import Task
from search_spaces import get_space

QUALITY_NETWORKS: tuple[tuple[str, int], ...] = (("unet", 8), ("residual-unet", 8))
QUALITY_SEEDS = 6
MARGINS: Mapping[str, float] = {"psnr": 0.2, "accuracy": 1.5, "stability": 0.05}
"""A loss up to this counts as none: in dB, percentage points, and units of the score (0..1)."""

FOLDER = Path("runs/training")


def speed_table(records: Sequence[Record]) -> str:
    """Writes each network at each size, and the ratios over all of them."""
    lines = [
        "| images | network | parameters | plain, images/s | fp32 | bf16 | chosen | ratio | in a short run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    own: list[float] = []
    short: list[float] = []
    for record in records:
        seconds, chosen, side = record["seconds"], record["chosen"], record["side"]
        pace = record["images"] / statistics.median(seconds["people"])
        by = {precision: faster(seconds, precision, study_steps(side)) for precision in ("fp32", "bf16")}
        own.append(by[chosen])
        short.append(faster(seconds, chosen, study_steps(min(SIZES))))
        lines.append(
            f"| {side}x{side} | {record['network']} | {record['params']:,} | {pace:,.0f} "
            f"| {by['fp32']:.2f} | {by['bf16']:.2f} | {chosen} | {own[-1]:.2f} | {short[-1]:.2f} |"
        )
    lines.append("")
    for label, ratios in (
        ("In a run of 27 epochs on data of that size", own),
        (f"In a run of {study_steps(min(SIZES))} steps", short),
    ):
        lines.append(
            f"{label}: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}, most {max(ratios):.2f} "
            f"of {len(ratios)}."
        )
    return "\n".join(lines)


def quality(name: str, width: int, seed: int, precision: str, epochs: int, device: torch.device) -> Record:
    """Trains a network on digits to the end; its record has the validation values."""
    data = load("digits")
    made = candidate(name, width, epochs)
    _, channels, height, side = data.train.images.shape
    task = Task(channels=channels, classes=len(data.classes), height=height, width=side, noise=NOISE)
    space = get_space("unet")
    evaluation = Evaluation(
        lambda: space.build(made.spec, task),
        task,
        made.recipe,
        DeviceData.of(data, task, device),
        space.cost(made.spec, task),
        seed=seed,
        precision=precision,
    )
    while not evaluation.done:
        evaluation.advance()
    values = evaluation.measurement().values
    return {"network": name, "seed": seed, "precision": precision, "values": {k: values[k] for k in MARGINS}}


def differences(records: Sequence[Record], value: str, network: str | None = None) -> list[float]:
    """Returns bf16 minus fp32, by network and seed; pairs of which one is missing are left out."""
    found = {(r["network"], r["seed"], r["precision"]): r["values"][value] for r in records}
    pairs = sorted({key[:2] for key in found if network in (None, key[0])})
    return [
        found[(*pair, "bf16")] - found[(*pair, "fp32")]
        for pair in pairs
        if (*pair, "bf16") in found and (*pair, "fp32") in found
    ]


def judged(records: Sequence[Record], value: str) -> Cell:
    """Tests whether bf16 loses less than the margin, over all networks and seeds."""
    units = {"psnr": "dB", "accuracy": "points", "stability": ""}
    return non_inferiority(
        differences(records, value),
        margin=MARGINS[value],
        part="bf16",
        label=value,
        setting="digits",
        unit=units[value],
    )


def quality_table(records: Sequence[Record]) -> str:
    """Writes the means of both precisions, and the paired difference with its interval."""
    lines = [
        "| value | fp32 | bf16 | bf16 - fp32, mean with 95 % interval | pairs | margin | p that it loses less |",
        "|---|---|---|---|---|---|---|",
    ]
    for value, margin in MARGINS.items():
        cell = judged(records, value)
        by = {p: [r["values"][value] for r in records if r["precision"] == p] for p in ("fp32", "bf16")}
        means = [f"{mean_interval(by[p]).mean:.3f}" for p in ("fp32", "bf16")]
        d = cell.difference
        lines.append(
            f"| {value} | {means[0]} | {means[1]} | {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {cell.unit} | {d.n} "
            f"| {margin} | {cell.p_for:.3g} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing, then prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quality", action="store_true", help="compare what is learned in fp32 and bf16, not speed")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both loops (default: 1, as a trial)")
    parser.add_argument(
        "--sides", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="images (default: all)"
    )
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="the first so many (default: all)")
    parser.add_argument("--seeds", type=int, default=QUALITY_SEEDS, help=f"of --quality (default: {QUALITY_SEEDS})")
    parser.add_argument("--epochs", type=int, default=STUDY_EPOCHS, help=f"of --quality (default: {STUDY_EPOCHS})")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of what is finished (default: {FOLDER})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    place = {"device": options.device, "threads": options.threads}
    if options.quality:
        asked = [
            {"network": name, "width": width, "seed": seed, "precision": precision, "epochs": options.epochs, **place}
            for seed in range(options.seeds)
            for name, width in QUALITY_NETWORKS[: options.networks]
            for precision in ("fp32", "bf16")
        ]
        records = measured(
            asked,
            options.results / "quality.jsonl",
            lambda w: quality(w["network"], w["width"], w["seed"], w["precision"], w["epochs"], device),
        )
        print(quality_table(records))
        return 0
    asked = [
        {"side": side, "network": name, "width": width, **place}
        for side in options.sides
        for name, width in NETWORKS[: options.networks]
    ]
    records = measured(
        asked, options.results / "speed.jsonl", lambda w: speed(w["side"], w["network"], w["width"], device)
    )
    print(speed_table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
