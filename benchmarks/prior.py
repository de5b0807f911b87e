"""Fits the prior of the space ``unet`` to the atlases: ``python -m benchmarks.prior``.

The prior is what a search knows before it has trials (`nas.search.prior`): earlier trials of other tasks with their
scores, and for each metric how much every hyperparameter matters, how noisy a training is, and how much one task tells
of another. These numbers maximise the marginal likelihood of all trials of the atlases (`benchmarks.atlas`), with an
exponential prior on the relevances that takes them to zero where the trials say nothing.

``--without TASK`` leaves a task out, for an honest judgement of the prior on it; the table that is printed tells how
well the candidates of each task are ranked by the trials of the other tasks alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import atlases as known
from benchmarks.lib.agreement import spearman
from benchmarks.lib.atlases import SPACE, VALUES
from benchmarks.lib.records import Record
from benchmarks.lib.tabular import Table
from nas.search.bayes import DIVERGED, EFFORT, score
from nas.search.codes import Codes
from nas.search.gaussian_process import GaussianProcess, Observations
from nas.search.pareto import Array
from nas.search.prior import Belief, Prior
from nas.training.version import TRAINING_VERSION
from nas.types import Cost, Task

MOST_TRIALS = 300
"""The number of earlier trials in a prior. Half are the best of their tasks, the others are drawn at random."""
UNIT_QUANTILE = 0.75
"""The unit of a score is the distance from the best value of a task to this quantile of its values."""
STEPS, RATE = 150, 0.1
PENALTY = 4.0
"""The rate of the exponential prior on relevances."""
BEST_SHARE = 0.25
"""The share of the trained table's architectures, the best in a metric, whose seeds tell its noise."""
NEAR = 0.3
"""The unit of scores near the best, where a search compares candidates, as a multiple of the usual one."""
LARGEST = Task(channels=1, classes=10, height=64, width=64, noise="gaussian:50")
"""A task for which the space has all its choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """The candidates of some atlases with their scores.

    Attributes:
        records: records of the candidates.
        task: (n,) number of the task of each.
        scores: metric -> (n,) scores.
        units: metric -> unit of each task, in the metric's unit.
    """

    records: Sequence[Record]
    task: NDArray[np.int64]
    scores: Mapping[str, Array]
    units: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, atlases: Sequence[Sequence[Record]]) -> Rated:
        """Scores the candidates of each task against the best of the task."""
        scores: dict[str, list[Array]] = {name: [] for name in VALUES}
        units: dict[str, list[float]] = {name: [] for name in VALUES}
        for records in atlases:
            for name in VALUES:
                values = np.array([np.nan if "diverged" in r else r[name] for r in records], dtype=np.float64)
                there = ~np.isnan(values)
                best = float(values[there].max())
                unit = best - float(np.quantile(values[there], UNIT_QUANTILE))
                found = score(np.where(there, best - values, 0.0), unit)
                scores[name].append(np.where(there, found, found[there].min() - DIVERGED))
                units[name].append(unit)
        records = [record for records in atlases for record in records]
        seconds = np.log([record["image_seconds"] for record in records])
        slowness = seconds - np.log(plain_effort(records, step_macs(records)))
        return cls(
            records=records,
            task=np.repeat(np.arange(len(atlases)), [len(records) for records in atlases]),
            scores={name: np.concatenate(found) for name, found in scores.items()}
            | {EFFORT: slowness - slowness.mean()},  # the speed of this machine is left out
            units={**units, EFFORT: [1.0]},
        )

    def codes(self, codes: Codes) -> Array:
        """Returns the codes of the candidates, (n, bits)."""
        return codes.codes((r["hyperparameters"], Cost(params=r["params"], macs=r["macs"])) for r in self.records)


def fitted(rated: Rated, name: str, codes: Codes) -> Belief:
    """Returns the belief about a metric that maximises the penalised marginal likelihood of all candidates."""
    import torch

    bits = torch.tensor(rated.codes(codes))
    values, task = torch.tensor(rated.scores[name].copy()), torch.tensor(rated.task)
    for each in task.unique():
        values[task == each] -= values[task == each].mean()
    same = (task[:, None] == task[None, :]).double()
    parts = [torch.tensor(codes.weights({part: 1.0}, 0.0)) for part in codes.names]
    units = torch.stack(parts)
    logs = torch.full((len(parts),), math.log(0.15), dtype=torch.float64, requires_grad=True)
    rest = torch.tensor([math.log(0.1), 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logs, rest], lr=RATE)
    unity = torch.eye(len(values), dtype=torch.float64)
    for _ in range(STEPS):
        weighted = bits * (logs.exp() @ units)
        distance = weighted.sum(1)[:, None] + weighted.sum(1) - 2.0 * weighted @ bits.T
        coupling = torch.sigmoid(rest[2])
        covariance = rest[1].exp() * torch.exp(-distance.clamp_min(0.0)) * (same + (1.0 - same) * coupling)
        factor = torch.linalg.cholesky(covariance + (rest[0].exp() + 1e-4) * unity)
        solved = torch.cholesky_solve(values[:, None], factor)[:, 0]
        loss = 0.5 * values @ solved + factor.diagonal().log().sum() + PENALTY * logs.exp().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noise, variance = rest.detach()[:2].exp().tolist()
    unit = math.exp(float(np.mean(np.log(rated.units[name]))))
    return Belief(
        unit=unit,
        noise=round(max(noise, (seed_deviation(name) / (NEAR * unit)) ** 2), 5),
        variance=round(variance, 4),
        coupling=round(float(torch.sigmoid(rest.detach()[2])), 3),
        relevance={
            part: round(found, 4) for part, found in zip(codes.names, logs.detach().exp().tolist(), strict=True)
        },
    )


def seed_deviation(name: str) -> float:
    """Returns the standard deviation of a metric over seeds among the best architectures of the trained table.

    Each candidate of an atlas is trained once, so that an atlas cannot tell noise from what is special to a candidate.
    """
    if name not in VALUES:
        return 0.0
    values = Table.read().all_values[:, :, -1, VALUES.index(name)]
    mean = values.mean(axis=1)
    best = values[mean >= np.nanquantile(mean, 1 - BEST_SHARE)]
    return float(np.sqrt(np.mean((best[:, 0] - best[:, 1]) ** 2) / 2))


def chosen(rated: Rated) -> list[int]:
    """Returns the rows of the trials that a prior keeps, `MOST_TRIALS` at most, evenly over the tasks."""
    total = np.sum([rated.scores[name] for name in VALUES], axis=0)
    tasks = np.unique(rated.task)
    generator = np.random.default_rng(0)
    kept: list[int] = []
    for task in tasks:
        rows = np.flatnonzero(rated.task == task)
        count = min(len(rows), MOST_TRIALS // len(tasks))
        order = rows[np.argsort(-total[rows], kind="stable")]
        kept += order[: count // 2].tolist()
        kept += generator.choice(order[count // 2 :], count - count // 2, replace=False).tolist()
    return sorted(kept)


def prior_of(atlases: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """Returns the prior of some atlases as its JSON file has it."""
    codes = Codes(SPACE.distributions(LARGEST))
    rated = Rated.of(atlases)
    names = sorted(SPACE.distributions(LARGEST))
    choices = {
        name: sorted({r["hyperparameters"][name] for r in rated.records if name in r["hyperparameters"]}, key=str)
        for name in names
    }
    trials = []
    for row in chosen(rated):
        record = rated.records[row]
        indices = [choices[name].index(record["hyperparameters"][name]) for name in names]
        scores = [round(float(rated.scores[metric][row]), 4) for metric in (*VALUES, EFFORT)]
        trials.append([int(rated.task[row]), indices, record["params"], record["macs"], scores])
    return {
        "names": names,
        "choices": choices,
        "metrics": [*VALUES, EFFORT],
        "trials": trials,
        "beliefs": {name: asdict(fitted(rated, name, codes)) for name in (*VALUES, EFFORT)},
        "step_macs": step_macs(rated.records),
        "training_version": TRAINING_VERSION,
    }


def step_macs(records: Sequence[Record]) -> float:
    """Returns the MACs of one image that take as long as the fixed part of a training step.

    The seconds of an image are fitted as ``macs * a + b / batch size`` by least squares of their logarithms; the result
    is b / a.
    """
    from scipy.optimize import minimize

    seconds = np.log([record["image_seconds"] for record in records])

    def error(point: Array) -> float:
        return float(np.var(seconds - np.log(plain_effort(records, math.exp(point[0])))))

    found = min((minimize(error, [start], method="Nelder-Mead") for start in (12.0, 15.0, 18.0)), key=lambda f: f.fun)
    return round(math.exp(float(found.x[0])))


def plain_effort(records: Sequence[Record], step: float) -> Array:
    """Returns what `nas.search.bayes.effort` gives for candidates, (n,)."""
    macs = np.array([record["macs"] for record in records], dtype=np.float64)
    batch = np.array([record["hyperparameters"]["batch_size"] for record in records], dtype=np.float64)
    return np.asarray(macs + step / batch)


def ranked_by_others(atlases: Mapping[str, Sequence[Record]]) -> list[str]:
    """Returns a row of a table for each task: rank correlation of its scores with what the other tasks predict."""
    codes = Codes(SPACE.distributions(LARGEST))
    rows = []
    for left_out, records in atlases.items():
        others = Rated.of([each for name, each in atlases.items() if name != left_out])
        own = Rated.of([records])
        cells = []
        for name in (*VALUES, EFFORT):
            belief = fitted(others, name, codes)
            noise = np.full(len(others.records), belief.noise)
            observed = Observations(
                codes=others.codes(codes), values=others.scores[name], noise=noise, task=others.task
            )
            weights = codes.weights(belief.relevance, 0.0)
            mean, _ = GaussianProcess(observed, weights, belief.coupling, belief.variance)(own.codes(codes))
            cells.append(f"{spearman(mean, own.scores[name]):.2f}")
        rows.append(f"| {left_out} | {len(records)} | {' | '.join(cells)} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits and writes the prior. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prior", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--without", help="leave this task out")
    parser.add_argument("--atlases", type=Path, default=known.FILE, help="file of the atlases, or folder of their runs")
    parser.add_argument("--to", type=Path, default=SPACE.prior, help="the file of the prior")
    parser.add_argument("--judge", action="store_true", help="only print how well other tasks rank each task")
    options = parser.parse_args(arguments)
    atlases = (known.from_runs if options.atlases.is_dir() else known.read)(options.atlases)
    atlases = {name: records for name, records in atlases.items() if name != options.without}
    if options.judge:
        print(f"| task | candidates | {' | '.join((*VALUES, EFFORT))} |\n|---|---|{'---|' * (len(VALUES) + 1)}")
        print("\n".join(ranked_by_others(atlases)))
        return 0
    found = prior_of(list(atlases.values()))
    options.to.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    prior = Prior.read(options.to)
    print(f"{len(prior.trials)} trials of {len(atlases)} tasks, {options.to.stat().st_size / 1024:.0f} KiB")
    for name, belief in prior.beliefs.items():
        most = sorted(belief.relevance.items(), key=lambda each: -each[1])[:8]
        print(
            f"{name}: unit {belief.unit:.3f}, noise {belief.noise:.4f}, variance {belief.variance:.2f}, coupling "
            f"{belief.coupling:.2f}; {', '.join(f'{part} {value:.2f}' for part, value in most)}"
        )
    print(f"a step costs as much as {prior.step_macs / 1e6:.1f} MMAC")
    return 0


if __name__ == "__main__":
    sys.exit(main())
