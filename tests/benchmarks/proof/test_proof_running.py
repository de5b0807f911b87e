"""A cell that goes on where it was, and a tiny one from its search to its tables."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.lib.records import append, read
from benchmarks.proof import __main__ as proof
from benchmarks.proof import running
from benchmarks.proof.cells import Contender, cells
from benchmarks.proof.running import Plan, members, row, searched
from nas.engine.confirm import ConfirmEnd
from nas.errors import StudyError
from nas.settings import RunOptions
from nas.types import Task
from search_spaces import get_space
from search_spaces.unet.references import reference_network

CELL = next(cell for cell in cells(None, None) if cell.name == "digits-gaussian-50-sixth")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")


def test_a_search_that_was_stopped_has_the_rest_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(minutes=20, seeds=5, folder=tmp_path)
    asked: list[float] = []
    ends = iter([(300.0, "interrupted", None), (880.0, "time_limit", "the knee"), (60.0, "time_limit", None)])

    def search(request: Any, options: Any, **display: Any) -> Any:
        asked.append(options.time_limit)
        assert (request.study.split("-")[-2:], request.max_macs) == (["20min", "v3"], 1_066_667)
        assert (request.data, request.noise, request.epochs, request.early_stopping) == (
            "digits",
            "gaussian:50",
            27,
            None,
        )
        seconds, reason, choice = next(ends)
        return SimpleNamespace(end=SimpleNamespace(seconds=seconds, reason=reason), choice=choice)

    monkeypatch.setattr(running, "TRAINING_VERSION", 3)
    monkeypatch.setattr(running, "search", search)
    assert not searched(CELL, plan)
    assert dict(proof.states([CELL], plan))[CELL] == "searched for 5:00"
    # A second one is killed, and its trials say that it was alive for 20 seconds.
    append(plan.records, {**plan.searched(CELL), "begun": 1000.0})
    monkeypatch.setattr(running, "alive", lambda plan, name, begun: 1020.0 - begun)
    assert searched(CELL, plan)
    assert asked == [1200.0, 880.0]
    assert plan.searched(CELL)["seconds"] == 1200.0
    assert dict(proof.states([CELL], plan))[CELL] == "searched"
    assert searched(CELL, plan), "a finished search is not made again"
    assert len(asked) == 2
    other = replace(CELL, name="other")
    assert plan.searched(other)["seconds"] == 0
    with pytest.raises(StudyError, match="other: no candidate was trained to an end within 20:00, because"):
        searched(other, plan)
    assert dict(proof.states([other], plan))[other] == "-", "and it begins again"
    assert replace(plan, minutes=2).searched(CELL)["reason"] == "", "a search of another length is another one"


def test_a_search_that_was_killed_before_it_had_a_study_has_used_no_time(tmp_path: Path) -> None:
    assert running.alive(Plan(minutes=1, seeds=2, folder=tmp_path), "none", 5.0) == 0.0


def test_a_finished_cell_is_not_begun_again(tmp_path: Path) -> None:
    plan = Plan(minutes=20, seeds=5, folder=tmp_path)
    append(plan.records, {"key": plan.key(CELL), "cell": CELL.name})
    assert running.measure(CELL, plan)
    assert list(plan.finished(cells(None, None))) == [CELL.name]
    assert not replace(plan, seeds=6).finished([CELL]), "more seeds are another record"
    assert dict(proof.states([CELL], plan))[CELL] == "finished"


def test_a_cell_that_was_stopped_in_its_trainings_has_no_record_before_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proof, "cells", lambda root, pneumonia: [CELL, replace(CELL, name="p", needs="--pneumonia")])
    ends = iter(["interrupted", "complete"])

    def confirm(study: Any, space: Any, members: Any, request: Any, observe: Any) -> ConfirmEnd:
        assert request.seeds == 4
        return ConfirmEnd(reason=next(ends), total=8, done=0, new=0)

    stubs: dict[str, Any] = {
        "expected": lambda *_: "an hour",
        "searched": lambda *_: True,
        "StudyReader": SimpleNamespace(open=lambda *_: nullcontext()),
        "study_space": lambda *_: None,
        "everyone": lambda *_: ([], []),
        "confirm_members": confirm,
        "record": lambda *_: {"cell": CELL.name},
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(running, name, stub)
    monkeypatch.setattr(proof, "details", lambda record: [f"details of {record['cell']}"])
    monkeypatch.setattr(proof, "summary", lambda every, finished: [f"{len(finished)} of {len(every)}"])
    words = ["--seeds", "4", "--to", str(tmp_path)]
    assert proof.main(words) == 130
    told = capsys.readouterr()
    assert f"{CELL.name}: an hour\nstopped; " in told.err
    assert not told.out
    assert proof.main([*words, "--list"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["-", "--pneumonia"]
    assert proof.main(words) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"details of {CELL.name}", "", "1 of 2"]
    assert "p: needs --pneumonia" in told.err
    assert proof.main([*words, "--table"]) == 0, "and nothing is trained for a table"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cell", "digits"], "--cell digits is unknown; --list names them"),
        (["--seeds", "1"], "--seeds is at least 2"),
        (["--minutes", "0"], "--minutes is above 0"),
        (["--table", "--picture", "p.txt"], "`picture` p.txt: its ending says no format"),
    ],
)
def test_wrong_calls_are_told(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = proof.main([*words, "--to", str(tmp_path)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert told in capsys.readouterr().err


def test_the_expected_time_is_of_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """17 networks, of which two are the pair, with two recipes and three found ones are 37 for each seed."""
    monkeypatch.setattr(running, "estimate", lambda jobs: len(jobs) * 12 / 3600)
    plan = Plan(minutes=20, seeds=5, folder=tmp_path)
    append(plan.records, {**plan.searched(CELL), "seconds": 900.0})
    assert running.expected(CELL, plan) == "5:00 of search, then about 185 trainings in 37:00, on 2 idle cores"
    append(plan.records, {**plan.searched(CELL), "reason": "time_limit"})
    done = SimpleNamespace(training_version=running.TRAINING_VERSION)
    study = SimpleNamespace(progress=SimpleNamespace(confirmations=lambda: [done] * 180))
    monkeypatch.setattr(running, "StudyReader", SimpleNamespace(open=lambda *_: nullcontext(study)))
    assert running.expected(CELL, plan) == "0:00 of search, then about 5 trainings in 1:00, on 2 idle cores"


def test_every_network_is_trained_once_and_figures_are_of_the_test_split() -> None:
    space = get_space("unet")
    network = reference_network("unet", TASK, epochs=1)
    parts = tuple(reference_network(f"single-task-{task}", TASK, epochs=1) for task in ("denoise", "classify"))
    everyone = [
        Contender(name="trial 3: knee", kind="knee", recipe="found", networks=(network,)),
        Contender(name="unet", kind="reference", recipe="own", networks=(network,)),
        Contender(name="single-task-denoise", kind="reference", recipe="own", networks=parts[:1]),
        Contender(name="pair", kind="pair", recipe="own", networks=parts),
    ]
    named = [(member.candidate, member.reference) for member in members(everyone)]
    assert named == [
        (network, None), (parts[0], "single-task-denoise, own recipe"), (parts[1], "pair, own recipe"),
    ]  # fmt: skip
    values = {"psnr": 1.0, "accuracy": 2.0, "test_psnr": 20.0, "test_accuracy": 90.0}
    runs: Any = {(parts[0].digest, 0): SimpleNamespace(values=values), (parts[0].digest, 1): SimpleNamespace(values={})}
    runs |= {
        (parts[1].digest, seed): SimpleNamespace(values={**values, "test_accuracy": 91.0 + seed}) for seed in (0, 1)
    }
    found = row(everyone[3], TASK, space, runs, 2)
    assert (found["psnr"], found["accuracy"]) == ([20.0, None], [91.0, 92.0])
    assert found["macs"] == sum(space.cost(each.spec, TASK).macs for each in parts)
    assert [each["spec"]["tasks"] for each in found["networks"]] == ["denoise", "classify"]


@pytest.mark.slow
def test_a_tiny_cell_from_its_search_to_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = replace(CELL, setting=replace(CELL.setting, subset=60, epochs=1), macs=300_000)
    monkeypatch.setattr(proof, "cells", lambda root, pneumonia: [tiny])
    # A busy machine would train nothing in any time that a test can wait.
    monkeypatch.setattr(running, "RunOptions", lambda time_limit: RunOptions(trials=3))
    words = ["--cell", CELL.name, "--minutes", "0.5", "--seeds", "2", "--to", str(tmp_path)]
    picture = tmp_path / "proof.html"
    assert proof.main([*words, "--picture", str(picture)]) == 0
    told = capsys.readouterr()
    assert "of search, then about 74 trainings" in told.err
    lines = told.out.splitlines()
    assert sum(line.endswith((" better |", " mixed |", " undecided |", " worse |")) for line in lines) == 32
    assert lines[-1] == "All cells are there."
    assert "plotly" in picture.read_text()
    kept = read(tmp_path / "cells.jsonl")
    found = next(each for each in kept.values() if "networks" in each)
    assert len(found["networks"][-1]["psnr"]) == 2
    assert all(each["macs"] <= 300_000 for each in found["networks"])
    assert proof.main([*words, "--table"]) == 0
    assert capsys.readouterr().out.splitlines() == lines, "the same command prints it again"
