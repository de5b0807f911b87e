"""A study for notebooks and scripts: data frames, figures, the report."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError
from nas.search.confirmation import summarize
from studies.reading.best import Choice, choose
from studies.reading.history import History, read_history
from studies.reading.study import StudyReader
from studies.settings import SizeLimits

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from studies.pages.recognition import Answered


class Study:
    """One stored study as it was when it was opened; `refresh` reads it again.

    Attributes:
        reader: the study itself.
        history: everything that was read.
        data_root: where its data lies, if not where it lay when the study was made.
        own_space: its own search space as ``module:object``, whose code is imported.
    """

    def __init__(self, reader: StudyReader, data_root: Path | None = None, own_space: str | None = None) -> None:
        self.reader = reader
        self.history: History = read_history(reader)
        self.data_root, self.own_space = data_root, own_space

    def refresh(self) -> Study:
        """Reads the study again."""
        self.history = read_history(self.reader)
        self.__dict__.pop("_answered", None)
        return self

    @cached_property
    def _answered(self) -> Answered | None:
        """The knee's answers for the validation images, which ask for a pass over all of them."""
        from studies.pages.samples import knee_answers

        return knee_answers(self.reader, self.history, self.data_root, self.own_space)

    def trials(self) -> pd.DataFrame:
        """Returns one row for each trial, by number: outcome, values, cost, times, hyperparameters, spec and recipe."""
        return self.history.trials_frame()

    def epochs(self) -> pd.DataFrame:
        """Returns one row for each trial and epoch: losses, validation figures where there are any, seconds."""
        return self.history.epochs_frame()

    def front(self) -> pd.DataFrame:
        """Returns the rows of `trials` on the Pareto front, and which of them is the knee."""
        return self.history.front_frame()

    def choose(
        self,
        pick: str = "knee",
        *,
        max_params: int | None = None,
        max_macs: int | None = None,
        max_latency: float | None = None,
        **prefer: float,
    ) -> Choice:
        """Picks a member of the front: ``choose("psnr")``, ``choose(psnr=2)``, ``choose(max_macs=1_000_000)``.

        See `studies.reading.best.choose`.
        """
        limits = SizeLimits(max_params=max_params, max_macs=max_macs, max_latency=max_latency)
        return choose(self.reader, pick=pick, prefer=prefer, limits=limits)

    def figures(self) -> dict[str, go.Figure]:
        """Returns every figure of the report for which the study has enough trials, by name.

        Those of the knee's answers (``roc``, ``reliability``) need its weights and the study's data too.
        """
        from studies.pages.figures import all_plots

        figures = {}
        for plot in all_plots(self.history, summarize(self.reader.progress.confirmations()), self._answered):
            if plot.figure is not None:
                figures[plot.name] = plot.figure.update_layout(template="plotly", title=plot.title)
        return figures

    def figure(self, name: str) -> go.Figure:
        """Returns one figure. Raises ConfigError, which lists the names of all figures, for an unknown name."""
        figures = self.figures()
        if name not in figures:
            raise ConfigError(f"no figure {name!r}; there are {', '.join(figures) or 'none yet'}")
        return figures[name]

    def report(self, to: Path | str) -> Path:
        """Writes the offline page and returns its path."""
        from studies.pages.report import write_report

        write_report(self.reader, Path(to), data_root=self.data_root, own_space=self.own_space)
        return Path(to)

    def close(self) -> None:
        """Closes the connections to the database."""
        self.reader.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def open_study(
    name: str, storage: str | None = None, *, data_root: Path | None = None, own_space: str | None = None
) -> Study:
    """Opens a stored study.

    Args:
        name: name of the study.
        storage: SQLAlchemy URL or SQLite file; ``runs/studies.db`` by default.
        data_root, own_space: see `Study`.

    Raises:
        StorageError, StudyError: there is no such database or study.
    """
    return Study(StudyReader.open(name, storage), data_root, own_space)
