"""The contract of `nas.protocols.Ledger`, on every database there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any
from unittest import mock

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from study_samples import (
    COST,
    DISTRIBUTIONS,
    Driver,
    claim,
    make_candidate,
    make_config,
    make_measurement,
    read,
    row,
)

from nas.errors import StorageError, StudyError
from nas.outcome import Outcome
from nas.protocols import Ledger
from nas.search.sampler import SAMPLERS, optunas, proposer
from nas.types import Counts, ProbeCurve
from studies.reading.best import choose
from studies.settings import SizeLimits
from studies.store.catalog import create_study
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger

FAILURES = [outcome for outcome in Outcome if outcome.state == "FAIL"]
PRUNINGS = [outcome for outcome in Outcome if outcome.state == "PRUNED"]


def frozen(ledger: SqlLedger, number: int) -> optuna.trial.FrozenTrial:
    return ledger.optuna_study.get_trials()[number]


def test_it_is_a_ledger(ledger: SqlLedger) -> None:
    seam: Ledger = ledger
    assert seam.config == make_config()
    assert seam.distributions == DISTRIBUTIONS


def test_what_a_study_was_created_with_is_read_back(ledger: SqlLedger) -> None:
    with SqlLedger.open("first", ledger.storage) as again:
        assert again.config == make_config()
        assert again.distributions == DISTRIBUTIONS
        assert again.provenance == {"python": "3.11"}
        assert again.command == "skipnas search --study first"
        assert again.created == ledger.created > 1.7e9


# Outcomes


def test_a_complete_trial_has_the_objectives_in_their_order(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.complete(psnr=21.5, latency=3.0)
    assert frozen(ledger, number).state is TrialState.COMPLETE
    assert frozen(ledger, number).values == [21.5, 3.0]
    assert ledger.objective_values() == {number: (21.5, 3.0)}


def test_a_complete_trial_is_recorded_whole(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.complete(psnr=21.5, latency=3.0, depth=2)
    record = read(ledger).trial(number)
    candidate = make_candidate()
    assert (record.digest, record.spec, record.recipe) == (
        candidate.digest,
        candidate.spec.to_dict(),
        candidate.recipe.to_dict(),
    )
    assert (record.params, record.macs, record.latency) == (COST.params, COST.macs, 3.0)
    assert (record.seconds, record.peak_memory, record.seed, record.worker) == (11.5, 300.0, 7, "worker-1")
    assert record.values == {"psnr": 21.5, "latency": 3.0, "accuracy": 97.5}
    assert record.gates == [{"mean": 1.0, "minimum": 0.5, "maximum": 1.5}]
    assert (record.outcome, record.reason, record.detail) == (Outcome.COMPLETE, "", None)
    assert record.started is not None
    assert record.ended is not None
    assert record.started <= record.ended
    assert read(ledger).probe(number) == make_measurement().probe


@pytest.mark.parametrize("outcome", PRUNINGS)
def test_a_pruned_trial_has_a_reason_and_no_values(ledger: SqlLedger, driver: Driver, outcome: Outcome) -> None:
    number = driver.start()
    ledger.epochs(number, [row(1)])
    ledger.prune(number, outcome, detail="step 12", probe=ProbeCurve(steps=(1,), denoise=(0.5,)))
    trial = frozen(ledger, number)
    assert trial.state is TrialState.PRUNED
    assert trial.values is None
    assert trial.intermediate_values == {}
    assert trial.user_attrs["reason"] == outcome.value
    assert (read(ledger).trial(number).outcome, read(ledger).trial(number).detail) == (outcome, "step 12")
    assert ledger.epochs_table(number) == [row(1)]
    assert read(ledger).probe(number).denoise == (0.5,)


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failed_trial_has_a_reason_and_no_values(ledger: SqlLedger, driver: Driver, outcome: Outcome) -> None:
    number = driver.start()
    ledger.fail(number, outcome, detail="Traceback\n  line")
    trial = frozen(ledger, number)
    assert trial.state is TrialState.FAIL
    assert trial.values is None
    assert (read(ledger).trial(number).outcome, read(ledger).trial(number).detail) == (
        outcome.value,
        "Traceback\n  line",
    )


def test_a_trial_can_fail_without_having_started(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.ask()
    ledger.fail(number, Outcome.DUPLICATE)
    assert frozen(ledger, number).state is TrialState.FAIL
    assert read(ledger).trial(number).started is None


def test_a_traceback_is_kept_whatever_is_in_it(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    ledger.fail(number, Outcome.EXCEPTION, detail="bad \0 name \udcff, grün")
    assert read(ledger).trial(number).detail == "bad \\0 name \\udcff, grün"


def test_epochs_are_replaced_by_number_and_read_in_order(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    ledger.epochs(number, [])
    ledger.epochs(number, [row(2), row(1, psnr=None, accuracy=None, classify_loss=None)])
    ledger.epochs(number, [row(2, psnr=25.0), row(3)])
    expected = [row(1, psnr=None, accuracy=None, classify_loss=None), row(2, psnr=25.0), row(3)]
    assert ledger.epochs_table(number) == expected
    assert read(ledger).trial(number).epochs_done == 3


def test_a_loss_that_blew_up_is_kept(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    ledger.epochs(number, [row(1, denoise_loss=math.inf), row(2, denoise_loss=math.nan)])
    first, second = ledger.epochs_table(number)
    assert first.denoise_loss == math.inf
    assert math.isnan(second.denoise_loss)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(0, 2**31 - 1), max_size=20),
    losses=st.lists(st.floats(allow_nan=False, width=32), max_size=20),
)
def test_a_probe_curve_reads_back_to_single_precision(driver: Driver, steps: list[int], losses: list[float]) -> None:
    curve = ProbeCurve(steps=tuple(steps), denoise=tuple(losses), classify=tuple(losses[:1]))
    number = driver.start()
    driver.ledger.prune(number, Outcome.DIVERGED, probe=curve)
    assert read(driver.ledger).probe(number) == curve


def test_a_probe_beyond_single_precision_is_infinite(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    ledger.prune(number, Outcome.DIVERGED, probe=ProbeCurve(steps=(1,), denoise=(1e300,)))
    assert read(ledger).probe(number).denoise == (math.inf,)


# What a bug may not do


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["psnr", "accuracy"])
def test_values_that_are_not_finite_are_refused(ledger: SqlLedger, driver: Driver, name: str, value: float) -> None:
    number = driver.start()
    with pytest.raises(ValueError, match=f"{name} is"):
        ledger.complete(number, make_measurement(**{name: value}))
    assert frozen(ledger, number).state is TrialState.RUNNING


def test_a_missing_objective_is_refused(new_study: Callable[..., SqlLedger]) -> None:
    objectives = make_config().objectives
    ledger = new_study(
        "other",
        objectives=(
            objectives[0],
            objectives[1].__class__(name="stability", direction="maximize", unit="", reference=0.0),
        ),
    )
    number = Driver(ledger).start()
    with pytest.raises(ValueError, match="stability was not measured"):
        ledger.complete(number, make_measurement())


def test_outcomes_keep_to_their_state(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    for outcome in set(Outcome) - set(PRUNINGS):
        with pytest.raises(ValueError, match="no outcome to prune with"):
            ledger.prune(number, outcome)
    for outcome in set(Outcome) - set(FAILURES):
        with pytest.raises(ValueError, match="no outcome to fail with"):
            ledger.fail(number, outcome)


def test_a_trial_ends_once(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.complete()
    for again in (
        lambda: ledger.fail(number, Outcome.WORKER_LOST),
        lambda: ledger.start(number, make_candidate(), COST, "worker-2"),
    ):
        with pytest.raises(ValueError, match="has ended already"):
            again()
    assert read(ledger).trial(number).reason == ""
    assert read(ledger).trial(number).worker == "worker-1"
    assert driver.complete() == number + 1
    assert read(ledger).trial(number + 1).tell_order == 4


def test_a_trial_that_was_not_started_can_only_fail(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.ask()
    for end in (
        lambda: ledger.complete(number, make_measurement()),
        lambda: ledger.prune(number, Outcome.DIVERGED),
        lambda: ledger.epochs(number, [row(1)]),
    ):
        with pytest.raises(ValueError, match="never started"):
            end()


# Counting and choosing


def test_counts_tell_outcomes_apart(ledger: SqlLedger, driver: Driver) -> None:
    assert ledger.counts() == Counts()
    driver.complete()
    driver.complete()
    ledger.prune(driver.start(), Outcome.DIVERGED)
    ledger.fail(driver.start(), Outcome.EXCEPTION)
    ledger.fail(driver.start(), Outcome.DUPLICATE)
    ledger.fail(driver.ask(), Outcome.OVER_LIMIT)
    driver.start()
    driver.ask()
    ledger.optuna_study.enqueue_trial({"depth": 1})
    counts = Counts(complete=2, pruned=1, failed=1, running=2, waiting=1, duplicate=1, over_limit=1)
    assert ledger.counts() == counts
    assert (counts.trained, counts.proposals) == (3, 8)


def test_counts_are_of_one_study(new_study: Callable[..., SqlLedger]) -> None:
    first, second = new_study("a"), new_study("b")
    Driver(first).complete()
    assert (first.counts().complete, second.counts().complete) == (1, 0)
    assert second.front() == []
    assert read(second).results() == []


def test_trained_digests_are_those_of_complete_and_pruned_trials(ledger: SqlLedger, driver: Driver) -> None:
    first = driver.complete(depth=1)
    pruned = driver.start(depth=2)
    ledger.prune(pruned, Outcome.STOPPED)
    ledger.fail(driver.start(depth=3), Outcome.EXCEPTION)
    driver.reject(depth=1)
    driver.start(depth=4)
    assert read(ledger).trained_digests() == {make_candidate(1).digest: first, make_candidate(2).digest: pruned}


def test_digests_and_counts_see_what_another_process_writes(url: str, ledger: SqlLedger, driver: Driver) -> None:
    driver.complete(depth=1)
    assert len(read(ledger).trained_digests()) == 1
    with SqlLedger.open("first", url) as other:
        number = Driver(other).complete(depth=2)
        driver.complete(depth=3)
        assert len(read(other).trained_digests()) == 3
    assert read(ledger).trained_digests()[make_candidate(2).digest] == number
    assert ledger.counts().complete == 3
    assert read(ledger).events() == [(kind, number) for number in range(3) for kind in ("ask", "tell")]


def test_the_front_follows_each_objectives_direction(ledger: SqlLedger, driver: Driver) -> None:
    assert ledger.front() == []
    best_psnr = driver.complete(psnr=25.0, latency=9.0)
    dominated = driver.complete(psnr=20.0, latency=9.0)
    fast = driver.complete(psnr=20.0, latency=1.0)
    ledger.prune(driver.start(), Outcome.STOPPED)
    assert ledger.front() == [best_psnr, fast]
    assert [result.number for result in read(ledger).results()] == [best_psnr, dominated, fast]
    assert sorted(ledger.front()) == sorted(trial.number for trial in ledger.optuna_study.best_trials)


def test_kept_is_what_no_other_dominates_without_being_larger(ledger: SqlLedger, driver: Driver) -> None:
    assert ledger.kept() == []
    large = driver.complete(25.0, 2.0, macs=4000, params=400)
    worse = driver.complete(20.0, 3.0, macs=5000, params=400)
    small = driver.complete(20.0, 3.0, macs=3000, params=500)
    assert ledger.kept() == [large, small], "the second is worse and no smaller, the third has fewer MACs"
    same = driver.complete(25.0, 2.0, macs=4000, params=400)
    assert ledger.kept() == [large, small, same], "equal trials stay, as they do on the front"
    best = driver.complete(26.0, 1.0, macs=3000, params=400)
    assert ledger.kept() == [best]
    assert ledger.front() == [best]
    assert worse not in read(ledger).progress.kept()


def test_each_kept_trial_is_on_the_front_within_its_own_size_and_no_other_is(ledger: SqlLedger, driver: Driver) -> None:
    random = Random(0)
    for _ in range(40):
        sizes = {"macs": random.randrange(1, 6), "params": random.randrange(1, 6)}
        driver.complete(random.randrange(20, 26), random.randrange(1, 6), **sizes)
        kept = set(ledger.kept())
    assert 5 < len(kept) < 35
    study = read(ledger)
    on_front = set()
    for result in study.results():
        limits = SizeLimits(**{f"max_{name}": result.values[name] for name in ("params", "macs", "latency")})  # type: ignore[arg-type]
        if result.number in choose(study, limits=limits).searched:
            on_front.add(result.number)
    assert kept == on_front == set(study.progress.kept())
    assert set(ledger.front()) <= kept


def test_results_carry_what_can_be_built_again(ledger: SqlLedger, driver: Driver) -> None:
    driver.complete(depth=3)
    (result,) = read(ledger).results()
    candidate = make_candidate(3)
    assert (result.digest, dict(result.spec)) == (candidate.digest, {"depth": 3})
    assert result.recipe == candidate.recipe.to_dict()
    assert result.values["accuracy"] == 97.5


def test_an_unknown_trial_is_a_user_error(ledger: SqlLedger) -> None:
    with pytest.raises(StudyError, match="no record of a trial 99"):
        read(ledger).trial(99)
    assert ledger.epochs_table(99) == []
    assert read(ledger).probe(99) == ProbeCurve()


# What Optuna and Optuna Dashboard see


def test_both_forms_of_constraint_are_there_before_the_end(ledger: SqlLedger, driver: Driver) -> None:
    number = driver.start()
    violations = {"params": -1_000_000.0, "macs": -1_000_000.0}
    attributes = frozen(ledger, number).system_attrs
    assert attributes["constraints"] == list(violations.values())
    assert violations.items() <= frozen(ledger, number).constraints.items()
    assert frozen(ledger, number).user_attrs == {"spec": f'{{"depth":{1000 + number}}}'}


def test_a_study_without_limits_has_no_constraints(new_study: Callable[..., SqlLedger]) -> None:
    ledger = new_study("free", constraints=())
    assert frozen(ledger, Driver(ledger).complete()).system_attrs == {}


def test_plain_optuna_reads_names_values_and_states(url: str, ledger: SqlLedger, driver: Driver) -> None:
    driver.complete(psnr=21.0, latency=2.5)
    ledger.prune(driver.start(), Outcome.STOPPED)
    backend = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    study = optuna.load_study(study_name="first", storage=backend)
    assert study.metric_names == ["psnr", "latency"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [t.values for t in study.trials] == [[21.0, 2.5], None]
    backend.engine.dispose()


def test_optuna_tells_begin_and_end_of_a_trial_in_local_time(
    ledger: SqlLedger, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        before = datetime.now()
        trial = frozen(ledger, driver.complete())
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert before <= trial.datetime_start <= trial.datetime_complete <= datetime.now()
    time.tzset()


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "random", "qmc", "Optuna's TPE"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_learn_from_every_outcome(ledger: SqlLedger, driver: Driver, name: str) -> None:
    for turn in range(12):
        driver.complete(psnr=20.0 + turn, depth=turn)
    ledger.prune(driver.start(), Outcome.STOPPED)
    ledger.fail(driver.start(), Outcome.DUPLICATE)
    plain = optunas(lambda question: optuna.samplers.TPESampler(seed=question.seed))
    with mock.patch.dict(SAMPLERS, {"Optuna's TPE": plain}):
        propose = proposer(name, 0, DISTRIBUTIONS, ledger.config.objectives, lambda params: True)
        number, params = ledger.ask(propose)
    assert params.keys() == DISTRIBUTIONS.keys()
    assert all(d._contains(d.to_internal_repr(params[name])) for name, d in DISTRIBUTIONS.items())
    assert frozen(ledger, number).params == params


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_a_trial_is_proposed_the_same_again(ledger: SqlLedger, driver: Driver, name: str) -> None:
    """By a driver whose proposal was lost, or by the next; another study's seed proposes something else."""
    for turn in range(12):
        driver.complete(psnr=20.0 + turn, depth=turn)
    number, _ = ledger.driver.make_trial()
    proposals = []
    for seed in (0, 0, 1):
        propose = proposer(name, seed, DISTRIBUTIONS, ledger.config.objectives, lambda params: True)
        proposals.append(propose(number, ledger.progress))
    assert proposals[0] == proposals[1] != proposals[2]


# When the database goes away


def test_a_database_that_goes_away_is_a_storage_error(tmp_path: Any) -> None:
    path = tmp_path / "gone.db"
    with open_storage(str(path)) as storage:
        ledger = create_study(storage, make_config(), DISTRIBUTIONS, {}, "")
        number = Driver(ledger).start()
        storage.close()
        for name in ("gone.db", "gone.db-wal", "gone.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        path.mkdir()
        calls: list[Callable[[], Any]] = [
            ledger.counts,
            lambda: claim(ledger),
            ledger.front,
            lambda: ledger.epochs(number, [row(1)]),
            lambda: ledger.complete(number, make_measurement()),
        ]
        for call in calls:
            with pytest.raises(StorageError, match=r"gone\.db was deleted or replaced while it was in use"):
                call()
