"""Does PSNR without clean images rank networks as the true one? ``python -m benchmarks.self_psnr [--candidates 84]``.

Random candidates of the space `unet` that denoise alone are trained for a few epochs on patches of the photographs that
scikit-image installs. Gaussian noise, Poisson noise and that of a camera's file are added once. Candidates see noisy
images only: two shots of each patch (Noise2Noise), or one (hidden pixels). Each is then judged by its self-supervised
PSNR and by the true one, against the clean validation patches that were kept from it.

The table has Spearman's rank correlation of both over all candidates with an interval of 95 % from 2,000 resamplings of
the candidates, that over the better half, among which a search chooses, and the median difference of both in dB. Every
finished candidate is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib import records
from benchmarks.lib.agreement import spearman
from benchmarks.lib.noisy import noisy_data, trained, true_psnr
from benchmarks.lib.records import Record
from benchmarks.lib.runs import records_of
from nas.data.splits import Dataset, load
from nas.training.evaluation import judge
from nas.training.loop import Diverged
from nas.training.version import TRAINING_VERSION
from nas.types import Constraint
from search_spaces import get_space
from search_spaces.draws import sampled

SPACE = get_space("unet")
CAMERA = "poisson-gaussian:4,6+depth:8"
"""The noise of a camera's file: of light and of reading, clipped and rounded."""

NOISES = ("gaussian:25", "poisson:30", CAMERA)
WAYS: Mapping[str, int] = {"two shots": 2, "hidden pixels": 1}
"""The ways of training and judging, with the number of shots of a patch."""

LIMITS = (Constraint(name="params", upper=30_000), Constraint(name="macs", upper=500_000))
RESAMPLINGS = 2000


@lru_cache(maxsize=len(NOISES) * len(WAYS))
def data_of(noise: str, way: str, subset: int) -> tuple[Dataset, Dataset]:
    """Returns the noisy images alone, and the clean ones with the same shots."""
    return noisy_data(load("photos", subset=subset), noise, WAYS[way])


def measure(what: Record) -> Record:
    """Trains one candidate on noisy images and judges it with and without clean ones."""
    alone, known = data_of(what["noise"], what["way"], what["subset"])
    task = alone.task("data")
    candidate = sampled(SPACE, task, LIMITS, what["number"] + 1, seed=0, epochs=what["epochs"])[what["number"]]
    found = {"key": records.key_of(what), **what, "candidate": candidate.digest}
    try:
        network, data = trained(alone, candidate.spec, candidate.recipe, seed=what["number"])
    except Diverged as reason:
        return {**found, "diverged": str(reason)}
    ours, true = judge(network, data.validation).values["self_psnr"], true_psnr(network, known)
    return {**found, "self_psnr": ours, "psnr": true} if math.isfinite(ours) else {**found, "diverged": "not finite"}


def resampled(ours: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the interval of 95 % of the rank correlation from resamplings of the candidates."""
    generator = np.random.default_rng(0)
    rows = generator.integers(len(ours), size=(RESAMPLINGS, len(ours)))
    low, high = np.nanquantile([spearman(ours[some], true[some]) for some in rows], [0.025, 0.975])
    return float(low), float(high)


def table(found: Sequence[Record]) -> list[str]:
    """Returns the lines of the table, in Markdown."""
    lines = [
        "| noise | judged by | candidates | diverged | rank correlation | 95 % | better half | self - true (dB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for noise, way in dict.fromkeys((each["noise"], each["way"]) for each in found):
        rows = [each for each in found if (each["noise"], each["way"]) == (noise, way)]
        values = np.array([(each["self_psnr"], each["psnr"]) for each in rows if "psnr" in each], dtype=np.float64)
        if len(values) < 3:
            continue
        ours, true = values.T
        low, high = resampled(ours, true)
        better = true >= np.median(true)
        lines.append(
            f"| {noise} | {way} | {len(values)} | {len(rows) - len(values)} | {spearman(ours, true):.3f} "
            f"| {low:.3f} to {high:.3f} | {spearman(ours[better], true[better]):.3f} | {np.median(ours - true):+.2f} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.self_psnr", description=(__doc__ or "").split("?")[0])
    parser.add_argument("--candidates", type=int, default=84, help="candidates for each noise and way")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--subset", type=int, default=300, help="training patches")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path("runs/self-psnr.jsonl"), help="file of finished candidates")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    common = {"epochs": options.epochs, "subset": options.subset, "version": TRAINING_VERSION}
    asked = [
        {"noise": noise, "way": way, "number": number, **common}
        for number in range(options.candidates)
        for noise in NOISES
        for way in WAYS
    ]
    found, finished = records_of(asked, options.to, measure, options.workers)
    print("\n".join(table(found)))
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
