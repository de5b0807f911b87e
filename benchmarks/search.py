"""Which search finds good networks soonest? ``python -m benchmarks.search [--workers 1 4 16 64] [--limits 0.25 1]``.

Searches of the space ``table`` are replayed on its trained answers (`benchmarks.lib.tabular`) with a virtual clock
(`benchmarks.lib.virtual`). A method sees the values of the first training seed alone. Its result at any moment is the
front, by these values, of the candidates that it has trained to the end. The hypervolume of that front is taken over
the values of the second seed, as a share of the hypervolume of all architectures, so that luck does not pay. The table
gives this share over the epochs spent.

``--limits`` compares under limits of MACs, each at a quantile of the MACs of all architectures; 1 is no limit. Without
a limit the largest networks are the best ones, and whoever trains them first wins, so a limit is the fairer question.
What a method proposes beyond the limit costs it nothing and tells it nothing.

- ``random``, ``nsga2``, ``tpe`` and ``gp`` are Optuna's samplers as they are, with every trial trained to the end.
  ``gp`` trains 60 at most, because its proposals take seconds then. ``tpe, references`` and ``gp, references`` begin
  with the networks of the papers, as the project does.
- ``ray`` is Ray's OptunaSearch over the three objectives with Ray's ASHA on PSNR, as they are.
- ``moasha`` is Syne Tune's multi-objective ASHA, when it is installed.
- ``largest first`` trains all architectures from the one with the most MACs to the one with the fewest, and
  ``references only`` the networks of the papers and nothing else.
- ``skipnas`` is ``skipnas search --early-stopping --prior none`` with its default sampler: the project's searcher,
  scheduler and records. The prior of the space was trained on this task among others, so it has to be left out.
  ``skipnas, no references`` does not begin with the papers' networks, ``skipnas, full`` does not stop trials, and
  ``skipnas, tpe`` and ``skipnas, random`` have other samplers.
- ``oracle`` knows the first seed's front and begins with it, the slowest network first. It goes on with random
  networks, all trained to the end. It shows what the measure costs with many workers: the epochs that others spend
  while the best networks train. It is no bound, because a method that stops the others, or keeps them at slow networks,
  spends fewer.

A candidate that one of Optuna's samplers proposes again is answered at once and costs nothing, see `ASKS`. Ray and Syne
Tune train it again, as they do in earnest. Finished replays are kept under ``runs/search`` and not made again.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import IntDistribution

from benchmarks.lib import runs, tabular
from benchmarks.lib.made_up import OBJECTIVES, study_config
from benchmarks.lib.records import Record, read
from benchmarks.lib.stats import mean_interval
from benchmarks.lib.tabular import EPOCHS, SPACE, TASK, Table
from benchmarks.lib.virtual import Method, Skipnas, Trace, Values, run
from nas.search.pareto import hypervolume, non_dominated
from nas.types import Candidate
from search_spaces.unet.spec import UNetSpec
from studies.store.catalog import create_study
from studies.store.database import open_storage

TRAININGS = 200
"""The number of full trainings after which methods are compared."""
TOLD_APART = 0.001
"""Shares of the hypervolume that differ by less count as the same."""
SEEDS, WORKERS = 20, (1, 4, 16, 64)
POINTS = tuple(EPOCHS * trainings for trainings in (5, 10, 20, 40, 80, 120, 160, 200))
FOLDER = Path("runs/search")
MAXIMIZE = [objective.direction == "maximize" for objective in OBJECTIVES]
REFERENCE = [objective.reference for objective in OBJECTIVES]
MOST = 0.92
"""The most trials of a search, as a share of the candidates within the limit; the last few would have to be guessed."""
MOST_TRAININGS = {"gp": 60, "gp, references": 60}
"""The most full trainings of a method; its curve is level from there on."""
ASKS = 3
"""So many known proposals in a row by an Optuna sampler are answered for nothing; then comes a random one."""

REFERENCES: Mapping[str, Mapping[str, Any]] = {
    "unet": {},
    "attention-unet": {"gate": "attention"},
    "addunet": {"fusion": "add", "gate": "scalar"},
    "multi-resnet": {"encoder": "haar"},
    "hard-sharing": {"head_attach": "decoder"},
    "cross-stitch": {"head_attach": "decoder", "columns": 2, "sharing": "cross_stitch"},
    "nddr": {"head_attach": "decoder", "columns": 2, "sharing": "nddr"},
}
"""The networks of this space that are nearest to those that a new search begins with."""


@dataclass(frozen=True, slots=True)
class FirstSeed:
    """The answers of the table's first seed (see `benchmarks.lib.virtual.Answers`).

    Attributes:
        table: the table.
        most: limit of MACs.
    """

    table: Table
    most: float = math.inf

    @property
    def candidates(self) -> list[Candidate]:
        """The architectures within the limit."""
        return [candidate for candidate in tabular.candidates() if self.fits(candidate)]

    @property
    def trials(self) -> int:
        """The most trials of a search."""
        return round(MOST * len(self.candidates))

    def fits(self, candidate: Candidate) -> bool:
        """Tells whether a candidate is within the limit."""
        return bool(self.table.macs[self.table.row(candidate)] <= self.most)

    def values(self, candidate: Candidate, epoch: int) -> Values | None:
        return self.table.values(candidate, seed=0, epoch=epoch)

    def seconds(self, candidate: Candidate) -> float:
        return float(self.table.seconds[self.table.row(candidate), 0]) / EPOCHS


def references(answers: FirstSeed) -> list[Candidate]:
    """Returns the candidates of `REFERENCES`, each as large as the limit allows."""
    found = {candidate.spec: candidate for candidate in tabular.candidates()}
    plain = {"levels": 3, "width": 16, "fusion": "concat", "gate": "none", "encoder": "learned"}
    some = cast("UNetSpec", next(iter(found)))
    one = {"head_attach": "bottleneck", "columns": 1, "sharing": "none"}
    sizes = [{"levels": levels, "width": width} for width in (16, 8) for levels in (3, 2)]
    as_large = (
        [found[replace(some, **{**plain, **one, **fields, **size})] for size in sizes] for fields in REFERENCES.values()
    )
    return [fitting[0] for each in as_large if (fitting := [one for one in each if answers.fits(one)])]


def draw_new(
    answers: FirstSeed, known: Collection[str], generator: np.random.Generator
) -> tuple[dict[str, Any], Candidate] | None:
    """Draws a random candidate that is not known, with its hyperparameters; None when all are known."""
    new = [candidate for candidate in answers.candidates if candidate.digest not in known]
    if not new:
        return None
    candidate = new[generator.integers(len(new))]
    return SPACE.encode(candidate), candidate


class Samples:
    """One of Optuna's samplers as it is; every trial is trained to the end (see `benchmarks.lib.virtual.Method`)."""

    looks = (EPOCHS,)

    def __init__(
        self, sampler: optuna.samplers.BaseSampler, answers: FirstSeed, first: Sequence[Candidate] = ()
    ) -> None:
        self._study = optuna.create_study(directions=["maximize"] * 3, sampler=sampler)
        self._answers, self._space = answers, SPACE.distributions(TASK)
        for candidate in first:
            params = SPACE.encode(candidate)
            self._study.enqueue_trial({name: params[name] for name in self._space})
        self._trials: dict[str, tuple[optuna.Trial, Candidate]] = {}
        self._known: set[str] = set()
        self._generator = np.random.default_rng(0)

    def ask(self, name: str) -> Candidate | None:
        for attempt in itertools.count():
            if attempt == ASKS:
                drawn = draw_new(self._answers, self._known, self._generator)
                if drawn is None:
                    return None
                self._study.enqueue_trial({key: drawn[0][key] for key in self._space})
            trial = self._study.ask(self._space)
            candidate = SPACE.decode(trial.params, TASK, EPOCHS)
            self._trials[name] = trial, candidate
            fits = self._answers.fits(candidate)
            if fits and candidate.digest not in self._known:
                return candidate
            self.end(name, EPOCHS, self._answers.values(candidate, EPOCHS) if fits else None)
        return None

    def after(self, name: str, epoch: int, values: Values) -> bool:
        return True

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        trial, candidate = self._trials.pop(name)
        self._known.add(candidate.digest)
        self._study.tell(trial, values, state=None if values else optuna.trial.TrialState.FAIL)


class RaysOwn:
    """Ray's OptunaSearch with Ray's ASHA (see `benchmarks.lib.virtual.Method`)."""

    def __init__(self, seed: int, answers: FirstSeed) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        distributions = SPACE.distributions(TASK)

        def space(trial: optuna.Trial) -> None:
            for name, distribution in distributions.items():
                if isinstance(distribution, IntDistribution):
                    trial.suggest_int(name, distribution.low, distribution.high)
                else:
                    trial.suggest_categorical(name, tabular.choices_of(distribution))

        self._search = OptunaSearch(space, metric=list(tabular.OBJECTIVES), mode=["max"] * 3, seed=seed + 1)
        self._asha: Any = AsyncHyperBandScheduler(metric="psnr", mode="max", max_t=EPOCHS)
        self.looks = sorted(int(rung) for bracket in self._asha._brackets for rung, _ in bracket._rungs)
        self._candidates: dict[str, Candidate] = {}
        self._answers = answers
        self._names: dict[str, str | None] = {}
        self._generator = np.random.default_rng(seed)

    def ask(self, name: str) -> Candidate | None:
        candidate = self._proposed(name)
        self._candidates[name] = candidate
        self._asha.on_trial_add(None, self._trial(name))
        return candidate

    def _proposed(self, name: str) -> Candidate:
        """Returns the first proposal within the limit, or after `ASKS` others a random one, of which it is not told.

        OptunaSearch has no means to say that a proposal is out of the question, and repeats those that failed.
        """
        for attempt in range(ASKS):
            own = self._names[name] = f"{name}-{attempt}"
            params = self._search.suggest(own)
            assert params is not None, "OptunaSearch has no limit of its own"
            candidate = SPACE.decode(params, TASK, EPOCHS)
            if self._answers.fits(candidate):
                return candidate
            self._search.on_trial_complete(own, None, error=True)
        self._names[name] = None
        drawn = draw_new(self._answers, (), self._generator)
        assert drawn is not None, "some candidate is within the limit"
        return drawn[1]

    def after(self, name: str, epoch: int, values: Values) -> bool:
        result = {"training_iteration": epoch, **dict(zip(tabular.OBJECTIVES, values, strict=True))}
        return bool(self._asha.on_trial_result(None, self._trial(name), result) == "CONTINUE")

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        del self._candidates[name]
        result = dict(zip(tabular.OBJECTIVES, values, strict=True)) if values else None
        own = self._names.pop(name)
        if own is not None:
            self._search.on_trial_complete(own, result, error=values is None)

    def _trial(self, name: str) -> Any:
        return SimpleNamespace(trial_id=name)


class SyneTunes:
    """Syne Tune's MOASHA, which draws at random (see `benchmarks.lib.virtual.Method`)."""

    def __init__(self, seed: int, answers: FirstSeed) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        np.random.seed(seed)
        distributions = SPACE.distributions(TASK)
        space = {name: choice(list(tabular.choices_of(each))) for name, each in distributions.items()}
        self._scheduler = MOASHA(space, list(tabular.OBJECTIVES), do_minimize=False, max_t=EPOCHS, random_seed=seed)
        self.looks = sorted(int(rung) for bracket in self._scheduler.brackets for rung, _ in bracket.rungs)
        self._candidates: dict[str, Candidate] = {}
        self._answers = answers

    def ask(self, name: str) -> Candidate | None:
        candidate = SPACE.decode(self._scheduler.suggest().config, TASK, EPOCHS)
        while not self._answers.fits(candidate):  # it draws at random and need not learn of it
            candidate = SPACE.decode(self._scheduler.suggest().config, TASK, EPOCHS)
        self._candidates[name] = candidate
        self._scheduler.on_trial_add(self._trial(name))
        return candidate

    def after(self, name: str, epoch: int, values: Values) -> bool:
        return bool(self._scheduler.on_trial_result(self._trial(name), self._result(epoch, values)) == "CONTINUE")

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        del self._candidates[name]
        if values is not None and epoch == EPOCHS:
            self._scheduler.on_trial_complete(self._trial(name), self._result(epoch, values))
        else:
            self._scheduler.on_trial_remove(self._trial(name))

    def _trial(self, name: str) -> Any:
        return SimpleNamespace(trial_id=int(name))

    def _result(self, epoch: int, values: Values) -> dict[str, float]:
        return {"training_iteration": epoch, **dict(zip(tabular.OBJECTIVES, values, strict=True))}


class Listed:
    """Trains candidates in an order given before, each to the end (see `benchmarks.lib.virtual.Method`)."""

    looks = (EPOCHS,)

    def __init__(self, order: Iterable[Candidate]) -> None:
        self._left = iter(order)

    def ask(self, name: str) -> Candidate | None:
        return next(self._left, None)

    def after(self, name: str, epoch: int, values: Values) -> bool:
        return True

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        """Learns nothing."""


def known_best_first(seed: int, answers: FirstSeed) -> list[Candidate]:
    """Returns the front of the answers, the slowest network first, and then the others in a random order."""
    candidates, table = answers.candidates, answers.table
    order = np.random.default_rng(seed).permutation(len(candidates))
    values = np.array([table.all_values[table.row(candidate), 0, -1] for candidate in candidates])
    front = [candidates[row] for row in np.flatnonzero(non_dominated(values, MAXIMIZE))]
    best = sorted(front, key=answers.seconds, reverse=True)
    return [*best, *(candidates[row] for row in order if candidates[row] not in front)]


def largest_first(answers: FirstSeed) -> list[Candidate]:
    """Returns the architectures from the one with the most MACs to the one with the fewest."""
    table = answers.table
    return sorted(answers.candidates, key=lambda candidate: -int(table.macs[table.row(candidate)]))


@contextmanager
def skipnas(
    seed: int, answers: FirstSeed, sampler: str = "auto", *, stopping: bool = True, begins: bool = True
) -> Iterator[Method]:
    """Makes the project's own search, in a study in memory; it begins with the references if it `begins` so."""
    limits = [
        replace(limit, upper=int(min(limit.upper, answers.most))) if limit.name == "macs" else limit
        for limit in SPACE.limits(TASK)
    ]
    config = study_config(
        "search",
        sampler,
        space=SPACE.name,
        space_version=SPACE.version,
        constraints=tuple(limits),
        epochs=EPOCHS,
        early_stopping=stopping,
        seed=seed,
    )
    with open_storage("sqlite://") as storage:
        ledger = create_study(storage, config, SPACE.distributions(TASK), {}, "")
        with ledger.drive():
            yield Skipnas(ledger, SPACE, trials=answers.trials, first=references(answers) if begins else ())


@contextmanager
def _plain(method: Method) -> Iterator[Method]:
    yield method


METHODS: Mapping[str, Callable[[int, FirstSeed], Any]] = {
    "random": lambda seed, table: _plain(Samples(optuna.samplers.RandomSampler(seed), table)),
    "largest first": lambda seed, table: _plain(Listed(largest_first(table))),
    "references only": lambda seed, table: _plain(Listed(references(table))),
    "nsga2": lambda seed, table: _plain(Samples(optuna.samplers.NSGAIISampler(seed=seed), table)),
    "tpe": lambda seed, table: _plain(Samples(optuna.samplers.TPESampler(seed=seed), table)),
    "gp": lambda seed, table: _plain(Samples(optuna.samplers.GPSampler(seed=seed), table)),
    "tpe, references": lambda seed, table: _plain(
        Samples(optuna.samplers.TPESampler(seed=seed), table, references(table))
    ),
    "gp, references": lambda seed, table: _plain(
        Samples(optuna.samplers.GPSampler(seed=seed), table, references(table))
    ),
    "ray": lambda seed, table: _plain(RaysOwn(seed, table)),
    "moasha": lambda seed, table: _plain(SyneTunes(seed, table)),
    "oracle": lambda seed, table: _plain(Listed(known_best_first(seed, table))),
    "skipnas": skipnas,
    "skipnas, no references": partial(skipnas, begins=False),
    "skipnas, full": partial(skipnas, stopping=False),
    "skipnas, tpe": partial(skipnas, sampler="tpe"),
    "skipnas, random": partial(skipnas, sampler="random"),
}


def volumes(table: Table, trace: Trace, points: Sequence[float], most: float = math.inf) -> list[float]:
    """Returns the share of the second seed's hypervolume that the front found has, after each number of epochs
    spent."""
    rows = np.array([table.row(candidate) for _, candidate in trace.finished], dtype=np.int64)
    spent = np.array([epochs for epochs, _ in trace.finished])
    first, second = (table.all_values[:, seed, -1] for seed in (0, 1))
    found, known = [], {0: 0.0}
    for point in points:
        count = int(np.searchsorted(spent, point, side="right"))
        if count not in known:
            there = np.unique(rows[:count])
            front = there[non_dominated(first[there], MAXIMIZE)]
            known[count] = _volume(second[front]) / _all(table, most)
        found.append(known[count])
    return found


def _all(table: Table, most: float = math.inf) -> float:
    return _volume(table.all_values[table.macs <= most, 1, -1])


def _volume(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values).any(axis=1)]
    return hypervolume(there, REFERENCE, MAXIMIZE) if len(there) else 0.0


def grid() -> list[float]:
    """Returns the epochs at which a curve is kept: from one full training, evenly in logarithms, and `POINTS`."""
    return sorted({*np.geomspace(EPOCHS, EPOCHS * TRAININGS, 60).round(1).tolist(), *map(float, POINTS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One search on the table.

    Attributes:
        method: a key of `METHODS`.
        workers: the number of trials at a time.
        seed: the method's seed.
        limit: quantile of all architectures' MACs at which the limit of MACs is.
    """

    method: str
    workers: int
    seed: int
    limit: float = 1.0

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{self.method}/{self.workers}/{self.seed}/{self.limit:g}"

    def most(self, table: Table) -> float:
        """Returns the limit of MACs."""
        return float(np.quantile(table.macs, self.limit))


def perform(replay: Replay, path: Path, trainings: int = TRAININGS) -> Record:
    """Makes one search; its record holds the curve over `grid`.

    Args:
        replay: the search.
        path: the file of the table.
        trainings: the search ends when the epochs of so many full trainings are given out.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    table = Table.read(path)
    answers = FirstSeed(table, replay.most(table))
    budget = EPOCHS * min(trainings, MOST_TRAININGS.get(replay.method, trainings))
    with METHODS[replay.method](replay.seed, answers) as made:
        trace = run(made, answers, workers=replay.workers, epochs=EPOCHS, budget=budget, trials=answers.trials)
    return {
        "key": replay.key,
        "curve": [round(value, 5) for value in volumes(table, trace, grid(), answers.most)],
        "begun": trace.asked,
        "finished": len(trace.finished),
        "epochs": round(trace.epochs),
    }


def area(curve: Sequence[float]) -> float:
    """Returns the mean of a curve over the logarithm of epochs, from one full training to `TRAININGS`."""
    logs = np.log(grid())
    return float(np.trapezoid(curve, logs) / (logs[-1] - logs[0]))


def all_known(table: Table, limit: float = 1.0) -> float:
    """Returns the share with which a search ends that has trained everything.

    More of the second seed's hypervolume is luck.
    """
    most = float(np.quantile(table.macs, limit))
    first, second = (table.all_values[table.macs <= most, seed, -1] for seed in (0, 1))
    return _volume(second[non_dominated(first, MAXIMIZE)]) / _all(table, most)


def table_of(
    found: Mapping[str, Record],
    methods: Sequence[str],
    workers: int,
    seeds: Sequence[int],
    most: float,
    limit: float = 1.0,
) -> str:
    """Writes the share of the hypervolume by epochs spent, the area, and the epochs to what the best rival ends with.

    Args:
        found: records of replays by key.
        methods: the rows; a method without all of its replays is left out.
        workers: the number of workers of these replays.
        seeds: the seeds of these replays.
        most: see `all_known`; a share that rivals have beyond it need not be reached.
        limit: the limit of these replays.
    """
    curves = {}
    for method in methods:
        keys = [Replay(method=method, workers=workers, seed=seed, limit=limit).key for seed in seeds]
        if all(key in found for key in keys):
            curves[method] = np.array([found[key]["curve"] for key in keys])
    others = {method: curve for method, curve in curves.items() if not method.startswith(("skipnas", "oracle"))}
    points = [grid().index(float(point)) for point in POINTS]
    best_end, best = max((float(curve[:, -1].mean()), method) for method, curve in others.items())
    goal = min(best_end, most) - TOLD_APART
    lines = [
        f"{workers} workers, {len(seeds)} seeds, limit of MACs at the quantile {limit:g}: "
        f"share of the hypervolume after so many epochs "
        f"(of which {EPOCHS} are a full training), and area over log epochs; mean with 95 % interval.",
        "",
        f"| method | {' | '.join(f'{point:,}' for point in POINTS)} | area "
        f"| epochs to {goal:.4f} ({best} ends with {best_end:.4f}) |",
        "|---" * (len(POINTS) + 3) + "|",
    ]
    for method, curve in curves.items():
        areas = mean_interval([area(each) for each in curve])
        reached = np.flatnonzero(curve.mean(axis=0) >= goal)
        epochs = f"{grid()[reached[0]]:,.0f}" if len(reached) else "not reached"
        cells = [f"{curve[:, index].mean():.3f}" for index in points]
        last = mean_interval(list(curve[:, -1]))
        cells[-1] += f" ± {(last.high - last.low) / 2:.3f}"
        lines.append(
            f"| {method} | {' | '.join(cells)} | {areas.mean:.3f} ± {(areas.high - areas.low) / 2:.3f} | {epochs} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the replays that are missing, then prints a table for each number of workers. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=(__doc__ or "").partition("?")[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--limits", type=float, nargs="+", default=[1.0], help="quantiles of MACs; 1 is no limit")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--from-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--table", type=Path, default=tabular.FILE, help="made by benchmarks.table")
    parser.add_argument("--results", type=Path, default=FOLDER / "replays.jsonl")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if not options.table.exists():
        parser.error(f"no table at {options.table}; make it with python -m benchmarks.table")
    methods = [name for name in options.methods if name != "moasha" or _has_syne_tune()]
    seeds = range(options.from_seed, options.from_seed + options.seeds)
    plan = [
        Replay(method=method, workers=workers, seed=seed, limit=limit)
        for limit, method, workers, seed in itertools.product(options.limits, methods, options.workers, seeds)
    ]
    done = read(options.results)
    todo = [replay for replay in plan if replay.key not in done]
    if not runs.perform_all(todo, options.results, partial(perform, path=options.table)):
        print(f"stopped; {options.results} has what is finished, and the same command goes on", file=sys.stderr)
        return 130
    found = read(options.results)
    table = Table.read(options.table)
    for limit, workers in itertools.product(options.limits, options.workers):
        print(table_of(found, methods, workers, seeds, all_known(table, limit), limit), end="\n\n")
    return 0


def _has_syne_tune() -> bool:
    from importlib.util import find_spec

    return find_spec("syne_tune") is not None


if __name__ == "__main__":
    sys.exit(main())
