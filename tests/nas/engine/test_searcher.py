"""The searcher and the rungs called as Tune calls them, over a real study; nothing is trained."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher
from toy_space import ToySpace

from nas.engine.job import Job
from nas.engine.report import Report
from nas.engine.scheduler import RungScheduler
from nas.engine.searcher import RETRIES, StudySearcher
from nas.errors import SpecError
from nas.outcome import Outcome
from nas.settings import TRIALS, StudyConfig
from nas.types import Candidate, Cost, Counts, EpochRow, Measurement, Objective, ProbeCurve, Spec, Task
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


@contextmanager
def made(folder: Path, space: ToySpace, sampler: str = "random") -> Iterator[SqlLedger]:
    objectives = tuple(Objective(name=n, direction="maximize", unit="", reference=0.0) for n in NAMES)
    config = toy_config(space, objectives, sampler)
    with open_storage(f"sqlite:///{folder / 'studies.db'}") as storage:
        yield create_study(storage, config, space.distributions(TASK), {}, "test")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    with made(tmp_path, SPACE) as ledger:
        yield ledger


class Tune:
    """What Tune does with a searcher and a scheduler: trials by name, results in the order they are given."""

    def __init__(self, ledger: SqlLedger, trials: int | None, space: ToySpace = SPACE, **options: Any) -> None:
        self.ends: list[tuple[int, str]] = []
        self.searcher = StudySearcher(
            ledger, space, trials=trials, stopping=lambda: False, on_end=lambda *end: self.ends.append(end), **options
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


def test_whoever_waits_for_other_drivers_names_them_once(ledger: SqlLedger) -> None:
    waits: list[Sequence[str]] = []
    with SqlLedger.open("toy", ledger.storage) as other, other.drive(), ledger.drive():
        assert Tune(other, trials=1).suggest("a") is not None
        searcher = StudySearcher(
            ledger, SPACE, trials=1, stopping=lambda: False, on_end=lambda *end: None, on_wait=waits.append
        )
        assert [searcher.ask("b"), searcher.ask("b")] == [None, None]
    assert waits == [[f"process {os.getpid()} on {socket.gethostname()}"]]


def test_no_trial_is_begun_that_would_hardly_end_in_time(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr("nas.engine.searcher.time", clock)
    with ledger.drive():
        tune = Tune(ledger, trials=None, deadline=100.0)
        for name, took in {"a": 10.0, "b": 30.0, "c": 20.0}.items():
            number = tune.suggest(name).number
            now += took
            tune.report(name, number, 9, 20.0)
        now = 79.0
        last = tune.suggest("d")
        assert last is not None, "the median of 10, 30 and 20 seconds still fits"
        now = 81.0
        assert tune.searcher.suggest("e") is None, "it waits for the last one"
        tune.searcher.cut_off(tune.searcher.live.pop("d"))
        assert tune.suggest("f").number == last.number, "a trial that lost its worker goes on"
        now = 90.0
        tune.report("f", last.number, 9, 20.0)
        assert tune.searcher.suggest("g") == Searcher.FINISHED
    assert (ledger.counts().trained, tune.searcher.exhausted) == (4, False)


def test_a_search_without_a_size_ends_when_there_is_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.engine.searcher.PROPOSALS_PER_TRIAL", 2)
    space = ToySpace(widths=3)
    with made(tmp_path, space) as ledger, ledger.drive():
        tune = Tune(ledger, trials=None, space=space)
        for name in "abc":
            tune.report(name, tune.suggest(name).number, 9, 20.0)
        assert tune.searcher.suggest("d") == Searcher.FINISHED
        assert tune.searcher.exhausted
        assert (ledger.counts().trained, ledger.counts().proposals) == (3, 2 * (3 + TRIALS))


def test_a_large_search_of_a_small_space_ends_soon_after_the_last_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.engine.searcher.IN_VAIN", 5)
    space = ToySpace(widths=3)
    with made(tmp_path, space) as ledger, ledger.drive():
        tune = Tune(ledger, trials=600, space=space)
        for name in "abc":
            tune.report(name, tune.suggest(name).number, 9, 20.0)
        assert tune.searcher.suggest("d") == Searcher.FINISHED
        assert tune.searcher.exhausted
        assert (ledger.counts().trained, ledger.counts().proposals) == (3, 3 + 5)


def test_nobody_is_stopped_before_a_tenth_of_the_run(ledger: SqlLedger) -> None:
    config = replace(ledger.config, study="longer", epochs=27)
    longer = create_study(ledger.storage, config, SPACE.distributions(TASK), {}, "test")
    with longer.drive():
        tune = Tune(longer, trials=6)
        trials = {name: tune.suggest(name).number for name in "abcdef"}
        worse = {name: 20.0 - rank for rank, name in enumerate(trials)}
        assert all(tune.report(name, trials[name], 1, worse[name]) for name in trials)
        assert [name for name in trials if tune.report(name, trials[name], 3, worse[name])] == ["a"]


def fail(tune: Tune, trial_id: str, detail: str = "", outcome: Outcome = Outcome.EXCEPTION) -> str:
    """The next trial fails; returns its digest."""
    job = tune.suggest(trial_id)
    assert job is not None
    tune.searcher.on_trial_complete(trial_id, {"report": Report(number=job.number, outcome=outcome, detail=detail)})
    return job.digest


def test_a_failed_candidate_is_not_proposed_again_by_its_search(tmp_path: Path) -> None:
    space = ToySpace(widths=3)
    with made(tmp_path, space) as ledger, ledger.drive():
        tune = Tune(ledger, trials=4, space=space)
        assert len({fail(tune, str(trial)) for trial in range(3)}) == 3


def test_failures_of_earlier_searches_count_for_nothing(tmp_path: Path) -> None:
    space = ToySpace(widths=2)
    with made(tmp_path, space) as ledger:
        for search in range(30):  # more of them than a search may propose
            with ledger.drive():
                failed = {fail(Tune(ledger, trials=1, space=space), str(search))}
        with SqlLedger.open("toy", ledger.storage) as again, again.drive():
            tune = Tune(again, trials=2, space=space)
            jobs = [tune.suggest(name) for name in "ab"]
            assert {job.digest for job in jobs if job} > failed
            assert not tune.searcher.exhausted


def raised(line: int, text: str = "no such layer") -> str:
    where = f'  File "own.py", line {line}, in build\n    raise ValueError'
    return f"Traceback (most recent call last):\n{where}\nValueError: {text}\n"


STORMS: list[tuple[str, list[tuple[Outcome, str]], str]] = [
    (
        "one error",
        [(Outcome.EXCEPTION, raised(7, f"shape {width}")) for width in range(6)],
        "exception (ValueError: shape 5, own.py line 7)",
    ),
    ("lost workers", [(Outcome.WORKER_LOST, "it was lost")] * 6, "worker lost (it was lost)"),
    (
        "a board that is gone",
        [(Outcome.LATENCY, "'ssh board' ended with code 255 (no route)")] * 6,
        "latency not measured ('ssh board' ended with code 255 (no route))",
    ),
    ("hangs", [(Outcome.TIMEOUT, "")] * 6, "timeout"),
    ("no memory", [(Outcome.OUT_OF_MEMORY, "MemoryError")] * 6, "out of memory (MemoryError)"),
    ("too few", [(Outcome.EXCEPTION, raised(7))] * 5, ""),
    ("two reasons", [(Outcome.EXCEPTION, raised(7 + trial % 2)) for trial in range(12)], ""),
    ("one that went well", [(Outcome.TIMEOUT, "")] * 5 + [(Outcome.DIVERGED, "")] + [(Outcome.TIMEOUT, "")] * 5, ""),
]


@pytest.mark.parametrize(("ends", "told"), [storm[1:] for storm in STORMS], ids=[storm[0] for storm in STORMS])
def test_a_search_gives_up_when_trials_fail_in_a_row_for_one_reason(
    ledger: SqlLedger, ends: list[tuple[Outcome, str]], told: str
) -> None:
    with ledger.drive():
        tune = Tune(ledger, trials=100)
        for trial, (outcome, detail) in enumerate(ends):
            fail(tune, str(trial), detail, outcome)
        assert tune.searcher.failing == told
        assert (tune.suggest("next") is None) is bool(told)
        assert tune.searcher.over is bool(told)


# What a person or a space may have done to a trial -> the reason that is kept of it.
BAD_TRIALS: list[tuple[dict[str, Any], str]] = [
    ({"width": 65, "fault": "none"}, "width is 65, must be an integer from 1 to 64"),
    ({"width": 2.5, "fault": "none"}, "width is 2.5, must be an integer from 1 to 64"),
    ({"width": "wide"}, "width is 'wide', must be an integer from 1 to 64"),
    ({"width": None}, "width is None, must be an integer from 1 to 64"),
    ({"fault": "nonsense"}, "fault is 'nonsense', must be one of none"),
    ({"widht": 3}, "widht is no hyperparameter; this study has width, fault"),
    ({"width": 7}, "toy networks of width 7 are refused"),
    ({"width": 8}, "KeyError: 'eight'"),
    ({"width": 9}, "ZeroDivisionError"),
]


@dataclass(frozen=True, kw_only=True)
class Choosy(ToySpace):
    """It refuses width 7 as a space should, and its code fails at 8 and 9."""

    def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
        if params["width"] == 7:
            raise SpecError("toy networks of width 7 are refused")
        if params["width"] == 8:
            raise KeyError("eight")
        return super().decode(params, task, epochs)

    def cost(self, spec: Spec, task: Task) -> Cost:
        if spec.to_dict()["width"] == 9:
            raise ZeroDivisionError
        return super().cost(spec, task)


@pytest.mark.parametrize("cut_off", [False, True], ids=["enqueued", "left running"])
@pytest.mark.parametrize(("params", "reason"), BAD_TRIALS, ids=[str(params) for params, _ in BAD_TRIALS])
def test_a_trial_that_is_no_candidate_fails_and_the_search_goes_on(
    ledger: SqlLedger, params: dict[str, Any], reason: str, cut_off: bool
) -> None:
    ledger.optuna_study.enqueue_trial(params)
    if cut_off:  # as a search left it that met it before
        with ledger.drive():
            ledger.driver.make_trial()
    with ledger.drive():
        tune = Tune(ledger, trials=1, space=Choosy())
        job = next(job for job in (tune.suggest("a"), tune.suggest("b")) if job is not None)
        assert (job.number, tune.ends) == (1, [(0, "invalid")])
    record = StudyReader.open("toy", ledger.storage).trial(0)
    assert (record.reason, record.started) == ("invalid", None)
    assert reason in str(record.detail)
    assert ledger.optuna_study.trials[0].state.name == "FAIL"
    assert ledger.counts() == Counts(failed=1, running=1)


def test_a_space_that_refuses_most_candidates_is_asked_for_others(tmp_path: Path) -> None:
    space = ToySpace(widths=7)

    class Odd(Choosy):
        def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
            if params["width"] != 3:
                raise SpecError("only width 3 is a network")
            return super().decode(params, task, epochs)

    with made(tmp_path, space) as ledger, ledger.drive():
        assert Tune(ledger, trials=1, space=Odd(widths=7)).suggest("a").spec["width"] == 3
        assert ledger.counts().failed == 0


def test_a_space_that_fails_always_stops_the_search(tmp_path: Path) -> None:
    class Broken(ToySpace):
        def decode(self, params: Mapping[str, Any], task: Task, epochs: int) -> Candidate:
            raise KeyError("depth")

    with made(tmp_path, ToySpace()) as ledger, ledger.drive():
        tune = Tune(ledger, trials=10, space=Broken())
        assert tune.suggest("a") is None
        assert "no candidate (KeyError: 'depth', " in tune.searcher.failing
        assert ledger.counts() == Counts(failed=6)


def test_a_space_that_cannot_be_learned_from_is_told_and_not_searched_at_random(tmp_path: Path) -> None:
    class Forgetful(ToySpace):
        def encode(self, candidate: Candidate) -> dict[str, Any]:
            raise KeyError("width")

    with made(tmp_path, ToySpace(), "bayes") as ledger, ledger.drive():
        tune = Tune(ledger, trials=10, space=Forgetful())
        job = tune.suggest("a")
        assert job is not None
        assert not tune.report("a", job.number, 9, 0.5)
        assert tune.suggest("b") is None
        assert "no candidate (KeyError: 'width', " in tune.searcher.failing
        assert ledger.counts() == Counts(complete=1, failed=6)


def test_a_trial_whose_worker_is_lost_goes_on_under_its_number_but_not_for_ever(ledger: SqlLedger) -> None:
    with ledger.drive():
        tune = Tune(ledger, trials=1)
        first = tune.suggest("0")
        for attempt in range(RETRIES):
            tune.searcher.on_trial_complete(str(attempt), error=True)
            assert not tune.ends
            assert tune.suggest(str(attempt + 1)) == replace(first, retried=True)
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
