"""The display of a training: a bar on a terminal, a line now and then in a pipe. 80 columns suffice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from nas.data.listing import counted
from nas.search.objectives import METRICS, RESTORING, Metric, titled
from nas.training.fit import FitProgress, Validation
from nas.words import visible
from studies.commands.bundle_lines import conversion_lines
from studies.commands.terminal import duration

PLAIN_SECONDS, QUIET_SECONDS = 5.0, 60.0
"""In a pipe a validation is printed at most once in the first time, and always the last one. A line is printed at least
once in the second time."""


class TrainDisplay(AbstractContextManager["TrainDisplay"]):
    """Shows a training on stderr; nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._printed: Validation | None = None
        self._last = time.monotonic() - PLAIN_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def observe(self, progress: FitProgress) -> None:
        """Shows the progress; `nas.training.fit.fit` calls it."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._draw(progress)
        found = progress.validated
        due = time.monotonic() - self._last > PLAIN_SECONDS or progress.epoch == progress.epochs
        if found is not None and found is not self._printed and found.epoch == progress.epoch and due:
            self._printed, self._last = found, time.monotonic()
            self.say(_line(progress, found))
        elif not self._console.is_terminal and time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self.say(_figures(progress))

    def _draw(self, progress: FitProgress) -> None:
        if self._bar is None:
            self._bar = Progress(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=self._console, transient=True
            )
            self._bar.start()
            self._bar.add_task("", total=progress.steps)
        self._bar.update(self._bar.task_ids[0], completed=progress.step, description=_figures(progress))


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the result of `studies.commands.train.train` for people."""
    restored = _restoring(result)
    others = {name: value for name, value in result.items() if name != restored.name}
    rest = f", {told}" if (told := titled(others)) else ""
    best = f"of epoch {result['best_epoch']}" if result["best_epoch"] else "those that it began with"
    return [
        f"{counted(result['epochs'], 'epoch')} in {result['seconds']:.0f} s; the best weights are {best}",
        f"test split, {counted(result['images'], 'image')}, {result['noise']}: "
        f"{restored.titled(result[restored.name])} (noisy {restored.text(result[f'noisy_{restored.name}'])}){rest}",
        f"bundle written to {result['bundle']}",
        *conversion_lines(result),
    ]


def _restoring(values: Mapping[str, float | None]) -> Metric:
    """Returns the metric among these that tells how well images are restored."""
    return METRICS[next(name for name in RESTORING if values.get(name) is not None)]


def _figures(progress: FitProgress) -> str:
    values = {} if progress.best is None else progress.best.values
    best = f", best {restored.text(values[restored.name])}" if values and (restored := _restoring(values)) else ""
    return (
        f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}, "
        f"{progress.images_per_second:.0f} images/s{best}, {duration(progress.seconds_left)} left"
    )


def _line(progress: FitProgress, found: Validation) -> str:
    if found.epoch == 0:
        return f"the start: {titled(found.values)}"
    best = " (best)" if found is progress.best else ""
    return (
        f"epoch {found.epoch}/{progress.epochs}: {titled(found.values)}{best}, "
        f"{progress.images_per_second:.0f} images/s, {duration(progress.seconds_left)} left"
    )
