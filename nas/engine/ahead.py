"""Ray started ahead of a run, so that its workers are ready when the run begins."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from nas.settings import Resources


class Ahead:
    """Starts the Ray of a run when `begin` is called; `nas.engine.session` gives it to every run within the block.

    Ray and its workers take several seconds of two cores until the first trial trains, in which a command can read data
    and decide what a new study needs to be decided. Ray is stopped when the block ends.

    Args:
        resources: those of the run.
        most: the number of trials that there are at the most; None for any number.
    """

    def __init__(self, resources: Resources, most: int | None = None) -> None:
        self._resources, self._most = resources, most
        self._open = contextlib.ExitStack()

    def begin(self) -> None:
        """Starts Ray, whose workers import what trials need while the caller goes on.

        Raises:
            ClusterError: see `nas.engine.session.ray_session`.
        """
        # Ray is slow to import, and not needed by a command that refuses what it was asked for.
        from nas.engine.session import ray_session

        self._open.enter_context(ray_session(self._resources, most=self._most))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
