"""What one version of the training code trained is no measure for what another one trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
from study_samples import COST, Driver, claim, make_candidate, make_measurement, read, row

from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.training.version import TRAINING_VERSION
from studies.store.ledger import SqlLedger

OLD = TRAINING_VERSION - 1


@pytest.fixture
def old(ledger: SqlLedger) -> SqlLedger:
    """The study, as a driver of the version before has it open."""
    before = SqlLedger.open("first", ledger.storage)
    before.training_version = OLD
    return before


def test_a_trial_keeps_the_version_that_trained_it(ledger: SqlLedger, old: SqlLedger) -> None:
    first, rejected, second = Driver(old).complete(), Driver(ledger).reject(9), Driver(ledger).complete()
    study = read(ledger)
    assert [study.trial(number).trained_by for number in (first, rejected, second)] == [OLD, None, TRAINING_VERSION]
    assert study.training_versions() == {OLD: 1, TRAINING_VERSION: 1}
    assert [result.training_version for result in study.results()] == [OLD, TRAINING_VERSION]


def test_a_rung_compares_trials_of_one_version(ledger: SqlLedger, old: SqlLedger) -> None:
    first, second = Driver(old).start(), Driver(ledger).start()
    for number in (first, second):
        ledger.epochs(number, [row(1, psnr=10.0 + number)])
    assert old.rung(1) == {first: (10.0 + first,)}
    assert ledger.rung(1) == {second: (10.0 + second,)}
    old.prune(first, Outcome.STOPPED)
    ledger.counts()
    assert ledger.rung(1) == {second: (10.0 + second,)}


def test_what_another_version_trained_is_no_duplicate(ledger: SqlLedger, old: SqlLedger) -> None:
    Driver(old).complete(depth=3)
    digest = make_candidate(3).digest
    assert (digest in ledger.started_digests(), digest in old.started_digests()) == (False, True)
    Driver(ledger).complete(depth=3)
    assert digest in ledger.started_digests()
    again = Driver(ledger).ask()
    assert not ledger.start(again, make_candidate(3), COST, "worker"), "a duplicate of the one of its own version"


def test_what_another_version_is_training_is_a_duplicate(ledger: SqlLedger, old: SqlLedger) -> None:
    """It is trained to its end there; or else it is taken over, and trained by this version."""
    Driver(old).start(depth=3)
    assert not ledger.start(Driver(ledger).ask(), make_candidate(3), COST, "worker")


def test_a_trial_that_another_version_began_starts_again(ledger: SqlLedger, old: SqlLedger) -> None:
    with old.drive():
        number = Driver(old).start()
        old.epochs(number, [row(1), row(2), row(3)])
    begun = read(ledger).trial(number).started
    with ledger.drive():
        claimed = claim(ledger)
        assert claimed is not None
        candidate = make_candidate(1000 + number)
        assert ledger.start(number, candidate, COST, "worker")
        record = read(ledger).trial(number)
        assert (record.trained_by, record.epochs_done, record.started) == (TRAINING_VERSION, 0, begun)
        assert ledger.epochs_table(number) == []
        ledger.epochs(number, [row(1)])
        assert ledger.start(number, candidate, COST, "worker"), "its worker was lost"
        assert [each.epoch for each in ledger.epochs_table(number)] == [1], "its own version's epochs stay"
        ledger.complete(number, make_measurement())
    assert read(ledger).training_versions() == {TRAINING_VERSION: 1}


def test_measurements_are_those_of_this_version(ledger: SqlLedger, old: SqlLedger) -> None:
    Driver(old).complete(depth=3)
    now, before = read(ledger), read(old)
    before.training_version = OLD
    assert (now.measurements(), list(before.measurements())) == ({}, [make_candidate(3).digest])


def test_a_confirming_run_of_another_version_gives_way(ledger: SqlLedger) -> None:
    run = ConfirmedRun(
        digest="d",
        repeat=0,
        seed=1,
        number=None,
        reference="unet",
        spec={},
        recipe={},
        outcome=Outcome.COMPLETE,
        training_version=OLD,
        values={"psnr": 1.0},
    )
    ledger.confirm(run)
    assert [(found.training_version, found.values) for found in ledger.confirmations()] == [(OLD, {"psnr": 1.0})]
    ledger.confirm(replace(run, training_version=TRAINING_VERSION, values={"psnr": 2.0}))
    ledger.confirm(replace(run, training_version=TRAINING_VERSION, values={"psnr": 3.0}))
    (kept,) = ledger.confirmations()
    assert (kept.training_version, kept.values) == (TRAINING_VERSION, {"psnr": 2.0})


def test_the_front_is_of_all_versions(ledger: SqlLedger, old: SqlLedger) -> None:
    """What it holds is told apart by whoever shows it (`studies.reading.versions`)."""
    numbers = [Driver(old).complete(psnr=20.0, latency=1.0), Driver(ledger).complete(psnr=21.0, latency=2.0)]
    assert ledger.front() == numbers
    assert list(ledger.progress.judged()) == numbers, "samplers learn from all"
