"""Checks in processes of their own: what each finds is kept at once, and none costs the others anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib import checks
from benchmarks.lib.checks import Check, Finding, Records, Room, needs, run_checks


def finds(room: Room, *, right: bool | None = True) -> Iterator[Finding]:
    yield Finding(text="one", values={"n": 1}, right=right)
    yield Finding(text=f"in {room.folder.name.rpartition('-')[0]}")


def raises(room: Room) -> Iterator[Finding]:
    yield Finding(text="before")
    raise ValueError("no such thing\nand more")


def lacks(room: Room) -> Iterator[Finding]:
    needs("json", "package_that_nobody_has")
    yield Finding(text="never")


def lacks_a_module_of_the_project(room: Room) -> Iterator[Finding]:
    yield Finding(text="before")
    __import__("benchmarks.lib.nothing")


def crashes(room: Room) -> Iterator[Finding]:
    yield Finding(text="before")
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def waits(room: Room) -> Iterator[Finding]:
    raise TimeoutError("nobody answered")
    yield


def hangs(room: Room, *, tell: Path) -> Iterator[Finding]:
    """With a process that it started."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tell.write_text(str(child.pid))
    yield Finding(text="before")
    time.sleep(600)


def goes_on(room: Room) -> Iterator[Finding]:
    while True:
        time.sleep(0.2)
        yield Finding(text="again")


Work = Callable[[Room], Iterator[Finding]]


def run(folder: Path, *works: Work, seconds: float = 60.0) -> tuple[list[str], list[dict[str, Any]]]:
    """What was wrong, and the records."""
    records = Records(folder, "found")
    asked = [Check(name=f"check {number}", work=work, weight=1.0) for number, work in enumerate(works, 1)]
    wrong = run_checks(asked, records, seconds)
    return wrong, [json.loads(line) for line in records.lines.read_text().splitlines()]


def test_findings_are_kept_and_wrong_ones_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, found = run(tmp_path, finds, partial(finds, right=False))
    assert wrong == ["check 2: one"]
    assert [(record["check"], record["right"], record["values"].get("n")) for record in found[:2]] == [
        ("check 1", True, 1),
        ("check 1", None, None),
    ]
    assert found[1]["text"] == "in skipnas-check", "each has a folder"
    assert found[2]["values"]["end"] == "done"
    assert found[-1]["values"] == {"wrong": ["check 2: one"], "not done": []}
    text = (tmp_path / "found.txt").read_text()
    assert "check 1: right: one" in text
    assert "check 2: WRONG: one" in text
    assert text == capsys.readouterr().out


def test_a_check_that_breaks_costs_itself_alone(tmp_path: Path) -> None:
    wrong, found = run(tmp_path, raises, lacks, lacks_a_module_of_the_project, crashes, waits, finds)
    ends = {record["check"]: record for record in found if "end" in record["values"]}
    assert [record["values"]["end"] for record in ends.values()] == [
        "failed",
        "missing",
        "failed",
        "crashed",
        "out of time",
        "done",
    ]
    assert "ValueError: no such thing; tests/benchmarks/lib/test_checks.py:" in ends["check 1"]["text"]
    assert "needs the package package_that_nobody_has" in ends["check 2"]["text"]
    assert "last words" in ends["check 4"]["text"]
    assert "TimeoutError: nobody answered" in ends["check 5"]["text"]
    assert [what.partition(":")[0] for what in wrong] == ["check 1", "check 3", "check 4"]
    assert [record["text"] for record in found].count("before") == 3, "what was found before is kept"
    assert "Traceback" in (tmp_path / "found.log").read_text()


@pytest.mark.slow
def test_a_check_ends_when_its_time_is_up_and_is_killed_when_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(checks, "ROOM", 0.5)
    tell = tmp_path / "child"
    wrong, found = run(tmp_path, goes_on, partial(hangs, tell=tell), seconds=8.0)
    ends = [record["values"]["end"] for record in found if "end" in record["values"]]
    assert ends == ["out of time", "killed"]
    assert wrong == [f"check 2: killed (where it hung is in {tmp_path / 'found.log'})"]
    assert found[-1]["values"]["not done"] == ["check 1 (out of time)", "check 2 (killed)"]
    assert "in hangs" in (tmp_path / "found.log").read_text()
    for _ in range(100):
        state = Path("/proc", tell.read_text(), "stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the check started lives on")


def test_a_check_without_time_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LEAST_SECONDS", 1000.0)
    wrong, found = run(tmp_path, finds)
    assert wrong == []
    assert [record["values"].get("end") for record in found] == ["left out", None]
    assert found[-1]["values"]["not done"] == ["check 1 (left out)"]
