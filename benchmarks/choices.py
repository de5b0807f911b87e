"""What each choice of the space does: ``python -m benchmarks.choices``.

One hyperparameter of a reference network is changed at a time, through every choice that the space `unet` has for it,
and each candidate is trained on digits at gaussian:50. A choice that is far worse than its neighbours is marked: it may
be a fault, or a choice that a search should not have to try.

The choices are read from the space, so a new one is trained without a change here; those that the space leaves out
and a spec may have are trained too. Two references are enough for
nearly all of them: `unet++` has one trunk, `nddr` two columns with layers between them and an optimiser of its own. A
hyperparameter that is switched off in both, such as the width of a hidden layer where there is none, is shown on a
third network: the first one with the one other choice that switches it on. A choice that makes the same network as
another one is listed without a training. A network over the space's limits, which a search would not draw as it stands,
is trained all the same, so that the choice is seen, and says so.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib import runs
from benchmarks.lib.records import Record, read
from benchmarks.lib.runs import Job, Setting
from nas.errors import SkipnasError
from nas.types import Candidate, Task
from search_spaces.unet.references import REFERENCES, reference_network
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import CHOICES

BASES = ("unet++", "nddr")
NOISE = "gaussian:50"
FILE = Path("runs/choices/runs.jsonl")
VALUES: Mapping[str, str] = {"psnr": ".2f", "accuracy": ".1f", "stability": ".3f"}
FAR: Mapping[str, float] = {"psnr": 0.5, "accuracy": 5.0, "stability": 0.1}
"""A choice that is below the median of its hyperparameter's other choices by more than this is far worse."""
ERRORS = 3.0
"""Standard errors by which it has to be below as well, where there are two seeds or more."""

SPACE = UNetSpace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A base with one hyperparameter set to one choice.

    Attributes:
        base: name of the network that is changed.
        candidate: what the change makes of it.
        same_as: a choice listed earlier that makes the same candidate; None for none.
        in_space: whether a search draws the choice.
        over: the limits of the space that the candidate exceeds.
        is_base: whether the choice is the base's own.
        switched: other hyperparameters that the change switched, with their new values.
    """

    base: str
    hyperparameter: str
    choice: Any
    candidate: Candidate
    same_as: Any
    in_space: bool
    over: tuple[str, ...]
    is_base: bool
    switched: Mapping[str, Any]

    @property
    def is_trained(self) -> bool:
        """Whether it has a training of its own, beside the base's."""
        return self.same_as is None and not self.is_base


def choices_of(task: Task) -> dict[str, tuple[Any, ...]]:
    """Every hyperparameter of the space with its choices, and after them those that only a spec may have."""
    return {
        name: (*known, *(each for each in CHOICES.get(name, ()) if each not in known))
        for name, known in SPACE.choices(task).items()
    }


def bases(task: Task, epochs: int, names: Sequence[str] = BASES) -> dict[str, tuple[Candidate, tuple[str, ...]]]:
    """The networks to change, by name, each with the hyperparameters that are varied on it.

    Each reference has all that it does not switch off. What they all switch off is varied on the first of them with one
    other choice, the one under which most choices of the hyperparameter differ.

    Raises:
        ConfigError: a name is not of a reference.
    """
    choices = choices_of(task)
    found: dict[str, tuple[Candidate, tuple[str, ...]]] = {}
    for name in names:
        candidate = reference_network(name, task, epochs=epochs)
        found[name] = candidate, tuple(each for each in choices if differing(candidate, each, task) > 1)
    shown = {each for _, varied in found.values() for each in varied}
    first, (candidate, _) = next(iter(found.items()))
    for missing in choices.keys() - shown:
        options = [(other, value) for other in choices if other != missing for value in choices[other]]
        counts = {
            (other, value): differing(changed(candidate, {other: value}, task), missing, task)
            for other, value in options
        }
        other, value = max(options, key=lambda option: counts[option])
        if counts[other, value] > 1:
            found[f"{first}, {other} {value}"] = changed(candidate, {other: value}, task), (missing,)
    return found


def unreached(task: Task, networks: Mapping[str, tuple[Candidate, tuple[str, ...]]]) -> list[str]:
    """Hyperparameters that none of the networks (see `bases`) shows."""
    shown = {each for _, varied in networks.values() for each in varied}
    return [name for name in choices_of(task) if name not in shown]


def changed(base: Candidate, values: Mapping[str, Any], task: Task) -> Candidate:
    """A candidate with other values of some hyperparameters, which may switch others off."""
    return SPACE.decode({**SPACE.encode(base), **values}, task, base.recipe.epochs)


def differing(base: Candidate, hyperparameter: str, task: Task) -> int:
    """How many candidates the choices of a hyperparameter make of a base."""
    return len({changed(base, {hyperparameter: each}, task) for each in choices_of(task)[hyperparameter]})


def changes(name: str, base: Candidate, varied: Sequence[str], task: Task) -> list[Change]:
    """Every choice of the hyperparameters `varied` on a base, in the space's order."""
    choices, known, found = choices_of(task), SPACE.choices(task), []
    before = SPACE.encode(base)
    for hyperparameter in varied:
        first: dict[Candidate, Any] = {}
        # The base's own choice goes first where another one makes the same network.
        for choice in sorted(choices[hyperparameter], key=lambda each: each != before[hyperparameter]):
            first.setdefault(changed(base, {hyperparameter: choice}, task), choice)
        for choice in choices[hyperparameter]:
            candidate = changed(base, {hyperparameter: choice}, task)
            cost = SPACE.cost(candidate.spec, task)
            after = SPACE.encode(candidate)
            found.append(
                Change(
                    base=name,
                    hyperparameter=hyperparameter,
                    choice=choice,
                    candidate=candidate,
                    same_as=None if first[candidate] == choice else first[candidate],
                    in_space=choice in known[hyperparameter],
                    over=tuple(limit.name for limit in SPACE.limits(task) if limit.violation(cost) > 0),
                    is_base=candidate == base and first[candidate] == choice,
                    switched={
                        other: value
                        for other, value in after.items()
                        if other != hyperparameter and value != before[other]
                    },
                )
            )
    return found


def jobs(setting: Setting, networks: Mapping[str, Candidate], asked: Sequence[Change], seeds: int) -> list[Job]:
    """Every training, all of one seed before those of the next, so that a part of the time shows every choice."""
    candidates = [*networks.values(), *(change.candidate for change in asked if change.is_trained)]
    return [Job(setting=setting, candidate=each, seed=seed) for seed in range(seeds) for each in candidates]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the finished trainings of one candidate show.

    Attributes:
        values: by name, one value for each seed whose run did not diverge, by seed.
        diverged: how many runs did.
    """

    params: int
    macs: int
    values: Mapping[str, Mapping[int, float]]
    diverged: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Found:
        whole = [record for record in records if "diverged" not in record]
        return cls(
            params=records[0]["params"],
            macs=records[0]["macs"],
            values={name: {each["seed"]: each[name] for each in whole} for name in VALUES},
            diverged=len(records) - len(whole),
        )

    def mean(self, name: str) -> float:
        """Over seeds; NaN when every run diverged."""
        return statistics.fmean(self.values[name].values()) if self.values[name] else math.nan

    def gain(self, base: Found, name: str) -> float:
        """The mean difference to a base, over the seeds that both have."""
        own, theirs = self.values[name], base.values[name]
        both = own.keys() & theirs.keys()
        return statistics.fmean(own[seed] - theirs[seed] for seed in both) if both else math.nan


def spread(found: Sequence[Found], name: str) -> float:
    """Standard deviation between seeds, the median over candidates; 0 while there is one seed."""
    several = [list(each.values[name].values()) for each in found if len(each.values[name]) > 1]
    return statistics.median(statistics.stdev(values) for values in several) if several else 0.0


def far_worse(own: Found, others: Sequence[Found], noise: Mapping[str, float]) -> str:
    """By how much a choice is below the median of its hyperparameter's others, where that is far; else empty.

    Args:
        noise: standard deviation between seeds, of each value.
    """
    if own.diverged:
        return f"{own.diverged} of {own.diverged + len(own.values['psnr'])} diverged"
    said = []
    for name, digits in VALUES.items():
        means = [mean for other in others if math.isfinite(mean := other.mean(name))]
        if not means:
            continue
        below = statistics.median(means) - own.mean(name)
        if below > max(FAR[name], ERRORS * noise[name] / math.sqrt(len(own.values[name]))):
            said.append(f"{name} -{below:{digits}}")
    return ", ".join(said)


def table(name: str, base: Found, rows: Sequence[tuple[Change, Found | None]]) -> str:
    """The choices of one base: values, costs, differences to the base; those that are far worse are marked.

    Args:
        rows: each change with what its trainings show, None where there are none.
    """
    noise = {value: spread([base, *(found for _, found in rows if found)], value) for value in VALUES}
    lines = [
        "| hyperparameter | choice | PSNR (dB) | accuracy (%) | stability | params | MACs | to the base | far worse |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| *{name}* | | {_values(base)} | | |",
    ]
    for change, found in rows:
        start = f"| {change.hyperparameter} | {_text(change.choice)} |"
        if change.is_base:
            lines.append(f"{start} {_values(base)} | the base | |")
        elif change.same_as is not None:
            lines.append(f"{start} | | | | | the same network as {_text(change.same_as)} | |")
        elif found is None:
            lines.append(f"{start} | | | | | not trained yet | |")
        else:
            others = [
                base if other.is_base else its
                for other, its in rows
                if other.hyperparameter == change.hyperparameter and other is not change
            ]
            mark = far_worse(found, [other for other in others if other], noise)
            lines.append(f"{start} {_values(found)} | {_to_the_base(change, found, base)} | {mark and f'**{mark}**'} |")
    seeds = len(base.values["psnr"])
    said = ", ".join(f"{value} {noise[value]:{digits}}" for value, digits in VALUES.items())
    closing = f"Means of {seeds} seeds; standard deviation between seeds, the median over rows: {said}."
    return "\n".join([*lines, "", closing if seeds > 1 else "One seed."])


def _to_the_base(change: Change, found: Found, base: Found) -> str:
    """Differences in PSNR, accuracy and stability, and what else there is to say of a change."""
    gains = " / ".join(f"{found.gain(base, value):+{digits}}" for value, digits in VALUES.items())
    remarks = [f"with {other} {_text(value)}" for other, value in change.switched.items()]
    remarks += [] if change.in_space else ["not in the space"]
    remarks += [f"over the limit of {each}" for each in change.over]
    return f"{gains} ({', '.join(remarks)})" if remarks else gains


def _values(found: Found) -> str:
    """Cells of the values and the costs."""
    values = (f"{found.mean(name):{digits}}" for name, digits in VALUES.items())
    return f"{' | '.join(values)} | {found.params:,} | {found.macs:,}"


def _text(choice: Any) -> str:
    return f"{choice:g}" if isinstance(choice, float) else str(choice)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, then prints the tables. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bases", nargs="+", default=BASES, metavar="REFERENCE", help=f"default: {' '.join(BASES)}")
    parser.add_argument("--only", nargs="+", metavar="HYPERPARAMETER", help="instead of all that the bases show")
    parser.add_argument("--epochs", type=int, default=9, help="of each training (default: 9)")
    parser.add_argument("--seeds", type=int, default=2, help="of each candidate (default: 2)")
    parser.add_argument("--subset", type=int, help="training images (default: all)")
    parser.add_argument(
        "--workers", type=int, default=runs.WORKERS, help=f"processes of one thread (default: {runs.WORKERS})"
    )
    parser.add_argument("--results", type=Path, default=FILE, help=f"finished runs, one a line (default: {FILE})")
    parser.add_argument("--no-training", action="store_true", help="only the tables, from the runs that there are")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if unknown := [name for name in options.bases if name not in REFERENCES]:
        parser.error(f"--bases {unknown[0]} is no reference; choose among {', '.join(REFERENCES)}")
    setting = Setting(data="digits", subset=options.subset, noise=NOISE, epochs=options.epochs)
    try:
        task = runs.task_of(setting)
        networks = bases(task, options.epochs, options.bases)
    except SkipnasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    known = choices_of(task)
    if unknown := [name for name in options.only or () if name not in known]:
        parser.error(f"--only {unknown[0]} is no hyperparameter; choose among {', '.join(known)}")
    asked = {
        name: changes(name, base, [each for each in varied if each in (options.only or varied)], task)
        for name, (base, varied) in networks.items()
    }
    asked = {name: rows for name, rows in asked.items() if rows}
    candidates = {name: networks[name][0] for name in asked}
    plan = jobs(setting, candidates, [change for rows in asked.values() for change in rows], options.seeds)
    if not options.no_training:
        todo = runs.missing(plan, options.results)
        if not runs.perform_all(todo, options.results, runs.perform, workers=options.workers):
            print(f"stopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
            return 130
    records = read(options.results)
    done: dict[Candidate, list[Record]] = {}
    for key, job in {job.key: job for job in plan}.items():
        if key in records:
            done.setdefault(job.candidate, []).append(records[key])
    found = {candidate: Found.of(those) for candidate, those in done.items()}
    for name, rows in asked.items():
        if candidates[name] not in found:
            print(f"### {name}\n\nNot trained yet.\n")
            continue
        known_rows = [(change, found.get(change.candidate) if change.is_trained else None) for change in rows]
        print(f"### {name}\n\n{table(name, found[candidates[name]], known_rows)}\n")
    for name in unreached(task, networks):
        if name not in (options.only or known):
            continue
        print(f"Not shown: {name}, which no choice of another hyperparameter switches on in {options.bases[0]}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
