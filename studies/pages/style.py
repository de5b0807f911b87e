"""Colours, symbols and axes that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from nas.search.objectives import metric_of
from nas.types import Objective

COLOURS = {
    "front": "#d55e00",
    "complete": "#3b8bd0",
    "pruned": "#8a8f98",
    "duplicate": "#b266b2",
    "over_limit": "#b08500",
    "failed": "#c43c39",
    "running": "#1f9e6e",
}

SYMBOLS = {
    "front": "diamond",
    "complete": "circle",
    "pruned": "circle-open",
    "duplicate": "x",
    "over_limit": "square-open",
    "failed": "cross",
    "running": "diamond-open",
}

NAMES = {
    "front": "Pareto front",
    "complete": "complete",
    "pruned": "pruned (last measured)",
    "duplicate": "duplicate (of the trial here)",
    "over_limit": "over a limit",
    "failed": "failed",
    "running": "running",
}

LINES = ("#d55e00", "#3b8bd0", "#1f9e6e", "#b266b2", "#b08500", "#5b6bbf", "#c43c39", "#7a7a7a", "#7fa000")
SCALE = [[0.0, "#8a8f98"], [0.5, "#3b8bd0"], [1.0, "#d55e00"]]
"""Colours from worse to better. A scale that ends in yellow or dark blue would lose one end on white or on black."""

DASHES = ("solid", "dash", "dot", "dashdot")


def line_style(index: int) -> dict[str, Any]:
    """Returns colour and dash of a line; the first 36 lines all differ, and the first 9 in their colours."""
    times, colour = divmod(index, len(LINES))
    return {"color": LINES[colour], "dash": DASHES[(colour + times) % len(DASHES)], "width": 2}


def shortened(text: str, most: int = 12) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def log_cost_axes(figure: go.Figure, x: Objective | None, y: Objective | None) -> None:
    for objective, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        if objective is not None and metric_of(objective.name).basis == "cost":
            update(type="log")


def laid_out(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
    )
    if figure.layout.margin.l is None:
        figure.update_layout(margin={"l": 64, "r": 12, "t": 12 if figure.layout.showlegend is False else 40, "b": 48})
    figure.for_each_xaxis(_ticks)
    figure.for_each_yaxis(_ticks)
    return figure


def decade_step(values: Sequence[float]) -> int | None:
    """Returns the step of a logarithmic axis: decades alone where there are many; None leaves the ticks to `_ticks`."""
    return None if max(values) < 100 * min(values) else 1


def _ticks(axis: Any) -> None:
    """Puts ticks at 1, 2 and 5 of each decade, all of one size."""
    if axis.type == "log" and axis.tickvals is None and axis.dtick is None:
        axis.dtick = "D2"
        axis.minorloglabels = "complete"
