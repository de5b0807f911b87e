"""Figures over time: hypervolume, learning curves, stability, workers, gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from nas.search.objectives import METRICS
from nas.training.stability import lasting, spiking, task_stability
from nas.types import flat
from studies.pages.fronts import MANY
from studies.pages.style import COLOURS, LINES, NAMES, laid_out, line_style
from studies.reading.history import History, Trial, lanes

if TYPE_CHECKING:
    from nas.search.confirmation import Confirmed

CURVES = 300
"""The largest number of trials beside the front's that are drawn as curves."""


def hypervolume_over(steps: Sequence[Mapping[str, float]], axis: str) -> go.Figure | None:
    """Draws `hypervolume_steps` over ``trials``, ``epochs`` or ``minutes``; each step is a trial's end."""
    if not steps:
        return None
    x = [step[axis] for step in steps]
    figure = go.Figure()
    figure.add_scatter(
        x=x,
        y=[step["hypervolume"] for step in steps],
        mode="lines+markers" if len(steps) <= 100 else "lines",
        line={"shape": "hv", "color": COLOURS["front"], "width": 2},
        marker={"size": 5},
        name="hypervolume",
        customdata=[step["number"] for step in steps],
        hovertemplate="after trial %{customdata}: %{y:.4g}<extra></extra>",
    )
    figure.update_xaxes(title={"trials": "trained trials", "epochs": "epochs", "minutes": "minutes"}[axis])
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    figure.update_layout(showlegend=False)
    return laid_out(figure, 320)


def learning_curves(history: History, column: str) -> go.Figure | None:
    """Draws a loss or a metric over epochs: each of the front's members, and a part of the other trials in gray."""
    drawn = {t.number: [(r.epoch, at) for r in t.epochs if _finite(at := flat(r).get(column))] for t in history.trials}
    members = [t for t in history.front if drawn[t.number]]
    others = [t for t in history.trials if not t.on_front and drawn[t.number]]
    if not members and not others:
        return None
    metric = METRICS.get(column)
    form = ".4g" if metric is None else metric.form
    figure = go.Figure()
    x: list[float | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in others[:: max(1, math.ceil(len(others) / CURVES))]:
        x += [epoch for epoch, _ in drawn[trial.number]] + [None]
        y += [value for _, value in drawn[trial.number]] + [None]
        numbers += [trial.number] * len(drawn[trial.number]) + [None]
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            customdata=numbers,
            mode="lines+markers",
            marker={"size": 3},
            line={"color": "rgba(138,143,152,0.45)", "width": 1},
            name="other trials",
            hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: %{{y:{form}}}<extra></extra>",
        )
    for index, trial in enumerate(_some(history, members)):
        figure.add_scatter(
            x=[epoch for epoch, _ in drawn[trial.number]],
            y=[value for _, value in drawn[trial.number]],
            mode="lines+markers",
            marker={"size": 5},
            line=line_style(index),
            name=_member(history, trial),
            customdata=[trial.number] * len(drawn[trial.number]),
            hovertemplate=f"trial {trial.number}, epoch %{{x}}: %{{y:{form}}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch", type="linear" if metric is None else "log")
    if metric is not None:
        ticks = sorted({epoch for rows in drawn.values() for epoch, _ in rows})
        figure.update_xaxes(tickvals=ticks, ticktext=[str(t) for t in ticks])
    if metric is None:
        figure.update_yaxes(title="loss", type="log")
    else:
        figure.update_yaxes(title=metric.label)
    return laid_out(figure, 400)


def gates(history: History) -> go.Figure | None:
    """Draws learned skip gates by level, of the front's members; of other trials where no member has gates."""
    trials = [t for t in history.front if t.gates] or [t for t in history.complete if t.gates]
    if not trials:
        return None
    figure = go.Figure()
    for index, trial in enumerate(_some(history, trials)):
        mean = np.array([gate["mean"] for gate in trial.gates])
        low = np.array([gate.get("min", gate["mean"]) for gate in trial.gates])
        high = np.array([gate.get("max", gate["mean"]) for gate in trial.gates])
        figure.add_scatter(
            x=np.arange(1, len(mean) + 1),
            y=mean,
            error_y={"array": high - mean, "arrayminus": mean - low, "thickness": 1, "width": 3},
            mode="lines+markers",
            marker={"size": 8},
            line=line_style(index),
            name=_member(history, trial),
            hovertemplate=f"trial {trial.number}, skip %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    return _gate_axes(figure)


def confirmed_gates(confirmed: Sequence[Confirmed]) -> go.Figure | None:
    """Draws learned skip gates by level, of each confirmed network that has gates, over its seeds."""
    gated = [one for one in confirmed if one.gates]
    if not gated:
        return None
    figure = go.Figure()
    for index, one in enumerate(gated):
        name = one.reference if one.number is None else f"trial {one.number}"
        mean = np.array([gate.mean for gate in one.gates])
        figure.add_scatter(
            x=np.arange(1, len(mean) + 1) + 0.06 * (index - (len(gated) - 1) / 2),
            y=mean,
            error_y={"array": [gate.high - gate.mean for gate in one.gates], "thickness": 1, "width": 3},
            mode="lines+markers",
            marker={"size": 8},
            line=line_style(index),
            name=f"{name}, denoising alone" if one.spec.get("tasks") == "denoise" else name,
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
    return _gate_axes(figure)


def _gate_axes(figure: go.Figure) -> go.Figure:
    figure.add_hline(y=1, line={"dash": "dot", "width": 1, "color": COLOURS["pruned"]})
    figure.update_xaxes(title="skip, from shallow to deep", dtick=1)
    figure.update_yaxes(title="gate")
    return laid_out(figure, 360)


def shown_probes(history: History) -> list[int]:
    """Returns the trials whose stability is explained: the knee, the most stable one, the least stable one."""
    if history.knee is None or not history.probes:
        return []
    score = {t.number: t.values.get("stability", 0.0) for t in history.complete if t.number in history.probes}
    return list(dict.fromkeys([history.knee, max(score, key=score.__getitem__), min(score, key=score.__getitem__)]))


def stability_curve(history: History, number: int) -> go.Figure | None:
    """Draws a trial's probe losses over steps, the worst loss that was still to come at each, and the spikes."""
    probe = history.probes[number]
    figure = go.Figure()
    for index, (task, losses) in enumerate((("denoising", probe.denoise), ("classification", probe.classify))):
        loss = np.asarray(losses, dtype=float)
        fits = np.isfinite(loss)
        if fits.sum() < 3:
            continue
        steps, loss = np.asarray(probe.steps)[: len(loss)][fits], np.maximum(loss[fits], 1e-12)
        y = np.log(loss)
        spikes = spiking(y)
        name = f"{task}: {task_stability(loss.tolist()):.3f}"
        figure.add_scatter(x=steps, y=loss, mode="lines", name=name, line=line_style(index) | {"width": 1.5})
        figure.add_scatter(
            x=steps,
            y=1 - lasting(loss.tolist()),
            mode="lines",
            name=f"{task}, not removed for good",
            line={"color": LINES[index], "width": 4, "shape": "hv"},
            opacity=0.35,
            hoverinfo="skip",
            showlegend=False,
        )
        if spikes.any():
            figure.add_scatter(
                x=steps[spikes],
                y=loss[spikes],
                mode="markers",
                name=f"{task}: {int(spikes.sum())} {'spike' if spikes.sum() == 1 else 'spikes'}",
                marker={"symbol": "triangle-up", "size": 10, "color": LINES[index], "line": {"width": 1}},
            )
    if not figure.data:
        return None
    figure.add_hline(y=1, line={"dash": "dot", "width": 1, "color": COLOURS["pruned"]})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="loss / trivial loss", type="log")
    return laid_out(figure, 340)


def workers(history: History) -> go.Figure | None:
    """Draws trials as bars from start to end, in as few rows as were busy at a time."""
    spans = lanes(history)
    if not spans:
        return None
    begin = min(t.started or math.inf for t, _ in spans)
    figure = go.Figure()
    for group in NAMES:
        chosen = [(t, lane) for t, lane in spans if t.group == group]
        if not chosen:
            continue
        figure.add_bar(
            base=[((t.started or 0) - begin) / 60 for t, _ in chosen],
            x=[((t.ended or 0) - (t.started or 0)) / 60 for t, _ in chosen],
            y=[f"worker {lane + 1}" for _, lane in chosen],
            orientation="h",
            name=NAMES[group].partition(" (")[0],
            marker={"color": COLOURS[group], "line": {"width": 0.5 if len(spans) < MANY else 0, "color": "white"}},
            customdata=[t.number for t, _ in chosen],
            hovertemplate="trial %{customdata}: %{x:.2f} minutes<extra></extra>",
        )
    rows = 1 + max(lane for _, lane in spans)
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_xaxes(title="minutes since the first trial began")
    figure.update_yaxes(categoryorder="array", categoryarray=[f"worker {row + 1}" for row in range(rows)][::-1])
    return laid_out(figure, 170 + 34 * min(rows, 16))


def _some(history: History, trials: Sequence[Trial], count: int = 8) -> list[Trial]:
    """Returns at most `count` trials: the knee first, the others spread evenly."""
    first = [t for t in trials if t.number == history.knee]
    rest = [t for t in trials if t.number != history.knee]
    return first + rest[:: max(1, math.ceil(len(rest) / max(1, count - len(first))))]


def _member(history: History, trial: Trial) -> str:
    return f"trial {trial.number}" + (" (knee)" if trial.number == history.knee else "")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
