"""States that a person sets through Optuna, as its dashboard does: Optuna and the records tell the person's truth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from optuna.trial import TrialState
from sqlalchemy import func, select
from study_samples import Driver, claim, make_measurement, read, row

from nas.errors import LeaseLostError
from nas.outcome import Outcome
from nas.types import Counts
from studies.commands.terminal import front_table
from studies.reading.best import choose
from studies.store.by_hand import DETAIL
from studies.store.ledger import SqlLedger
from studies.store.records import TrialRecord

# The state that is set, with values -> outcome and counts afterwards, and the front.
SET: list[tuple[TrialState, tuple[float, ...], Outcome, Counts, bool]] = [
    (TrialState.FAIL, (), Outcome.FAILED_BY_HAND, Counts(complete=1, failed=1), False),
    (TrialState.PRUNED, (), Outcome.PRUNED_BY_HAND, Counts(complete=1, pruned=1), False),
    (TrialState.COMPLETE, (30.0, 1.0), Outcome.COMPLETE, Counts(complete=2), True),
]
IDS = [state.name for state, *_ in SET]


def set_state(ledger: SqlLedger, number: int, state: TrialState, values: tuple[float, ...]) -> None:
    """What the dashboard's button does."""
    storage = ledger.storage.optuna
    trial_id = storage.get_trial_id_from_study_id_trial_number(ledger.study_id, number)
    assert storage.set_trial_state_values(trial_id, state, values or None)


def check(ledger: SqlLedger, number: int, state: TrialState, outcome: Outcome, counts: Counts, front: bool) -> None:
    with SqlLedger.open("first", ledger.storage) as again:
        record = read(again).trial(number)
        assert (record.outcome, record.detail, record.owner) == (outcome, DETAIL, None)
        assert ledger.optuna_study.get_trials()[number].state is state
        for each in (ledger, again):
            assert each.counts() == counts
            assert (number in each.front()) is front
        kinds = [event for event in read(again).events() if event[1] == number]
        assert kinds == [("ask", number), ("tell", number)]
        assert [result.number for result in read(again).results()] == [0, number][: 1 + front]
        if front:
            assert record.params
            costs = {"params": record.params, "macs": record.macs}
            assert read(again).measurement(number).values == {"psnr": 30.0, "latency": 1.0} | costs
            shown = choose(read(again))
            told = front_table(shown, ledger.config.objectives)
            assert list(told.columns[0].cells) == [str(number)]


@pytest.mark.parametrize(("state", "values", "outcome", "counts", "front"), SET, ids=IDS)
@pytest.mark.parametrize("between", [False, True], ids=["while it runs", "between searches"])
def test_the_person_s_state_stands(
    ledger: SqlLedger,
    between: bool,
    state: TrialState,
    values: tuple[float, ...],
    outcome: Outcome,
    counts: Counts,
    front: bool,
) -> None:
    Driver(ledger).complete()
    with ledger.drive():
        number = Driver(ledger).start()
        ledger.epochs(number, [row(1)])
        if not between:
            set_state(ledger, number, state, values)
            writes: list[Callable[[], object]] = [
                lambda: ledger.epochs(number, [row(2)]),
                lambda: ledger.complete(number, make_measurement()),
                lambda: ledger.prune(number, Outcome.STOPPED),
                lambda: ledger.fail(number, Outcome.EXCEPTION),
            ]
            for write in writes:
                with pytest.raises(LeaseLostError, match="was ended by hand"):
                    write()
            assert ledger.epochs_table(number) == [row(1)]
            assert claim(ledger) is None
            assert ledger.reserve(3 if outcome.trained else 2), "its place is free as far as it was not trained"
    if between:
        set_state(ledger, number, state, values)
    with ledger.drive() if between else nullcontext():
        check(ledger, number, state, outcome, counts, front)


@pytest.mark.parametrize(("state", "values", "outcome", "counts", "front"), SET, ids=IDS)
def test_a_reader_tells_it_while_the_search_runs(
    ledger: SqlLedger, state: TrialState, values: tuple[float, ...], outcome: Outcome, counts: Counts, front: bool
) -> None:
    Driver(ledger).complete()
    with ledger.drive():
        number = Driver(ledger).start()
        set_state(ledger, number, state, values)
        check(ledger, number, state, outcome, counts, front)
        with pytest.raises(LeaseLostError, match="belongs to another driver"):
            ledger.complete(number, make_measurement())


@pytest.mark.parametrize("values", [(float("inf"), 1.0)])
def test_values_that_are_no_numbers_reach_no_front(ledger: SqlLedger, values: tuple[float, ...]) -> None:
    number = Driver(ledger).start()
    set_state(ledger, number, TrialState.COMPLETE, values)
    with SqlLedger.open("first", ledger.storage) as again:
        assert again.front() == []
        assert again.counts() == Counts(complete=1)


def test_a_trial_that_was_never_started_reaches_no_front(ledger: SqlLedger) -> None:
    number = Driver(ledger).ask()
    set_state(ledger, number, TrialState.COMPLETE, (30.0, 1.0))
    with SqlLedger.open("first", ledger.storage) as again, again.drive():
        assert again.front() == []
        assert claim(again) is None
    with ledger.storage.session() as session:
        assert session.scalar(select(func.count()).select_from(TrialRecord)) == 1
