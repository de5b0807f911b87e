"""Figures as files for papers, which kaleido draws in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.errors import ConfigError


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
