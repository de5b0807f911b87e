"""One cell brought to its record: a search, its rivals, and all of them trained under several seeds.

Search and trainings are the product's own, and everything is in a database of studies. A cell that was stopped, in
whatever way, goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.lib.records import Record, append, key_of, read
from benchmarks.lib.runs import WORKERS, Job, estimate, task_of
from benchmarks.proof.cells import Cell, Contender, Kind, rivals, under_recipe
from nas.engine.confirm import ConfirmEnd
from nas.errors import StorageError, StudyError
from nas.protocols import SearchSpace
from nas.search.confirmation import ConfirmedRun, Member
from nas.settings import RunOptions
from nas.training.version import TRAINING_VERSION
from nas.types import Candidate, Recipe, Task, TrialResult
from search_spaces import get_space
from studies.commands.confirm import confirm_members
from studies.commands.searched import search
from studies.commands.terminal import ConfirmDisplay, duration
from studies.commands.waiting import Waiting
from studies.provenance import describe, hardware
from studies.reading.best import choose
from studies.reading.data import study_data
from studies.reading.space import study_space
from studies.reading.study import StudyReader
from studies.settings import ConfirmRequest, SearchRequest

SOON = 1.0
"""Seconds that are not worth another start of a search."""

FOUND = 3
"""About how many members of a front are trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done in each cell, and where it is kept.

    Attributes:
        minutes: the time of a search.
        seeds: the seeds under which each network is trained.
        folder: the folder of the studies and of the records.
    """

    minutes: float
    seeds: int
    folder: Path

    @property
    def storage(self) -> str:
        """The database of the studies."""
        return str(self.folder / "studies.db")

    @property
    def records(self) -> Path:
        """The file of the searches and of the finished cells."""
        return self.folder / "cells.jsonl"

    def study(self, cell: Cell) -> str:
        """Returns the name of a cell's study, which is one for each length and each version of the training code."""
        return f"{cell.name}-{self.minutes:g}min-v{TRAINING_VERSION}"

    def key(self, cell: Cell) -> str:
        """Returns the key of the record of a cell."""
        return key_of({"cell": self.study(cell), "seeds": self.seeds, "epochs": cell.setting.epochs, "macs": cell.macs})

    def finished(self, cells: Sequence[Cell]) -> dict[str, Record]:
        """Returns the records of the cells that are finished, by name."""
        done = read(self.records)
        return {cell.name: done[key] for cell in cells if (key := self.key(cell)) in done}

    def searched(self, cell: Cell) -> Record:
        """Returns how far a cell's search has come: seconds so far, the end's reason, and the begin of an open run."""
        key = key_of({"search": self.study(cell)})
        return read(self.records).get(key, {"key": key, "seconds": 0.0, "reason": "", "begun": None})


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(cell: Cell, plan: Plan) -> bool:
    """Brings a cell to its record, as far as it is not there yet. Returns False when it was stopped."""
    if cell.name in plan.finished([cell]):
        return True
    tell(f"{cell.name}: {expected(cell, plan)}")
    if not searched(cell, plan):
        return False
    with StudyReader.open(plan.study(cell), plan.storage) as study:
        space = study_space(study)
        contenders, over = everyone(study, space)
        request = ConfirmRequest(seeds=plan.seeds)
        with ConfirmDisplay() as display:
            end = confirm_members(study, space, members(contenders), request, display.observe)
        if end.reason != "complete":
            return False
        append(plan.records, {"key": plan.key(cell), **record(cell, plan, study, space, contenders, over, end)})
    return True


def expected(cell: Cell, plan: Plan) -> str:
    """Says how long a cell will take on idle cores, from some timed steps of each reference network.

    The networks that the search will find are taken to be as slow as these, and the recipe that it will find as theirs.
    """
    setting, space = cell.setting, get_space("unet")
    task = task_of(setting)
    limits = [replace(limit, upper=cell.macs) if limit.name == "macs" else limit for limit in space.limits(task)]
    known, _ = rivals(space, task, setting.epochs, limits)
    networks = {network.digest: network for rival in known for network in rival.networks}
    jobs = [Job(setting=setting, candidate=network, seed=0) for network in networks.values()]
    so_far = plan.searched(cell)
    runs = (2 * len(networks) + FOUND) * plan.seeds
    if so_far["reason"]:
        with StudyReader.open(plan.study(cell), plan.storage) as study:
            runs -= sum(run.training_version == TRAINING_VERSION for run in study.progress.confirmations())
    left = 0.0 if so_far["reason"] else max(0.0, 60 * plan.minutes - so_far["seconds"])
    trainings = 3600 * estimate(jobs) / len(jobs) * max(0, runs)
    return (
        f"{duration(left)} of search, then about {max(0, runs)} trainings in {duration(trainings)}, "
        f"on {WORKERS} idle cores"
    )


def searched(cell: Cell, plan: Plan) -> bool:
    """Searches for as long as is missing. Returns False when the search was stopped.

    Raises:
        StudyError: no candidate was trained to an end, so that the time of the search begins again.
    """
    so_far = dict(plan.searched(cell))
    if so_far["reason"]:
        return True
    name = plan.study(cell)
    if so_far["begun"] is not None:  # it was killed, and the database knows when it was last alive
        so_far |= {"seconds": so_far["seconds"] + alive(plan, name, so_far["begun"]), "begun": None}
    left = 60 * plan.minutes - so_far["seconds"]
    reason = "time_limit"
    if left > SOON:
        append(plan.records, {**so_far, "begun": time.time()})
        setting = cell.setting
        request = SearchRequest(
            study=name,
            storage=plan.storage,
            data=setting.data,
            data_root=setting.root,
            subset=setting.subset,
            noise=setting.noise,
            epochs=setting.epochs,
            max_macs=cell.macs,
        )
        found = search(request, RunOptions(time_limit=left), quiet=False, tell=tell, waiting=Waiting(""))
        if found.choice is None and found.end.reason != "interrupted":
            append(plan.records, {**so_far, "seconds": 0.0, "begun": None})
            raise StudyError(
                f"{cell.name}: no candidate was trained to an end within {duration(left)}, because the machine is busy "
                "or `minutes` are few; the same command searches again"
            )
        so_far |= {"seconds": so_far["seconds"] + found.end.seconds, "begun": None}
        reason = "" if found.end.reason == "interrupted" else found.end.reason
    append(plan.records, {**so_far, "reason": reason})
    return bool(reason)


def alive(plan: Plan, name: str, begun: float) -> float:
    """Returns the seconds from the begin of a search to the last begin or end of a trial in it."""
    try:
        study = StudyReader.open(name, plan.storage)
    except (StudyError, StorageError):  # it was killed before there was one
        return 0.0
    with study:
        times = [each for trial in study.trials() for each in (trial.started, trial.ended) if each is not None]
    return max([begun, *times]) - begun


def everyone(study: StudyReader, space: SearchSpace) -> tuple[list[Contender], list[str]]:
    """Returns the knee, the ends of the front, and the known networks under their own recipes and that of the knee.

    The knee is the one that the search gives, so that no run under the new seeds has a part in the choice. The names of
    known networks that are over the limits at every width come second.
    """
    config = study.config
    knee = choose(study, confirmed=False).chosen
    picked: dict[int, tuple[TrialResult, list[str]]] = {knee.number: (knee, ["knee"])}
    for objective in config.objectives:
        best = choose(study, pick=objective.name, confirmed=False).chosen
        picked.setdefault(best.number, (best, []))[1].append(f"best {objective.name}")
    references = study.references()
    found = []
    for number, (result, names) in picked.items():
        words = [f"trial {number}", ", ".join(names)] + ([references[number]] if number in references else [])
        network = Candidate(spec=space.spec(result.spec), recipe=Recipe.from_dict(result.recipe))
        kind: Kind = "knee" if result is knee else "end"
        found.append(Contender(name=": ".join(words), kind=kind, recipe="found", networks=(network,)))
    known, over = rivals(space, config.task, config.epochs, config.constraints)
    recipe = found[0].networks[0].recipe
    return [*found, *known, *(under_recipe(each, recipe, space, config.task) for each in known)], over


def members(contenders: Sequence[Contender]) -> list[Member]:
    """Returns every network once, to be trained."""
    named: dict[str, Member] = {}
    for each in contenders:
        reference = None if each.kind in ("knee", "end") else f"{each.name}, {each.recipe} recipe"
        for network in each.networks:
            named.setdefault(network.digest, Member(candidate=network, reference=reference))
    return list(named.values())


def record(
    cell: Cell,
    plan: Plan,
    study: StudyReader,
    space: SearchSpace,
    contenders: Sequence[Contender],
    over: Sequence[str],
    end: ConfirmEnd,
) -> Record:
    """Returns the record of a cell, whose figures are those of the test split."""
    config = study.config
    known = [run for run in study.progress.confirmations() if run.training_version == TRAINING_VERSION]
    runs = {(run.digest, run.repeat): run for run in known}
    trials = study.trials()
    return {
        "cell": cell.name,
        "share": cell.share,
        "macs": cell.macs,
        "data": config.data,
        "noise": config.task.noise,
        "epochs": config.epochs,
        "fingerprint": config.fingerprint,
        "test_images": len(study_data(study).test.images),
        "minutes": plan.minutes,
        "searched_minutes": round(plan.searched(cell)["seconds"] / 60, 2),
        "trials": sum(trial.outcome is not None and trial.outcome.trained for trial in trials),
        "core_minutes": round(sum(trial.seconds or 0.0 for trial in trials) / 60, 2),
        "trained_minutes": round(sum(run.seconds for run in known) / 60, 2),
        "version": TRAINING_VERSION,
        "machine": describe(hardware()),
        "over": list(over),
        "networks": [row(each, config.task, space, runs, plan.seeds) for each in contenders],
    }


def row(
    each: Contender, task: Task, space: SearchSpace, runs: Mapping[tuple[str, int], ConfirmedRun], seeds: int
) -> Record:
    """Returns a contender with its figures under each seed, which are None where a run diverged.

    Of a pair the first network restores and the second one classifies.
    """
    costs = [space.cost(network.spec, task) for network in each.networks]

    def figures(network: Candidate, name: str) -> list[float | None]:
        return [runs[network.digest, repeat].values.get(name) for repeat in range(seeds)]

    return {
        "name": each.name,
        "kind": each.kind,
        "recipe": each.recipe,
        "params": sum(cost.params for cost in costs),
        "macs": sum(cost.macs for cost in costs),
        "networks": [{"spec": n.spec.to_dict(), "recipe": n.recipe.to_dict()} for n in each.networks],
        "psnr": figures(each.networks[0], "test_psnr"),
        "accuracy": figures(each.networks[-1], "test_accuracy"),
    }
