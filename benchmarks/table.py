"""Trains the whole space ``table`` once and for all: ``python -m benchmarks.table [--shard I/N]``.

Each of its 648 candidates is trained on digits at gaussian:50 for 27 epochs under two seeds, by the project's own
training, and judged after every epoch. Finished runs are kept with their probe curves under ``runs/table``, one a line,
and are not made again. Several machines may share the work: ``--shard 1/4`` trains every fourth run into a file of its
own, and every file in the folder counts. When all runs are there, the table is written beside its card, and
`benchmarks.lib.tabular` reads it. Stability is computed from the probe curves at that moment, by today's formula; after
the formula has changed, ``--no-training`` brings the table up to date.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import runs, tabular
from benchmarks.lib.agreement import spearman
from benchmarks.lib.records import Record, read
from benchmarks.lib.runs import Job, Setting
from benchmarks.lib.tabular import EPOCHS, SPACE, TASK, Table
from nas.training.stability import PROBES, stability
from nas.types import ProbeCurve
from studies import provenance

SETTING = Setting(data="digits", subset=None, noise=TASK.noise, epochs=EPOCHS)
SEEDS = (0, 1)
FOLDER = Path("runs/table")
CARD = tabular.FILE.with_name("TABLE.md")


def jobs() -> list[Job]:
    """Returns all trainings, seed by seed."""
    found = tabular.candidates()
    return [Job(setting=SETTING, candidate=candidate, seed=seed) for seed in SEEDS for candidate in found]


def perform(job: Job) -> dict[str, Any]:
    """Trains a candidate and judges it after every epoch."""
    from nas.training.evaluation import judge

    epochs: list[list[float]] = []

    def after_epoch(evaluation: Any) -> None:
        row = evaluation.rows[-1]
        values = row.values
        if not row.validated:
            values = judge(evaluation.training.network, evaluation.training.data.validation).values
        psnr, accuracy = values["psnr"], values["accuracy"]
        if math.isfinite(psnr):
            epochs.append([round(psnr, 3), round(accuracy, 3)])

    evaluation, diverged = runs.trained(job, after_epoch=after_epoch)
    probe = evaluation.training.probe_curve()
    return {
        "key": job.key,
        "candidate": job.candidate.digest,
        "seed": job.seed,
        "seconds": round(evaluation.seconds, 2),
        "epochs": epochs,
        "steps": evaluation.training.total_steps,
        "denoise": runs.short(probe.denoise),
        "classify": runs.short(probe.classify),
        **({"diverged": diverged} if diverged else {}),
    }


def assemble(found: Mapping[str, Record]) -> Table:
    """Makes the table of all runs, which are given by key. Raises KeyError when one is missing."""
    candidates = tabular.candidates()
    stored = np.full((len(candidates), len(SEEDS), EPOCHS, len(tabular.OBJECTIVES)), -1, np.int16)
    seconds = np.zeros(stored.shape[:2], np.float32)
    for row, candidate in enumerate(candidates):
        for column, seed in enumerate(SEEDS):
            record = found[Job(setting=SETTING, candidate=candidate, seed=seed).key]
            seconds[row, column] = record["seconds"]
            for epoch, (psnr, accuracy) in enumerate(record["epochs"], start=1):
                values = np.array([psnr, accuracy, stability_after(record, epoch)])
                stored[row, column, epoch - 1] = np.round(values * tabular.UNITS)
    costs = [SPACE.cost(candidate.spec, TASK) for candidate in candidates]
    return Table(
        digests=np.array([candidate.digest for candidate in candidates]),
        stored=stored,
        seconds=seconds,
        params=np.array([cost.params for cost in costs]),
        macs=np.array([cost.macs for cost in costs]),
    )


def stability_after(record: Record, epoch: int, epochs: int = EPOCHS) -> float:
    """Returns the score that a search would have seen after an epoch, from the probes until then."""
    total = record["steps"]
    # `nas.training.loop.Training` spaces its probes like this; those of a run that diverged end early.
    probes = np.round(np.linspace(0, total, min(PROBES, total) + 1))
    seen = int(np.sum(probes <= total * epoch / epochs))
    return stability(
        ProbeCurve(
            steps=tuple(range(seen)), denoise=tuple(record["denoise"][:seen]), classify=tuple(record["classify"][:seen])
        )
    )


def card(table: Table) -> str:
    """Writes the card: what a stranger must know of the table, and what it says at a glance."""
    final = table.all_values[:, :, -1]
    known = np.nan_to_num(final, nan=-1.0)
    agree = [spearman(known[:, 0, k], known[:, 1, k]) for k in range(len(tabular.OBJECTIVES))]
    lines = [
        "# A table of small U-Nets that denoise and classify",
        "",
        f"All {len(table.digests)} architectures of the space `table`, each trained {EPOCHS} epochs under {len(SEEDS)} "
        "seeds and judged after every epoch: for comparing search methods in seconds.",
        "",
        "- **Space**: skip fusion none, concat, add; gate none, scalar, channel, attention; encoder learned, haar; one "
        "trunk, or two columns joined by cross-stitch or nddr; 2 or 3 levels; 8 or 16 channels; head at the "
        "bottleneck, the decoder's end or all scales. `skipnas spaces table` has the rest, which is fixed.",
        f"- **Task**: digits of scikit-learn (8x8, ten classes), noise {TASK.noise}; the project's own splits.",
        "- **Recipe**: AdamW at 0.003, weight decay 0.0001, batches of 64, classification weight 0.3, bf16.",
        "- **Values**: validation PSNR in dB, accuracy in percent and stability in 0..1 after each epoch; seconds of a "
        "training on one core, parameters and MACs. The test split has not been looked at.",
        f"- **Made** by `python -m benchmarks.table` on {provenance.describe(provenance.hardware())}, "
        f"{date.today():%Y-%m-%d}: {table.seconds.sum() / 3600:.1f} core hours.",
        "- **Use**: `from benchmarks.lib.tabular import Table; Table.read().values(candidate, seed=0, epoch=27)`; "
        "`python -m benchmarks.search` compares searches on it. Search on one seed and score on the other: values of "
        "one seed alone reward luck.",
        "",
        "| | least | median | most | rank correlation of the seeds | spread over seeds (median) |",
        "|---|---|---|---|---|---|",
    ]
    for name, values, agreed in zip(tabular.OBJECTIVES, np.moveaxis(final, -1, 0), agree, strict=True):
        spread = float(np.nanmedian(np.abs(values[:, 0] - values[:, 1]))) / math.sqrt(2)
        lines.append(
            f"| {name} | {np.nanmin(values):.3f} | {np.nanmedian(values):.3f} | {np.nanmax(values):.3f} "
            f"| {agreed:.2f} | {spread:.3f} |"
        )
    lines.append(f"\n{int(np.isnan(final[..., 0]).sum())} of {final.shape[0] * final.shape[1]} runs diverged.")
    return "\n".join(lines) + "\n"


def _shard(text: str) -> tuple[int, int]:
    try:
        index, of = (int(part) for part in text.split("/"))
    except ValueError:
        index, of = 0, 0
    if not 1 <= index <= of:
        raise argparse.ArgumentTypeError(f"shard {text!r} is not I/N with 1 <= I <= N; give 1/4, say")
    return index, of


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the runs that are missing, then writes the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="train every Nth run only")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of finished runs (default: {FOLDER})")
    parser.add_argument("--no-training", action="store_true", help="only write the table from the runs that there are")
    parser.add_argument("--to", type=Path, default=tabular.FILE, help="the table; its card goes beside it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    plan, (index, of) = jobs(), options.shard
    found = _found(options.results)
    if not options.no_training:
        todo = [job for job in plan[index - 1 :: of] if job.key not in found]
        if not runs.perform_all(todo, options.results / f"shard-{index}-of-{of}.jsonl", perform):
            print(f"stopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
            return 130
        found = _found(options.results)
    lacking = sum(job.key not in found for job in plan)
    if lacking:
        print(f"{lacking} of {len(plan)} runs are not in {options.results} yet; the table needs them all")
        return 0 if of > 1 else 1
    table = assemble(found)
    table.write(options.to)
    text = card(table)
    options.to.with_name(CARD.name).write_text(text)
    print(text)
    return 0


def _found(folder: Path) -> dict[str, Record]:
    return {key: record for path in sorted(folder.glob("*.jsonl")) for key, record in read(path).items()}


if __name__ == "__main__":
    sys.exit(main())
