"""The benchmark of the self-supervised PSNR: one short training of each kind, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import self_psnr
from benchmarks.lib import records
from benchmarks.lib.records import Record


def test_finished_candidates_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[int] = []

    def perform_all(asked: Sequence[Record], path: Path, work: Any, workers: int) -> bool:
        for what in asked:
            number = what["number"]
            trained.append(number)
            found = {"self_psnr": 20.0 + number, "psnr": 21.0 + number}
            records.append(path, {"key": records.key_of(what), **what, **found})
        return True

    monkeypatch.setattr("benchmarks.lib.runs.perform_all", perform_all)
    words = ["--to", str(tmp_path / "runs.jsonl"), "--candidates"]
    assert self_psnr.main([*words, "3"]) == 0
    assert self_psnr.main([*words, "4"]) == 0
    assert trained == [*[0] * 6, *[1] * 6, *[2] * 6, *[3] * 6]
    assert "| poisson:30 | hidden pixels | 4 | 0 | 1.000 |" in capsys.readouterr().out


def test_the_table_has_the_rank_correlation() -> None:
    def at(number: int, ours: float, true: float) -> dict[str, Any]:
        return {"noise": "gaussian:25", "way": "two shots", "number": number, "self_psnr": ours, "psnr": true}

    rows = [at(0, 20, 21), at(1, 22, 22), at(2, 21, 23), at(3, 25, 26)]
    rows.append({"noise": "gaussian:25", "way": "two shots", "number": 4, "diverged": "loss is nan"})
    (*_, line) = self_psnr.table(rows)
    assert line.startswith("| gaussian:25 | two shots | 4 | 1 | 0.800 |")
    assert line.endswith("| 1.000 | -1.00 |")


@pytest.mark.slow
@pytest.mark.parametrize("way", self_psnr.WAYS)
def test_a_candidate_is_trained_on_noisy_images_and_judged_by_both(way: str) -> None:
    what = {"noise": "gaussian:25", "way": way, "number": 0, "epochs": 1, "subset": 40, "version": 3}
    found = self_psnr.measure(what)
    assert {"self_psnr", "psnr"} <= set(found)
