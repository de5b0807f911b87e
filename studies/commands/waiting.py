"""What a command does before it has figures to show."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from nas.words import visible


class Waiting:
    """Says on a terminal what a command is doing, from its first moment. The line goes when there is more to show.

    In a pipe and when quiet nothing is said.
    """

    def __init__(self, first: str, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._status = None if quiet or not console.is_terminal else Status(Text(first), console=console)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def say(self, text: str) -> None:
        """Says what comes now."""
        if self._status is not None:
            self._status.update(Text(visible(text)))

    def stop(self) -> None:
        """Takes the line away."""
        if self._status is not None:
            self._status.stop()
