"""What a search shows on a terminal or in a pipe, and its results as tables. 80 columns suffice."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.search import Outcome, Progress
from nas.types import Objective, StudyConfig
from studies.best import Choice

PLAIN_SECONDS = 5.0
"""In a pipe a line is printed when trials have ended, at most this often."""


def duration(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def amount(value: float, unit: str = "") -> str:
    """A figure with four digits and its unit; thousands and millions as k and M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * factor or (not unit and abs(value) >= factor):
            return f"{value / factor:.3g}{suffix} {unit}".strip()
    return f"{value:.4g} {unit}".strip()


class SearchDisplay(AbstractContextManager["SearchDisplay"]):
    """Shows a search's progress on stderr: live on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, config: StudyConfig, *, quiet: bool = False) -> None:
        self._config = config
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._shown = -1
        self._messages = 0
        self._last = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> SearchDisplay:
        if not self._quiet and self._console.is_terminal:
            # Redrawn by rich four times a second, so that the clock runs while trials train.
            self._live = Live(get_renderable=self._render, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def observe(self, progress: Progress) -> None:
        """To be given to `nas.search.run_search`."""
        self._progress = progress
        if self._quiet:
            return
        for message in progress.messages[self._messages :]:
            self._console.print(message, style="yellow", highlight=False, soft_wrap=True)
        self._messages = len(progress.messages)
        ended = progress.counts.trained + progress.counts.failed
        due = time.monotonic() - self._last > PLAIN_SECONDS or progress.counts.trained >= progress.trials
        if self._live is None and ended != self._shown and due:
            self._console.print(self._plain(progress), highlight=False, soft_wrap=True)
            self._shown, self._last = ended, time.monotonic()

    def _figures(self, progress: Progress) -> list[tuple[str, str]]:
        best = [
            (f"best {o.name}", amount(progress.best[o.name], o.unit) if o.name in progress.best else "-")
            for o in self._config.objectives
        ]
        left = progress.seconds_left()
        return [
            *best,
            ("hypervolume", f"{progress.hypervolume:.4g}"),
            ("time left", "-" if left is None else f"about {duration(left)}"),
        ]

    def _plain(self, progress: Progress) -> str:
        c = progress.counts
        figures = ", ".join(f"{name} {value}" for name, value in self._figures(progress))
        return (
            f"{c.trained}/{progress.trials} trained, {len(progress.running)} running, {c.pruned} pruned, "
            f"{c.failed} failed; {figures}"
        )

    def _render(self) -> Group | Text:
        progress = self._progress
        if progress is None:
            return Text("starting Ray ...")
        c = progress.counts
        config = self._config
        head = Text(f"{config.study}: {config.data}, {config.task.noise}, space {config.space}", style="bold")
        head.truncate(self._console.width)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=progress.trials, completed=c.trained, width=30),
            f"{c.trained}/{progress.trials} trained",
            f"{len(progress.running)} running",
            f"{c.pruned} pruned",
            f"{c.failed} failed",
        )
        figures = Table.grid(padding=(0, 2))
        for name, value in self._figures(progress):
            figures.add_row(Text(name, style="dim"), value)
        running = Table.grid(padding=(0, 2))
        for number, (epoch, epochs) in sorted(progress.running.items())[:8]:
            running.add_row(
                f"trial {number}", ProgressBar(total=epochs, completed=epoch, width=20), f"epoch {epoch}/{epochs}"
            )
        if len(progress.running) > 8:
            running.add_row(f"and {len(progress.running) - 8} more")
        return Group(head, bar, figures, running)


def front_table(choice: Choice, objectives: Sequence[Objective]) -> Table:
    """The front, best first in the first objective; the chosen member is marked."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right")
    costs = [name for name in ("params", "macs") if name not in {o.name for o in objectives}]
    for o in objectives:
        table.add_column(f"{o.name} ({o.unit})" if o.unit else o.name, justify="right")
    for name in costs:
        table.add_column(name, justify="right")
    table.add_column("")
    first = objectives[0]
    for result in sorted(choice.front, key=lambda r: r.values[first.name], reverse=first.direction == "maximize"):
        chosen = result.number == choice.chosen.number
        table.add_row(
            str(result.number),
            *(_figure(o, result.values[o.name]) for o in objectives),
            *(amount(result.values[name]) for name in costs),
            "<- chosen" if chosen else "",
            style="bold" if chosen else None,
        )
    return table


def _figure(objective: Objective, value: float) -> str:
    digits = {"psnr": 2, "accuracy": 2, "stability": 3}
    return f"{value:.{digits[objective.name]}f}" if objective.name in digits else amount(value)


def describe(values: Mapping[str, Any]) -> str:
    """A spec or recipe in one line: ``levels 3, width 32, ...``."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def summary(outcome: Outcome, config: StudyConfig, trials: int, again: Sequence[str]) -> list[str]:
    """The closing lines of a search: how it ended, how busy the workers were, and what to type next."""
    c = outcome.counts
    if outcome.reason == "complete" and outcome.new == 0:
        lines = [f"study {config.study} is complete: it has {c.trained} trained trials of {trials}; nothing to do"]
    else:
        lines = [
            f"{outcome.new} trials in {duration(outcome.seconds)}; the study has {c.trained} of {trials}: "
            f"{c.complete} complete, {c.pruned} pruned; {c.failed} failed"
        ]
    if outcome.busy is not None:
        lines.append(f"workers were busy {100 * outcome.busy:.0f} % of the time ({outcome.workers} at a time)")
    if outcome.reason == "exhausted":
        lines.append("no further candidates: the space is exhausted, or too few are within the limits")
    elif outcome.reason != "complete":
        why = "the time limit" if outcome.reason == "time_limit" else "an interrupt"
        lines.append(f"stopped by {why}; trials under way are kept. Go on with: {shlex.join(again)}")
    return lines


def say(text: str) -> None:
    """A sentence on stdout: wrapped at words on a terminal, one line in a pipe."""
    console = stdout()
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def stdout() -> Console:
    """Where results go. Not wrapped in a pipe, so that other programs can read lines."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
