"""Clean stops: signals, and the time that a search may take."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator


def until(stop: threading.Event, time_limit: float | None) -> Callable[[], bool]:
    """Answers True once `stop` is set or `time_limit` seconds have passed from now."""
    deadline = None if time_limit is None else time.monotonic() + time_limit
    return lambda: stop.is_set() or (deadline is not None and time.monotonic() > deadline)


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process the hard way."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
