"""The project's training loop beside the usual one, timed in one process and in turns.

The usual loop is what people write: a DataLoader over the same images as floats in memory, noise added to each batch,
fp32, the default memory layout, torch's default AdamW, and the loss read after each step. Both loops have the same
network, batch, schedule and threads. A ratio is the median over rounds of the two times of one round. The 200 probes of
a run, which the usual loop has not, are timed by themselves and counted as often as a run of a given length has them.
Neither loop validates here.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.lib.records import Record
from nas.data.splits import Dataset, Split, load, to_float
from nas.training.batches import DeviceData
from nas.training.loop import WARM_UP, Training
from nas.training.precision import faster_precision
from nas.training.stability import PROBES
from nas.types import Candidate, Recipe, Task
from search_spaces import get_space
from search_spaces.unet.references import RECIPE, reference_network
from search_spaces.unet.spec import UNetSpec

SIZES: Mapping[int, int] = {8: 1, 28: 1, 32: 3, 64: 3}
"""Side in pixels -> channels, as digits, Fashion-MNIST, CIFAR and Tiny ImageNet have them."""

NETWORKS: tuple[tuple[str, int], ...] = (
    ("unet", 4),
    ("addunet", 16),
    ("residual-unet", 8),
    ("multi-resnet", 16),
    ("nddr", 16),
    ("unet", 56),
)
"""Reference networks and their widths, at 3 levels: 10k, 28k, 41k, 136k, 348k and 1.9M parameters."""

NOISE = "gaussian:50"
STUDY_EPOCHS = 27
TRAINING_IMAGES: Mapping[int, int] = {8: 1079, 28: 58_000, 32: 48_000, 64: 100_000}
"""Side in pixels -> images of the training split of digits, Fashion-MNIST, CIFAR-10 and Tiny ImageNet."""

LEAST_STEPS = 5
"""The least number of steps in a timed round."""
PROBED = 5
"""One probe is timed for this number of steps."""
ROUND_SECONDS = 0.25
MOST_STEPS = 20
MOST_ROUNDS, LEAST_ROUNDS = 5, 3
SLOW_SECONDS = 1.0
"""A network whose round takes longer is timed in `LEAST_ROUNDS`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The task, the images and the candidate that both loops train."""

    task: Task
    data: Dataset
    candidate: Candidate

    @property
    def recipe(self) -> Recipe:
        return self.candidate.recipe


def enlarged(data: Dataset, side: int, channels: int, images: int) -> Dataset:
    """Resizes images, makes them the same in every channel, and returns uint8.

    Training images are repeated where there are too few.

    Args:
        data: images and labels.
        side: height and width of the result in pixels.
        channels: channels of the result.
        images: how many of training; validation and test have 64.
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
    """Returns a reference network of `width` at 3 levels, the same at every image size, with the references' AdamW
    recipe."""
    smallest = Task(channels=1, classes=10, height=8, width=8, noise=NOISE)
    found = reference_network(name, smallest).spec
    assert isinstance(found, UNetSpec)
    return Candidate(spec=replace(found, levels=3, width=width), recipe=Recipe(epochs=epochs, **RECIPE))


def study_steps(side: int) -> int:
    """Returns the optimiser steps of 27 epochs on the data of this size."""
    return STUDY_EPOCHS * math.ceil(TRAINING_IMAGES[side] / int(RECIPE["batch_size"]))


def subject(side: int, name: str, width: int, steps: int) -> Subject:
    """Returns data of `steps` batches, and a recipe with as many steps in all as a study has."""
    made = candidate(name, width, max(1, study_steps(side) // steps))
    channels = SIZES[side]
    data = enlarged(load("digits"), side, channels, steps * made.recipe.batch_size)
    task = Task(channels=channels, classes=len(data.classes), height=side, width=side, noise=NOISE)
    return Subject(task, data, made)


def people(network: nn.Module, on: Subject, device: torch.device) -> Callable[[], None]:
    """Returns one epoch of the usual loop, with the same loss and schedule and nothing else of the project's."""
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
    """Returns one epoch of the project's loop without its probes, and one probe for each `PROBED` of its steps."""
    training = Training(network, on.task, on.recipe, data, seed=0, precision=precision)
    training._probe_at = set()

    def probe() -> None:
        for _ in range(training.steps_per_epoch // PROBED):
            training._probe()

    return training.run_epoch, probe


def in_turns(loops: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Times each loop in each round, in seconds; the loops take turns within a round.

    One thread on the CPU is timed by its CPU time, whatever else the machine does. Otherwise the wall clock decides.
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
    """Returns how many times as fast as the usual loop the project's is.

    It is the median over rounds of the ratio within a round.

    Args:
        seconds: seconds of each loop in each round, as `in_turns` returns them.
        precision: fp32 or bf16.
        steps: length of a run with 200 probes; infinitely many by default, so that probes do not count.
    """
    probes = PROBES / steps * PROBED
    rounds = zip(seconds["people"], seconds[precision], seconds[f"{precision}, probes"], strict=True)
    return statistics.median(plain / (bare + probes * probe) for plain, bare, probe in rounds)


def speed(side: int, name: str, width: int, device: torch.device) -> Record:
    """Times one network at one image size, see the module."""
    space = get_space("unet")
    torch.manual_seed(0)
    first = subject(side, name, width, LEAST_STEPS)
    network = space.build(first.candidate.spec, first.task)
    # One epoch tells how long a round has to be, and gets torch's first-time work out of the way.
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
        in_turns(loops, 1, device)  # this round warms up
    return {
        "side": side,
        "network": name,
        "params": space.cost(on.candidate.spec, on.task).params,
        "images": steps * on.recipe.batch_size,
        "chosen": chosen,
        "seconds": in_turns(loops, LEAST_ROUNDS if slow else MOST_ROUNDS, device),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
