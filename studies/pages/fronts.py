"""Figures of the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nas.search.objectives import METRICS, Metric
from nas.types import Objective
from studies.pages.style import COLOURS, NAMES, SYMBOLS, decade_step, laid_out, line_style, log_cost_axes
from studies.reading.history import FRONT, History, Trial
from studies.reading.sizes import sized_of, staircase

CAMERA = {"eye": {"x": 1.45, "y": 1.45, "z": 0.7}, "center": {"x": 0, "y": 0, "z": -0.12}}
MANY = 1000
"""Figures with more points than this are drawn with WebGL."""


def axis_title(objective: Objective) -> str:
    """Returns ``psnr (dB) →``; the arrow points to the better end."""
    return f"{objective.label} {'→' if objective.direction == 'maximize' else '←'} better"


def front_3d(history: History) -> go.Figure | None:
    """Draws the first three objectives of every trial that has them."""
    objectives = history.config.objectives[:3]
    if len(objectives) < 3 or not history.complete:
        return None
    figure = go.Figure()
    for outcome, trials, points in _placed(history, objectives):
        figure.add_scatter3d(
            x=points[:, 0],
            y=points[:, 1],
            z=points[:, 2],
            marker={
                "size": 6 if outcome == "front" else 3.5,
                "color": COLOURS[outcome],
                "symbol": SYMBOLS[outcome],
                "opacity": 1 if outcome == "front" else 0.75,
            },
            **_points(history, outcome, trials),
        )
    knee = _knee(history)
    figure.add_scatter3d(
        **{axis: [knee.values[o.name]] for axis, o in zip("xyz", objectives, strict=True)},
        mode="markers",
        name="knee",
        marker={"size": 12, "symbol": "circle-open", "color": COLOURS["front"]},
        hoverinfo="skip",
    )
    # More ticks would overlap on a phone.
    axes = {f"{axis}axis": {"title": o.label, "nticks": 5} for axis, o in zip("xyz", objectives, strict=True)}
    figure.update_layout(scene=axes | {"aspectmode": "cube", "camera": CAMERA}, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return laid_out(figure, 520).update_layout(legend_itemsizing="constant")


def front_pair(history: History, first: Objective, second: Objective) -> go.Figure | None:
    """Draws two objectives of every trial that has them."""
    if not history.complete:
        return None
    figure = go.Figure()
    scatter = go.Scattergl if len(history.trials) > MANY else go.Scatter
    for outcome, trials, points in _placed(history, (first, second)):
        marker = {
            "size": 11 if outcome == "front" else 7,
            "color": COLOURS[outcome],
            "symbol": SYMBOLS[outcome],
            "opacity": 1 if outcome == "front" else 0.75,
        }
        figure.add_trace(scatter(x=points[:, 0], y=points[:, 1], marker=marker, **_points(history, outcome, trials)))
    knee = _knee(history)
    figure.add_scatter(
        x=[knee.values[first.name]],
        y=[knee.values[second.name]],
        mode="markers",
        name="knee",
        marker={"size": 20, "symbol": "circle-open", "color": COLOURS["front"], "line": {"width": 2}},
        hoverinfo="skip",
    )
    figure.update_xaxes(title=axis_title(first))
    figure.update_yaxes(title=axis_title(second))
    log_cost_axes(figure, first, second)
    return laid_out(figure, 400)


def sizes(history: History) -> go.Figure | None:
    """Draws parameters against multiply-accumulates, by group, with the limits."""
    known = [t for t in history.trials if t.params and t.macs]
    if not known:
        return None
    figure = go.Figure()
    for group in NAMES:
        trials = [t for t in known if t.group == group]
        if trials:
            marker = {"size": 9 if group == FRONT else 7, "color": COLOURS[group], "symbol": SYMBOLS[group]}
            scatter = go.Scattergl if len(known) > MANY else go.Scatter
            named = _points(history, group, trials) | {"name": NAMES[group].partition(" (")[0]}
            figure.add_trace(scatter(x=[t.params for t in trials], y=[t.macs for t in trials], marker=marker, **named))
    for limit in history.config.constraints:
        line = {"dash": "dash", "width": 1, "color": COLOURS["over_limit"]}
        if limit.name == "params":
            figure.add_vline(x=limit.upper, line=line)
        else:
            figure.add_hline(y=limit.upper, line=line)
    figure.update_xaxes(
        type="log", title=METRICS["params"].described, dtick=decade_step([t.params or 1 for t in known])
    )
    figure.update_yaxes(type="log", title=METRICS["macs"].described, dtick=decade_step([t.macs or 1 for t in known]))
    return laid_out(figure, 400)


def by_size(history: History, metric: Metric) -> go.Figure | None:
    """Draws a metric of complete trials over multiply-accumulates, and its best value up to each size.

    Networks that the search found and networks of the papers are told apart by colour, shape and dashes, and the best
    of each has its name. The axis spans the best values; worse trials lie outside until somebody zooms out.
    """
    known = [t for t in sized_of(history) if metric.name in t.values]
    if not known:
        return None
    figure = go.Figure()
    largest = max(t.macs for t in known)
    scatter = go.Scattergl if len(known) > MANY else go.Scatter
    kinds = {"networks of the papers": [t for t in known if t.reference]}
    kinds["found networks"] = [t for t in known if not t.reference]
    stairs = {name: staircase(trials, metric) for name, trials in kinds.items() if trials}
    ends = {name: steps[-1].values[metric.name] for name, steps in stairs.items()}
    for name, steps in stairs.items():
        papers = name == "networks of the papers"
        style = line_style(1 if papers else 0) | {"dash": "dash" if papers else "solid"}
        trials = kinds[name]
        points = {
            "x": [t.macs for t in trials],
            "y": [t.values[metric.name] for t in trials],
            "mode": "markers",
            "marker": {"size": 8, "symbol": "square-open" if papers else "circle", "color": style["color"]},
            "name": f"{name}: {len(trials)}",
            "customdata": [t.number for t in trials],
            "hovertext": [history.hover[t.number] for t in trials],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        figure.add_trace(scatter(**points))
        figure.add_scatter(
            x=[*(t.macs for t in steps), largest],
            y=[*(t.values[metric.name] for t in steps), ends[name]],
            mode="lines+text",
            line=style | {"shape": "hv"},
            text=[*("" for _ in steps), steps[-1].label],
            textposition="top left" if ends[name] == max(ends.values()) else "bottom left",
            name=f"best of the {name}",
            hoverinfo="skip",
        )
    best = [t.values[metric.name] for steps in stairs.values() for t in steps]
    room = 0.1 * (max(best) - min(best))
    if room > 0:
        figure.update_yaxes(range=[min(best) - room, max(best) + room])
    figure.update_xaxes(type="log", title=METRICS["macs"].described, dtick=decade_step([t.macs for t in known]))
    figure.update_yaxes(title=metric.label)
    return laid_out(figure, 400)


def _placed(
    history: History, objectives: Sequence[Objective]
) -> list[tuple[str, list[Trial], np.ndarray[Any, np.dtype[np.float64]]]]:
    """Returns group, trials and points of the trials that can be placed. A duplicate lies where its original does."""
    by_number = {t.number: t for t in history.trials}
    groups = []
    for group in reversed(NAMES):  # the front is drawn last, on top
        trials, points = [], []
        for trial in history.trials:
            if trial.group != group:
                continue
            original = trial if trial.same_as is None else by_number.get(trial.same_as, trial)
            values: Mapping[str, float] = original.values or original.last
            if all(o.name in values for o in objectives):
                trials.append(trial)
                points.append([values[o.name] for o in objectives])
        if trials:
            groups.append((group, trials, np.array(points)))
    return groups


def _points(history: History, group: str, trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "mode": "markers",
        "name": f"{NAMES[group]}: {len(trials)}",
        "customdata": [t.number for t in trials],
        "hovertext": [history.hover[t.number] for t in trials],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _knee(history: History) -> Trial:
    return next(t for t in history.front if t.number == history.knee)
