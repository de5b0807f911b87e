"""Is training fast, and is it as good? ``python -m benchmarks.training`` and ``... --quality``.

Images per second of the project's loop (`nas.training.loop`) against the loop that people write: a DataLoader over the
same images as floats in memory, noise added to each batch, fp32, the default memory layout, torch's default AdamW,
the loss read after each step. Same network, batch, schedule and threads, in one process, in turns; a ratio is the
median over rounds of the two times in one round. The 200 probes of a run, which people do without, are timed by
themselves and counted as a study of 27 epochs has them on data of that size, see `RUNS`; the last column counts them
as in a run as short as one on digits. Neither loop validates here. The precision is the one that timing chooses for the
network, as ``train`` does and as a study does for its space.

With ``--quality``: the same candidates under the same seeds trained in fp32 and in bf16, and the paired differences.

What is finished is kept in a file, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import runs
from benchmarks.runs import Record
from benchmarks.stats import Cell, mean_interval, non_inferiority
from nas.data.splits import Dataset, Split, load, to_float
from nas.training.batches import DeviceData
from nas.training.evaluation import Evaluation
from nas.training.loop import WARM_UP, Training
from nas.training.precision import faster_precision
from nas.training.stability import PROBES
from nas.types import Candidate, Recipe, Task, canonical_json, digest_of
from search_spaces import get_space
from search_spaces.unet.references import RECIPE, reference_network

SIZES: Mapping[int, int] = {8: 1, 28: 1, 32: 3, 64: 3}
"""Side in pixels -> channels: as digits, Fashion-MNIST, CIFAR and Tiny ImageNet have them."""

NETWORKS: tuple[tuple[str, int], ...] = (
    ("unet", 4),
    ("addunet", 16),
    ("residual-unet", 8),
    ("multi-resnet", 16),
    ("nddr", 16),
    ("unet", 56),
)
"""References and their widths, at 3 levels: 10k, 28k, 41k, 136k, 348k and 1.9M parameters."""

NOISE = "gaussian:50"
STUDY_EPOCHS = 27
TRAINING_IMAGES: Mapping[int, int] = {8: 1079, 28: 58_000, 32: 48_000, 64: 100_000}
"""Side in pixels -> images of the training split of digits, Fashion-MNIST, CIFAR-10 and Tiny ImageNet."""

LEAST_STEPS = 5
"""Of a timed round."""
PROBED = 5
"""One probe is timed for so many steps."""
ROUND_SECONDS = 0.25
MOST_STEPS = 20
MOST_ROUNDS, LEAST_ROUNDS = 5, 3
SLOW_SECONDS = 1.0
"""A network whose round takes longer is timed in `LEAST_ROUNDS`."""

QUALITY_NETWORKS: tuple[tuple[str, int], ...] = (("unet", 8), ("residual-unet", 8))
QUALITY_SEEDS = 6
MARGINS: Mapping[str, float] = {"psnr": 0.2, "accuracy": 1.5, "stability": 0.05}
"""A loss up to this is taken for none: dB, percentage points, and of the score's 0..1."""

FOLDER = Path("runs/training")


@dataclass(frozen=True, slots=True)
class Subject:
    """What both loops train."""

    task: Task
    data: Dataset
    candidate: Candidate

    @property
    def recipe(self) -> Recipe:
        return self.candidate.recipe


def enlarged(data: Dataset, side: int, channels: int, images: int) -> Dataset:
    """`data` at another size, the same in every channel: uint8, `images` of training and 64 to judge.

    Training images are repeated where there are too few.
    """

    def resized(split: Split, count: int) -> Split:
        rows = np.arange(count) % len(split.images)
        small = to_float(torch.tensor(split.images[rows]))
        large = F.interpolate(small, size=(side, side), mode="bilinear").expand(-1, channels, -1, -1)
        pixels = (255 * large).round().to(torch.uint8).contiguous().numpy()
        return Split(pixels, None if split.labels is None else split.labels[rows])

    return replace(
        data, train=resized(data.train, images), validation=resized(data.validation, 64), test=resized(data.test, 64)
    )


def candidate(name: str, width: int, epochs: int) -> Candidate:
    """A reference at `width` and 3 levels, the same at every size, with the references' AdamW recipe."""
    smallest = Task(channels=1, classes=10, height=8, width=8, noise=NOISE)
    spec = replace(reference_network(name, smallest).spec, levels=3, width=width)  # type: ignore[type-var]
    return Candidate(spec=spec, recipe=Recipe(epochs=epochs, **RECIPE))


def study_steps(side: int) -> int:
    """Of a run of 27 epochs on the data of this size."""
    return STUDY_EPOCHS * math.ceil(TRAINING_IMAGES[side] / int(RECIPE["batch_size"]))


def subject(side: int, name: str, width: int, steps: int) -> Subject:
    """Data of `steps` batches, and a recipe with as many steps in all as a study has."""
    made = candidate(name, width, max(1, study_steps(side) // steps))
    channels = SIZES[side]
    data = enlarged(load("digits"), side, channels, steps * made.recipe.batch_size)
    task = Task(channels=channels, classes=len(data.classes), height=side, width=side, noise=NOISE)
    return Subject(task, data, made)


def people(network: nn.Module, on: Subject, device: torch.device) -> Callable[[], None]:
    """One epoch of the loop that people write: the same loss and schedule, nothing else of the project's."""
    labels = torch.as_tensor(on.data.train.labels)
    loader = DataLoader(
        TensorDataset(to_float(torch.tensor(on.data.train.images)), labels),
        batch_size=on.recipe.batch_size,
        shuffle=True,
        pin_memory=device.type == "cuda",
    )
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=on.recipe.learning_rate, weight_decay=on.recipe.weight_decay)
    total = on.recipe.epochs * len(loader)
    warm_up = max(1.0, WARM_UP * total)

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1.0, total - warm_up))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    sigma = float(NOISE.partition(":")[2]) / 255

    def epoch() -> None:
        network.train()
        running = 0.0
        for images, labels in loader:
            clean, answers = images.to(device), labels.to(device)
            denoised, logits = network(clean + sigma * torch.randn_like(clean))
            denoise = F.mse_loss(denoised, clean) / sigma**2
            loss = denoise + on.recipe.classification_weight * F.cross_entropy(logits, answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            running += loss.item()
        assert math.isfinite(running)

    return epoch


def ours(network: nn.Module, on: Subject, data: DeviceData, precision: str) -> tuple[Callable[[], object], ...]:
    """One epoch of the project's loop without its probes, and one probe for each `PROBED` of its steps."""
    training = Training(network, on.task, on.recipe, data, seed=0, precision=precision)
    training._probe_at = set()

    def probe() -> None:
        for _ in range(training.steps_per_epoch // PROBED):
            training._probe()

    return training.run_epoch, probe


def in_turns(loops: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each loop in each round; the loops take turns within a round.

    One thread on the CPU is timed by what it had of the CPU, whatever else the machine does; otherwise the wall
    clock decides.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def timed(loop: Callable[[], object]) -> float:
        _wait(device)
        started = clock()
        loop()
        _wait(device)
        return clock() - started

    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            found[name].append(timed(loop))
    return found


def faster(seconds: Mapping[str, Sequence[float]], precision: str, steps: float = math.inf) -> float:
    """How many times as fast as people's loop the project's is: the median over rounds of the ratio within a round.

    Args:
        steps: of a run with 200 probes; without any by default.
    """
    probes = PROBES / steps * PROBED
    rounds = zip(seconds["people"], seconds[precision], seconds[f"{precision}, probes"], strict=True)
    return statistics.median(plain / (bare + probes * probe) for plain, bare, probe in rounds)


def speed(side: int, name: str, width: int, device: torch.device) -> Record:
    """Times one network at one size; see the module."""
    space = get_space("unet")
    torch.manual_seed(0)
    first = subject(side, name, width, LEAST_STEPS)
    network = space.build(first.candidate.spec, first.task)
    # One epoch tells how long a round is to be; what torch does once is done by then.
    per_step = in_turns({"people": people(copy.deepcopy(network), first, device)}, 1, device)["people"][0] / LEAST_STEPS
    steps = min(MOST_STEPS, max(LEAST_STEPS, round(ROUND_SECONDS / per_step)))
    on = subject(side, name, width, steps)
    data = DeviceData.of(on.data, on.task, device)
    chosen = faster_precision(network, on.task, on.recipe, data)
    loops: dict[str, Callable[[], object]] = {"people": people(copy.deepcopy(network), on, device)}
    for precision in ("fp32", "bf16"):
        loops[precision], loops[f"{precision}, probes"] = ours(copy.deepcopy(network), on, data, precision)
    slow = per_step * steps > SLOW_SECONDS
    if not slow:
        in_turns(loops, 1, device)  # warms up
    return {
        "side": side,
        "network": name,
        "params": space.cost(on.candidate.spec, on.task).params,
        "images": steps * on.recipe.batch_size,
        "chosen": chosen,
        "seconds": in_turns(loops, LEAST_ROUNDS if slow else MOST_ROUNDS, device),
    }


def speed_table(records: Sequence[Record]) -> str:
    """Each network at each size, and the ratios over all of them."""
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
    """Validation values after a whole training on digits."""
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
    """bf16 minus fp32, by network and seed; pairs of which one is missing are left out."""
    found = {(r["network"], r["seed"], r["precision"]): r["values"][value] for r in records}
    pairs = sorted({key[:2] for key in found if network in (None, key[0])})
    return [
        found[(*pair, "bf16")] - found[(*pair, "fp32")]
        for pair in pairs
        if (*pair, "bf16") in found and (*pair, "fp32") in found
    ]


def judged(records: Sequence[Record], value: str) -> Cell:
    """Whether bf16 loses more than the margin, over all networks and seeds."""
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
    """Means of both precisions, and the paired difference with its interval."""
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


def missing(asked: Sequence[Record], file: Path, measure: Callable[[Record], Record]) -> list[Record]:
    """The records of what is asked for, in its order; what the file lacks is measured and added to it."""
    done = dict(runs.read(file))
    for what in asked:
        key = digest_of(canonical_json(what))
        if key not in done:
            done[key] = {"key": key, **measure(what)}
            runs.append(file, done[key])
            print(f"{len(done)}: {canonical_json(what)}", file=sys.stderr)
    return [done[digest_of(canonical_json(what))] for what in asked]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
    parser.add_argument("--epochs", type=int, default=27, help="of --quality (default: 27)")
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
        records = missing(
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
    records = missing(
        asked, options.results / "speed.jsonl", lambda w: speed(w["side"], w["network"], w["width"], device)
    )
    print(speed_table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
