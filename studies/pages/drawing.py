"""Figures as files for papers, which kaleido draws in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.errors import ConfigError
from nas.files import check_writable, write_whole
from studies.settings import FIGURE_FORMATS

PAGE = "html"
WIDTH = 640
"""The width in pixels of a figure that is written alone."""


def draw(figures: Sequence[tuple[go.Figure, Path, int]], suffix: str, option: str) -> None:
    """Writes figures as svg, pdf or png.

    Args:
        figures: each with its file and its width in pixels.
        suffix: the format.
        option: the option that asks for them, for messages.

    Raises:
        ConfigError: kaleido or a browser is missing. OSError: a file cannot be written.
    """
    try:
        import kaleido
        from choreographer.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError:
        raise ConfigError(f"`{option}` needs kaleido, which is not installed; pip install 'skipnas[figures]'") from None
    asked: list[dict[str, Any]] = []
    for figure, path, width in figures:
        drawn = figure.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white")
        size = {"width": width, "height": drawn.layout.height, "format": suffix}
        asked.append({"fig": drawn, "path": path, "opts": size})
    try:
        kaleido.write_fig_from_object_sync(asked)
    except (ChromeNotFoundError, BrowserFailedError, BrowserClosedError) as error:
        raise ConfigError(
            f"`{option}` needs Chrome or Chromium, which did not start ({type(error).__name__}); install one, such "
            "as apt-get install chromium"
        ) from None


def check_target(target: Path, option: str = "to") -> None:
    """Checks the name and the place of a figure's file before anything is measured. Raises ConfigError on `option`."""
    kind = target.suffix.lower().removeprefix(".")
    if kind not in (PAGE, *FIGURE_FORMATS):
        endings = ", ".join(f".{each}" for each in (PAGE, *FIGURE_FORMATS))
        raise ConfigError(f"`{option}` {target}: its ending says no format; give one of {endings}")
    if target.is_dir() or not target.parent.is_dir():
        what = f"{target} is a folder" if target.is_dir() else f"folder {target.parent} does not exist; create it first"
        raise ConfigError(f"`{option}` {target}: {what}; give the name of a file")
    try:
        check_writable(target)
    except OSError as error:
        raise _unwritable(target, error) from None


def write_figure(figure: go.Figure, target: Path, option: str = "to") -> None:
    """Writes one figure, as a page that needs no network, or as svg, pdf or png, which a browser draws.

    Raises:
        ConfigError: the file cannot be written, or there is no browser.
    """
    kind = target.suffix.lower().removeprefix(".")
    try:
        if kind == PAGE:
            write_whole(target, lambda file: file.write_text(figure.to_html(include_plotlyjs=True), "utf-8"))
        else:
            write_whole(target, lambda file: draw([(figure, file, WIDTH)], kind, option))
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {target} ({error.strerror}); name a file in a folder that you can write to")
