"""Checks that are bounded in time: each has a process of its own, and what it finds is kept at once.

A check is a generator of findings. Each finding is printed and written to two files as soon as it is there, so a run
that is cut off has lost nothing. A check that hangs, or whose process crashes, costs no other check anything. A check
that needs a package that is not installed says so in a line.

The processes are forked from a server that has imported the heavy modules and has never used a GPU. So a check does not
wait for imports, and starts with a GPU of which no other check has left anything.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
ROOM = 0.15
"""Share of a check's time, at most `MOST_ROOM` seconds, that is kept for its end: what is not over then is killed."""
MOST_ROOM = 10.0
LEAST_SECONDS = 15.0
"""Every check gets at least this time. When less is left it is not begun."""
LAST_SECONDS = 2.0
"""A process is killed so many seconds after it has said how its check ended."""
HEADER = "--- "
"""This stands before a check's name in the log."""
LOG_LINES = 5
"""So many lines of a crashed check's output are told."""

ENDS: Mapping[str, bool] = {
    "done": True,
    "missing": True,  # a package that it needs is not installed
    "left out": True,  # no time was left
    "out of time": True,
    "killed": False,  # it did not end when its time was up
    "crashed": False,  # with its process
    "failed": False,  # by an exception
}
"""How checks end, and whether nothing is wrong then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check found.

    Attributes:
        text: the finding for people, in one line.
        values: the finding for programs; what JSON cannot hold is kept as text.
        right: whether it is as it should be; None for a measurement that may be anything.
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The folder and the time that a check has. The folder is deleted afterwards.

    Attributes:
        ends: value of `time.monotonic` at which the check should have ended.
    """

    folder: Path
    ends: float

    def left(self) -> float:
        """Seconds, never negative."""
        return max(0.0, self.ends - time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question and the function that answers it.

    Attributes:
        work: yields the findings. It goes to another process, so it is a function of a module, or a
            `functools.partial` of one.
        weight: the check's part of the time that is left when it begins; the other parts are those of the checks after
            it.
    """

    name: str
    work: Callable[[Room], Iterator[Finding]]
    weight: float


class Records:
    """Findings on the terminal and in two files of a folder, ``NAME.jsonl`` and ``NAME.txt``.

    Both files are appended to. ``NAME.log`` has what the checks print.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines, self.text = folder / f"{name}.jsonl", folder / f"{name}.txt"
        self.log = folder / f"{name}.log"
        self._started = time.monotonic()

    def add(self, check: str, text: str, values: Mapping[str, Any] | None = None, right: bool | None = None) -> None:
        """Keeps one finding. It is on the disk when this returns."""
        seconds = round(time.monotonic() - self._started, 1)
        record = {"check": check, "at": seconds, "text": text, "right": right, "values": dict(values or {})}
        said = f"[{seconds:6.1f} s] {check}: {'' if right is None else 'right: ' if right else 'WRONG: '}{text}"
        for path, line in ((self.lines, json.dumps(record, default=str)), (self.text, said)):
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        print(said, flush=True)


def run_checks(checks: Sequence[Check], records: Records, seconds: float, preload: Sequence[str] = ()) -> list[str]:
    """Performs the checks in their order within `seconds`, and tells at the end what was wrong and what is not done.

    Time that a check does not need is there for the checks after it. Returns what was wrong: findings that are not
    right, and checks that did not end as they should.

    Args:
        preload: modules that the server of processes imports; one that is missing is passed over.
    """
    ends = time.monotonic() + seconds
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    server = context.Process(target=int)  # the first process waits for the server's imports, and is no check
    server.start()
    server.join(seconds)
    wrong: list[str] = []
    not_done: list[str] = []
    for number, check in enumerate(checks):
        left = ends - time.monotonic()
        if left < LEAST_SECONDS:
            end = "left out"
            records.add(check.name, "left out, as no time is left", {"end": end})
        else:
            share = check.weight / sum(later.weight for later in checks[number:])
            end, found = _run(context, check, records, max(LEAST_SECONDS, share * left))
            wrong += found
        if end != "done":
            not_done.append(f"{check.name} ({end})")
    text = "".join(f"\n  WRONG {what}" for what in wrong) + "".join(f"\n  not done: {name}" for name in not_done)
    records.add("all", f"{len(wrong)} wrong, {len(not_done)} not done{text}", {"wrong": wrong, "not done": not_done})
    return wrong


def _run(context: Any, check: Check, records: Records, seconds: float) -> tuple[str, list[str]]:
    """Performs one check in its process. Returns how it ended, and what was wrong."""
    started = time.monotonic()
    wrong: list[str] = []
    end, detail = "crashed", ""
    folder = Path(tempfile.mkdtemp(prefix="skipnas-check-"))
    room = Room(folder=folder, ends=started + seconds - min(ROOM * seconds, MOST_ROOM))
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_perform, args=(check, room, send, records.log, started + seconds))
    process.start()
    send.close()
    try:
        while True:
            if not receive.poll(max(0.0, started + seconds - time.monotonic())):
                end, detail = "killed", f"where it hung is in {records.log}"
                break
            try:
                message = receive.recv()
            except EOFError:
                break  # it crashed
            if not isinstance(message, Finding):
                end, detail = message
                break
            records.add(check.name, message.text, message.values, message.right)
            if message.right is False:
                wrong.append(f"{check.name}: {message.text}")
    finally:
        if end in ("done", "missing", "out of time", "failed"):  # as the process said itself before it ends
            process.join(timeout=LAST_SECONDS)
        _kill_group(process)
        receive.close()
        shutil.rmtree(folder, ignore_errors=True)
    if end == "crashed":
        detail = f"exit code {process.exitcode}; {_tail(records.log)}"
    took = time.monotonic() - started
    records.add(check.name, f"{end} after {took:.1f} s{detail and f' ({detail})'}", {"end": end, "took": took})
    if not ENDS[end]:
        wrong.append(f"{check.name}: {end} ({detail})")
    return end, wrong


def _perform(check: Check, room: Room, send: Connection, log: Path, killed_at: float) -> None:
    """Runs in the check's process, until it is killed: sends findings, then how the check ended."""
    os.setpgrp()  # what it starts is killed with it
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    print(f"{HEADER}{check.name}", flush=True)
    faulthandler.enable()
    # Where it hangs is in the log before it is killed.
    faulthandler.dump_traceback_later(max(0.1, (room.ends + killed_at) / 2 - time.monotonic()))
    end, detail = "done", ""
    try:
        findings = check.work(room)
        for finding in findings:
            send.send(finding)
            if not room.left():
                end = "out of time"
                break
        findings.close()  # type: ignore[attr-defined]  # of a generator
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        traceback.print_exc()
        end, detail = "out of time", _in_short(error)
    except Exception as error:
        missing = _missing_package(error)
        if missing is None:
            traceback.print_exc()
        end, detail = ("failed", _in_short(error)) if missing is None else ("missing", f"needs the package {missing}")
    sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
    send.send((end, detail))
    send.close()


def _kill_group(process: Any) -> None:
    """Ends the check's process and everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        if process.is_alive():  # killed before it had a group of its own
            process.kill()
    process.join()


def needs(*packages: str) -> None:
    """Raises ModuleNotFoundError where one of the packages is not installed, without importing any."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


def _missing_package(error: Exception) -> str | None:
    """The package of others that an import did not find; None for any other error, a module of the project's too."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    own = (PROJECT / package).exists() or (PROJECT / f"{package}.py").exists()
    return None if own else package


def _in_short(error: Exception) -> str:
    """The kind of an error and its first line, and the last line of the project's code that it went through."""
    said = str(error).strip().partition("\n")[0][:300]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PROJECT)]
    return f"{type(error).__name__}: {said}; {Path(own[-1].filename).relative_to(PROJECT)}:{own[-1].lineno}"


def _tail(log: Path) -> str:
    """The last lines of a log, without the stack of a process that crashed."""
    said = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in said.rpartition(HEADER)[2].partition("Current thread")[0].splitlines()]
    return " / ".join(line for line in lines[-LOG_LINES:] if line)
