"""Bayesian optimisation: what it learns from, and that it finds more than random draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search import bayes, pool
from nas.search.codes import Codes
from nas.search.pareto import Array, hypervolume
from nas.search.past import Judged, Sketch
from nas.search.prior import Belief, EarlierTrial, Prior
from nas.search.sampler import NO_PRIOR, proposer
from nas.types import Cost, Objective

LETTERS = ["a", "b", "c", "d"]
SPACE: dict[str, BaseDistribution] = {f"x{i}": CategoricalDistribution(LETTERS) for i in range(6)}
UP = [Objective(name=name, direction="maximize", unit="", reference=-1.0) for name in ("psnr", "accuracy")]
EFFECTS = np.random.default_rng(0).random((2, 6, 4))


def truth(params: Mapping[str, Any]) -> tuple[float, ...]:
    """Two objectives, each a sum of the effects of six choices; both are best at different choices."""
    at = [LETTERS.index(params[f"x{i}"]) for i in range(6)]
    return tuple(float(EFFECTS[k, range(6), at].sum()) for k in range(2))


class Past:
    """A study in memory.

    Attributes:
        params: number -> hyperparameters.
        ended: number -> epoch and values.
        rungs: epoch -> number -> values.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.space = space
        self.params: dict[int, Mapping[str, Any]] = {}
        self.ended: dict[int, tuple[int, tuple[float, ...]]] = {}
        self.rungs: dict[int, dict[int, tuple[float, ...]]] = {}
        self.objectives: Sequence[Objective] = UP

    def judged(self) -> Judged:
        return self.ended

    def under_way(self, *, reread: bool = True) -> list[int]:
        return [number for number in self.params if number not in self.ended]

    def drawn(self, numbers: Sequence[int]) -> Array:
        rows = [[each.to_internal_repr(self.params[n][name]) for name, each in self.space.items()] for n in numbers]
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.space))

    def rung_objectives(self) -> Sequence[Objective]:
        return self.objectives

    def rung(self, epoch: int) -> dict[int, tuple[float, ...]]:
        return self.rungs.get(epoch, {})

    def as_optuna(self, number: int) -> Any:
        raise NotImplementedError


def sketch(params: Mapping[str, Any], macs: Callable[[Mapping[str, Any]], int] = lambda params: 1000) -> Sketch:
    """A candidate without hyperparameters that are switched off, of at most 1000 MACs."""
    cost = Cost(params=1000, macs=macs(params))
    return Sketch(params=params, digest=str(sorted(params.items())), cost=cost, batch_size=32, fits=cost.macs <= 1000)


def searched(sampler: str, seed: int, trials: int, prior: Prior = NO_PRIOR, **options: Any) -> Past:
    """A whole search, one trial at a time."""
    past, known = Past(SPACE), set()
    of: Callable[[Mapping[str, Any]], Sketch] = options.get("sketch", sketch)

    def acceptable(params: Mapping[str, Any]) -> bool:
        return of(params).fits and of(params).digest not in known

    propose = proposer(
        sampler, seed, SPACE, UP, acceptable, sketch=of, prior=prior, max_macs=options.get("max_macs", 0)
    )
    for number in range(trials):
        past.params[number] = params = propose(number, past)
        assert propose(number, past) == params, "a proposal depends on the past alone"
        assert acceptable(params)
        known.add(of(params).digest)
        past.ended[number] = 27, truth(params)
    return past


def volume(past: Past) -> float:
    return hypervolume(np.array([values for _, values in past.ended.values()]), [-1.0, -1.0], [True, True])


def test_it_finds_more_than_random_draws_and_tpe() -> None:
    found = {
        name: np.mean([volume(searched(name, seed, 30)) for seed in range(3)]) for name in ("bayes", "tpe", "random")
    }
    assert found["bayes"] > found["tpe"] > found["random"]


def known_before(count: int = 60, sign: float = 1.0) -> Prior:
    """Earlier trials of another task in which the same choices were good, or bad ones with a negative sign."""
    generator = np.random.default_rng(5)
    drawn = [{name: str(generator.choice(LETTERS)) for name in SPACE} for _ in range(count)]
    values = np.array([truth(params) for params in drawn]) * sign
    values -= values.max(axis=0)
    trials = [
        EarlierTrial(
            task=0, hyperparameters=params, params=1000, macs=1000, scores={"psnr": row[0], "accuracy": row[1]}
        )
        for params, row in zip(drawn, values.tolist(), strict=True)
    ]
    belief = Belief(unit=1.0, noise=0.01, variance=1.0, coupling=0.8, relevance=dict.fromkeys(SPACE, 0.3))
    return Prior(trials=trials, beliefs={"psnr": belief, "accuracy": belief})


def test_a_prior_helps_from_the_first_trial_and_a_wrong_one_is_overcome() -> None:
    first = {
        name: np.mean([volume(searched("bayes", seed, 3, prior)) for seed in range(2)])
        for name, prior in (("none", NO_PRIOR), ("right", known_before()))
    }
    assert first["right"] > first["none"] + 1.0
    wrong = np.mean([volume(searched("bayes", seed, 24, known_before(sign=-1.0))) for seed in range(2)])
    assert wrong > np.mean([volume(searched("random", seed, 24)) for seed in range(2)])


def test_proposals_are_within_the_limits() -> None:
    def limited(params: Mapping[str, Any]) -> Sketch:
        return sketch(params, macs=lambda given: 2000 if given["x0"] == "a" else 500)

    past = searched("bayes", 0, 14, sketch=limited)
    assert all(params["x0"] != "a" for params in past.params.values())


def test_time_is_a_price() -> None:
    def of(params: Mapping[str, Any]) -> Sketch:
        return sketch(params, macs=lambda given: 10 if given["x0"] in "ab" else 1000)

    def cheap(prior: Prior = known_before(), **options: Any) -> int:  # noqa: B008 (it is not changed)
        past = searched("bayes", 0, 24, prior, sketch=of, **options)
        return sum(params["x0"] in "ab" for params in past.params.values())

    assert cheap() > 12
    # All are as cheap as a tenth of the largest that is allowed.
    assert cheap(max_macs=10_000) == sum(
        params["x0"] in "ab" for params in searched("bayes", 0, 24, known_before()).params.values()
    )
    # The time of a step is more than that, so that the limit changes no proposal.
    slow = dataclasses.replace(known_before(), step_macs=16_001)
    assert cheap(slow, max_macs=10_000) == cheap(slow) != cheap(max_macs=10_000)


def question(past: Past, space: Mapping[str, BaseDistribution] = SPACE, **changes: Any) -> Any:
    from nas.search.sampler import Question

    given: dict[str, Any] = {"number": 10**6, "seed": 0, "study_seed": 0, "space": space, "objectives": UP}
    given |= {"past": past, "acceptable": lambda params: True, "sketch": sketch, "prior": NO_PRIOR, "max_macs": 0}
    return Question(**given | changes)


def test_a_stopped_trial_counts_with_the_gain_of_those_that_went_on() -> None:
    past = Past(SPACE)
    past.ended = {n: (27, (10.0 + n, 50.0)) for n in range(4)} | {4: (3, (7.0, 20.0)), 5: (0, ()), 6: (9, (8.0, 30.0))}
    past.rungs = {3: {n: (8.0 + n, 20.0 + 10 * n) for n in range(4)} | {4: (7.0, 20.0)}, 9: {0: (9.0, 40.0)}}
    found = bayes._AtTheEnd.of(question(past))
    assert found.numbers.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert found.values[4] == pytest.approx([7.0 + 2.0, 20.0 + 15.0])  # median gains of 2 and of 30, 20, 10, 0
    assert found.spread[4] == pytest.approx([0.0, 125.0])
    assert np.isnan(found.values[5]).all()
    assert np.isnan(found.values[6]).all()  # only one trial tells the gain from epoch 9
    assert found.values[1] == pytest.approx([11.0, 50.0])
    assert not found.spread[[0, 1, 2, 3, 5, 6]].any()
    assert found.diverged.tolist() == [False] * 5 + [True, False]
    assert bayes._AtTheEnd.of(question(past, number=4)).numbers.tolist() == [0, 1, 2, 3, 5, 6]


def test_a_large_study_costs_no_more_than_some_trials() -> None:
    past, generator = Past(SPACE), np.random.default_rng(0)
    for number in range(600):
        past.params[number] = params = {name: str(generator.choice(LETTERS)) for name in SPACE}
        past.ended[number] = 27, truth(params)
    known = bayes._Known.of(question(past))
    assert len(known.sketches) == bayes.KNOWN
    best = sorted(past.ended, key=lambda n: -sum(past.ended[n][1]))[:5]
    assert set(best) <= set(known.numbers)


def test_trials_under_way_are_not_proposed_again_and_keep_workers_apart() -> None:
    past = searched("bayes", 0, 12)
    proposals = []
    propose = proposer("bayes", 0, SPACE, UP, lambda params: True, sketch=sketch)
    for number in range(12, 18):
        proposals.append(propose(number, past))
        past.params[number] = proposals[-1]
    assert len({str(params) for params in proposals}) == 6


@pytest.mark.parametrize(("workers", "learned"), [(100, 100), (101, 100), (1000, 100)])
def test_of_many_trials_under_way_some_are_learned_from(workers: int, learned: int) -> None:
    past, generator = searched("bayes", 0, 12), np.random.default_rng(1)
    for number in range(12, 12 + workers):
        past.params[number] = {name: str(generator.choice(LETTERS)) for name in SPACE}
    asked = question(past)
    known = bayes._Known.of(asked)
    assert len(known.sketches) - len(known.numbers) == learned
    pending = bayes._Known._pending(asked)
    assert pending == sorted(set(pending))
    assert pending == bayes._Known._pending(asked)
    others = bayes._Known._pending(dataclasses.replace(asked, seed=asked.seed + 1))
    assert (others == pending) == (workers <= 100)  # each trial learns from a choice of its own


def test_numbers_without_steps_costs_and_divergence_are_learned_from() -> None:
    space: dict[str, BaseDistribution] = {
        "rate": FloatDistribution(1e-4, 1e-1, log=True),
        "depth": IntDistribution(1, 900),
        "kind": CategoricalDistribution(["right", "wrong"]),
    }
    objectives = [UP[0], Objective(name="macs", direction="minimize", unit="", reference=1000.0)]
    past, generator = Past(space), np.random.default_rng(0)
    past.objectives = objectives
    for number in range(40):
        kind = str(generator.choice(["right", "wrong"]))
        rate, depth = float(10 ** generator.uniform(-4, -1)), int(generator.integers(1, 901))
        params: dict[str, Any] = {"rate": rate, "depth": depth, "kind": kind}
        past.params[number] = params
        value = -abs(np.log10(params["rate"]) + 2.0)
        past.ended[number] = (0, ()) if kind == "wrong" else (27, (value, float(params["depth"])))

    def of(params: Mapping[str, Any]) -> Sketch:
        return sketch(params, macs=lambda given: int(given["depth"]))

    found = []
    for seed in range(8):
        propose = proposer("bayes", seed, space, objectives, lambda params: True, sketch=of)
        found.append(propose(40, past))
    assert all(params["kind"] == "right" for params in found)
    assert np.median([params["depth"] for params in found]) < 100
    assert 10**-2.6 < np.median([params["rate"] for params in found]) < 10**-1.4


def test_what_is_not_known_at_rungs_is_not_learned_as_divergence() -> None:
    """Latency is known at the end alone, so a stopped trial says nothing of it."""
    objectives = [UP[0], Objective(name="latency", direction="minimize", unit="ms", reference=1000.0)]
    past = Past(SPACE)
    past.objectives = UP[:1]
    generator = np.random.default_rng(0)
    for number in range(9):
        past.params[number] = {name: str(generator.choice(LETTERS)) for name in SPACE}
        past.ended[number] = 27, (10.0 + number, 5.0 + number)
    past.ended[8] = 3, (9.0, float("nan"))
    past.rungs = {3: {number: (8.0 + number,) for number in range(9)}}
    asked = question(past, objectives=objectives)
    known = bayes._Known.of(asked)
    assert not known.diverged.any()
    assert known.values[8, 0] == pytest.approx(16.0 + 2.0)
    assert np.isnan(known.values[8, 1])
    assert known.spread[8].tolist() == [0.0, 0.0]
    model = bayes._Model(SPACE, objectives, NO_PRIOR, 0, known)
    others = bayes._Known.of(question(past_of(past, 8), objectives=objectives))
    latency = bayes._Model(SPACE, objectives, NO_PRIOR, 0, others)._columns[1].predict(known.sketches, codes_of(known))
    assert model._columns[1].predict(known.sketches, codes_of(known))[0] == pytest.approx(latency[0])
    assert next(bayes.bayes_draws(asked))


def past_of(past: Past, trials: int) -> Past:
    """The first trials of a study."""
    found = Past(past.space)
    found.objectives, found.rungs = past.objectives, past.rungs
    found.params = {number: params for number, params in past.params.items() if number < trials}
    found.ended = {number: ended for number, ended in past.ended.items() if number < trials}
    return found


def codes_of(known: Any) -> Array:
    return Codes(SPACE).codes((each.params, each.cost) for each in known.sketches)


def test_an_objective_that_nobody_has_measured_stops_nothing() -> None:
    objectives = [UP[0], Objective(name="latency", direction="minimize", unit="ms", reference=1000.0)]
    candidates = [sketch(dict.fromkeys(SPACE, letter)) for letter in LETTERS]
    merits = bayes.merits_before(SPACE, objectives, known_before(), 0, candidates)
    assert np.isfinite(merits).all()
    assert len(set(merits.tolist())) == 4
    past = Past(SPACE)
    past.params[0] = candidates[0].params
    assert next(bayes.bayes_draws(question(past, objectives=objectives, prior=known_before())))


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(0.1, 0.3, step=0.1), [0.1, 0.2, 0.3]),
        (IntDistribution(0, 12, step=4), [0, 4, 8, 12]),
        (IntDistribution(1, 4, log=True), [1, 2, 3, 4]),
        (CategoricalDistribution(["a", None, True]), ["a", None, True]),
    ],
)
def test_a_grid_has_the_values_that_may_be_proposed(distribution: BaseDistribution, values: list[Any]) -> None:
    found = pool.grid(distribution)
    assert found == (values if isinstance(distribution, CategoricalDistribution) else pytest.approx(values))
    assert all(pool.allows(distribution, value) for value in pool.grid(distribution))


def test_large_grids_keep_their_steps_and_ends() -> None:
    for distribution in (IntDistribution(0, 1000, step=5), FloatDistribution(0.0, 100.0, step=0.25)):
        grid = pool.grid(distribution)
        assert len(grid) == pool.GRID
        assert (grid[0], grid[-1]) == (distribution.low, distribution.high)
        assert all(distribution._contains(value) for value in grid)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
@pytest.mark.parametrize("choices", [{"only": ["one"]}, {"pairs": [(1, 2), (3, 4)], "mixed": [1, "a", None]}])
def test_odd_spaces_are_searched(choices: dict[str, list[Any]]) -> None:
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution(each) for name, each in choices.items()}
    past = Past(space)
    for number in range(9):
        past.params[number] = {name: each[number % len(each)] for name, each in choices.items()}
        past.ended[number] = 27, (float(number), 1.0)
    drawn = list(bayes.bayes_draws(question(past, space)))
    assert all(params[name] in each for params in drawn for name, each in choices.items())
