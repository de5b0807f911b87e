"""The benchmark of training compares precisions in pairs, and a tiny run of it ends in a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.training import differences, judged, main, quality_table, speed_table


def test_the_speed_table_counts_probes_by_the_length_of_a_run() -> None:
    seconds = {"people": [1.0, 2.0, 9.0], "fp32": [1.0, 1.0, 1.0], "bf16": [2.0, 2.0, 2.0]}
    seconds |= {"fp32, probes": [0.0, 0.0, 0.0], "bf16, probes": [0.4, 0.4, 0.4]}
    record = {"side": 64, "network": "unet", "params": 10, "images": 64, "chosen": "bf16", "seconds": seconds}
    lines = speed_table([record]).splitlines()
    assert lines[2] == "| 64x64 | unet | 10 | 32 | 2.00 | 1.00 | bf16 | 1.00 | 0.82 |"
    assert "median 1.00, least 1.00, most 1.00 of 1" in lines[4]
    assert "median 0.82" in lines[5]


def _values(seed: int, precision: str, psnr: float) -> dict[str, object]:
    values = {"psnr": psnr, "accuracy": 50.0, "stability": 0.5}
    return {"network": "unet", "seed": seed, "precision": precision, "values": values}


def test_quality_is_compared_in_pairs() -> None:
    records = [_values(seed, "fp32", 15.0 + seed) for seed in range(5)]
    lost = [_values(seed, "bf16", 14.0 + seed - 0.01 * seed) for seed in range(4)]
    assert differences([*records, *lost], "psnr") == pytest.approx([-1.0, -1.01, -1.02, -1.03])
    assert judged([*records, *lost], "psnr").outcome == "against"
    equal = [_values(seed, "bf16", 15.0 + seed - 0.01 * seed) for seed in range(5)]
    assert judged([*records, *equal], "psnr").outcome == "for"
    assert "| psnr | 17.000 | 16.980 | -0.020 [" in quality_table([*records, *equal])


@pytest.fixture
def threads() -> Iterator[None]:
    """The benchmark sets the number of torch's threads; afterwards it is as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_small_run_ends_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality = ["--quality", "--networks", "1", "--seeds", "1", "--epochs", "1", "--device", "cpu"]
    assert main([*quality, "--results", str(tmp_path)]) == 0
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]] == [
        "| psnr",
        "| accuracy",
        "| stability",
    ]
    assert len((tmp_path / "quality.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_speed_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sides", "8", "--networks", "1", "--device", "cpu", "--results", str(tmp_path)]
    assert main(options) == 0
    assert "| 8x8 | unet | 10,219 |" in capsys.readouterr().out
