"""The choice from a front: by the search's values, and by confirmed means where there are any."""

from __future__ import annotations

import pytest
from study_samples import Driver, read

from nas.errors import StudyError
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.training.version import TRAINING_VERSION
from studies.commands.confirm import study_members
from studies.reading.best import choose, seed_count
from studies.store.deletion import delete_study
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger


def confirm(ledger: SqlLedger, number: int | None, *psnrs: float, latency: float = 2.0, digest: str = "") -> None:
    """Runs of a trial, or of a reference network, with these values under seeds 0, 1, ..."""
    digest = digest or read(ledger).trial(number or 0).digest or ""
    for repeat, psnr in enumerate(psnrs):
        values = {"psnr": psnr, "latency": latency, "params": 1e6, "macs": 9e6, "test_psnr": psnr - 1}
        ledger.confirm(
            ConfirmedRun(
                digest=digest,
                repeat=repeat,
                seed=100 + repeat,
                number=number,
                reference=None if number is not None else "unet",
                spec={"depth": 2},
                recipe={"epochs": 27},
                outcome=Outcome.COMPLETE if psnr > 0 else Outcome.DIVERGED,
                training_version=TRAINING_VERSION,
                detail="\0loss",
                values=values if psnr > 0 else {},
                gates=({"mean": 1.0, "min": 0.5, "max": 1.5},),
                seconds=1.5,
            )
        )


@pytest.fixture
def front(driver: Driver) -> list[int]:
    """Four trials on the front: better and slower one after the other; and one that is dominated."""
    numbers = [driver.complete(psnr, latency) for psnr, latency in ((20, 1), (25, 2), (26, 4), (27, 8))]
    driver.complete(19, 9)
    return numbers


def test_runs_are_kept_once_and_come_back(ledger: SqlLedger, front: list[int]) -> None:
    confirm(ledger, front[0], 20.0, 0.0)
    confirm(ledger, front[0], 99.0, 99.0)
    first, second = ledger.confirmations()
    assert (first.values["psnr"], first.values["test_psnr"], first.outcome) == (20.0, 19.0, Outcome.COMPLETE)
    assert (second.values, second.outcome, second.repeat, second.seed) == ({}, Outcome.DIVERGED, 1, 101)
    assert first.gates == ({"mean": 1.0, "min": 0.5, "max": 1.5},)
    assert (first.number, first.spec, first.recipe, first.seconds) == (front[0], {"depth": 2}, {"epochs": 27}, 1.5)
    assert first.detail == "\\0loss"


def test_a_study_is_deleted_with_its_confirmations(ledger: SqlLedger, front: list[int]) -> None:
    confirm(ledger, front[0], 20.0)
    delete_study(ledger.storage, "first")
    assert not has_study(ledger.storage, "first")
    assert ledger.confirmations() == []


def test_without_runs_the_search_s_values_are_shown(ledger: SqlLedger, front: list[int]) -> None:
    choice = choose(read(ledger))
    assert [r.number for r in choice.front] == front
    assert (choice.confirmed, choice.unconfirmed, choice.seeds) == ({}, (), "1 seed")
    assert "seeds" not in choice.reason


def test_front_and_knee_are_of_the_means(ledger: SqlLedger, front: list[int]) -> None:
    before = choose(read(ledger))
    # The one that the search had for the knee was lucky, and another is better than it seemed.
    confirm(ledger, front[0], 20, 20.5, latency=1)
    confirm(ledger, front[1], 18, 19, latency=2)
    confirm(ledger, front[2], 26, 30, latency=4)
    choice = choose(read(ledger))
    assert before.chosen.number == front[1]
    assert [r.number for r in choice.front] == [front[0], front[2]]
    assert choice.front[1].values["psnr"] == 28
    assert choice.confirmed[front[2]].values["psnr"].n == 2
    assert choice.unconfirmed == (front[3],)
    assert choice.chosen.number in (front[0], front[2])
    assert "by means under 2 seeds" in choice.reason
    assert choose(read(ledger), pick="psnr").chosen.number == front[2]
    assert choose(read(ledger), confirmed=False).front == before.front


def test_a_member_that_is_not_on_the_confirmed_front_can_be_asked_for(ledger: SqlLedger, front: list[int]) -> None:
    confirm(ledger, front[0], 20, 20.5, latency=1)
    confirm(ledger, front[1], 18, 19, latency=2)
    worse = choose(read(ledger), pick=str(front[1]))
    assert worse.chosen.values["psnr"] == 18.5
    assert "another trial is at least as good in all objectives and better in one" in worse.reason
    unknown = choose(read(ledger), pick=str(front[3]))
    assert (unknown.chosen.values["psnr"], "it is not confirmed" in unknown.reason) == (27, True)
    with pytest.raises(StudyError, match="trial 99 is not on the front"):
        choose(read(ledger), pick="99")


def test_one_run_or_one_that_diverged_confirms_nothing(ledger: SqlLedger, front: list[int]) -> None:
    confirm(ledger, front[0], 20)
    confirm(ledger, front[1], 25, 25, 0)
    assert choose(read(ledger)).confirmed == {}
    assert choose(read(ledger)).confirmed_front == ()


def test_reference_networks_take_no_part_in_the_choice(ledger: SqlLedger, front: list[int]) -> None:
    for number in front:
        confirm(ledger, number, 20, 21)
    confirm(ledger, None, 99, 99, latency=0.1, digest="f" * 16)
    choice = choose(read(ledger))
    assert {r.number for r in choice.front} <= set(front)
    assert len(choice.confirmed) == 4
    assert choice.confirmed_front == choice.front


def test_seeds_are_counted(ledger: SqlLedger, front: list[int]) -> None:
    confirm(ledger, front[0], 20, 21)
    confirm(ledger, front[1], 20, 21, 22)
    assert choose(read(ledger)).seeds == "2 to 3 seeds"
    assert seed_count([]) == "1 seed"


def test_an_empty_study_has_nothing_to_confirm(ledger: SqlLedger) -> None:
    with pytest.raises(StudyError, match="no complete trial to confirm"):
        study_members(read(ledger), object(), top=8, baselines=False)  # type: ignore[arg-type]
