"""One search under several study seeds: the best member by its new seeds, and the table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import seeds
from benchmarks.lib.made_up import study_config
from benchmarks.lib.stats import mean_interval
from nas.types import Objective


def run(number: int | None, **values: float) -> Any:
    return SimpleNamespace(number=number, values=values)


def test_the_best_member_is_the_best_by_its_new_seeds_and_on_the_front() -> None:
    references = {"psnr": 14.0, "accuracy": 10.0}
    objectives = tuple(
        Objective(name=name, direction="maximize", unit="", reference=reference)
        for name, reference in references.items()
    )
    config = study_config("s0", "random", objectives=objectives)
    psnr, accuracy = references.values()

    def at(number: int | None, above: float) -> Any:
        return run(number, psnr=psnr + above, accuracy=accuracy + 10)

    runs = [at(1, 1.0), at(1, 3.0), at(2, 2.5), at(2, 2.7), at(3, 9.0), at(None, 8.0), run(2)]
    study: Any = SimpleNamespace(config=config, progress=SimpleNamespace(confirmations=lambda: runs))
    best, number = seeds.best_member(study, [1, 2])
    assert number == 2
    assert best is not None
    assert (best.mean, best.n) == (pytest.approx(26.0), 2)
    assert seeds.best_member(study, [7]) == (None, None)


def test_the_table_has_a_row_for_each_search_and_their_means() -> None:
    rows = [
        seeds.Row(
            seed=seed,
            trials=24,
            begun=460.0,
            ended=ended,
            core_minutes=5.0,
            front=["found", "reference"],
            best=mean_interval([ended - 12, ended - 8]),
            found=True,
            chosen={0: -4.0 - seed, 1: -3.0},
        )
        for seed, ended in enumerate((498.0, 502.0, 506.0))
    ]
    lines = seeds.table(rows)
    assert lines[2] == "| 0 | 24 | 460.0 | 498.0 | 5.0 | 1, 1 | 488.0 [462.6, 513.4], found |"
    assert lines[-4].startswith("Hypervolume at the end: 502.0 [492.1, 511.9], least 498.0; after the references 460.0")
    assert lines[-3] == "Best member under new seeds: 492.0 [482.1, 501.9], least 488.0."
    assert lines[-2] == "Knee by the search's one run, beside the best member: -5.0 [-7.5, -2.5]."
    assert lines[-1] == "Knee by its mean with 1 of the new seeds, beside the best member: -3.0 [-3.0, -3.0]."


def test_a_choice_is_judged_under_seeds_that_it_did_not_go_by() -> None:
    """One objective: the search saw trial 1 at 12, and its new seeds have 10 and 10; trial 2 has 11, and 11 and 13."""
    objective = Objective(name="psnr", direction="maximize", unit="", reference=0.0)
    seen = {1: [12.0, 10.0, 10.0], 2: [11.0, 11.0, 13.0]}
    runs = [
        SimpleNamespace(number=number, repeat=repeat, values={"psnr": value})
        for number, (_, *values) in seen.items()
        for repeat, value in enumerate(values)
    ]
    progress = SimpleNamespace(
        confirmations=lambda: runs, objective_values=lambda: {number: (value[0],) for number, value in seen.items()}
    )
    study: Any = SimpleNamespace(config=study_config("s0", "random", objectives=(objective,)), progress=progress)
    # By one run trial 1 is chosen, which has 10 where trial 2 has 12. With the first seed both means are 11, and the
    # first one is chosen: 3 less than 13. With the second seed trial 2 is chosen, which is the best.
    assert seeds.chosen_by(study, [1, 2]) == {0: -2.0, 1: -1.5}
    assert seeds.chosen_by(study, []) == {}
