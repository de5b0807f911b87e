"""A process that outlives a driver which Ray has ended.

Ray's own code ends the process that calls it (`_exit(1)`) when the raylet or the control store is gone within a call,
and nothing in that process can prevent it or say why. So a command that uses Ray works in a child process. Its parent
only waits: it passes signals on, ends as the child ends, and has the command done once more where Ray ended the child
that nobody had told to stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from nas.errors import ClusterError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a command to stop."""

BY_RAY = (1, -signal.SIGABRT)
"""The ways in which Ray's own code ends a process."""

ECHO_SECONDS = 0.5
"""The time within which two signals are one: a terminal and a batch system tell parent and child at once."""

_PR_SET_PDEATHSIG = 1

_connected: mmap.mmap | None = None  # of a guarded process: one byte, 1 while it is connected to Ray
_signalled = -ECHO_SECONDS
_before = 0.0  # seconds that the child before this one was at work


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Lets the guardian know that this process is connected to Ray while the block runs.

    Whatever ends the process from Python leaves the block first.
    """
    if _connected is None:
        yield
        return
    _connected[0] = 1
    try:
        yield
    finally:
        _connected[0] = 0


def spent_before() -> float:
    """Returns the seconds that the child before this one was at work, which a time limit includes; 0 in the first."""
    return _before


def is_echo() -> bool:
    """Tells whether a signal that arrives now is the last one again, because it was sent to the guardian too."""
    global _signalled
    before, _signalled = _signalled, time.monotonic()
    return _connected is not None and _signalled - before < ECHO_SECONDS


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handles a signal as Python handles Ctrl-C."""
    if not is_echo():
        raise KeyboardInterrupt


def guard(tell: Callable[[str], None]) -> None:
    """Goes on in a child process, so that it returns there alone; the parent ends as the child ends.

    Call it before anything starts a thread.

    Args:
        tell: called in the parent with a line for people when Ray ended the child and another one begins.

    Raises:
        ClusterError: in the parent, when Ray ended the second child too.
    """
    global _connected, _before
    if not hasattr(os, "fork"):
        return
    shared, begun = mmap.mmap(-1, 1), time.monotonic()
    for again in (False, True):
        shared[0] = 0
        if again:
            tell("Ray was lost and ended the driver; the command begins once more, and what was under way goes on")
        child = _fork()
        if child == 0:
            _connected, _before = shared, time.monotonic() - begun if again else 0.0
            return
        ended, told = _wait(child)
        by_ray = shared[0] and ended in BY_RAY
        if by_ray and told is not None:
            # Whoever stops a whole group or job stops Ray's processes too, and the driver is not wanted any more.
            sys.exit(128 + told)
        if not by_ray:
            if ended < 0:
                with contextlib.suppress(OSError):  # signal 9 has no handler
                    signal.signal(-ended, signal.SIG_DFL)
                os.kill(os.getpid(), -ended)
            sys.exit(ended)
    raise ClusterError("Ray was lost twice; give the same command again: what was under way goes on")


def _fork() -> int:
    """Forks a child that ends when its parent is killed. Signals wait until both know what to do with them.

    The child has a process group of its own, with Ray's processes in it. A signal to the group of the command, as
    `timeout` and terminals send it, then reaches the driver alone and by the parent. Ray's control store would end at
    once by such a signal, and the driver a minute later, while it waited for it.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with contextlib.suppress(OSError, AttributeError):  # where the system is not Linux
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return child


def _wait(child: int) -> tuple[int, int | None]:
    """Waits for a child, to which it passes signals on.

    Returns:
        Its exit code, or minus the signal that ended it; and the last signal that was passed on, None without one.
    """
    told = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = number
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
