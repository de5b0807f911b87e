"""How much faster is a step of training than in another checkout? ``python -m benchmarks.steps ../before``

Reference networks and random candidates of the space are trained by both checkouts, in turns, in one thread each: at
8x8 pixels in fp32 and at 28x28 in bf16. A candidate's time is the CPU time of a step in the quickest of a few epochs,
and its ratio is the median over rounds of the ratio within a round. Losses after the first epochs are compared too, to
see that both checkouts train the same.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.lib.loops import NOISE, STUDY_EPOCHS, enlarged
from nas import machine
from nas.data.splits import load
from nas.training.batches import DeviceData
from nas.training.loop import Training
from nas.types import Candidate, Task
from search_spaces import get_space
from search_spaces.draws import sampled
from search_spaces.unet.references import reference_network
from search_spaces.unet.spec import UNetSpec

REFERENCES = ("unet", "unet++", "residual-unet", "addunet", "cross-stitch", "sluice", "nddr")
WIDTH = 16
PRECISIONS: Mapping[int, str] = {8: "fp32", 28: "bf16"}
STEPS: Mapping[int, int] = {8: 8, 28: 2}
"""Side in pixels -> the steps of an epoch."""

EPOCHS = 5
LEARNING_RATE = 1e-4
"""It is so low that both checkouts stay together."""

Times = dict[str, tuple[float, float]]
"""Candidate -> seconds of a step, and the denoising loss of the second epoch."""


def candidates(task: Task, random: int) -> dict[str, Candidate]:
    """Returns the reference networks, and so many random candidates of the space ``unet``."""
    space = get_space("unet")
    found = {}
    for name in REFERENCES:
        made = reference_network(name, task)
        assert isinstance(made.spec, UNetSpec)
        found[name] = replace(made, spec=replace(made.spec, width=WIDTH))
    drawn = sampled(space, task, space.limits(task), random, seed=0, epochs=STUDY_EPOCHS)
    return found | {f"random {place}": each for place, each in enumerate(drawn)}


def timed(side: int, random: int) -> Times:
    """Times each candidate in this process, with the code that it has imported."""
    task = Task(channels=1, classes=10, height=side, width=side, noise=NOISE)
    raw, found = load("digits"), Times()
    for name, each in candidates(task, random).items():
        recipe = replace(each.recipe, learning_rate=LEARNING_RATE, epochs=STUDY_EPOCHS)
        images = enlarged(raw, side, task.channels, STEPS[side] * recipe.batch_size)
        torch.manual_seed(0)
        network = get_space("unet").build(each.spec, task)
        data = DeviceData.of(images, task, torch.device("cpu"))
        training = Training(network, task, recipe, data, seed=0, precision=PRECISIONS[side])
        training._probe_at, training._initial_loss = set(), math.inf  # no probes, and never an end by divergence
        seconds, losses = [], []
        for _ in range(EPOCHS):
            started = time.process_time()
            losses.append(training.run_epoch()[0])
            seconds.append((time.process_time() - started) / training.steps_per_epoch)
        found[name] = min(seconds), losses[1]
    return found


def by(checkout: Path, side: int, random: int) -> Times:
    """Does the same as `timed` with the code of a checkout."""
    command = [sys.executable, "-P", __file__, "--here", str(side), "--random", str(random)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True)
    return {name: (seconds, loss) for name, (seconds, loss) in json.loads(done.stdout).items()}


def table(side: int, rounds: Sequence[tuple[Times, Times]]) -> str:
    """Writes the times before and after in ms, and the ratios; random candidates as one row."""
    lines = [
        f"| {side}x{side}, {PRECISIONS[side]} | before, ms | after, ms | ratio | losses differ by |",
        "|---|---|---|---|---|",
    ]
    ratios: dict[str, float] = {}
    apart: dict[str, float] = {}
    for name in rounds[0][0]:
        ratios[name] = statistics.median(before[name][0] / after[name][0] for before, after in rounds)
        apart[name] = max(abs(after[name][1] / before[name][1] - 1) for before, after in rounds)
        if not name.startswith("random"):
            old, new = (1000 * min(times[name][0] for times in each) for each in zip(*rounds, strict=True))
            lines.append(f"| {name} | {old:.2f} | {new:.2f} | {ratios[name]:.2f} | {apart[name]:.0e} |")
    drawn = sorted(ratio for name, ratio in ratios.items() if name.startswith("random"))
    if drawn:
        most = max(value for name, value in apart.items() if name.startswith("random"))
        lines.append(
            f"| {len(drawn)} random candidates | | | {statistics.median(drawn):.2f} ({drawn[0]:.2f} to "
            f"{drawn[-1]:.2f}) | {most:.0e} at most |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each size. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("before", type=Path, nargs="?", help="folder of the other checkout")
    parser.add_argument("--here", type=int, choices=tuple(STEPS), help="time this code alone, for images of this side")
    parser.add_argument("--sides", type=int, nargs="+", choices=tuple(STEPS), default=list(STEPS))
    parser.add_argument("--random", type=int, default=24, help="random candidates (default: 24)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each checkout (default: 3)")
    options = parser.parse_args(arguments)
    if options.here is not None:
        torch.set_num_threads(1)
        if hasattr(machine, "keep_memory"):  # as a worker does; older checkouts lack it
            machine.keep_memory()
        print(json.dumps(timed(options.here, options.random)))
        return 0
    if options.before is None:
        parser.error("give the folder of the other checkout")
    checkouts = options.before.resolve(), Path(__file__).parents[1]
    for side in options.sides:
        rounds = []
        for _ in range(options.rounds):
            before, after = (by(checkout, side, options.random) for checkout in checkouts)
            rounds.append((before, after))
        print(table(side, rounds), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
