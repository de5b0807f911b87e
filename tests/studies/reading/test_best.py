"""The choice from a front: by the search's values, and by confirmed means where there are any."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from study_samples import Driver, read

from nas.errors import ConfigError, StudyError
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun
from nas.training.version import TRAINING_VERSION
from nas.types import Objective
from studies.commands.best import best_facts
from studies.commands.confirm import study_members
from studies.commands.terminal import standing
from studies.reading.best import choose, seed_count
from studies.settings import SizeLimits
from studies.store.deletion import delete_study
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger

New = Callable[..., SqlLedger]


def confirm(
    ledger: SqlLedger,
    number: int | None,
    *psnrs: float,
    latency: float = 2.0,
    params: float = 1e6,
    digest: str = "",
) -> None:
    """Runs of a trial, or of a reference network, with these values under seeds 0, 1, ..."""
    digest = digest or read(ledger).trial(number or 0).digest or ""
    for repeat, psnr in enumerate(psnrs):
        values = {"psnr": psnr, "latency": latency, "params": params, "macs": 10 * params, "test_psnr": psnr - 1}
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
    with pytest.raises(StudyError, match="has no complete trial yet"):
        study_members(read(ledger), object(), top=8, baselines=False)  # type: ignore[arg-type]


# --- within limits of size ---
@pytest.fixture
def sized(driver: Driver) -> list[int]:
    """Trials of growing size, of which the first two are dominated by the third."""
    return [
        driver.complete(psnr, latency, macs=macs, params=macs / 10)
        for psnr, latency, macs in ((20, 3, 1000), (21, 4, 2000), (25, 1, 4000), (26, 5, 8000))
    ]


def test_limits_leave_the_front_of_what_fits(ledger: SqlLedger, sized: list[int]) -> None:
    def front(**limits: float) -> list[int]:
        return [r.number for r in choose(read(ledger), limits=SizeLimits(**limits)).front]  # type: ignore[arg-type]

    assert front() == [sized[2], sized[3]]
    assert front(max_macs=8000) == [sized[2], sized[3]]
    assert front(max_macs=7999) == [sized[2]]
    assert front(max_macs=2000) == [sized[0], sized[1]], "members that the whole front does not have"
    assert front(max_params=100) == [sized[0]]
    assert front(max_latency=3.5, max_macs=2000) == [sized[0]]
    best = choose(read(ledger), pick="psnr", limits=SizeLimits(max_macs=2000))
    assert best.chosen.number == sized[1]
    assert best.hypervolume == pytest.approx((20 - 14) * (100 - 3) + (21 - 20) * (100 - 4))
    with pytest.raises(StudyError, match=f"trial {sized[2]} is not on the front among trials with at most 2,000 "):
        choose(read(ledger), pick=str(sized[2]), limits=SizeLimits(max_macs=2000))
    facts = best_facts(read(ledger), "knee", None, SizeLimits(max_macs=1000, max_latency=3.5))
    assert (facts["limits"], facts["chosen"]["trial"]) == ({"macs": 1000, "latency": 3.5}, sized[0])


def test_the_smallest_is_named_when_nothing_fits(ledger: SqlLedger, sized: list[int]) -> None:
    with pytest.raises(StudyError) as told:
        choose(read(ledger), limits=SizeLimits(max_macs=999))
    assert str(told.value) == (
        "no complete trial of study 'first' keeps `max_macs` 999; the smallest is trial 0 with 1,000 MACs; "
        "give a larger limit"
    )
    with pytest.raises(StudyError) as told:
        choose(read(ledger), limits=SizeLimits(max_macs=3000, max_latency=1.5))
    assert str(told.value) == (
        "no complete trial of study 'first' keeps `max_macs` 3,000 and `max_latency` 1.5; the smallest is trial 0 with "
        "1,000 MACs, latency 3.000 ms or trial 2 with 4,000 MACs, latency 1.000 ms; give a larger limit"
    )


def test_a_limit_of_what_was_never_measured_is_told(ledger: SqlLedger, front: list[int]) -> None:
    with pytest.raises(StudyError, match="keeps `max_macs` 999, because none was measured in this; leave the"):
        choose(read(ledger), limits=SizeLimits(max_macs=999))


def test_a_limit_is_a_number_above_zero() -> None:
    with pytest.raises(ConfigError, match="`max_latency` is 0; give more than 0"):
        SizeLimits(max_latency=0)


def test_a_limit_of_latency_is_kept_by_the_mean_where_there_is_one(ledger: SqlLedger, sized: list[int]) -> None:
    limits = SizeLimits(max_latency=4.5, max_macs=2000)
    assert [r.number for r in choose(read(ledger), limits=limits).front] == [sized[0], sized[1]]
    confirm(ledger, sized[0], 20, 20, latency=4.6, params=100)
    assert [r.number for r in choose(read(ledger), limits=limits).front] == [sized[1]]
    assert [r.number for r in choose(read(ledger), limits=limits, confirmed=False).front] == [sized[0], sized[1]]


def test_within_limits_confirmed_means_stand_where_there_are_some(ledger: SqlLedger, front: list[int]) -> None:
    limits = SizeLimits(max_latency=5)
    searched = choose(read(ledger), limits=limits)
    assert [r.number for r in searched.front] == front[:3]
    assert standing(searched, "first").endswith("confirm them with: skipnas confirm first --max-latency 5")
    confirm(ledger, front[0], 20, 21, latency=1)
    confirm(ledger, front[1], 24, 25, latency=2)
    choice = choose(read(ledger), limits=limits)
    assert ([r.number for r in choice.front], choice.unconfirmed) == (front[:2], (front[2],))
    assert choice.front[1].values["psnr"] == 24.5
    assert "is the knee among trials with at most 5 ms of latency by means under 2 seeds: " in choice.reason
    assert standing(choice, "first").endswith(
        f"not confirmed: trial {front[2]}; confirm them with: skipnas confirm first --max-latency 5"
    )


# --- reasons ---
THREE = (
    Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
    Objective(name="accuracy", direction="maximize", unit="%", reference=10.0),
    Objective(name="stability", direction="maximize", unit="", reference=0.0),
)


def reason_of(ledger: SqlLedger, *members: tuple[float, ...], pick: str = "knee") -> str:
    for member in members:
        Driver(ledger).complete(**dict(zip((o.name for o in ledger.config.objectives), member, strict=True)))
    return choose(read(ledger), pick=pick).reason


def test_the_knee_says_what_it_gives_up_and_has_in_units(new_study: New) -> None:
    """Differences are of the figures that are shown: 97.446 is shown as 97.45, and 98.144 as 98.14."""
    members = (20.84, 97.446, 0.8), (20.91, 96.35, 0.79), (20.5, 98.144, 0.7)
    assert reason_of(new_study(objectives=THREE), *members) == (
        "trial 0 is the knee: 20.84 dB, 97.45 %, training stability 0.800; against the best of each objective it gives "
        "up 0.07 dB of PSNR (trial 1) and 0.69 points of accuracy (trial 2); in return it has 1.10 points of accuracy "
        "and 0.010 of training stability more than trial 1, and 0.34 dB of PSNR and 0.100 of training stability more "
        "than trial 2"
    )


def test_of_two_members_each_reason_is_the_trade_between_them(new_study: New) -> None:
    ledger = new_study(objectives=THREE)
    assert reason_of(ledger, (20.84, 97.45, 0.8), (20.91, 96.35, 0.79)) == (
        "trial 0 is the knee: 20.84 dB, 97.45 %, training stability 0.800; against the best of each objective it gives "
        "up 0.07 dB of PSNR (trial 1); in return it has 1.10 points of accuracy and 0.010 of training stability more "
        "than trial 1"
    )
    other = (
        "against the best of each objective it gives up 1.10 points of accuracy (trial 0) and 0.010 of training "
        "stability (trial 0); in return it has 0.07 dB of PSNR more than trial 0"
    )
    assert reason_of(ledger, pick="psnr") == f"trial 1 has the best psnr of the front, 20.91 dB; {other}"
    by_number = f"trial 1 was asked for by number: 20.91 dB, 96.35 %, training stability 0.790; {other}"
    assert reason_of(ledger, pick="1") == by_number


def test_costs_are_needed_and_not_given_up(ledger: SqlLedger, front: list[int]) -> None:
    assert choose(read(ledger)).reason == (
        "trial 1 is the knee: 25.00 dB, 2.000 ms; against the best of each objective it gives up 2.00 dB of PSNR "
        "(trial 3) and needs 1.000 ms of latency more (trial 0); in return it has 6.000 ms of latency less than trial "
        "3, and 5.00 dB of PSNR more than trial 0"
    )


def test_differences_too_small_to_show_and_amounts_keep_their_words(new_study: New) -> None:
    params = Objective(name="params", direction="minimize", unit="", reference=2e6)
    assert reason_of(new_study(objectives=(THREE[0], params)), (20.001, 52_000), (20.0, 40_000)) == (
        "trial 0 is the knee: 20.00 dB, 52,000 parameters; against the best of each objective it needs 12,000 "
        "parameters more (trial 1); in return it has under 0.01 dB of PSNR more than trial 1"
    )


def test_a_percentage_that_is_no_accuracy_has_its_name(new_study: New) -> None:
    balanced = Objective(name="balanced_accuracy", direction="maximize", unit="%", reference=50.0)
    assert reason_of(new_study(objectives=(THREE[0], balanced)), (20.84, 46.75)) == (
        "trial 0 is the only member of the front: 20.84 dB, balanced accuracy 46.75 %"
    )


def test_equal_members_and_only_ones_give_up_nothing(new_study: New) -> None:
    ledger = new_study(objectives=THREE)
    only = "trial 0 is the only member of the front: 20.84 dB, 97.45 %, training stability 0.800"
    assert reason_of(ledger, (20.84, 97.45, 0.8)) == only
    assert reason_of(ledger, (20.84, 97.45, 0.8)) == (
        "trial 0 is the knee: 20.84 dB, 97.45 %, training stability 0.800; no member of the front is better in any "
        "objective"
    )
