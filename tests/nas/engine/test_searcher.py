"""The searcher and the rungs called as Tune calls them, over a real study; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_space import ToySpace

from nas.engine.job import Job
from nas.engine.report import Report
from nas.engine.scheduler import RungScheduler
from nas.engine.searcher import RETRIES, StudySearcher
from nas.outcome import Outcome
from nas.settings import StudyConfig
from nas.types import EpochRow, Measurement, Objective, ProbeCurve, Task
from studies.reading.study import StudyReader
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
NAMES = ("psnr", "accuracy", "stability")
SPACE = ToySpace()


def toy_config(space: ToySpace, objectives: tuple[Objective, ...], sampler: str) -> StudyConfig:
    return StudyConfig(
        study="toy",
        space="toy",
        space_version=1,
        data="digits",
        fingerprint="f" * 16,
        task=TASK,
        epochs=9,
        objectives=objectives,
        constraints=space.limits(TASK),
        sampler=sampler,
        early_stopping=True,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    objectives = tuple(Objective(name=n, direction="maximize", unit="", reference=0.0) for n in NAMES)
    config = toy_config(SPACE, objectives, "random")
    with open_storage(f"sqlite:///{tmp_path / 'studies.db'}") as storage:
        yield create_study(storage, config, SPACE.distributions(TASK), {}, "test")


class Tune:
    """What Tune does with a searcher and a scheduler: trials by name, results in the order they are given."""

    def __init__(self, ledger: SqlLedger, trials: int) -> None:
        self.ends: list[tuple[int, str]] = []
        self.searcher = StudySearcher(
            ledger, SPACE, trials=trials, stopping=lambda: False, on_end=lambda *end: self.ends.append(end)
        )
        self.scheduler = RungScheduler(self.searcher)

    def suggest(self, trial_id: str) -> Job | None:
        found = self.searcher.suggest(trial_id)
        return found["job"] if isinstance(found, dict) else None

    def report(self, trial_id: str, number: int, epoch: int, quality: float) -> bool:
        """A validated epoch at which every objective is `quality`; whether the trial goes on."""
        row = EpochRow(
            epoch=epoch,
            denoise_loss=1.0,
            classify_loss=1.0,
            seconds=1.0,
            values=dict.fromkeys(NAMES, quality),
        )
        done = epoch == self.searcher.ledger.config.epochs
        measurement = Measurement(
            values=dict.fromkeys(NAMES, quality), probe=ProbeCurve(), gates=(), seconds=9.0, peak_memory=1.0, seed=1
        )
        report = Report(
            number=number,
            rows=(row,),
            outcome=Outcome.COMPLETE if done else None,
            measurement=measurement if done else None,
        )
        if done:  # Tune does not ask its scheduler then
            goes_on = not self.searcher.record(trial_id, report)
        else:
            trial = SimpleNamespace(trial_id=trial_id)
            goes_on = self.scheduler.on_trial_result(None, trial, {"report": report}) == RungScheduler.CONTINUE
        if not goes_on:
            self.searcher.on_trial_complete(trial_id, {"report": report})
        return goes_on


def test_a_rejected_proposal_keeps_its_place(ledger: SqlLedger) -> None:
    with ledger.drive():
        for _ in range(3):
            ledger.optuna_study.enqueue_trial({"width": 5, "fault": "none"})
        tune = Tune(ledger, trials=2)
        assert tune.suggest("a").spec["width"] == 5
        second = tune.suggest("b")
        assert second is not None, "two duplicates were rejected, and the second place is free all the same"
        assert second.number == 3
        assert tune.suggest("c") is None
        assert ledger.counts().duplicate == 2


def test_nobody_is_stopped_before_a_tenth_of_the_run(ledger: SqlLedger) -> None:
    config = replace(ledger.config, study="longer", epochs=27)
    longer = create_study(ledger.storage, config, SPACE.distributions(TASK), {}, "test")
    with longer.drive():
        tune = Tune(longer, trials=6)
        trials = {name: tune.suggest(name).number for name in "abcdef"}
        worse = {name: 20.0 - rank for rank, name in enumerate(trials)}
        assert all(tune.report(name, trials[name], 1, worse[name]) for name in trials)
        assert [name for name in trials if tune.report(name, trials[name], 3, worse[name])] == ["a"]


def test_a_failed_candidate_is_not_proposed_again_by_whoever_goes_on(ledger: SqlLedger) -> None:
    seen = []
    for _ in range(40):  # a driver each
        with ledger.drive():
            tune = Tune(ledger, trials=1)
            job = tune.suggest("a")
            if job is None:
                break
            seen.append(job.digest)
            tune.searcher.on_trial_complete("a", {"report": Report(number=job.number, outcome=Outcome.EXCEPTION)})
    assert len(seen) == len(set(seen)) == 20  # the budget of proposals


def test_a_trial_whose_worker_is_lost_goes_on_under_its_number_but_not_for_ever(ledger: SqlLedger) -> None:
    with ledger.drive():
        tune = Tune(ledger, trials=1)
        first = tune.suggest("0")
        for attempt in range(RETRIES):
            tune.searcher.on_trial_complete(str(attempt), error=True)
            assert not tune.ends
            assert tune.suggest(str(attempt + 1)) == first
        tune.searcher.on_trial_complete(str(RETRIES), error=True)
        assert tune.ends == [(first.number, "worker_lost")]
        assert tune.suggest("next").number == first.number + 1
    assert StudyReader.open("toy", ledger.storage).trial(first.number).reason == "worker_lost"


@pytest.mark.parametrize("falls_at", [3, 9])
def test_a_candidate_that_is_excellent_at_first_and_poor_at_the_end_is_on_no_front(
    ledger: SqlLedger, falls_at: int
) -> None:
    with ledger.drive():
        tune = Tune(ledger, trials=8)
        jobs = {name: tune.suggest(name) for name in "abcdefgh"}
        dazzler = jobs["a"].number
        alive = {}
        for name, job in jobs.items():
            own = 0.9 if name == "a" else 0.1 + job.number / 100
            alive[name] = tune.report(name, job.number, 1, own)
        assert alive["a"]
        for epoch in (3, 9):
            for name in [name for name in alive if alive[name]][::-1]:
                number = jobs[name].number
                poor = name == "a" and epoch >= falls_at
                own = 0.01 if poor else 0.9 if name == "a" else 0.5
                alive[name] = tune.report(name, number, epoch, own)
        tune.suggest("end")
    record = StudyReader.open("toy", ledger.storage).trial(dazzler)
    trial = ledger.optuna_study.trials[dazzler]
    if falls_at == 3:
        assert (record.reason, trial.state.name, trial.values) == ("stopped", "PRUNED", None)
    else:
        assert (record.reason, trial.state.name, trial.values) == ("", "COMPLETE", [0.01] * 3)
    assert ledger.front()
    assert dazzler not in ledger.front()
    assert dazzler not in [t.number for t in ledger.optuna_study.best_trials]
    assert not trial.intermediate_values


def test_latency_is_learned_from_though_no_rung_knows_it(tmp_path: Path) -> None:
    """Width w has the same PSNR and takes w ms, so the narrow ones are good: those that have ended tell it."""
    space = ToySpace(widths=400)
    objectives = (
        Objective(name="psnr", direction="maximize", unit="dB", reference=0.0),
        Objective(name="latency", direction="minimize", unit="ms", reference=999.0),
    )
    config = toy_config(space, objectives, "tpe")
    widths = []
    with open_storage(f"sqlite:///{tmp_path / 'studies.db'}") as storage:
        ledger = create_study(storage, config, space.distributions(TASK), {}, "test")
        with ledger.drive():
            searcher = StudySearcher(ledger, space, trials=40, stopping=lambda: False, on_end=lambda *end: None)
            for trial in range(40):
                name, proposed = str(trial), searcher.ask(str(trial))
                widths.append(proposed.spec["width"])
                row = EpochRow(
                    epoch=1, denoise_loss=1.0, classify_loss=1.0, seconds=1.0, values={"psnr": 20.0, "accuracy": 50.0}
                )
                if trial % 3 == 0:
                    searcher.record(name, Report(number=trial, rows=(row,)))
                    searcher.stop(name, 1)
                    searcher.on_trial_complete(name, {"report": Report(number=trial, rows=(row,))})
                    continue
                values = {"psnr": 20.0, "latency": float(widths[-1])}
                found = Measurement(values=values, probe=ProbeCurve(), gates=(), seconds=9.0, peak_memory=1.0, seed=1)
                report = Report(number=trial, outcome=Outcome.COMPLETE, measurement=found)
                searcher.record(name, report)
                searcher.on_trial_complete(name, {"report": report})
        assert ledger.counts().trained == 40
    assert sum(widths[20:]) / 20 < 0.5 * sum(widths[:10]) / 10
