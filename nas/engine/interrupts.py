"""Clean stops by signals and time limits."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator

from nas.engine.guardian import is_echo, spent_before


class Stopping:
    """Answers True once `signalled` is set or `time_limit` seconds have passed since this object was made.

    What the command spent before Ray ended its driver is a part of these seconds (see `nas.engine.guardian`).

    Attributes:
        deadline: `time.monotonic` at which the time limit is over; infinite without one.
    """

    def __init__(self, signalled: threading.Event, time_limit: float | None) -> None:
        self._signalled = signalled
        self.deadline = time.monotonic() - spent_before() + (math.inf if time_limit is None else time_limit)

    def __call__(self) -> bool:
        return self._signalled.is_set() or time.monotonic() > self.deadline

    @property
    def reason(self) -> str:
        """The reason for the stop, if there was one: ``interrupted`` or ``time_limit``."""
        return "interrupted" if self._signalled.is_set() else "time_limit"


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Provides an event that the first SIGINT or SIGTERM sets. A second signal interrupts the process at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if is_echo():
            return
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
