"""Does the stability score deserve its name? ``python -m benchmarks.stability [--quick]``.

A score from one run should say what other runs would show. So each of 48 small networks (every skip fusion with every
gate it can have, in a plain and in a residual U-Net, and AddUNet's trunk with and without normalisation) is trained on
digits at gaussian:50 for 27 epochs, under 5 seeds at the base learning rate and under 2 seeds at a quarter, twice, four
and eight times that rate. The score of a single run is compared with two quantities:

- *spread* is the standard deviation of the final validation loss over the *other* seeds at the base rate,
- *sensitivity* is the mean over the five rates of ``min(loss, trivial) - best``, where best is the least loss over the
  rates (Wortsman et al. 2023; a run that diverged counts as trivial).

Both are in nats, ``ln(loss / trivial loss)``, averaged over the two tasks. Spread is also given in units of the nats
gained, because a network that learns nothing cannot spread. `benchmarks.lib.agreement` has the statistics.

Four controls must not score high: a learning rate of zero; frozen weights, which no gradient reaches; initial weights
that are ten times too large; and gradients cut to a hundredth of AdamW's epsilon.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.lib import agreement, runs
from benchmarks.lib.records import Record, read
from benchmarks.lib.runs import Job, Setting
from nas.types import Candidate, Recipe, Task, canonical_json, digest_of
from search_spaces.unet.references import ADDUNET, RECIPE, RESIDUAL, UNET
from search_spaces.unet.spec import CHOICES, UNetSpec

if TYPE_CHECKING:
    from torch import nn

WIDTH, LEVELS, BATCH = 8, 3, 64
SETTING = Setting(data="digits", subset=None, noise="gaussian:50", epochs=27)
QUICK = Setting(data="digits", subset=200, noise="gaussian:50", epochs=3)
SEEDS, RATE_SEEDS = range(5), range(2)
FACTORS = (0.25, 2.0, 4.0, 8.0)
"""Learning rates beside the base rate, as multiples of it."""
FILE = Path("runs/stability/runs.jsonl")


def _freeze(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient * 0.0)


def _enlarge(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.data.mul_(10.0)


def _clip(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-1e-10, 1e-10))


CONTROLS: Mapping[str, Callable[[nn.Module], None]] = {
    "learning rate zero": lambda network: None,
    "frozen network": _freeze,
    "huge initial weights": _enlarge,
    "heavy clipping": _clip,
}
CONTROLLED = ("plain concat", "plain add scalar", "residual concat", "addunet add scalar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Job):
    """A training whose probe curve is kept.

    Attributes:
        name: name of the architecture.
        factor: the learning rate as a multiple of the base rate.
        control: a key of `CONTROLS`, or empty.
    """

    name: str
    factor: float = 1.0
    control: str = ""

    @property
    def key(self) -> str:
        own = Job(setting=self.setting, candidate=self.candidate, seed=self.seed).key
        return digest_of(canonical_json({"run": own, "epochs": self.setting.epochs, "control": self.control}))


@cache
def architectures(task: Task) -> dict[str, UNetSpec]:
    """Returns every distinct network of the study by name: trunk, fusion, gate."""
    pairs = [{"fusion": fusion, "gate": gate} for fusion in CHOICES["fusion"] for gate in CHOICES["gate"]]
    skips = [{"fusion": "add", "gate": gate} for gate in ("none", "scalar", "channel")]
    skips.append({"fusion": "concat", "gate": "none"})
    trunks: tuple[tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], ...] = (
        ("plain", UNET, pairs),
        ("residual", RESIDUAL, pairs),
        ("addunet", ADDUNET, skips),
        ("addunet, no norm,", {**ADDUNET, "norm": "none"}, skips),
    )
    found: dict[UNetSpec, str] = {}
    for trunk, fields, choices in trunks:
        for choice in choices:
            spec = UNetSpec(levels=LEVELS, width=WIDTH, **{**fields, **choice})
            gate = "" if spec.gate == "none" else f" {spec.gate}"
            found.setdefault(spec, f"{trunk} {spec.fusion}{gate}")
    return {name: spec for spec, name in found.items()}


def jobs(setting: Setting, *, seeds: Sequence[int], factors: Sequence[float], only: Sequence[str] = ()) -> list[Run]:
    """Returns all runs: the controls first, then seed by seed.

    So the runs that are there before an interruption are of all architectures.
    """
    task = runs.task_of(setting)
    specs = {name: spec for name, spec in architectures(task).items() if not only or name in only}
    recipe = Recipe(**{**RECIPE, "epochs": setting.epochs, "batch_size": BATCH})

    def run(name: str, seed: int, factor: float, control: str = "") -> Run:
        rate = 0.0 if control == "learning rate zero" else recipe.learning_rate * factor
        candidate = Candidate(spec=specs[name], recipe=replace(recipe, learning_rate=rate))
        return Run(setting=setting, candidate=candidate, seed=seed, name=name, factor=factor, control=control)

    controls = [run(name, 0, 1.0, control) for control in CONTROLS for name in CONTROLLED if name in specs]
    base = [(seed, 1.0) for seed in seeds]
    others = [(seed, factor) for seed in RATE_SEEDS if seed in seeds for factor in factors]
    return controls + [run(name, seed, factor) for seed, factor in base + others for name in specs]


def perform(run: Run) -> dict[str, Any]:
    """Trains a network and keeps its probe curve and its final validation losses over the trivial ones."""
    evaluation, diverged = runs.trained(run, CONTROLS[run.control] if run.control else lambda network: None)
    training = evaluation.training
    probe = training.probe_curve()
    record: dict[str, Any] = {
        "key": run.key,
        "name": run.name,
        "seed": run.seed,
        "factor": run.factor,
        "control": run.control,
        "done": training.step / training.total_steps,
        "denoise": runs.short(probe.denoise),
        "classify": runs.short(probe.classify),
        "seconds": round(evaluation.seconds, 2),
    }
    final = [] if diverged else final_losses(training)
    if not all(map(math.isfinite, final)):
        diverged = f"final validation losses are {final}"
    if diverged:
        return {**record, "diverged": diverged}
    last = evaluation.rows[-1]
    return {**record, "final": final, **{name: last.values.get(name) for name in ("psnr", "accuracy")}}


def final_losses(training: Any) -> list[float]:
    """Returns validation losses over the trivial ones.

    The MSE is divided by that of the noisy images, and cross-entropy by ln(classes).
    """
    import torch
    import torch.nn.functional as F

    training.network.eval()
    left, noise, missed, count = 0.0, 0.0, 0.0, 0
    with torch.inference_mode():
        for noisy, clean, labels, _ in training.data.validation:
            denoised, logits = training.network(noisy.contiguous(memory_format=torch.channels_last))
            left += float(F.mse_loss(denoised.clamp(0, 1), clean, reduction="sum"))
            noise += float(F.mse_loss(noisy, clean, reduction="sum"))
            missed += float(F.cross_entropy(logits, labels, reduction="sum"))
            count += len(labels)
    return [left / noise, missed / count / math.log(training.task.classes)]


def observed(found: Mapping[str, Record], plan: Sequence[Run]) -> dict[str, agreement.Observed]:
    """Returns what the finished runs show of each architecture that has all of its runs."""
    by_name: dict[str, list[Record]] = {}
    for run in plan:
        if not run.control:
            by_name.setdefault(run.name, []).append(found.get(run.key, {}))
    return {name: agreement.Observed.of(records) for name, records in by_name.items() if all(records)}


def controls(found: Mapping[str, Record], plan: Sequence[Run]) -> dict[str, list[float]]:
    """Returns the scores of the controls, by control."""
    scores: dict[str, list[float]] = {}
    for run in plan:
        if run.control and run.key in found:
            scores.setdefault(run.control, []).append(agreement.Curve.of(found[run.key]).score())
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the runs that are missing, then prints the tables. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few networks, epochs and seeds, to see that it runs")
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), help="at the base rate; agreement is told of 5 (default: 5)"
    )
    parser.add_argument("--factors", type=float, nargs="*", default=FACTORS, help="of the base rate, beside 1")
    parser.add_argument("--results", type=Path, help=f"finished runs, one a line (default: {FILE})")
    parser.add_argument("--no-training", action="store_true", help="only the tables, from the runs that there are")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    path = options.results or (FILE.with_name("quick.jsonl") if options.quick else FILE)
    plan = (
        jobs(QUICK, seeds=SEEDS, factors=FACTORS[-1:], only=(*CONTROLLED, "plain none", "residual none"))
        if options.quick
        else jobs(SETTING, seeds=range(options.seeds), factors=options.factors)
    )
    if not options.no_training:
        todo = runs.missing(plan, path)
        if not runs.perform_all(todo, path, perform):
            print(f"stopped; {path} has what is finished, and the same command goes on", file=sys.stderr)
            return 130
    found = read(path)
    print(agreement.tables(observed(found, plan), controls(found, plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
