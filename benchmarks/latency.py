"""Does the latency that a search measures rank networks as the shipped program does? ``python -m benchmarks.latency``.

Random candidates of the space `unet` are measured three times, each kind of measurement in a round and an order of its
own: as a search measures them (a program for the size, random weights); as they are shipped (``model.onnx``, for every
size, other random weights); and as searches measured until 2026-11-29 (eager PyTorch on an image of the data's size).
The first table has Spearman's rank correlation of each with the shipped program.

The second table asks what that is worth. Candidates of the atlas of digits, whose PSNR and accuracy are known, have a
front of PSNR, accuracy and each latency. At the PSNR of each member of these fronts, a person picks the fastest member
of at least this PSNR, by the latency of the front. The table has how much longer the shipped program of
the pick runs at the large size when the front is that of the old latency.

``--studies NEW OLD`` asks the same of two searches for PSNR, accuracy and latency, each a study's name and its database
(``NAME@URL``): one that measured latency at the large size, and one of an earlier build.

All run on one thread of a CPU and are timed by that thread's clock. Every finished measurement is kept, and the same
command goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim

from benchmarks.lib import atlases, records
from benchmarks.lib.agreement import spearman
from benchmarks.lib.records import Record
from nas.bundles.formats import FORMATS, Exportable
from nas.bundles.latency import metrics, program, run_times, timed
from nas.bundles.onnx_export import exporters_quiet
from nas.bundles.onnx_model import INPUT, OUTPUTS
from nas.search.pareto import non_dominated
from nas.types import Candidate, LatencySetting, Spec, Task, TrialResult
from search_spaces.draws import sampled
from studies.reading.best import choose
from studies.reading.study import StudyReader

SPACE = atlases.SPACE
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
KINDS = ("search", "shipped", "eager")
EAGER_RUNS, EAGER_WARM_UP = 15, 3
"""Runs of the old measurement: the median of so many after a warm-up."""


@cache
def candidates(source: str, count: int) -> Sequence[tuple[Candidate, Mapping[str, float]]]:
    """Returns candidates with their known values: random ones, or every so many of the atlas of digits."""
    if source == "random":
        return [(each, {}) for each in sampled(SPACE, TASK, SPACE.limits(TASK), count, seed=0)]
    known = [each for each in atlases.read()["digits"] if "diverged" not in each]
    rows = np.linspace(0, len(known) - 1, count).round().astype(int)
    return [(SPACE.decode(known[row]["hyperparameters"], TASK, 27), known[row]) for row in rows]


def setting_of(size: int) -> LatencySetting:
    return LatencySetting(height=size, width=size, threads=1, provider="cpu")


def measure(what: Record) -> Record:
    """Returns the record of one measurement in ms."""
    candidate, _ = candidates(what["source"], what["count"])[what["number"]]
    size, started = what["size"], time.process_time()
    setting = setting_of(size)
    if what["kind"] == "search":
        model = program(lambda: SPACE.build(candidate.spec, TASK), TASK, setting)
        found = metrics(timed(model, setting, Path()))
    elif what["kind"] == "shipped":
        found = metrics(run_times(_shipped(candidate.spec), setting, shape=(1, TASK.channels, size, size)))
    else:
        found = {"latency": _eager(candidate)}
    return {**what, **found, "cpu_seconds": round(time.process_time() - started, 3)}


def _shipped(spec: Spec) -> bytes:
    """Returns the program for every size, as an export writes it."""
    torch.manual_seed(1)
    network = SPACE.build(spec, TASK).eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with tempfile.TemporaryDirectory() as folder, exporters_quiet():
        exported = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(dynamic,))
        said = dict.fromkeys(("skipnas", "title", INPUT, *OUTPUTS), "")
        file = Path(folder, "model.onnx")
        FORMATS["onnx"].write(Exportable(network, exported, TASK, said), file)
        return file.read_bytes()


def _eager(candidate: Candidate) -> float:
    """Returns the median time of eager PyTorch for an image of the data's size."""
    torch.manual_seed(0)
    network, image = SPACE.build(candidate.spec, TASK).eval(), torch.zeros(1, TASK.channels, TASK.height, TASK.width)
    times = []
    with torch.inference_mode():
        for _ in range(EAGER_WARM_UP + EAGER_RUNS):
            started = time.thread_time()
            network(image)
            times.append(1000 * (time.thread_time() - started))
    return statistics.median(times[EAGER_WARM_UP:])


def asked_for(source: str, count: int, size: int) -> list[Record]:
    """Returns all measurements of some candidates: a round for each kind, forwards, backwards and mixed."""
    orders = (range(count), range(count)[::-1], np.random.default_rng(0).permutation(count).tolist())
    return [
        {"source": source, "count": count, "size": size, "kind": kind, "number": number}
        for kind, order in zip(KINDS, orders, strict=True)
        for number in order
    ]


def columns(found: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    """Returns the latencies of each kind, in the order of the candidates."""
    ordered = sorted(found, key=lambda record: record["number"])
    return {kind: np.array([record["latency"] for record in ordered if record["kind"] == kind]) for kind in KINDS}


def ratios(
    psnr: NDArray[np.float64], accuracy: NDArray[np.float64], of: Mapping[str, NDArray[np.float64]]
) -> list[float]:
    """Returns the time of what the front of the old latency offers over that of the new one, at each PSNR.

    Args:
        psnr, accuracy: of each candidate, shape (n,).
        of: latencies of each candidate by kind, shape (n,).
    """
    fronts = {
        kind: np.flatnonzero(non_dominated(np.column_stack([psnr, accuracy, of[kind]]), [True, True, False]))
        for kind in ("search", "eager")
    }

    def picked(kind: str, least: float) -> int:
        fitting = [int(row) for row in fronts[kind] if psnr[row] >= least]
        return min(fitting, key=lambda row: float(of[kind][row]))

    levels = sorted({*psnr[fronts["eager"]], *psnr[fronts["search"]]})
    return [of["shipped"][picked("eager", level)] / of["shipped"][picked("search", level)] for level in levels]


def fronts_compared(new: str, old: str, size: int) -> list[float]:
    """Returns the time of what the front of an old study offers over that of a new one, at each PSNR of both.

    At each PSNR of their members that both reach, the fastest member of at least this PSNR is picked by the latency
    that its own study measured, and its shipped program is timed at `size`.
    """
    members = [choose(StudyReader.open(*at.split("@", 1)), confirmed=False).front for at in (new, old)]

    def picked(front: Sequence[TrialResult], least: float) -> TrialResult:
        fitting = [each for each in front if each.values["psnr"] >= least]
        return min(fitting, key=lambda each: each.values["latency"])

    @cache
    def shipped(side: int, number: int) -> float:
        [spec] = [SPACE.spec(each.spec) for each in members[side] if each.number == number]
        found = metrics(run_times(_shipped(spec), setting_of(size), shape=(1, TASK.channels, size, size)))
        return found["latency"]

    most = min(max(each.values["psnr"] for each in front) for front in members)
    levels = sorted({each.values["psnr"] for front in members for each in front if each.values["psnr"] <= most})
    ratios = []
    for level in levels:
        ours, others = (picked(front, level) for front in members)
        ratios.append(shipped(1, others.number) / shipped(0, ours.number))
        print(f"| {level:.2f} | {shipped(1, others.number):.1f} | {shipped(0, ours.number):.1f} | {ratios[-1]:.2f} |")
    return ratios


def told(slower: Sequence[float]) -> None:
    """Prints a summary of ratios."""
    print("\n| PSNRs | geometric mean of old / new | least | largest |\n|---|---|---|---|")
    print(f"| {len(slower)} | {statistics.geometric_mean(slower):.2f} | {min(slower):.2f} | {max(slower):.2f} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing and prints both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=(__doc__ or "").split("?")[0])
    parser.add_argument("--candidates", type=int, default=40, help="random candidates")
    parser.add_argument("--size", type=int, default=64, help="side of their images")
    parser.add_argument("--front", type=int, default=40, help="candidates of the atlas")
    parser.add_argument("--large", type=int, default=256, help="side of their images")
    parser.add_argument("--to", type=Path, default=Path("runs/latency.jsonl"), help="file of finished measurements")
    parser.add_argument("--studies", nargs=2, metavar="NAME@URL", help="compare the fronts of a new and an old study")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.studies:
        print("| PSNR of at least | old, ms | new, ms | ratio |\n|---|---|---|---|")
        new, old = options.studies
        told(fronts_compared(new, old, options.large))
        return 0
    parts = [("random", options.candidates, options.size), ("atlas", options.front, options.large)]
    print("| candidates | size | search | eager PyTorch | spread (median) | CPU seconds of a measurement (median) |")
    print("|---|---|---|---|---|---|")
    for source, count, size in parts:
        found = records.measured(asked_for(source, count, size), options.to, measure)
        of = columns(found)
        ours = [record for record in found if record["kind"] == "search"]
        spread = statistics.median(record["latency_spread"] / record["latency"] for record in ours)
        seconds = statistics.median(record["cpu_seconds"] for record in ours)
        print(
            f"| {count}, {source} | {size}x{size} | {spearman(of['search'], of['shipped']):.3f} "
            f"| {spearman(of['eager'], of['shipped']):.3f} | {100 * spread:.1f} % | {seconds:.2f} |"
        )
    known = [values for _, values in candidates("atlas", options.front)]
    psnr, accuracy = (np.array([values[name] for values in known]) for name in ("psnr", "accuracy"))
    told(ratios(psnr, accuracy, of))
    return 0


if __name__ == "__main__":
    sys.exit(main())
