"""What is written of trials: each change of a trial's records and what Optuna is told of it, in one transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import TrialState
from sqlalchemy import Connection, Row, insert

from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.training.version import FIRST_VERSION
from nas.types import Candidate, Cost, EpochRow, Measurement, ProbeCurve, canonical_json
from studies.store import statements as sql
from studies.store.driver import Driver
from studies.store.epochs import epoch_columns
from studies.store.opened import OpenedStudy
from studies.store.optuna_bridge import (
    SYSTEM_ATTRIBUTES,
    USER_ATTRIBUTES,
    constraint_attributes,
    end_trial,
    picture_attribute,
    set_attributes,
    write_params,
)
from studies.store.records import ConfirmationRecord
from studies.store.retries import patient


class Writer:
    """Writes what a driver's trials come to. A trial of another driver raises LeaseLostError and stays as it is."""

    def __init__(self, study: OpenedStudy, driver: Driver) -> None:
        self._study, self._driver, self._id = study, driver, study.study_id
        self.patience = study.patience

    @patient
    def params(self, number: int, params: Mapping[str, Any]) -> None:
        """Writes hyperparameters that a trial was given; those that a lost call wrote are there already."""
        if params:
            with self._study.storage.transaction() as connection:
                trial_id = self._driver.optuna_id(connection, number)
                write_params(connection, trial_id, params, self._study.distributions)

    @patient
    def start(self, number: int, candidate: Candidate, cost: Cost, worker: str) -> bool:
        """A trial begins to train, or goes on: the first start time stays.

        False, and nothing happens, when this version of the training code has trained another trial of the same
        digest to an end, or one was started and has not ended, whoever has it: an interrupted one will go on. A trial
        that another version began starts again, so that its epochs go.
        """
        version = self._study.training_version
        with self._study.storage.transaction() as connection:
            self._driver.hold(connection)
            record = self._driver.record_of(connection, number)
            if record.reason is not None:
                raise ValueError(f"trial {number} has ended already ({Outcome.read(record.reason)})")
            twin = {"study": self._id, "twin": candidate.digest, "trial": number, "version": version}
            if connection.scalar(sql.TWIN, twin) is not None:
                return False
            changes = self._describe(connection, record, number, candidate, cost)
            changes |= {"started": record.started or time.time(), "worker": worker, "training_version": version}
            if record.started is not None and record.training_version != version:
                connection.execute(sql.DROP_ALL_EPOCHS, {"study": self._id, "trial": number})
                changes["epochs_done"] = 0
            if record.ask_order is None:
                changes["ask_order"] = self._driver.next_event(connection)
            connection.execute(sql.CHANGE_TRIAL, {"study": self._id, "trial": number} | changes)
        self._driver.began(number)
        return True

    @patient
    def epochs(self, number: int, rows: Sequence[EpochRow]) -> None:
        """Appends to the epochs table; rows that are there already are replaced."""
        if not rows:
            return
        with self._study.storage.transaction() as connection:
            # The write holds the trial until the commit, so that it is not claimed meanwhile.
            key = {"study": self._id, "trial": number}
            last = max(row.epoch for row in rows)
            own = {"own": self._driver.owner, "optuna": self._driver.optuna_id(connection, number)}
            done = connection.execute(sql.CHANGE_EPOCHS_DONE, key | own | {"last": last})
            if not done.rowcount and self._driver.record_of(connection, number).started is None:
                raise ValueError(f"trial {number} has epochs but was never started")
            connection.execute(sql.DROP_EPOCHS, key | {"epochs": [row.epoch for row in rows]})
            connection.execute(
                insert(sql.EPOCHS),
                [{"study_id": self._id, "number": number} | epoch_columns(row) for row in rows],
            )

    def complete(self, number: int, measurement: Measurement, *, strip: bool = False) -> None:
        """COMPLETE with the values of the study's objectives.

        With `strip` the trial has its picture (see `nas.training.checkpoint.strip_path`) as an artifact in Optuna.

        Raises:
            ValueError: a value is missing, NaN or infinite, or the trial is not being trained: a bug.
        """
        if wrong := [f"{name} is {value}" for name, value in measurement.values.items() if not math.isfinite(value)]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(wrong)}")
        if missing := [o.name for o in self._study.config.objectives if o.name not in measurement.values]:
            raise ValueError(f"trial {number} cannot be complete: {', '.join(missing)} was not measured")
        self._end(number, Outcome.COMPLETE, measurement=measurement, probe=measurement.probe, strip=strip)

    def prune(self, number: int, outcome: Outcome, *, detail: str = "", probe: ProbeCurve | None = None) -> None:
        """Ends a trial that was trained without values: an outcome whose state is PRUNED."""
        if outcome.state != "PRUNED":
            raise ValueError(f"{outcome.value!r} is no outcome to prune with")
        self._end(number, outcome, detail=detail, probe=probe)

    def fail(self, number: int, outcome: Outcome, *, detail: str = "") -> None:
        """Ends a trial that says nothing of its candidate: an outcome whose state is FAIL."""
        if outcome.state != "FAIL":
            raise ValueError(f"{outcome.value!r} is no outcome to fail with")
        self._end(number, outcome, detail=detail)

    def reject(self, number: int, candidate: Candidate, cost: Cost, outcome: Outcome) -> None:
        """Ends a trial before training, a duplicate or one over a limit, with what was proposed.

        The reservation that the trial was asked with is one again.
        """
        if not outcome.rejected:
            raise ValueError(f"{outcome.value!r} is no outcome to reject with")
        self._end(number, outcome, proposed=(candidate, cost))

    @patient
    def confirm(self, run: ConfirmedRun) -> None:
        """Keeps a run that confirms; one of the same candidate, seed and training code that is there already stays.

        One of another version of the training code gives way.
        """
        with self._study.storage.session() as session:
            self._driver.hold(session.connection())
            there = session.get(ConfirmationRecord, (self._id, run.digest, run.repeat))
            if there is not None:
                if (there.training_version or FIRST_VERSION) == run.training_version:
                    return
                session.delete(there)
                session.flush()
            session.add(
                ConfirmationRecord(
                    study_id=self._id,
                    digest=run.digest,
                    repeat=run.repeat,
                    seed=run.seed,
                    number=run.number,
                    reference=run.reference,
                    spec=dict(run.spec),
                    recipe=dict(run.recipe),
                    reason=run.outcome,
                    detail=_storable(run.detail) or None,
                    values=_floats(run.values) or None,
                    gates=[_floats(gate) for gate in run.gates],
                    seconds=run.seconds,
                    ended=time.time(),
                    training_version=run.training_version,
                )
            )

    @patient
    def _end(
        self,
        number: int,
        outcome: Outcome,
        *,
        detail: str = "",
        measurement: Measurement | None = None,
        probe: ProbeCurve | None = None,
        proposed: tuple[Candidate, Cost] | None = None,
        strip: bool = False,
    ) -> None:
        """Records the end of a trial and tells Optuna, in one transaction."""
        driver = self._driver
        reserved = driver.reserved
        with self._study.storage.transaction() as connection:
            driver.hold(connection)
            record = driver.record_of(connection, number)
            if record.reason is not None:
                if record.reason == outcome.stored and driver.owns(number):
                    return  # done by a call whose answer was lost
                raise ValueError(f"trial {number} has ended already ({Outcome.read(record.reason)})")
            if record.started is None and outcome.trained:
                raise ValueError(f"trial {number} was never started")
            changes: dict[str, Any] = {
                "reason": outcome.stored,
                "detail": _storable(detail) or None,
                "ended": time.time(),
            }
            if proposed is not None:
                changes |= self._describe(connection, record, number, *proposed)
                reserved = driver.place_back(connection, number)
            changes["tell_order"] = driver.next_event(connection)
            values: dict[str, float] = {}
            if measurement is not None:
                values = _floats(measurement.values)
                changes |= {
                    "values": values,
                    "latency": measurement.values.get("latency"),
                    "gates": [_floats(gate) for gate in measurement.gates],
                    "seconds": measurement.seconds,
                    "peak_memory": measurement.peak_memory,
                    "seed": measurement.seed,
                }
            connection.execute(sql.CHANGE_TRIAL, {"study": self._id, "trial": number} | changes)
            if probe is not None:
                connection.execute(insert(sql.PROBES), {"study_id": self._id, "number": number} | _probe_columns(probe))
            trial_id = driver.optuna_id(connection, number)
            if outcome.stored:
                set_attributes(connection, USER_ATTRIBUTES, trial_id, {"reason": outcome.stored}, replace=True)
            if strip:  # before Optuna is told: artifacts of a finished trial cannot be added
                picture = picture_attribute(self._id, number)
                set_attributes(connection, SYSTEM_ATTRIBUTES, trial_id, picture, replace=True)
            told = () if measurement is None else self._study.config.in_order(values)
            end_trial(connection, trial_id, TrialState[outcome.state], told)
        driver.let_go(number, reserved)

    def _describe(
        self, connection: Connection, record: Row[Any], number: int, candidate: Candidate, cost: Cost
    ) -> dict[str, Any]:
        """Columns of what a trial proposes; tells Optuna of it, and whether it keeps the study's limits."""
        again = record.digest is not None
        spec = candidate.spec.to_dict()
        constraints = constraint_attributes({c.name: c.violation(cost) for c in self._study.config.constraints})
        trial_id = self._driver.optuna_id(connection, number)
        set_attributes(connection, SYSTEM_ATTRIBUTES, trial_id, constraints, replace=again)
        set_attributes(connection, USER_ATTRIBUTES, trial_id, {"spec": canonical_json(spec)}, replace=again)
        return {
            "digest": candidate.digest,
            "spec": spec,
            "recipe": candidate.recipe.to_dict(),
            "params": cost.params,
            "macs": cost.macs,
        }


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    """Plain numbers, which JSON takes."""
    return {name: float(value) for name, value in values.items()}


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL refuses NUL, and no encoder takes a lone surrogate."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _probe_columns(probe: ProbeCurve) -> dict[str, bytes]:
    with np.errstate(over="ignore"):  # the loss of a diverged trial may exceed float32: infinity says enough
        return {
            "steps": np.asarray(probe.steps, "<i4").tobytes(),
            "denoise": np.asarray(probe.denoise, "<f4").tobytes(),
            "classify": np.asarray(probe.classify, "<f4").tobytes(),
        }
