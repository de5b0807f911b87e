"""How far a study has come: its trials by outcome, its front, its rungs, and what proposals learn from.

What has ended is read once. Ends are committed in their order, by this process or another, and trials are made in
turns, so reading on from the last that is known is enough.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, select

from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.search.objectives import metric_of, of_basis
from nas.search.pareto import Array, Mask, non_dominated
from nas.search.past import Judged
from nas.types import Counts, EpochRow, Objective
from studies.store import statements as sql
from studies.store.epochs import read_epochs
from studies.store.opened import OpenedStudy
from studies.store.optuna_bridge import forget_trials, stored_trial
from studies.store.records import ConfirmationRecord, group_of
from studies.store.retries import patient

SIZES = tuple(metric.name for metric in of_basis("cost", "program"))
"""The metrics that a choice can be limited in."""

SOME = 500
"""Trials whose hyperparameters are asked for at once: databases limit the parameters of a statement."""


@dataclass(slots=True)
class _Ended:
    """Facts about the trials of a study that have ended, so that they are not read again.

    Attributes:
        newest: Optuna's id of the latest trial that was read; -1 before the first.
        next_number: the number after those of all trials that were read.
        open: the trials that had not ended when they were read, or whose end was not in the records, by Optuna's id,
            oldest first; None before the first reading.
        counts: counts of the others, as in `Counts`.
        trials: number of the study's oldest trials that are all among the others.
        up_to: Optuna's id of the last of these trials.
        later: Optuna's ids of the rest of the others, by number.
        started: by version of the training code, the digests of all trials of the study that are known to have begun,
            open ones included. Trials that had failed before they were read are left out.
        unrecorded: numbers of trials that were read as ended in Optuna, and not in the records.
    """

    newest: int = -1
    next_number: int = 0
    open: dict[int, Row[Any]] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    up_to: int = -1
    later: dict[int, int] = field(default_factory=dict)
    started: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    unrecorded: set[int] = field(default_factory=set)

    def note(self, unfinished: Sequence[Row[Any]], ended: Sequence[Row[Any]]) -> None:
        """Takes every trial that has not ended, and those that have ended since the last call, or others again."""
        stays = [*unfinished]
        for row in ended:
            if row.reason is None:
                self.unrecorded.add(row.number)
                stays.append(row)
            elif row.number >= self.trials and row.number not in self.later:
                self.counts[group_of(row.state, row.reason)] += 1
                self.later[row.number] = row.trial_id
        for row in (*unfinished, *ended):
            failed = row.reason is not None and not Outcome.read(row.reason).trained
            if row.started is not None and row.digest is not None and not failed:
                self.started[row.training_version].add(row.digest)
            self.next_number = max(self.next_number, row.number + 1)
        while self.trials in self.later:
            self.up_to = self.later.pop(self.trials)
            self.trials += 1
        stays.sort(key=lambda row: row.number)
        self.open = {row.trial_id: row for row in stays}
        # A trial that began while this was read may be older than one that has ended, so that what is read as ended
        # says nothing of where to go on.
        self.newest = max([self.newest, self.up_to, *(row.trial_id for row in unfinished)])


@dataclass(slots=True)
class _FrontBySize:
    """The trials that no other trial dominates without being larger; it is known anew only when it is asked for.

    Attributes:
        later: number, values and sizes (`SIZES`) of the trials that it does not know yet.
        numbers: numbers of the trials, shape (n,).
        losses: their objectives, all minimised, shape (n, objectives).
        sizes: their sizes, shape (n, sizes).
    """

    later: list[tuple[int, Sequence[float], Sequence[float]]] = field(default_factory=list)
    numbers: Array = field(default_factory=lambda: np.empty(0))
    losses: Array = field(default_factory=lambda: np.empty((0, 0)))
    sizes: Array = field(default_factory=lambda: np.empty((0, len(SIZES))))

    def members(self, maximize: Sequence[bool]) -> list[int]:
        """Returns the numbers of the trials, in ascending order."""
        signs = np.where(maximize, -1.0, 1.0)
        self.losses = self.losses.reshape(-1, len(signs))
        for number, values, sizes in self.later:
            self._add(number, signs * np.array(values), np.array(sizes))
        self.later.clear()
        return sorted(int(number) for number in self.numbers)

    def _add(self, number: int, losses: Array, sizes: Array) -> None:
        if (np.all(self.sizes <= sizes, axis=1) & _dominates(self.losses, losses)).any():
            return  # whatever this trial beats is beaten by the one that beats it
        stays = ~(np.all(sizes <= self.sizes, axis=1) & _dominates(losses, self.losses))
        self.numbers = np.append(self.numbers[stays], number)
        self.losses = np.vstack([self.losses[stays], losses])
        self.sizes = np.vstack([self.sizes[stays], sizes])


def _dominates(losses: Array, others: Array) -> Mask:
    """Tells for each row of the one that has several whether it dominates, or is dominated by, the other's only row."""
    result: Mask = np.logical_and(np.all(losses <= others, axis=1), np.any(losses < others, axis=1))
    return result


@dataclass(slots=True)
class _ReadRung:
    """What was read of the trials that were validated after one epoch.

    Attributes:
        values: their values by number, in the order in which they were read.
        rows: number of trials that had this epoch in the epochs table.
        own: numbers of those of which this process wrote the epoch.
        up_to: number of the study's oldest trials that had all ended then, so that they are not read again.
    """

    values: dict[int, tuple[float, ...]] = field(default_factory=dict)
    rows: int = 0
    own: set[int] = field(default_factory=set)
    up_to: int = 0


class Progress:
    """What is known of a study's trials; the `nas.search.past.Past` of its proposals.

    Methods that take a connection read within the caller's transaction; the others make one of their own.
    """

    def __init__(self, study: OpenedStudy) -> None:
        self._study, self._config, self._id = study, study.config, study.study_id
        self.patience = study.patience
        at_rungs = [objective.name for objective in self.rung_objectives()]
        self._later_at_rung, self._some_at_rung = (sql.at_rung(at_rungs, later=later) for later in (True, False))
        self._judged_query = sql.judged(at_rungs)
        self._ended = _Ended()
        self._values: dict[int, tuple[float, ...]] = {}
        self._values_up_to = 0
        self._front: list[int] = []
        self._kept = _FrontBySize()
        self._drawn: dict[int, Array] = {}
        self._judged: dict[int, tuple[int, tuple[float, ...]]] = {}
        self._judged_up_to = 0
        self._rungs: defaultdict[tuple[int, int], _ReadRung] = defaultdict(_ReadRung)
        self._written: defaultdict[int, set[int]] = defaultdict(set)

    # Within a transaction

    @property
    def next_number(self) -> int:
        """The number after those of all trials that were read."""
        return self._ended.next_number

    def open_trials(self, connection: Connection) -> list[Row[Any]]:
        """Every trial that has not ended, or whose end is not in the records, as `sql.OPEN` reads it, oldest first."""
        ended, study = self._ended, {"study": self._id}
        unfinished = connection.execute(sql.OPEN, study | {"after": ended.up_to}).all()
        new = [*connection.execute(sql.ENDED_LATER, study | {"after": ended.newest})]
        gone = sorted((ended.open or {}).keys() - {row.trial_id for row in unfinished})
        for first in range(0, len(gone), SOME):
            new += connection.execute(sql.SOME_ENDED, study | {"trials": gone[first : first + SOME]})
        ended.note(unfinished, new)
        return self._read_last()

    def _read_last(self) -> list[Row[Any]]:
        """The trials that `open_trials` found when it was called last."""
        return [*(self._ended.open or {}).values()]

    def _open(self, reread: bool) -> list[Row[Any]]:
        """The trials of `open_trials`, read now or, if they were read before and `reread` is False, then."""
        if not reread and self._ended.open is not None:
            return self._read_last()
        with self._study.storage.transaction() as connection:
            return self.open_trials(connection)

    def running(self, connection: Connection) -> list[Row[Any]]:
        """Every trial that Optuna has as RUNNING, as `sql.OPEN` reads it, oldest first."""
        return [row for row in self.open_trials(connection) if row.state is TrialState.RUNNING]

    def take_unrecorded(self) -> bool:
        """Tells whether trials were read, since the last call, that have ended in Optuna and not in the records."""
        found = bool(self._ended.unrecorded)
        self._ended.unrecorded.clear()
        return found

    def places_taken(self, connection: Connection) -> int:
        """Places of the budget that trials take: trained ones, and unfinished ones whoever has them."""
        later = sum(
            row.state in (TrialState.COMPLETE, TrialState.PRUNED)
            # One that has a reason was recorded by an older skipnas, which told Optuna in a second step.
            or (row.state is TrialState.RUNNING and Outcome.read(row.reason).takes_place)
            for row in self.open_trials(connection)
        )
        return Counts(**self._ended.counts).trained + later

    # Trials

    @patient
    def counts(self, *, reread: bool = True) -> Counts:
        """Trials by outcome."""
        rows = self._open(reread)
        return Counts(**(self._ended.counts + Counter(group_of(row.state, row.reason) for row in rows)))

    @patient
    def started_digests(self) -> Set[str]:
        """Digests of the trials that this version began to train; the set grows by later calls.

        A trial that has failed says nothing about its candidate, which may be tried again.
        """
        with self._study.storage.transaction() as connection:
            self.open_trials(connection)
        return self._ended.started[self._study.training_version]

    @patient
    def under_way(self, *, reread: bool = True) -> list[int]:
        """Numbers of the trials that have not ended, whichever driver trains them, ascending."""
        return [row.number for row in self._open(reread) if row.state is TrialState.RUNNING]

    @patient
    def ended(self) -> Set[int]:
        """Numbers of the trials that have ended."""
        later = (row.number for row in self._open(reread=True) if row.state.is_finished())
        return {*range(self._ended.trials), *self._ended.later, *later}

    @patient
    def epochs_table(self, number: int) -> list[EpochRow]:
        """A trial's epochs in order; empty when it has none."""
        with self._study.storage.transaction() as connection:
            return read_epochs(connection, self._id, number).get(number, [])

    @patient
    def confirmations(self) -> list[ConfirmedRun]:
        """Every run that confirms a candidate of this study, in the order in which they ended."""
        query = (
            select(ConfirmationRecord)
            .where(ConfirmationRecord.study_id == self._id)
            .order_by(ConfirmationRecord.ended, ConfirmationRecord.repeat, ConfirmationRecord.digest)
        )
        with self._study.storage.session() as session:
            return [record.run for record in session.scalars(query)]

    # The front

    @patient
    def objective_values(self) -> Mapping[int, tuple[float, ...]]:
        """Number -> values, in the order of the study's objectives, of every COMPLETE trial."""
        with self._study.storage.transaction() as connection:
            rows = connection.execute(sql.ENDED, {"study": self._id, "after": self._values_up_to}).all()
        complete = Outcome.COMPLETE.stored
        new = {row.number: self._config.in_order(row.measured) for row in rows if row.reason == complete}
        if rows:
            self._values_up_to = rows[-1].tell_order
        if new:
            self._values |= new
            self._kept.later += [
                (row.number, new[row.number], [row.measured.get(name, math.inf) for name in SIZES])
                for row in rows
                if row.number in new
            ]
            rivals = [*self._front, *new]
            maximize = [objective.direction == "maximize" for objective in self._config.objectives]
            mask = non_dominated(np.array([self._values[number] for number in rivals]), maximize)
            self._front = [number for number, keep in zip(rivals, mask, strict=True) if keep]
        return MappingProxyType(self._values)

    def front(self) -> list[int]:
        """Numbers of the COMPLETE trials that no other dominates, in ascending order."""
        self.objective_values()
        return sorted(self._front)

    def kept(self) -> list[int]:
        """Numbers of the COMPLETE trials that are on the front among all that are no larger, in ascending order.

        No other trial dominates such a trial without being larger, so it is on the front within some limits of size.
        Every trial of the front is one of them.
        """
        self.objective_values()
        return self._kept.members([o.direction == "maximize" for o in self._config.objectives])

    # Rungs

    def rung_objectives(self) -> tuple[Objective, ...]:
        """The study's objectives that are known wherever trials are validated (see `Metric.at_rungs`)."""
        return tuple(o for o in self._config.objectives if metric_of(o.name).at_rungs)

    def note_epochs(self, number: int, epochs: Iterable[int]) -> None:
        """Notes what this process has written to the epochs table, so that it is found without reading all others."""
        for epoch in epochs:
            self._written[epoch].add(number)

    @patient
    def rung(self, epoch: int) -> Mapping[int, tuple[float, ...]]:
        """Number -> values of `rung_objectives` at `epoch` of every trial that was validated there.

        It grows at its end by later calls. Trials of another version of the training code are left out, because their
        figures do not compare.
        """
        read = self._rungs[epoch, self._study.training_version]
        key = {"study": self._id, "rung": epoch}
        own = {"version": self._study.training_version}
        new = self._written[epoch] - read.own
        with self._study.storage.transaction() as connection:
            rows = connection.execute(sql.COUNT_AT_EPOCH, key).scalar_one()
            if rows == read.rows + len(new):  # no other driver has written any
                some = {"trials": sorted(new)}
                found = connection.execute(self._some_at_rung, key | own | some).all() if new else []
            else:
                found = connection.execute(self._later_at_rung, key | own | {"from": read.up_to}).all()
        read.rows, read.up_to = rows, self._ended.trials
        read.own |= new
        read.values.update((number, tuple(map(float, values))) for number, *values in found)
        return MappingProxyType(read.values)

    # The past of a proposal

    @patient
    def judged(self) -> Judged:
        """Number -> last validated epoch and the objectives' values there, of every trained trial.

        NaN for an objective that a stopped trial does not have.
        """
        names = [o.name for o in self.rung_objectives()]
        with self._study.storage.transaction() as connection:
            rows = connection.execute(self._judged_query, {"study": self._id, "after": self._judged_up_to})
            for number, tell_order, reason, measured, epoch, *values in rows:
                if (outcome := Outcome.read(reason)) is Outcome.COMPLETE:
                    self._judged[number] = self._config.epochs, self._config.in_order(measured)
                elif outcome is Outcome.STOPPED and epoch is not None:
                    known = dict(zip(names, map(float, values), strict=True))
                    self._judged[number] = epoch, tuple(known.get(o.name, math.nan) for o in self._config.objectives)
                else:
                    self._judged[number] = 0, ()
                self._judged_up_to = tell_order
        return MappingProxyType(self._judged)

    @patient
    def drawn(self, numbers: Sequence[int]) -> Array:
        """Hyperparameters as Optuna stores them, shape (trials, hyperparameters); NaN where none was drawn yet."""
        unread = [number for number in numbers if number not in self._drawn]
        names = {name: column for column, name in enumerate(self._study.distributions)}
        found = {number: np.full(len(names), np.nan) for number in unread}
        with self._study.storage.transaction() as connection:
            for first in range(0, len(unread), SOME):
                some = {"study": self._id, "trials": unread[first : first + SOME]}
                for number, name, value in connection.execute(sql.DRAWN, some):
                    if name in names:
                        found[number][names[name]] = value
        # One that is being drawn is read again.
        self._drawn.update((number, row) for number, row in found.items() if not np.isnan(row).any())
        rows = [found[number] if number in found else self._drawn[number] for number in numbers]
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))

    @patient
    def as_optuna(self, number: int) -> tuple[optuna.Study, FrozenTrial]:
        """The study and one of its trials as Optuna's own samplers take them; trials are read anew."""
        with self._study.storage.guard():
            forget_trials(self._study.optuna_study)
            return self._study.optuna_study, stored_trial(self._study.storage.optuna, self._id, number)
