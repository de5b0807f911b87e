"""A command in a child process, whose parent has it done once more where Ray ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_samples import ROOT

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from nas.engine import guardian
from nas.errors import ClusterError

tries = Path(sys.argv[1])
for number in guardian.SIGNALS:
    signal.signal(number, guardian.interrupt)
try:
    guardian.guard(lambda line: print(line))
except ClusterError as error:
    print(error)
    sys.exit(2)
with tries.open("a") as file:
    print(os.getpid(), file=file)
first = len(tries.read_text().split()) == 1
"""
AGAIN = "Ray was lost and ended the driver; the command begins once more, and what was under way goes on\n"


def start(work: str, tries: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT + work, str(tries)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize(
    ("work", "code", "out", "tries"),
    [
        ("print('done')", 0, "done\n", 1),
        ("sys.exit(3)", 3, "", 1),
        ("os._exit(1)", 1, "", 1),  # not connected to Ray
        ("with guardian.connected(): sys.exit(1)", 1, "", 1),
        ("with guardian.connected(): os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "", 1),
        ("with guardian.connected():\n    if first: os._exit(1)\nprint('done')", 0, AGAIN + "done\n", 2),
        ("with guardian.connected():\n    if first: os.abort()\nsys.exit(3)", 3, AGAIN, 2),
        (
            "with guardian.connected(): os._exit(1)",
            2,
            AGAIN + "Ray was lost twice; give the same command again: what was under way goes on\n",
            2,
        ),
    ],
)
def test_the_parent_ends_as_the_child_and_begins_again_once_after_ray(
    tmp_path: Path, work: str, code: int, out: str, tries: int
) -> None:
    with start(work, tmp_path / "tries") as process:
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, out)
    assert len((tmp_path / "tries").read_text().split()) == tries


LIMITED = """
import threading
from nas.engine.interrupts import Stopping
left = Stopping(threading.Event(), 100.0).deadline - time.monotonic()
print(99 < left <= 100 if first else 50 < left <= 98.5, flush=True)
with guardian.connected():
    if first:
        time.sleep(1.5)
        os._exit(1)
"""


def test_a_time_limit_goes_on_where_ray_ended_the_driver(tmp_path: Path) -> None:
    with start(LIMITED, tmp_path / "tries") as process:
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, f"True\n{AGAIN}True\n")


def test_a_bug_shows_its_traceback_and_is_not_done_again(tmp_path: Path) -> None:
    with start("with guardian.connected(): 1 / 0", tmp_path / "tries") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError" in err
    assert len((tmp_path / "tries").read_text().split()) == 1


COUNTS = """
from nas.engine.interrupts import stop_signals
with stop_signals() as stop:
    print("ready", flush=True)
    stop.wait(50)
    time.sleep(1)
print("stopped cleanly")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_is_one_signal_whoever_gets_it(tmp_path: Path, number: signal.Signals, to_all: bool) -> None:
    """A terminal tells parent and child; `kill` tells the parent alone. A second signal would end the run at once."""
    with start(COUNTS, tmp_path / "tries") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (os.killpg if to_all else os.kill)(process.pid, number)
        said, err = process.communicate(timeout=60)
    assert (process.returncode, said, err) == (0, "stopped cleanly\n", "")


def test_a_command_that_was_told_to_stop_does_not_begin_again(tmp_path: Path) -> None:
    """Whoever stops a batch job ends Ray's processes too, and so Ray may end the child before it has stopped."""
    work = "signal.signal(signal.SIGTERM, lambda *_: os._exit(1))\n"
    work += "with guardian.connected():\n    print('ready', flush=True)\n    time.sleep(50)"
    with start(work, tmp_path / "tries") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + signal.SIGTERM, "")
    assert len((tmp_path / "tries").read_text().split()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with start("print('ready', flush=True)\ntime.sleep(50)", tmp_path / "tries") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        child = int((tmp_path / "tries").read_text())
        process.kill()
        process.wait(60)
        until = time.monotonic() + 30
        while Path(f"/proc/{child}/stat").exists() and time.monotonic() < until:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{child}").exists()
