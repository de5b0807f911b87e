"""The benchmark of measured noise: what it adds is what it looks for, and a table has every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.lib.records import Record
from benchmarks.noise import COLOURED, SENSORS, asked, coloured, measure, sensors


def test_a_measurement_has_our_figures_and_those_of_scikit_image() -> None:
    record = measure(asked("microscope", "gaussian:15", False))
    assert record["level"] == pytest.approx(15, rel=0.05)
    assert record["found"]["noise"].startswith("gaussian:")
    assert record["skimage"] == pytest.approx(14, abs=1), "clipping at black is not in its model"


def test_tables_tell_errors_of_what_was_asked() -> None:
    def look(wanted: Sequence[Record]) -> list[Record]:
        made: list[Any] = []
        for what in wanted:
            first, second = map(float, what["noise"].partition(":")[2].split(","))
            found = {"gain": 1.1 * first, "read": second, "noise": "x", "correlated": 1, "radius": second + 0.5}
            made.append({**what, "found": found, "level": 1.0, "skimage": 1.0})
        return made

    lines = sensors(look)
    assert len(lines) == 2 + 2 * len(SENSORS) + 2
    assert lines[2].startswith("| photographs | 0.25, 3 | +10.0 % | +0.0 % |")
    assert lines[-1].endswith(
        f"of {4 * len(SENSORS)} figures of gain and read noise from noisy images are within 10 %."
    )
    assert sum("+0.50" in line for line in coloured(look)) == 2 * len(COLOURED)
