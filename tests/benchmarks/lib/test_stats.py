"""The statistics of the benchmarks against scipy, hand computation and their own laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lib.stats import (
    LEVEL,
    Cell,
    Interval,
    claim_verdict,
    compare_spread,
    corrected,
    holm,
    holm_levels,
    mean_interval,
    non_inferiority,
    p_above,
    p_below,
    p_other,
    p_wilcoxon,
    part_verdict,
    superiority,
)

SAMPLE = [0.3, 0.1, -0.2, 0.5, 0.4, 0.25]
NAMES = {"part": "p", "label": "l", "setting": "s", "unit": "dB"}
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def cell(p_for: float, p_against: float) -> Cell:
    return Cell(**NAMES, difference=Interval(0.0, -1.0, 1.0, 8), p_for=p_for, p_against=p_against)


def test_the_interval_is_scipys() -> None:
    found = mean_interval(SAMPLE)
    low, high = scipy.stats.t.interval(0.95, len(SAMPLE) - 1, np.mean(SAMPLE), scipy.stats.sem(SAMPLE))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(SAMPLE), low, high, 6))
    wide = scipy.stats.t.interval(0.99, len(SAMPLE) - 1, np.mean(SAMPLE), scipy.stats.sem(SAMPLE))
    corrected = mean_interval(SAMPLE, 0.01)
    assert (corrected.low, corrected.high) == pytest.approx(wide)


def test_an_interval_needs_two_values() -> None:
    assert mean_interval([2.0]).mean == 2.0
    assert math.isnan(mean_interval([2.0]).low)
    assert mean_interval([]).n == 0
    assert math.isnan(mean_interval([]).mean)


@pytest.mark.parametrize("bound", [-0.1, 0.0, 0.2])
def test_one_sided_tests_are_scipys(bound: float) -> None:
    assert p_above(SAMPLE, bound) == pytest.approx(scipy.stats.ttest_1samp(SAMPLE, bound, alternative="greater").pvalue)
    assert p_below(SAMPLE, bound) == pytest.approx(scipy.stats.ttest_1samp(SAMPLE, bound, alternative="less").pvalue)


def test_the_two_sided_test_is_scipys() -> None:
    assert p_other(SAMPLE) == pytest.approx(scipy.stats.ttest_1samp(SAMPLE, 0.0).pvalue)
    assert p_other([0.0, 0.0]) == p_other([1.0]) == 1.0


def test_values_without_spread_decide_outright() -> None:
    assert p_above([0.5] * 4, 0.0) == 0.0
    assert p_above([0.0] * 4, 0.0) == 1.0
    assert p_below([-0.5] * 4, 0.0) == 0.0
    assert p_above([0.5], 0.0) == p_below([], 0.0) == 1.0


def test_wilcoxon_is_scipys_and_takes_ties_with_nothing() -> None:
    assert p_wilcoxon(SAMPLE) == scipy.stats.wilcoxon(SAMPLE).pvalue
    assert p_wilcoxon([0.0, 0.0, 0.0]) == 1.0
    assert p_wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2**-4)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, and never less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_factor_exceeds_the_hypotheses_that_can_be_true() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04], most_true=2) == pytest.approx([0.02, 0.04, 0.06, 0.06])


@given(P_VALUES)
def test_holm_lies_between_raw_and_bonferroni(values: list[float]) -> None:
    for raw, adjusted in zip(values, holm(values), strict=True):
        assert raw <= adjusted <= min(1.0, len(values) * raw)


@given(P_VALUES)
def test_holm_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert [adjusted[i] for i in np.argsort(values, kind="stable")] == sorted(adjusted)


def test_each_p_value_has_the_level_at_which_holm_tests_it() -> None:
    # In order .01, .02, .02 and .5: the second one is not below .05 / 3, where the rest stay.
    levels = holm_levels([0.5, 0.01, 0.02, 0.02])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])
    assert holm_levels([]) == []


@given(P_VALUES)
def test_a_p_value_is_below_its_level_where_the_adjusted_one_is_below_the_level_of_all(values: list[float]) -> None:
    pairs = zip(values, holm_levels(values), holm(values), strict=True)
    assert all((raw < level) == (adjusted < 0.05) for raw, level, adjusted in pairs if not math.isclose(adjusted, 0.05))


def test_spread_splits_brown_and_forsythe_by_direction() -> None:
    generator = np.random.default_rng(1)
    tight, wide = generator.normal(0, 0.1, 20).tolist(), generator.normal(5, 1.0, 20).tolist()
    two_sided = scipy.stats.levene(tight, wide, center="median").pvalue
    steadier, rougher = compare_spread(tight, wide), compare_spread(wide, tight)
    assert [steadier.p_smaller, rougher.p_larger] == pytest.approx([two_sided / 2] * 2)
    assert [steadier.p_larger, rougher.p_smaller] == pytest.approx([1 - two_sided / 2] * 2)
    assert steadier.log_ratio.mean == pytest.approx(math.log(np.std(tight, ddof=1) / np.std(wide, ddof=1)))
    assert steadier.log_ratio.low < steadier.log_ratio.mean < steadier.log_ratio.high < 0


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_spread_of_too_little_says_nothing(values: list[float]) -> None:
    found = compare_spread(values, values)
    assert found.p_smaller == found.p_larger == 1.0
    assert math.isnan(found.log_ratio.mean)


def test_superiority_asks_for_more_than_nothing_and_less_than_the_margin() -> None:
    found = superiority(SAMPLE, margin=0.1, **NAMES)
    assert found.p_for == p_above(SAMPLE, 0.0)
    assert found.p_against == p_below(SAMPLE, 0.1)


def test_non_inferiority_asks_on_which_side_of_the_margin() -> None:
    found = non_inferiority(SAMPLE, margin=0.1, **NAMES)
    assert found.p_for == p_above(SAMPLE, -0.1)
    assert found.p_against == pytest.approx(1 - found.p_for)


def test_an_advantage_that_is_real_but_worthless_counts_against() -> None:
    assert superiority([0.010, 0.011, 0.009, 0.010], margin=0.1, **NAMES).outcome == "against"
    assert superiority([1.0, 1.1, 0.9, 1.0], margin=0.1, **NAMES).outcome == "for"
    assert superiority([1.0, -1.1, 0.9, -1.0], margin=0.1, **NAMES).outcome == "open"


def test_cells_of_a_claim_are_corrected_together() -> None:
    found = corrected([cell(0.01, 0.5), cell(0.02, 0.9)])
    assert [c.p_for for c in found] == pytest.approx([0.02, 0.04])
    assert [c.outcome for c in found] == ["for", "open"]
    assert LEVEL == 0.025


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["for", "for", "open"], "holds"),
        (["for", "open"], "undecided"),
        (["for", "for", "for", "against"], "undecided"),
        (["for", "against"], "does not hold"),
        (["against", "against", "open"], "does not hold"),
        (["open"], "undecided"),
        ([], "undecided"),
    ],
)
def test_a_part_is_counted_over_its_cells(outcomes: list[str], verdict: str) -> None:
    assert part_verdict(outcomes) == verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "undecided"], "undecided"),
        (["undecided", "does not hold"], "does not hold"),
        (["holds", "does not hold"], "does not hold"),
        ([], "undecided"),
    ],
)
def test_a_claim_is_as_good_as_its_worst_part(parts: list[str], verdict: str) -> None:
    assert claim_verdict(parts) == verdict
