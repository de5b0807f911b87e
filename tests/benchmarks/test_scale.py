"""A thousand virtual workers, and a small cluster, are driven by the real engine."""

from __future__ import annotations

import pytest

from benchmarks import scale


def test_a_thousand_workers_are_driven_by_the_real_engine(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["virtual", "--trials", "40", "--workers", "1000"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:] == [
        str(n) for n in range(4, 41, 4)
    ]
    assert "trained to the end." in lines[-1]


@pytest.mark.slow
def test_a_search_gets_on_on_a_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "TRIALS_OF_A_WORKER", 3)
    monkeypatch.setattr(scale, "SLEEP", 0.2)
    scale.main(["clusters", "--nodes", "1", "--sampler", "random"])
    assert "| 1 | 2 | 6 |" in capsys.readouterr().out
