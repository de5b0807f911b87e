"""The benchmark of confirmed intervals counts coverage as it should; its training runs are not repeated here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.confirm import coverage, expected, main, table


def test_what_normal_values_are_expected_to_do_they_do() -> None:
    assert expected() == pytest.approx(0.932, abs=0.002)
    assert expected(further=10**9) == pytest.approx(0.95, abs=1e-6)
    generator = np.random.default_rng(1)
    further, everything = coverage(generator.normal(size=3000), generator, draws=2000)
    assert further == pytest.approx(expected(), abs=0.02)
    assert everything == pytest.approx(0.95, abs=0.02)


def test_values_that_intervals_cannot_know_are_covered_less() -> None:
    generator = np.random.default_rng(2)
    rare = (generator.random(3000) < 0.05).astype(float)  # one run in twenty fails
    assert coverage(rare, generator, draws=500)[1] < 0.5


def test_the_table_leaves_out_what_never_varies() -> None:
    generator = np.random.default_rng(3)
    lines = table({"net": {"psnr": generator.normal(size=60), "stability": np.zeros(60)}})
    assert [line.split(" | ")[1] for line in lines[2:-2]] == ["psnr"]
    assert lines[-2].startswith("| all |")
    assert "93.2 %" in lines[-1]


def test_too_few_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "24"])
    assert "--seeds is 24; give at least 25" in capsys.readouterr().err
