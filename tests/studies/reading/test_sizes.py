"""The best that is known at each size."""

from __future__ import annotations

from study_samples import Driver, read

from nas.search.objectives import METRICS
from studies.reading.history import read_history
from studies.reading.sizes import Sized, best_at_sizes, measured, sized_of, sized_trials, staircase
from studies.store.ledger import SqlLedger

PSNR = METRICS["psnr"]


def trial(number: int, macs: float, psnr: float, accuracy: float = 50.0, reference: str = "") -> Sized:
    return Sized(number=number, reference=reference, macs=macs, values={"psnr": psnr, "accuracy": accuracy})


def test_a_staircase_has_what_is_better_than_all_that_is_smaller() -> None:
    trials = [trial(0, 400, 22), trial(1, 100, 20), trial(2, 200, 19), trial(3, 200, 21), trial(4, 300, 21)]
    assert [t.number for t in staircase(trials, PSNR)] == [1, 3, 0]


def test_found_and_reference_networks_are_told_apart_at_each_size() -> None:
    rows = best_at_sizes(
        [
            trial(0, 800, 22, 90, "unet"),
            trial(1, 790, 21, 95, "unet++"),
            trial(2, 400, 23, 80),
            trial(3, 90, 18, 85),
            trial(4, 100, 17, 99),
        ]
    )
    shown = [
        (row.macs, *({name: t.label for name, t in best.items()} for best in (row.found, row.references)))
        for row in rows
    ]
    both = {"psnr": "unet", "accuracy": "unet++"}
    assert shown == [
        (100, {"psnr": "trial 3", "accuracy": "trial 4"}, {}),
        (200, {"psnr": "trial 3", "accuracy": "trial 4"}, {}),
        (400, {"psnr": "trial 2", "accuracy": "trial 4"}, {}),
        (800, {"psnr": "trial 2", "accuracy": "trial 4"}, both),
    ]


def test_sizes_without_a_trial_and_metrics_that_some_lack_are_left_out() -> None:
    lacking = Sized(number=1, reference="", macs=500, values={"psnr": 20.0})
    assert measured([trial(0, 800, 22), lacking]) == [PSNR]
    assert [row.macs for row in best_at_sizes([trial(0, 800, 22), lacking])] == [800]
    assert (measured([]), best_at_sizes([])) == ([], [])


def test_trials_that_were_enqueued_as_references_bear_their_names(ledger: SqlLedger) -> None:
    ledger.optuna_study.enqueue_trial({}, user_attrs={"baseline": "unet++"})
    number = Driver(ledger).complete(20.0, macs=9e6)
    found = Driver(ledger).complete(21.0, macs=9e6)
    assert read(ledger).references() == {number: "unet++"}
    expected = [(number, "unet++", 9e6, 20.0), (found, "", 9e6, 21.0)]
    for trials in (sized_trials(read(ledger)), sized_of(read_history(read(ledger)))):
        assert [(t.number, t.reference, t.macs, t.values["psnr"]) for t in trials] == expected
    failed = Driver(ledger).ask()
    assert failed not in {t.number for t in sized_trials(read(ledger))}
