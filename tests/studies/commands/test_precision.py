"""A study's precision is chosen once, when the study is made, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nas.training.precision
from nas.errors import StudyError
from nas.settings import RunOptions, StudyConfig
from nas.training.batches import TrainingData
from nas.types import Constraint, Recipe, Task
from search_spaces import SPACES
from studies.commands import search as launch
from studies.commands.precision import TIMED_CANDIDATES
from studies.commands.search import Search, prepare
from studies.settings import SearchRequest


def made(folder: Path, cpus: float = 1.0, **asked: Any) -> Search:
    """The study ``new``, made or opened by such a request."""
    request = SearchRequest(study="new", storage=f"sqlite:///{folder / 's.db'}", epochs=3)
    search = prepare(replace(request, **asked), RunOptions(trials=1, cpus_per_trial=cpus))
    search.ledger.close()
    return search


def config(folder: Path, cpus: float = 1.0, **asked: Any) -> StudyConfig:
    return made(folder, cpus, **asked).ledger.config


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was timed, each time; bf16 is the faster one then."""
    calls: list[dict[str, Any]] = []

    def faster(networks: Sequence[tuple[nn.Module, Recipe]], task: Task, data: TrainingData, steps: int) -> str:
        params = [sum(p.numel() for p in network.parameters()) for network, _ in networks]
        calls.append({"params": params, "threads": torch.get_num_threads(), "images": len(data)})
        return "bf16"

    monkeypatch.setattr(nas.training.precision, "faster_for", faster)
    return calls


def test_the_faster_precision_is_kept(tmp_path: Path, timed: list[dict[str, Any]]) -> None:
    before = torch.get_num_threads()
    assert config(tmp_path, cpus=3, max_params=30_000).precision == "bf16"
    assert torch.get_num_threads() == before
    assert [call["threads"] for call in timed] == [3]
    assert len(timed[0]["params"]) == TIMED_CANDIDATES
    assert max(timed[0]["params"]) <= 30_000
    assert config(tmp_path, cpus=3).precision == "bf16"
    assert config(tmp_path, cpus=3, precision="auto").precision == "bf16"
    assert len(timed) == 1
    with pytest.raises(StudyError, match="precision: study has bf16, asked for fp32"):
        config(tmp_path, precision="fp32")


def test_what_is_asked_for_is_not_timed(tmp_path: Path, timed: list[dict[str, Any]]) -> None:
    assert config(tmp_path, precision="fp32").precision == "fp32"
    assert config(tmp_path, study="other", precision="bf16").precision == "bf16"
    assert timed == []


def test_a_warm_start_keeps_the_precision_of_what_it_begins_with(tmp_path: Path, timed: list[dict[str, Any]]) -> None:
    config(tmp_path, study="old", precision="fp32")
    assert config(tmp_path, warm_start="old").precision == "fp32"
    assert timed == []


def test_timing_says_one_of_both(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    assert config(tmp_path, max_params=20_000).precision in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), state)


def test_limits_that_no_candidate_keeps_leave_fp32(tmp_path: Path) -> None:
    assert config(tmp_path, max_params=1).precision == "fp32"


class Own:
    """A space that a user might bring; its candidates are those of `addunet`."""

    name = "mine:space"

    def __getattr__(self, name: str) -> Any:
        return getattr(SPACES["addunet"], name)

    def limits(self, task: Task) -> tuple[Constraint, ...]:
        return ()


def test_candidates_of_an_own_space_that_cannot_be_timed_leave_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> str:
        raise RuntimeError("no layer like that")

    monkeypatch.setattr(nas.training.precision, "faster_for", broken)
    monkeypatch.setattr(launch, "get_space", lambda name: Own() if ":" in name else SPACES[name])
    before = torch.get_num_threads()
    search = made(tmp_path, cpus=3, space="mine:space")
    assert search.ledger.config.precision == "fp32"
    assert "precision: fp32, as candidates could not be timed (RuntimeError: no layer like that)" in search.notes
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="no layer like that"):  # in a space of the project it is a bug
        made(tmp_path, study="other")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_for_the_timing_leaves_fp32_in_any_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def scarce(*arguments: Any, **named: Any) -> str:
        raise error

    monkeypatch.setattr(nas.training.precision, "faster_for", scarce)
    search = made(tmp_path)
    assert search.ledger.config.precision == "fp32"
    assert any("candidates could not be timed" in note for note in search.notes)


def test_a_limit_that_an_own_space_has_not_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "get_space", lambda name: Own())
    monkeypatch.setattr("search_spaces.get_space", lambda name: Own())
    asked = {"space": "mine:space", "precision": "fp32", "max_macs": 300_000}
    assert config(tmp_path, **asked).constraints == (Constraint(name="macs", upper=300_000),)
    assert config(tmp_path, **asked).constraints == (Constraint(name="macs", upper=300_000),)
    with pytest.raises(StudyError, match="max params: study has none, asked for 9"):
        config(tmp_path, **asked, max_params=9)
