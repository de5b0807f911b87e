"""Do confirmed intervals cover the means of further seeds? ``python -m benchmarks.confirm`` takes minutes on one core.

A few small networks are trained on digits under many seeds each, as `skipnas confirm` trains them. Many times over,
five of a network's runs are drawn for an interval and twenty others for a mean. A 95 % interval covers the true mean
95 times in 100. The mean of twenty further runs is itself uncertain, so that an interval covers it a little less often:
93 times in 100 for normal values.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from nas.data.splits import Dataset, load
from nas.search.confirmation import confirmation_seed, interval
from nas.training.batches import DeviceData, evaluation_batches
from nas.training.evaluation import Evaluation, judge
from nas.types import Candidate, Task
from search_spaces import SPACES
from search_spaces.unet.references import reference_network

NETWORKS = ("unet", "attention-unet", "residual-unet")
WIDTH = 4
INTERVAL, FURTHER = 5, 20
DRAWS = 4000
CPU = torch.device("cpu")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")

Values = Mapping[str, NDArray[np.float64]]
"""Name -> one value for each seed, of shape (seeds,)."""


def train(candidate: Candidate, data: Dataset, batches: DeviceData, seed: int) -> dict[str, float]:
    """Makes one run of a confirmation. Returns its values on the validation and the test split."""
    space = SPACES["unet"]
    build = partial(space.build, candidate.spec, TASK)
    run = Evaluation(build, TASK, candidate.recipe, batches, space.cost(candidate.spec, TASK), seed=seed)
    while not run.done:
        run.advance()
    values = run.measurement().values
    found = judge(run.training.network, evaluation_batches(data, "test", batches.noise, CPU))
    kept = {name: values[name] for name in ("psnr", "accuracy", "stability")}
    return {**kept, **{f"test {name}": found.values[name] for name in ("psnr", "accuracy")}}


def expected(n: int = INTERVAL, further: int = FURTHER) -> float:
    """Returns the share of 95 % intervals from `n` normal values that cover the mean of `further` others."""
    edge = float(scipy.stats.t.ppf(0.975, n - 1)) / np.sqrt(1 + n / further)
    return float(1 - 2 * scipy.stats.t.sf(edge, n - 1))


def coverage(values: NDArray[np.float64], generator: np.random.Generator, draws: int = DRAWS) -> tuple[float, float]:
    """Returns the shares of intervals that cover the mean of further runs, and the mean of all, over random draws.

    The mean of all runs stands for the true mean. It includes the drawn runs, which makes it a little easier to cover.
    """
    further = everything = 0
    centre = values.mean()
    for _ in range(draws):
        order = generator.permutation(len(values))[: INTERVAL + FURTHER]
        found = interval(values[order[:INTERVAL]].tolist())
        further += found.low <= values[order[INTERVAL:]].mean() <= found.high
        everything += found.low <= centre <= found.high
    return further / draws, everything / draws


def table(runs: Mapping[str, Values]) -> list[str]:
    """Writes the coverage by network and value, and over all, in Markdown."""
    generator = np.random.default_rng(0)
    lines = [
        "| network | value | seeds | mean | sd | covers 20 further | covers all |",
        "|---|---|---|---|---|---|---|",
    ]
    shares = []
    for network, values in runs.items():
        for name, column in values.items():
            if column.std() == 0:
                continue  # the value is the same under every seed, so any interval covers it
            share = coverage(column, generator)
            shares.append(share)
            lines.append(
                f"| {network} | {name} | {len(column)} | {column.mean():.3f} | {column.std(ddof=1):.3f} "
                f"| {100 * share[0]:.1f} % | {100 * share[1]:.1f} % |"
            )
    further, everything = np.mean(shares, axis=0)
    lines.append(f"| all | | | | | {100 * further:.1f} % | {100 * everything:.1f} % |")
    lines.append(f"| normal values | | | | | {100 * expected():.1f} % | 95.0 % |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="runs of each network, at least 25")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names of reference networks")
    parser.add_argument("--to", type=Path, default=None, help="JSON file for the values of every run")
    options = parser.parse_args(arguments)
    if options.seeds < INTERVAL + FURTHER:
        parser.error(f"--seeds is {options.seeds}; give at least {INTERVAL + FURTHER}")
    torch.set_num_threads(1)
    data = load("digits")
    batches = DeviceData.of(data, TASK, CPU)
    started = time.process_time()
    runs: dict[str, Values] = {}
    for name in options.networks.split(","):
        candidate = reference_network(name, TASK, epochs=options.epochs, max_params=20_000, widths=[WIDTH])
        rows = [train(candidate, data, batches, confirmation_seed(0, repeat)) for repeat in range(options.seeds)]
        runs[name] = {value: np.array([row[value] for row in rows]) for value in rows[0]}
    print(*table(runs), sep="\n")
    total = options.seeds * len(runs)
    print(f"\n{total} runs of {options.epochs} epochs, {time.process_time() - started:.0f} s of one core")
    if options.to is not None:
        plain = {name: {key: column.tolist() for key, column in values.items()} for name, values in runs.items()}
        options.to.write_text(json.dumps(plain) + "\n", "utf-8")


if __name__ == "__main__":
    main()
