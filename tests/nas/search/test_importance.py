"""The importance of hyperparameters, on made-up studies whose effects are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nas.search import importance
from nas.search.importance import FEWEST, MOST, importances

EFFECTS = (1.0, 0.6, 0.3)
NOISE = 0.3


def made_up(
    trials: int, *, seed: int = 0, choices: int = 4, others: int = 9, half: bool = False
) -> tuple[list[dict[str, Any]], list[float], dict[str, float]]:
    """A study in which h0, h1 and h2 add effects and all other hyperparameters decide nothing.

    In every second trial all hyperparameters have the choices of one good network, if `half` is true.

    Returns:
        Hyperparameters and values of its trials, and the true share of each hyperparameter that decides.
    """
    random = np.random.default_rng(seed)
    effects = [effect * random.permutation(np.linspace(-1, 1, choices)) for effect in EFFECTS]
    effects += [np.zeros(choices)] * others
    chosen = random.integers(0, choices, (trials, len(effects)))
    if half:
        chosen[1::2] = [int(np.argmax(effect)) for effect in effects]
    values = sum(effect[column] for effect, column in zip(effects, chosen.T, strict=True))
    values = values + random.normal(0, NOISE, trials)
    variances = [float(effect.var()) for effect in effects[: len(EFFECTS)]]
    shares = {f"h{i}": variance / (sum(variances) + NOISE**2) for i, variance in enumerate(variances)}
    return [{f"h{i}": int(value) for i, value in enumerate(row)} for row in chosen], values.tolist(), shares


@pytest.mark.parametrize("half", [False, True], ids=["random", "half of it one network"])
def test_known_shares_are_found_and_nothing_else_stands_out(half: bool) -> None:
    chosen, values, true = made_up(200, half=half)
    found = importances(chosen, values)
    assert [name for name, each in found.items() if each.stands_out] == ["h0", "h1", "h2"]
    for name, share in true.items():
        assert found[name].share == pytest.approx(share, abs=0.07)
        assert found[name].low <= found[name].share <= found[name].high
        assert found[name].high - found[name].low < 0.2
    assert max(found[f"h{i}"].share for i in range(3, 12)) < 0.02


def test_intervals_hold_the_truth() -> None:
    inside = 0
    for seed in range(10):
        chosen, values, true = made_up(80, seed=seed, others=1)
        found = importances(chosen, values)
        inside += sum(found[name].low <= share <= found[name].high for name, share in true.items())
    assert inside >= 25, "of 30, with a probability of 95 % each"


@pytest.mark.parametrize("trials", [24, 400])
def test_a_choice_is_worth_the_same_whatever_its_type(trials: int) -> None:
    chosen, values, _ = made_up(trials, half=True)
    names = {"h0": ("add", "concat", "none", "max"), "h1": (0.1, 0.01, 1e-4, 1.0), "h2": (True, None, "x", 3)}
    renamed = [{name: names[name][value] if name in names else value for name, value in row.items()} for row in chosen]
    assert importances(renamed, values) == importances(chosen, values)


def test_hyperparameters_that_decide_alike_are_found_alike() -> None:
    random = np.random.default_rng(1)
    chosen = random.integers(0, 4, (400, 6))
    chosen[::2] = 0
    values = (chosen == 0).sum(1) + random.normal(0, 0.5, 400)
    names = ["a", "b", "c", "d"]
    rows = [{f"h{i}": names[v] if i % 2 else int(v) for i, v in enumerate(row)} for row in chosen]
    shares = [each.share for each in importances(rows, values.tolist()).values()]
    assert len(shares) == 6
    assert max(shares) < 2 * min(shares), "the numbers among them were worth 20 to 70 times the names"


def test_two_choices_weigh_as_much_as_many() -> None:
    random = np.random.default_rng(0)
    two, many = random.integers(0, 2, 300), random.integers(0, 8, 300)
    effects = np.array([1, -1, 1, -1, 1, -1, 1, -1])
    values = np.array([1, -1])[two] + effects[many] + random.normal(0, 0.5, 300)
    found = importances([{"two": int(a), "many": int(b)} for a, b in zip(two, many, strict=True)], values.tolist())
    assert found["two"].share == pytest.approx(found["many"].share, rel=0.15)


def test_of_noise_nothing_stands_out() -> None:
    fooled = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        chosen = [{f"h{i}": int(random.integers(2 + i % 4)) for i in range(10)} for _ in range(24)]
        fooled += any(each.stands_out for each in importances(chosen, random.normal(size=24).tolist()).values())
    assert fooled <= 3, "of 20, with a probability of 5 % each"


def test_one_dead_candidate_does_not_decide() -> None:
    chosen, values, true = made_up(100)
    values[7] = -1000.0
    found = importances(chosen, values)
    assert next(iter(found)) == "h0"
    assert found["h0"].share == pytest.approx(true["h0"], abs=0.12)


def test_the_direction_of_an_objective_does_not_matter() -> None:
    chosen, values, _ = made_up(60)
    turned = importances(chosen, [-value for value in values])
    for name, each in importances(chosen, values).items():
        assert turned[name].share == pytest.approx(each.share)


def test_a_study_always_gets_the_same_figures() -> None:
    chosen, values, _ = made_up(40)
    assert importances(chosen, values) == importances(chosen, values)


@pytest.mark.parametrize(
    ("chosen", "values"),
    [
        ([{"h": 0}, {"h": 1}] * 3, [1.0, 2.0] * 3),
        ([{"h": 0}, {"h": 1}] * 10, [1.0] * 20),
        ([{"h": 0}] * 20, [float(i) for i in range(20)]),
        ([{"h": 0}] * 10 + [{"other": 0}] * 10, [float(i) for i in range(20)]),
    ],
    ids=["too few trials", "equal values", "one choice", "no hyperparameter in common"],
)
def test_where_nothing_can_be_said_nothing_is(chosen: list[dict[str, Any]], values: list[float]) -> None:
    assert importances(chosen, values) == {}


def test_long_studies_are_looked_at_in_part() -> None:
    assert FEWEST < MOST
    chosen, values, true = made_up(3000, others=2)
    assert importances(chosen, values)["h0"].share == pytest.approx(true["h0"], abs=0.07)


@pytest.mark.parametrize("half", [False, True], ids=["random", "half of it one network"])
def test_in_short_studies_what_decides_nothing_does_not_stand_out(half: bool) -> None:
    fooled = 0
    for seed in range(10):
        chosen, values, _ = made_up(40, seed=seed, others=12, half=half)
        fooled += any(each.stands_out for name, each in importances(chosen, values).items() if int(name[1:]) > 2)
    assert fooled <= 2, "of 10, with a probability of 5 % each"


def test_one_thread_computes_the_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them took ten times its seconds, because they waited for each other."""
    threads: set[int] = set()
    resampled = importance._resampled

    def seen(*given: Any) -> Any:
        threads.update(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return resampled(*given)

    monkeypatch.setattr(importance, "_resampled", seen)
    chosen, values, _ = made_up(FEWEST)
    with threadpool_limits(2, "blas"):
        assert importances(chosen, values)
    assert threads == {1}
