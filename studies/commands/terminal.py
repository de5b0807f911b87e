"""The display of a search on a terminal or in a pipe, and its results as tables. 80 columns suffice."""

from __future__ import annotations

import math
import shlex
import sys
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.data.listing import counted
from nas.data.noise import noise_in_words
from nas.engine.confirm import ConfirmProgress
from nas.engine.search import Progress, SearchEnd
from nas.search.confirmation import Confirmed
from nas.search.objectives import followed, metric_of, of_basis
from nas.settings import StudyConfig
from nas.types import Objective
from nas.words import visible
from studies.reading.best import Choice
from studies.reading.sizes import AtSize

PLAIN_SECONDS = 5.0
"""In a pipe a line is printed at once, and then when trials have ended, but at most once in this time."""


def duration(seconds: float) -> str:
    """Returns seconds as ``1:02:03`` or ``2:03``."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


P = TypeVar("P", Progress, ConfirmProgress)


class _Display(AbstractContextManager[Any], Generic[P]):
    """Shows progress on stderr: live on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._shown = -1
        self._messages = 0
        self._last = -math.inf  # the first line comes at once
        self._progress: P | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            # rich redraws it four times a second, so that the clock runs while trials train.
            self._live = Live(get_renderable=self._render, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def observe(self, progress: P) -> None:
        """Shows the progress; the observed run calls it."""
        self._progress = progress
        if self._quiet:
            return
        for message in progress.messages[self._messages :]:
            self._console.print(visible(message), style="yellow", markup=False, highlight=False, soft_wrap=True)
        self._messages = len(progress.messages)
        ended, all_ended = self._ended(progress)
        due = time.monotonic() - self._last > PLAIN_SECONDS or all_ended
        if self._live is None and ended != self._shown and due:
            self._console.print(self._plain(progress), highlight=False, soft_wrap=True)
            self._shown, self._last = ended, time.monotonic()

    def _render(self) -> Group | Text:
        return Text("starting Ray ...") if self._progress is None else self._drawn(self._progress)

    @abstractmethod
    def _ended(self, progress: P) -> tuple[int, bool]:
        """Returns the number of trials that have ended, and whether these are all."""

    @abstractmethod
    def _plain(self, progress: P) -> str:
        """Returns one line, for a pipe."""

    @abstractmethod
    def _drawn(self, progress: P) -> Group:
        """Returns the text of a terminal, which is drawn anew again and again."""


class SearchDisplay(_Display[Progress]):
    """Shows a search's progress; `observe` is for `nas.engine.search.run_search`."""

    def __init__(self, config: StudyConfig, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._config = config

    def _ended(self, progress: Progress) -> tuple[int, bool]:
        all_ended = progress.trials is not None and progress.counts.trained >= progress.trials
        return progress.counts.trained + progress.counts.failed, all_ended

    def _trained(self, progress: Progress) -> str:
        return f"{progress.counts.trained}{'' if progress.trials is None else f'/{progress.trials}'} trained"

    def _figures(self, progress: Progress) -> list[tuple[str, str]]:
        best = [
            (f"best {o.name}", metric_of(o.name).text(progress.best[o.name]) if o.name in progress.best else "-")
            for o in self._config.objectives
        ]
        left = progress.seconds_left()
        about = "" if progress.trials is None else "about "
        return [
            *best,
            ("hypervolume", f"{progress.hypervolume:.4g}"),
            ("time left", "-" if left is None else f"{about}{duration(left)}"),
        ]

    def _plain(self, progress: Progress) -> str:
        c = progress.counts
        figures = ", ".join(f"{name} {value}" for name, value in self._figures(progress))
        return (
            f"{self._trained(progress)}, {len(progress.running)} running, {c.pruned} pruned, "
            f"{c.failed} failed; {figures}"
        )

    def _drawn(self, progress: Progress) -> Group:
        c = progress.counts
        config = self._config
        told = f"{config.study}: {config.data}, {noise_in_words(config.task.noise)}, space {config.space}"
        head = Text(visible(told), style="bold")
        head.truncate(self._console.width)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=progress.share(), width=22),
            self._trained(progress),
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
    """Returns the front, best first in the first objective, with a mark at the chosen member.

    Costs stand beside the objectives, and so does every metric that the choice is limited in.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("trial", justify="right")
    beside = dict.fromkeys([*(metric.name for metric in of_basis("cost")), *choice.limits.upper])
    costs = [metric_of(name) for name in beside if name not in {o.name for o in objectives}]
    for o in objectives:
        table.add_column(o.label, justify="right")
    for metric in costs:
        table.add_column(metric.label, justify="right")
    table.add_column("")
    first = objectives[0]
    for result in sorted(choice.front, key=lambda r: r.values[first.name], reverse=first.direction == "maximize"):
        chosen = result.number == choice.chosen.number
        table.add_row(
            str(result.number),
            *(_figure(o, result.values[o.name], choice.confirmed.get(result.number)) for o in objectives),
            *(metric.short(result.values[metric.name]) for metric in costs),
            "<- chosen" if chosen else "",
            style="bold" if chosen else None,
        )
    return table


def size_table(rows: Sequence[AtSize]) -> Table:
    """Returns the best that is known up to each size, with a line for what the search found and one for what papers
    have."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("macs <=", justify="right")
    table.add_column("best of")
    names = dict.fromkeys(name for row in rows for best in (row.found, row.references) for name in best)
    for name in names:
        table.add_column(metric_of(name).label)
    for row in rows:
        size = metric_of("macs").short(row.macs)
        for kind, best in (("search", row.found), ("papers", row.references)):
            if best:
                cells = [f"{metric_of(name).figure(best[name].values[name])} {best[name].label}" for name in names]
                table.add_row(size, kind, *cells)
                size = ""
    return table


def _figure(objective: Objective, value: float, confirmed: Confirmed | None = None) -> str:
    metric = metric_of(objective.name)
    if confirmed is None:
        return metric.short(value)
    return metric.interval(confirmed.values[objective.name], short=True)


def standing(choice: Choice, study: str) -> str:
    """Tells the kind of figures that a choice shows: of one run, or confirmed, and which are missing."""
    if not choice.confirmed:
        return (
            "figures are of the search's one run each; confirm them with: "
            f"skipnas confirm {study}{choice.limits.options}"
        )
    text = f"confirmed under {choice.seeds}: means and 95 % intervals on validation"
    if choice.unconfirmed:
        text += f"; not confirmed: trial {', '.join(map(str, choice.unconfirmed))}"
        if choice.limits.upper:
            text += f"; confirm them with: skipnas confirm {study}{choice.limits.options}"
    return text


def on_test(confirmed: Confirmed, objectives: Iterable[str]) -> str:
    """Returns the usual figures and those of `objectives` on the test split in one line."""
    figures = [
        f"{metric.name} {metric.interval(confirmed.values[f'test_{metric.name}'])} {metric.unit}".strip()
        for metric in followed(objectives)
        if f"test_{metric.name}" in confirmed.values
    ]
    return ", ".join(figures)


def confirmation_table(found: Sequence[Confirmed], choice: Choice, objectives: Sequence[Objective]) -> Table:
    """Members by their mean in the first objective, best first, each with a line for validation and one for test.

    The confirmed front and its knee are marked.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for o in objectives:
        table.add_column(o.label, justify="right")
    table.add_column("runs", justify="right")
    front = {result.digest for result in choice.confirmed_front}
    first = objectives[0]
    sign = -1 if first.direction == "maximize" else 1
    shown = sorted(found, key=lambda one: sign * one.values[first.name].mean if one.values else math.inf)
    for one in shown:
        label = f"trial {one.number}" if one.number is not None else str(one.reference)
        chosen = one.digest in front and one.digest == choice.chosen.digest
        mark = " <- knee" if chosen else " (front)" if one.digest in front else ""
        style = "bold" if chosen else None
        figures = [_figure(o, 0.0, one) if one.values else "-" for o in objectives]
        table.add_row(label + mark, *figures, str(one.runs), style=style)
        tests = {o.name: one.values.get(f"test_{o.name}") for o in objectives}
        if any(tests.values()):
            cells = ["" if test is None else metric_of(name).interval(test) for name, test in tests.items()]
            table.add_row("  test", *cells, style=style)
        if one.failed:
            table.add_row(f"  {one.failed} of {one.runs} runs failed", style=style)
    return table


MOST_CONFUSED = 12
"""Classes up to which a confusion matrix is shown whole, and mistakes that are listed of a larger one."""


def confusion_table(classes: Sequence[str], confusion: Sequence[Sequence[float]]) -> Table:
    """Returns numbers of images by true class (rows) and answer (columns); for many classes only the most frequent
    mistakes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    classes = [escape(visible(name)) for name in classes]  # brackets in them are no markup
    form = _count_form(count for row in confusion for count in row)
    if len(classes) <= MOST_CONFUSED:
        table.add_column("")
        for name in classes:
            table.add_column(name, justify="right")
        for name, row in zip(classes, confusion, strict=True):
            table.add_row(name, *(format(count, form) if count else "." for count in row))
        return table
    for name in ("true class", "answer", "images"):
        table.add_column(name, justify="right" if name == "images" else "left")
    mistakes = [(n, i, j) for i, row in enumerate(confusion) for j, n in enumerate(row) if n and i != j]
    for count, i, j in sorted(mistakes, key=lambda mistake: -mistake[0])[:MOST_CONFUSED]:
        table.add_row(classes[i], classes[j], format(count, form))
    return table


def class_table(classes: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> Table:
    """Returns recall and precision of each class with their 95 % intervals (Wilson); of many classes only those with
    the lowest recall."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("class", "images", "recall (%)", "precision (%)"):
        table.add_column(head, justify="left" if head == "class" else "right")
    rows = list(zip(classes, figures, strict=True))
    if len(rows) > MOST_CONFUSED:
        rows = sorted(rows, key=lambda row: row[1]["recall"]["value"] if row[1]["recall"] else 1)[:MOST_CONFUSED]
    for name, each in rows:
        shares = (share_text(each["recall"]), share_text(each["precision"]))
        table.add_row(escape(visible(name)), f"{each['images']:.0f}", *shares)
    return table


def share_text(share: Mapping[str, float] | None) -> str:
    """Returns a share in percent with its interval: ``93.8 (71.7 to 98.9)``; a dash where there is none."""
    if share is None:
        return "-"
    value, low, high = (f"{100 * share[name]:.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _count_form(counts: Iterable[float]) -> str:
    """Returns the one format of mean numbers of images: whole ones, or with a decimal where noise draws differ."""
    return ".0f" if all(abs(count - round(count)) < 1e-6 for count in counts) else ".1f"


class ConfirmDisplay(_Display[ConfirmProgress]):
    """Shows a confirmation's progress; `observe` is for `nas.engine.confirm.run_confirmation`."""

    def _ended(self, progress: ConfirmProgress) -> tuple[int, bool]:
        return progress.done, progress.done == progress.total

    def _plain(self, progress: ConfirmProgress) -> str:
        left = progress.seconds_left()
        return f"{progress.done}/{progress.total} runs, {len(progress.running)} running, time left " + (
            "-" if left is None else f"about {duration(left)}"
        )

    def _drawn(self, progress: ConfirmProgress) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=progress.total, completed=progress.done + sum(progress.running.values()), width=22),
            self._plain(progress),
        )
        return Group(bar)


def describe(values: Mapping[str, Any]) -> str:
    """Returns a spec or recipe in one line: ``levels 3, width 32, ...``."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def summary(end: SearchEnd, config: StudyConfig, trials: int | None, again: Sequence[str]) -> list[str]:
    """Returns the closing lines of a search: its end, the use of its workers, and the command to type next.

    `trials` is the size that the study should have; None for as many as another limit allows.
    """
    c = end.counts
    if end.reason == "complete" and end.new == 0:
        lines = [f"study {config.study} is complete: it has {c.trained} trained trials of {trials}; nothing to do"]
    else:
        lines = [
            f"{counted(end.new, 'trial')} in {duration(end.seconds)}; the study has {c.trained}"
            f"{'' if trials is None else f' of {trials}'}: "
            f"{c.complete} complete, {c.pruned} pruned; {c.failed} failed"
        ]
    if end.busy is not None:
        lines.append(f"workers were busy {100 * end.busy:.0f} % of the time ({end.workers} at a time)")
    if end.promise is not None:
        lines.append(f"as much time again would probably add about {end.promise:.2g} to the hypervolume")
    if end.reason == "exhausted":
        lines.append("no further candidates: the space is exhausted, or too few are within the limits")
    elif end.reason == "flat":
        lines.append(f"the hypervolume hardly grows any more. Go on all the same with: {shlex.join(again)}")
    elif end.reason != "complete":
        why = "the time limit" if end.reason == "time_limit" else "an interrupt"
        kept = "; trials under way are kept" if c.running else ""
        lines.append(f"stopped by {why}{kept}. Go on with: {shlex.join(again)}")
    return lines


def say(text: str) -> None:
    """Prints a sentence on stdout: wrapped at words on a terminal, one line in a pipe."""
    console = stdout()
    console.print(visible(text), markup=False, soft_wrap=not console.is_terminal)


def stdout() -> Console:
    """Returns the console for results. It does not wrap in a pipe, so that other programs can read lines."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
