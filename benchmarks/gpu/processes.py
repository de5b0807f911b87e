"""Work in other processes, and commands of the product."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.lib.checks import PROJECT, Room

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ON_ONE_CORE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""Environment of a process that trains on the CPU, beside others."""
AFTERWARDS = 10.0
"""Seconds that a search has after its time limit to end and to answer."""


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Variables of the processes that are started while the block runs."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def elsewhere(work: Callable[[], dict[str, Any]], room: Room) -> dict[str, Any]:
    """What `work` returns in a fresh process.

    Raises:
        TimeoutError: it did not answer in time. EOFError: it ended without an answer.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, send))
    process.start()
    send.close()
    if not receive.poll(room.left()):
        raise TimeoutError("the other process did not answer in time")
    answer: dict[str, Any] = receive.recv()
    process.join()
    return answer


def _answer(work: Callable[[], dict[str, Any]], send: Connection) -> None:
    send.send(work())


def search_command(options: Sequence[str], room: Room, share: float = 1.0) -> dict[str, Any]:
    """What ``skipnas search --json`` answers. It stops after a share of the time that is left.

    Raises:
        ModuleNotFoundError: it lacks a package.
        RuntimeError: it did not end with exit code 0; the message has the last line that it said.
        subprocess.TimeoutExpired: it did not stop in time.
    """
    limit = max(1.0, share * room.left() - AFTERWARDS)
    done = subprocess.run(
        [sys.executable, str(PROJECT / "app_cli.py"), "search", *options, "--time-limit", f"{limit:.0f}s", "--json"],
        cwd=room.folder,
        capture_output=True,
        text=True,
        timeout=room.left(),
    )
    print(done.stderr, flush=True)
    if done.returncode != 0:
        if missing := re.search("ModuleNotFoundError: No module named '([^']+)'", done.stderr):
            raise ModuleNotFoundError(name=missing[1])
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"skipnas search ended with {done.returncode} and said: {last}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
