"""Searches on the trained table: each finds more with more epochs, and its front is scored on the other seed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from benchmarks.lib import tabular, virtual
from benchmarks.lib.made_up import values as made_up_values
from benchmarks.lib.tabular import EPOCHS, OBJECTIVES, SPACE, TASK, UNITS, Table
from benchmarks.lib.virtual import run
from nas.search.pareto import hypervolume
from nas.types import Candidate


@pytest.fixture(scope="module")
def made_up() -> Table:
    """A table whose values come from the candidates' choices, and approach them over the epochs."""
    found = tabular.candidates()
    ends = [made_up_values(each.spec.to_dict(), each.recipe.to_dict()) for each in found]
    final = np.array([[end[name] for name in OBJECTIVES] for end in ends])
    start = np.array([14.0, 10.0, 0.0])
    learned = (1 - np.exp(-np.arange(1, EPOCHS + 1) / 8))[None, None, :, None]
    noise = np.random.default_rng(0).normal(size=(len(found), 2, EPOCHS, 3)) * np.array([0.1, 0.5, 0.01])
    stored = np.maximum(start + (final - start)[:, None, None, :] * learned + noise, 0.0)
    costs = [SPACE.cost(each.spec, TASK) for each in found]
    return Table(
        digests=np.array([each.digest for each in found]),
        stored=np.round(stored * UNITS).astype(np.int16),
        seconds=np.full((len(found), 2), 10.0, np.float32),
        params=np.array([cost.params for cost in costs]),
        macs=np.array([cost.macs for cost in costs]),
    )


@pytest.mark.parametrize("method", [name for name in search.METHODS if name not in ("gp", "moasha")])
def test_every_method_finds_more_with_more_epochs(method: str, made_up: Table, tmp_path: Path) -> None:
    made_up.write(tmp_path / "t.npz")
    replay = search.Replay(method=method, workers=4, seed=0)
    record, again = (search.perform(replay, tmp_path / "t.npz", trainings=6) for _ in range(2))
    if method != "ray":  # whose scheduler draws from numpy's global generator
        assert record == again
    assert record["epochs"] <= 6 * EPOCHS + 4 * EPOCHS
    assert len(record["curve"]) == len(search.grid())
    assert all(0.0 <= value <= 1.0 for value in record["curve"])
    assert record["finished"] >= (1 if method.startswith("skipnas") or method == "ray" else 6)
    assert record["curve"][-1] > 0.0


def test_a_front_is_chosen_by_the_first_seed_and_scored_by_the_second(made_up: Table) -> None:
    candidates, (first, second) = tabular.candidates(), made_up.all_values[:, :, -1].swapaxes(0, 1)
    best = int(np.argmax(first[:, 0]))
    worse = int(np.flatnonzero((first < first[best]).all(axis=1))[0])
    other = int(np.argmax(first[:, 2]))
    order = [worse, best, other]
    trace = virtual.Trace(finished=[(27.0 * n, candidates[row]) for n, row in enumerate(order, start=1)])
    fronts = [[worse], [best], [best, other]]
    shares = [hypervolume(second[front], search.REFERENCE, search.MAXIMIZE) / search._all(made_up) for front in fronts]
    assert search.volumes(made_up, trace, [27, 54, 81]) == pytest.approx(shares)
    assert search.volumes(made_up, virtual.Trace(), [27]) == [0.0]


def test_the_report_names_the_epochs_that_reach_the_best_of_the_others(made_up: Table) -> None:
    grid = search.grid()
    slow = [min(1.0, 0.5 * epochs / grid[-1]) for epochs in grid]
    fast = [min(0.9, epochs / grid[-1]) for epochs in grid]
    found = {
        f"{name}/4/{seed}/1": {"curve": curve} for name, curve in (("tpe", slow), ("skipnas", fast)) for seed in (0, 1)
    }
    for most, goal in ((1.0, 0.499), (0.4, 0.399)):
        text = search.table_of(found, ["tpe", "skipnas"], 4, range(2), most)
        assert f"epochs to {goal:.4f} (tpe ends with 0.5000)" in text
        (line,) = [line for line in text.splitlines() if line.startswith("| skipnas ")]
        reached = float(line.split("|")[-2].replace(",", ""))
        assert reached == pytest.approx(grid[math.ceil(np.searchsorted(fast, goal))], abs=1)


def test_more_than_all_known_is_luck(made_up: Table) -> None:
    first, second = made_up.all_values[:, 0, -1], made_up.all_values[:, 1, -1]
    front = [row for row, mine in enumerate(first) if not any((each > mine).all() for each in first)]
    share = hypervolume(second[front], search.REFERENCE, search.MAXIMIZE) / search._all(made_up)
    assert search.all_known(made_up) == pytest.approx(share, abs=1e-3)
    assert search.all_known(made_up) < 1


def test_without_a_table_nothing_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        search.main(["--table", str(tmp_path / "none.npz")])
    assert ended.value.code == 2
    assert "make it with python -m benchmarks.table" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["skipnas", "tpe, references", "ray", "largest first"])
def test_under_a_limit_nothing_larger_is_trained(method: str, made_up: Table, tmp_path: Path) -> None:
    made_up.write(tmp_path / "t.npz")
    replay = search.Replay(method=method, workers=4, seed=0, limit=0.5)
    answers = search.FirstSeed(made_up, replay.most(made_up))
    trained: list[Candidate] = []

    class Noting(search.FirstSeed):
        def seconds(self, candidate: Candidate) -> float:
            trained.append(candidate)
            return 1.0

    with search.METHODS[method](0, answers) as made:
        run(made, Noting(made_up, answers.most), workers=4, epochs=EPOCHS, budget=8 * EPOCHS)
    assert len(trained) >= 8
    assert all(answers.fits(candidate) for candidate in trained)
    assert search.perform(replay, tmp_path / "t.npz", trainings=8)["curve"][-1] > 0.0


def test_the_largest_come_first_and_references_are_as_large_as_the_limit_allows(made_up: Table) -> None:
    answers = search.FirstSeed(made_up, float(np.quantile(made_up.macs, 0.5)))
    macs = [int(made_up.macs[made_up.row(candidate)]) for candidate in search.largest_first(answers)]
    assert macs == sorted(macs, reverse=True)
    assert macs[0] <= answers.most
    limited = search.references(answers)
    assert all(answers.fits(candidate) for candidate in limited)
    whole = search.references(search.FirstSeed(made_up))
    assert len(whole) == len(search.REFERENCES)
    assert {candidate.spec.to_dict()["width"] for candidate in whole} == {16}
