"""How well a score agrees with what other runs show, on made-up runs; and the score with penalties."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from benchmarks.lib import agreement
from benchmarks.lib.agreement import Curve, Observed
from benchmarks.lib.penalties import Weights, penalised
from nas.training.stability import stability as score_of
from nas.types import ProbeCurve


def curve(lost: float, seed: int = 0) -> Curve:
    """Learns to a third of the trivial loss, and loses `lost` nats of it now and then, also at the end."""
    noise = np.random.default_rng(seed).normal(0, 0.001, 100)
    y = -1.1 * (1 - np.exp(-np.arange(100) / 15)) + noise + lost * (np.arange(100) % 10 > 5)
    losses = tuple(np.exp(y).tolist())
    return Curve(losses, losses, 1.0)


def observed(lost: float, spread: float, sensitivity: float, seeds: int = 5) -> Observed:
    return Observed(
        curves=tuple(curve(lost, seed) for seed in range(seeds)),
        quality=np.random.default_rng(round(1e6 * lost)).normal(20, 1, (seeds, 2)),
        final=np.array([[spread * s - 1, spread * s - 1] for s in range(seeds)]),
        sensitivity=sensitivity,
    )


def test_a_score_that_orders_architectures_as_their_runs_do_agrees_wholly() -> None:
    levels = np.linspace(0.01, 0.2, 12)
    found = [observed(level, spread=level, sensitivity=level) for level in levels]
    sample, scores = agreement.Sample.of(found), agreement.scores_by(found)
    assert sample.agreement(scores) == pytest.approx([1.0, 1.0, 1.0])
    assert sample.agreement(-scores) == pytest.approx([-1.0, -1.0, -1.0])
    backwards = [observed(level, spread=level, sensitivity=-level) for level in levels]
    assert agreement.Sample.of(backwards).agreement(scores) == pytest.approx([1.0, 1.0, -1.0])
    assert agreement.highest_possible(found) == pytest.approx([1.0, 1.0], abs=0.05)


def test_spread_that_is_luck_leaves_nothing_to_agree_with() -> None:
    rng = np.random.default_rng(0)
    found = [replace(observed(0.1, 0.0, 0.1), final=rng.normal(-1, 0.1, (5, 2))) for _ in range(300)]
    assert agreement.highest_possible(found) == pytest.approx([0.0, 0.0], abs=0.3)


def test_who_gains_little_spreads_little_in_nats_but_not_in_units_of_the_gain() -> None:
    much, little = (
        replace(observed(0.1, 0.0, 0.1), final=gain * np.array([[-1.2, -1.0], [-1.0, -1.2], [-0.8, -0.8]]))
        for gain in (1.0, 0.1)
    )
    assert little.spread(range(3)) == pytest.approx(0.1 * much.spread(range(3)))
    assert little.share_spread(range(3)) == pytest.approx(much.share_spread(range(3)))


def test_scores_are_those_of_the_project_and_a_diverged_run_has_none() -> None:
    one = curve(0.2)
    assert one.score() == pytest.approx(score_of(ProbeCurve(denoise=one.denoise, classify=one.classify)))
    assert replace(one, done=0.9).score() == 0.0


def test_penalties_are_those_of_their_formula() -> None:
    y = -1.5 * (1 - np.exp(-np.arange(200) / 40))
    spiked = y.copy()
    spiked[[50, 90, 130, 170]] += math.log(3.0)
    # Four spikes in 200 probes, and the regress that they are; the median stays where it was.
    expected = math.exp(-(20 * 4 / 200 + 4 * 4 * math.log(3.0) / 200 / 1.5))
    assert penalised(np.exp(spiked).tolist()) == pytest.approx(expected, rel=0.03)
    assert penalised(np.exp(y).tolist(), 0.5) == pytest.approx(0.25 * penalised(np.exp(y).tolist()))
    found = [observed(level, spread=1.0, sensitivity=1.0) for level in (0.02, 0.2, 0.4)]
    for weights in (Weights(), Weights(gain=0.3, spikes=5.0, regress=1.0, last_regress=3.0, roughness=1.0)):
        by_curve = agreement.scores_by(found, partial(penalised, weights=weights))
        assert agreement.penalised_scores(agreement.trait_table(found), weights) == pytest.approx(by_curve)


def test_what_psnr_explains_is_no_agreement_of_its_own() -> None:
    rng = np.random.default_rng(0)
    quality = rng.normal(size=400)
    a, b = quality + 0.3 * rng.normal(size=400), quality + 0.3 * rng.normal(size=400)
    given = np.column_stack([quality, rng.normal(size=400)])
    assert agreement.spearman(a, b) > 0.8
    assert abs(agreement.partial_spearman(a, b, given)) < 0.15
    assert agreement.partial_spearman(a, a + 0.01 * b, given) > 0.9


def test_intraclass_correlation_is_the_share_of_variance_between_architectures() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, (4000, 1)) + rng.normal(0, 1, (4000, 5))
    assert agreement.icc(values) == pytest.approx(0.9, abs=0.01)
    assert abs(agreement.icc(rng.normal(size=(4000, 5)))) < 0.03
    assert agreement.icc(np.zeros((10, 5))) == 0.0


def test_sensitivity_is_what_other_rates_lose_and_divergence_is_trivial() -> None:
    base = {"denoise": [1.0] * 5, "classify": [1.0] * 5, "done": 1.0, "psnr": 20.0, "accuracy": 90.0}
    half, tenth = [0.5, 0.5], [0.1, 0.1]
    records = [{**base, "seed": seed, "factor": 1.0, "final": tenth} for seed in range(3)]
    records += [{**base, "seed": seed, "factor": 2.0, "final": half} for seed in range(2)]
    records += [{**base, "seed": seed, "factor": 8.0} for seed in range(2)]
    found = Observed.of(records)
    assert found.sensitivity == pytest.approx((0 + math.log(5) + math.log(10)) / 3)
    assert found.spread(range(3)) == 0.0
    worse = [{**record, "final": [4.0, 4.0]} if record["factor"] == 8.0 else record for record in records]
    assert Observed.of(worse).sensitivity == found.sensitivity, "worse than doing nothing counts as doing nothing"


def test_fitted_constants_agree_at_least_as_well_where_they_were_fitted() -> None:
    rng = np.random.default_rng(0)
    found = [observed(level, spread=level, sensitivity=level * rng.uniform(0.5, 2)) for level in rng.uniform(0, 0.5, 8)]
    sample, parts, rows = agreement.Sample.of(found), agreement.trait_table(found), np.arange(8)
    best = agreement.penalised_scores(parts, agreement.fitted(parts, sample, rows))
    assert sample.agreement(best, rows).sum() >= sample.agreement(agreement.penalised_scores(parts), rows).sum()


def test_the_report_has_a_line_for_every_score_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "RESAMPLES", 50)
    monkeypatch.setattr(agreement, "EVALUATIONS", 25)
    rng = np.random.default_rng(0)
    found = {str(n): observed(x, x * rng.uniform(0.5, 2), x) for n, x in enumerate(rng.uniform(0, 0.2, 8))}
    text = agreement.tables(found, {"frozen network": [0.0]})
    assert "| frozen network | 0.000 |" in text
    for name in (
        "the score |",
        "given PSNR and accuracy",
        "a faultless score",
        "with penalties, fitted",
        "sensitivity",
    ):
        assert name in text
