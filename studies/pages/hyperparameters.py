"""Figures of the effects of hyperparameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nas.types import Objective
from studies.pages.curves import CURVES
from studies.pages.style import COLOURS, SCALE, laid_out, log_cost_axes, shortened
from studies.reading.history import History

TOP = 3
"""The number of hyperparameters for each objective that are shown in slices."""


def importance(history: History, objective: Objective) -> go.Figure | None:
    """Draws the ten hyperparameters that decide most about an objective; None while none stands out from noise."""
    found = list(history.importances[objective.name].items())[:10]
    if not any(each.stands_out for _, each in found):
        return None
    names = [name.replace("_", " ") for name, _ in found]
    shares = np.array([each.share for _, each in found])
    figure = go.Figure()
    figure.add_bar(
        x=shares,
        y=names,
        orientation="h",
        name="share, with 95 % interval",
        marker={"color": COLOURS["complete"], "opacity": [1.0 if each.stands_out else 0.3 for _, each in found]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.array([each.high for _, each in found]) - shares,
            "arrayminus": shares - np.array([each.low for _, each in found]),
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.add_scatter(
        x=[each.noise for _, each in found],
        y=names,
        mode="markers",
        name="what noise alone would give",
        marker={"symbol": "line-ns-open", "size": 14, "color": COLOURS["front"], "line": {"width": 2}},
        hovertemplate="%{y}: noise alone up to %{x:.1%}<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    return laid_out(figure, 340)


def slice_of(history: History, objective: Objective, name: str) -> go.Figure | None:
    """Draws an objective of complete trials by the value of one hyperparameter."""
    trials = [t for t in history.complete if name in t.hyperparameters]
    if not trials:
        return None
    values = sorted({t.hyperparameters[name] for t in trials}, key=lambda v: (isinstance(v, str), v))
    figure = go.Figure()
    for value in values:
        chosen = [t for t in trials if t.hyperparameters[name] == value]
        figure.add_box(
            y=[t.values[objective.name] for t in chosen],
            x=[str(value)] * len(chosen),
            boxpoints="all" if len(trials) <= CURVES else False,
            pointpos=0,
            jitter=0.5,
            line={"color": COLOURS["complete"], "width": 1.5},
            fillcolor="rgba(59,139,208,0.15)",
            marker={"color": COLOURS["front"], "size": 4},
            customdata=[t.number for t in chosen],
            hovertext=[history.hover[t.number] for t in chosen],
            hovertemplate="%{hovertext}<extra></extra>",
            hoveron="points",
        )
    figure.update_xaxes(type="category", title=name.replace("_", " "))
    figure.update_yaxes(title=objective.label)
    figure.update_layout(showlegend=False)
    log_cost_axes(figure, None, objective)
    return laid_out(figure, 320)


def parallel(history: History) -> go.Figure | None:
    """Draws the most important hyperparameters and the objectives of complete trials, coloured by the first
    objective."""
    trials = history.complete
    if not trials:
        return None
    ranked = [list(shares)[:TOP] for shares in history.importances.values()]
    names = list(dict.fromkeys(itertools.chain.from_iterable(ranked)))
    dimensions = [_dimension(name, [t.hyperparameters.get(name) for t in trials]) for name in names]
    # Labels stand to the left of their axis, where only the first one has room for long ones.
    dimensions.sort(key=lambda d: -max(map(len, d["ticktext"]), default=0))
    for dimension in dimensions[1:]:
        dimension["ticktext"] = [shortened(text) for text in dimension["ticktext"]]
    objectives = history.config.objectives
    for o in objectives:
        dimensions.append({"label": o.label, "values": np.array([t.values[o.name] for t in trials])})
    first = objectives[0]
    figure = go.Figure()
    figure.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": np.array([t.values[first.name] for t in trials]),
                "colorscale": SCALE,
                "reversescale": first.direction == "minimize",
                "showscale": True,
                "colorbar": {"title": first.label, "thickness": 12},
            },
            labelangle=-15,
        )
    )
    longest = max(map(len, dimensions[0].get("ticktext", ())), default=0)
    figure.update_layout(margin={"l": max(60, 24 + 9 * longest), "r": 20, "t": 110, "b": 30})
    return laid_out(figure, 460)


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Returns a hyperparameter as an axis of parallel coordinates. Choices stand in order at equal distances."""
    choices = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    place = {value: index for index, value in enumerate(choices)}
    return {
        "label": name.replace("_", " "),
        "values": np.array([place.get(v, math.nan) for v in values]),
        "tickvals": list(range(len(choices))),
        "ticktext": [f"{v:g}" if isinstance(v, float) else str(v) for v in choices],
    }
