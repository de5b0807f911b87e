"""A study as it happened: every trial with its epochs, read at once, for figures, pages and data frames."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import select

from nas.outcome import GROUPS, Outcome
from nas.search.importance import Importance, importances
from nas.search.objectives import metric_of, of_basis, titled
from nas.search.pareto import hypervolume
from nas.settings import StudyConfig
from nas.types import EpochRow, Objective, ProbeCurve, flat
from studies.reading.best import Choice, choose
from studies.reading.study import recorded
from studies.store.records import ProbeRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

    from studies.reading.study import StudyReader

FRONT = "front"
"""Group of the trials on the Pareto front, beside those of `nas.outcome.GROUPS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial.

    Attributes:
        on_front: whether no other complete trial dominates it by the search's values.
        values: every measured value of a complete trial.
        last: of a pruned trial: what its last validated epoch showed, by objective.
        same_as: of a duplicate: the trial that has its candidate.
        hyperparameters: as the sampler drew them.
        reference: name of the network of the papers that it is, if it was enqueued as one; else empty.
        order: place of its end among the study's events; None while it has not ended.
        training_version: of the training code that trains it or did; None of one that was never started.
    """

    number: int
    outcome: Outcome
    on_front: bool
    detail: str
    digest: str | None
    spec: Mapping[str, Any]
    recipe: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    reference: str
    values: Mapping[str, float]
    last: Mapping[str, float]
    same_as: int | None
    params: int | None
    macs: int | None
    peak_memory: float | None
    seconds: float | None
    started: float | None
    ended: float | None
    order: int | None
    epochs_done: int
    training_version: int | None
    gates: tuple[Mapping[str, float], ...]
    epochs: tuple[EpochRow, ...]

    @property
    def group(self) -> str:
        """What figures draw the trial as: `FRONT`, or a key of `nas.outcome.GROUPS`."""
        return FRONT if self.on_front else self.outcome.group

    @property
    def ending(self) -> str:
        """How it ended, for people: ``complete``, ``pruned (diverged)``, ``over a limit``."""
        group, outcome = GROUPS[self.outcome.group], self.outcome.words
        return group if group == outcome else f"{group} ({outcome})"


@dataclass(frozen=True, kw_only=True)  # without slots, for what is computed once
class History:
    """A study with all its trials.

    Attributes:
        trials: by number.
        choice: the knee, by confirmed means where there are any; None while no trial is complete.
        probes: probe curves of the front's members and of the least stable complete trial, by number.
    """

    config: StudyConfig
    trials: tuple[Trial, ...]
    choice: Choice | None
    probes: Mapping[int, ProbeCurve]

    @property
    def complete(self) -> list[Trial]:
        """Complete trials, those of the front among them."""
        return [t for t in self.trials if t.outcome is Outcome.COMPLETE]

    @property
    def front(self) -> list[Trial]:
        """Trials that no other dominates by the search's values, whatever a confirmation found."""
        return [t for t in self.trials if t.on_front]

    @property
    def hypervolume(self) -> float:
        """Of the front, from the objectives' reference points; 0 while it is empty."""
        if not self.front:
            return 0.0
        objectives = self.config.objectives
        values = np.array([[t.values[o.name] for o in objectives] for t in self.front])
        return hypervolume(values, [o.reference for o in objectives], [o.direction == "maximize" for o in objectives])

    @property
    def knee(self) -> int | None:
        return None if self.choice is None else self.choice.chosen.number

    @cached_property
    def importances(self) -> Mapping[str, Mapping[str, Importance]]:
        """Objective -> hyperparameter -> how much it decides, the most important first; none with too few trials."""
        trials = self.complete
        chosen = [trial.hyperparameters for trial in trials]
        names = [objective.name for objective in self.config.objectives]
        return {name: importances(chosen, [trial.values[name] for trial in trials]) for name in names}

    @cached_property
    def hover(self) -> Mapping[int, str]:
        """What figures show of each trial that is pointed at, by number."""
        return {t.number: describe_trial(t, self.config.objectives) for t in self.trials}

    def trials_frame(self) -> pd.DataFrame:
        """One row a trial: outcome, values, cost, times, hyperparameters; specs and recipes as dictionaries."""
        import pandas as pd

        names = [o.name for o in self.config.objectives]
        beside = [metric.name for metric in of_basis("cost", "program") if metric.name not in names]
        rows = [
            {
                "number": t.number,
                "outcome": t.group,
                "reason": t.outcome.stored,
                **{name: t.values.get(name) for name in names},
                **{name: recorded(t, name) for name in beside},
                **{name: getattr(t, name) for name in ("seconds", "peak_memory", "epochs_done", "digest")},
                "training_version": t.training_version,
                "started": None if t.started is None else pd.Timestamp(t.started, unit="s", tz="UTC"),
                "ended": None if t.ended is None else pd.Timestamp(t.ended, unit="s", tz="UTC"),
                **t.hyperparameters,
                "spec": dict(t.spec),
                "recipe": dict(t.recipe),
            }
            for t in self.trials
        ]
        columns = None if rows else ["number", "outcome", "reason", *names]
        return pd.DataFrame(rows, columns=columns).set_index("number")

    def epochs_frame(self) -> pd.DataFrame:
        """One row a trial and epoch: losses, validation figures where the epoch was validated, seconds."""
        import pandas as pd

        measured = [metric.name for metric in of_basis("images", "run")]
        columns = ["number", "epoch", "denoise_loss", "classify_loss", *measured, "seconds"]
        rows = [{"number": t.number, **flat(row)} for t in self.trials for row in t.epochs]
        return pd.DataFrame(rows, columns=columns)

    def front_frame(self) -> pd.DataFrame:
        """The rows of `trials_frame` that are on the front, and whether each is the knee."""
        frame = self.trials_frame()
        frame = frame[frame["outcome"] == "front"]
        return frame.assign(knee=frame.index == self.knee)


def describe_trial(trial: Trial, objectives: Sequence[Objective], width: int = 56) -> str:
    """A trial for hovering: outcome, values, cost, and the spec in lines of `width`."""
    head = f"<b>trial {trial.number}</b> · {FRONT if trial.on_front else trial.ending}"
    if trial.reference:
        head += f" · {trial.reference}"
    if trial.outcome.ended_early:
        head += f" · {trial.epochs_done} epochs"
    values = trial.values or trial.last
    figures = [figure for figure in (objectives_text(objectives, values), costs_text(trial)) if figure]
    spec = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in trial.spec.items())
    return "<br>".join([head, *textwrap.wrap(", ".join(figures), width), *textwrap.wrap(spec, width)])


def objectives_text(objectives: Sequence[Objective], values: Mapping[str, float]) -> str:
    """The objectives that are known: ``psnr 20.12 dB, accuracy 97.50 %``."""
    return ", ".join(f"{o.name} {metric_of(o.name).text(values[o.name])}" for o in objectives if o.name in values)


def costs_text(trial: Trial) -> str:
    """The costs of a trial, if it was proposed: ``158,539 parameters, 1,944,192 MACs``."""
    return titled({metric.name: recorded(trial, metric.name) for metric in of_basis("cost")})


def read_history(study: StudyReader) -> History:
    """Reads a study in a handful of queries, whatever its size.

    Raises:
        StorageError: the database cannot be read.
    """
    config = study.config
    choice = choose(study) if study.progress.objective_values() else None
    front = set() if choice is None else set(choice.searched)
    with study.storage.guard():
        asked = {t.number: t for t in study.optuna_trials()}
    first = study.trained_digests()
    references = study.references()
    epochs = study.epochs_tables()
    trials = []
    for record in study.trials():
        rows = tuple(epochs.get(record.number, ()))
        outcome = record.outcome
        trials.append(
            Trial(
                number=record.number,
                outcome=outcome,
                on_front=record.number in front,
                detail=record.detail or "",
                digest=record.digest,
                spec=record.spec or {},
                recipe=record.recipe or {},
                hyperparameters=asked[record.number].params if record.number in asked else {},
                reference=references.get(record.number, ""),
                values=record.values or {},
                last={} if outcome is Outcome.COMPLETE else _last(rows, config.objectives, record),
                same_as=first.get(record.digest or "") if outcome is Outcome.DUPLICATE else None,
                params=record.params,
                macs=record.macs,
                peak_memory=record.peak_memory,
                seconds=record.seconds if record.seconds is not None else sum(row.seconds for row in rows) or None,
                started=record.started,
                ended=record.ended,
                order=record.tell_order,
                epochs_done=record.epochs_done or 0,
                training_version=record.trained_by,
                gates=tuple(record.gates or ()),
                epochs=rows,
            )
        )
    done = [t for t in trials if t.values]
    wanted = sorted(front)
    if done and "stability" in done[0].values:
        wanted.append(min(done, key=lambda t: t.values.get("stability", 1.0)).number)
    return History(
        config=config,
        trials=tuple(trials),
        choice=choice,
        probes=_probes(study, wanted),
    )


def _probes(study: StudyReader, numbers: Iterable[int]) -> dict[int, ProbeCurve]:
    """Probe curves of these trials; empty ones where there are none."""
    query = select(ProbeRecord).where(ProbeRecord.study_id == study.study_id, ProbeRecord.number.in_(numbers))
    with study.storage.session() as session:
        found = {record.number: record.curve for record in session.scalars(query)}
    return {number: found.get(number, ProbeCurve()) for number in numbers}


def _last(rows: Sequence[EpochRow], objectives: Sequence[Objective], record: TrialRecord) -> dict[str, float]:
    validated = [row for row in rows if row.validated]
    if not validated:
        return {}
    costs = {metric.name: recorded(record, metric.name) for metric in of_basis("cost")}
    known = costs | dict(validated[-1].values)
    return {o.name: float(value) for o in objectives if (value := known.get(o.name)) is not None}


def hypervolume_steps(history: History) -> list[dict[str, float]]:
    """After each trained trial, in the order of their ends: trials, epochs, minutes, hypervolume, number.

    Minutes count from the first start; what passed between two runs of a search counts too.
    """
    objectives = history.config.objectives
    trained = [t for t in history.trials if t.outcome.trained and t.order is not None]
    trained.sort(key=lambda t: t.order or 0)
    if not any(t.values for t in trained):
        return []
    begin = min(t.started for t in trained if t.started is not None)
    maximize = [o.direction == "maximize" for o in objectives]
    reference = [o.reference for o in objectives]
    steps = []
    front: list[list[float]] = []
    volume, epochs = 0.0, 0
    for count, trial in enumerate(trained, 1):
        epochs += trial.epochs_done
        if trial.values:
            point = [trial.values[o.name] for o in objectives]
            if not any(_covers(other, point, maximize) for other in front):
                front = [other for other in front if not _covers(point, other, maximize)] + [point]
                volume = hypervolume(np.array(front), reference, maximize)
        minutes = ((trial.ended or begin) - begin) / 60
        steps.append(
            {"trials": count, "epochs": epochs, "minutes": minutes, "hypervolume": volume, "number": trial.number}
        )
    return steps


def lanes(history: History) -> list[tuple[Trial, int]]:
    """Trials that started and ended, each with the row of `workers` that it is drawn in, from 0."""
    trials = [t for t in history.trials if t.started is not None and t.ended is not None]
    trials.sort(key=lambda t: (t.started, t.number))
    free: list[float] = []
    result = []
    for trial in trials:
        start = trial.started or 0.0
        lane = next((i for i, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [trial.ended or start]
        result.append((trial, lane))
    return result


def _covers(a: Sequence[float], b: Sequence[float], maximize: Sequence[bool]) -> bool:
    return all(p >= q if up else p <= q for p, q, up in zip(a, b, maximize, strict=True))
