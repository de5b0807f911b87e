"""What is said of figures that come from several versions of the training code."""

from __future__ import annotations

import pytest

from nas.training.version import TRAINING_VERSION
from studies.reading.versions import versions_line

NOW = TRAINING_VERSION
REST = f", and this is version {NOW}; figures of different versions do not compare (CHANGELOG.md)"


@pytest.mark.parametrize(
    ("trials", "runs", "told"),
    [
        ({}, {}, ""),
        ({NOW: 24}, {NOW: 5}, ""),
        ({1: 24}, {}, "training code: version 1 trained 24 trials" + REST),
        ({1: 1, NOW: 2}, {}, f"training code: version 1 trained 1 trial and version {NOW} trained 2 trials" + REST),
        (
            {1: 2},
            {NOW: 5},
            f"training code: version 1 trained 2 trials and version {NOW} trained 5 confirming runs" + REST,
        ),
        ({NOW + 1: 2}, {}, f"training code: version {NOW + 1} trained 2 trials" + REST),
    ],
)
def test_a_line_when_not_all_are_of_this_version(trials: dict[int, int], runs: dict[int, int], told: str) -> None:
    assert versions_line({"trials": trials, "confirming runs": runs}) == told
