"""Figures of a study, made with plotly. Pure functions: records in, a figure out, None where there is nothing to draw.

Colours are told apart by people who are colour-blind and hold on white and on black; shapes say the same.
Figures bear no background and no font colours of their own, so that a page can give them its theme.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from nas.pareto import hypervolume
from nas.stability import lasting, spiking, task_stability
from nas.types import Objective
from studies.history import FEWEST_FOR_IMPORTANCE, History, Trial

if TYPE_CHECKING:
    from nas.confirm import Confirmed

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
LINES = ("#d55e00", "#3b8bd0", "#1f9e6e", "#b266b2", "#b08500", "#5b6bbf", "#c43c39", "#7a7a7a")
SCALE = [[0.0, "#8a8f98"], [0.5, "#3b8bd0"], [1.0, "#d55e00"]]
"""From worse to better. A scale that ends in yellow or dark blue would lose one end on white or on black."""
DASHES = ("solid", "dash", "dot", "dashdot")

CAMERA = {"eye": {"x": 1.45, "y": 1.45, "z": 0.7}, "center": {"x": 0, "y": 0, "z": -0.12}}
CURVES = 300
"""At most so many trials beside the front's are drawn as curves."""
MANY = 1000
"""Above so many points they are drawn with WebGL."""
TOP = 3
"""Hyperparameters of each objective that are shown in slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure with what to say of it.

    Attributes:
        name: for files and anchors.
        title: one line.
        text: what it shows and how to read it.
        figure: None where there is nothing to draw; `lacks` says why.
        wide: whether it needs more width than a phone has.
    """

    name: str
    title: str
    text: str
    figure: go.Figure | None
    lacks: str = ""
    wide: bool = False


def all_plots(history: History, confirmed: Sequence[Confirmed] = ()) -> list[Plot]:
    """Every figure of a study and of its confirmation, in the order of the report."""
    none = "No trial is complete yet."
    objectives = history.config.objectives
    plots = [
        Plot(
            name="front",
            title="The front in three dimensions",
            text="Turn it with the mouse or a finger. Trials at the front are those that no other dominates, being at "
            "least as good in all objectives and better in one.",
            figure=front_3d(history),
            lacks=none if len(objectives) >= 3 else f"This study has {len(objectives)} objective(s); it takes three.",
        )
    ]
    for first, second in itertools.combinations(objectives, 2):
        plots.append(
            Plot(
                name=f"front-{first.name}-{second.name}",
                title=f"{first.name} and {second.name}",
                text="",
                figure=front_pair(history, first, second),
                lacks=none,
            )
        )
    plots.append(
        Plot(
            name="size",
            title="Size of the candidates",
            text="Parameters and multiply-accumulates of everything that was proposed; the dashed lines are the "
            "study's limits.",
            figure=sizes(history),
            lacks="Nothing was proposed yet.",
        )
    )
    steps = hypervolume_steps(history)
    for axis, words in (("trials", "trials"), ("epochs", "epochs spent"), ("minutes", "time")):
        plots.append(
            Plot(
                name=f"hypervolume-{axis}",
                title=f"Hypervolume over {words}",
                text="",
                figure=hypervolume_over(steps, axis),
                lacks=none,
            )
        )
    few = f"Importances need at least {FEWEST_FOR_IMPORTANCE} complete trials; there are {len(history.complete)}."
    for objective in objectives:
        plots.append(
            Plot(
                name=f"importance-{objective.name}",
                title=f"What matters for {objective.name}",
                text="",
                figure=importance(history, objective),
                lacks=few,
            )
        )
    for objective in objectives:
        for name in list(history.importances.get(objective.name, {}))[:TOP]:
            plots.append(
                Plot(
                    name=f"slice-{objective.name}-{name}",
                    title=f"{objective.name} by {name.replace('_', ' ')}",
                    text="",
                    figure=slice_of(history, objective, name),
                    lacks=none,
                )
            )
    plots.append(
        Plot(
            name="parallel",
            title="Parallel coordinates",
            text="Each line is a complete trial. Drag along an axis to keep the lines that pass there.",
            figure=parallel(history),
            lacks=none,
            wide=True,
        )
    )
    plots.append(
        Plot(
            name="loss",
            title="Training loss",
            text="Mean denoising loss of each epoch, in units of the noisy input's error.",
            figure=learning_curves(history, "denoise_loss"),
            lacks="No trial has finished an epoch yet.",
        )
    )
    for name in ("psnr", "accuracy"):
        if name == "psnr" or history.config.task.classifies:
            plots.append(
                Plot(
                    name=f"curve-{name}",
                    title=f"Validation {name}",
                    text="",
                    figure=learning_curves(history, name),
                    lacks="No trial was validated yet.",
                )
            )
    plots.append(
        Plot(
            name="gates",
            title="Learned gate of each skip",
            text="What the skips are multiplied by, from the shallowest to the deepest; bars span the channels.",
            figure=gates(history),
            lacks="No complete trial has learned gates.",
        )
    )
    plots.append(
        Plot(
            name="gates-confirmed",
            title="Gates of denoising alone and of the joint task",
            text="Means over seeds with 95 % intervals. AddUNet's claim is that the joint task moves them: shallow "
            "ones up for reconstruction, deep ones up for classification.",
            figure=confirmed_gates(confirmed),
            lacks="No network with learned gates was confirmed. The command skipnas confirm with --baselines trains "
            "AddUNet both ways.",
        )
    )
    for number in shown_probes(history):
        plots.append(
            Plot(
                name=f"stability-{number}",
                title=f"Loss and spikes of trial {number}",
                text="",
                figure=stability_curve(history, number),
                lacks="The trial has no probe curve.",
            )
        )
    if not history.probes:
        plots.append(Plot(name="stability", title="Loss and spikes", text="", figure=None, lacks=none))
    plots.append(
        Plot(
            name="workers",
            title="Workers over time",
            text="Each bar is a trial, each row a worker that was busy at that time.",
            figure=workers(history),
            lacks="No trial has started yet.",
        )
    )
    return plots


def axis_title(objective: Objective) -> str:
    """``psnr (dB) →``, the arrow pointing to the better end."""
    return f"{objective.label} {'→' if objective.direction == 'maximize' else '←'} better"


def front_3d(history: History) -> go.Figure | None:
    """The first three objectives of every trial that has them."""
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
    # More ticks would run into each other on a phone.
    axes = {f"{axis}axis": {"title": o.label, "nticks": 5} for axis, o in zip("xyz", objectives, strict=True)}
    figure.update_layout(scene=axes | {"aspectmode": "cube", "camera": CAMERA}, margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return _laid(figure, 520).update_layout(legend_itemsizing="constant")


def front_pair(history: History, first: Objective, second: Objective) -> go.Figure | None:
    """Two objectives of every trial that has them; the line steps along what these two alone leave undominated."""
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
    _log_costs(figure, first, second)
    return _laid(figure, 400)


def sizes(history: History) -> go.Figure | None:
    """Parameters against multiply-accumulates, by outcome, with the limits."""
    known = [t for t in history.trials if t.params and t.macs]
    if not known:
        return None
    figure = go.Figure()
    for outcome in NAMES:
        trials = [t for t in known if t.outcome == outcome]
        if trials:
            marker = {"size": 9 if outcome == "front" else 7, "color": COLOURS[outcome], "symbol": SYMBOLS[outcome]}
            scatter = go.Scattergl if len(known) > MANY else go.Scatter
            named = _points(history, outcome, trials) | {"name": NAMES[outcome].partition(" (")[0]}
            figure.add_trace(scatter(x=[t.params for t in trials], y=[t.macs for t in trials], marker=marker, **named))
    for limit in history.config.constraints:
        line = {"dash": "dash", "width": 1, "color": COLOURS["over_limit"]}
        if limit.name == "params":
            figure.add_vline(x=limit.upper, line=line)
        else:
            figure.add_hline(y=limit.upper, line=line)
    figure.update_xaxes(type="log", title="parameters", dtick=_decades([t.params or 1 for t in known]))
    figure.update_yaxes(type="log", title="MACs for an image", dtick=_decades([t.macs or 1 for t in known]))
    return _laid(figure, 400)


def hypervolume_over(steps: Sequence[Mapping[str, float]], axis: str) -> go.Figure | None:
    """`hypervolume_steps` over ``trials``, ``epochs`` or ``minutes``; each step is a trial's end."""
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
    return _laid(figure, 320)


def hypervolume_steps(history: History) -> list[dict[str, float]]:
    """After each trained trial, in the order of their ends: trials, epochs, minutes, hypervolume, number.

    Minutes count from the first start; what passed between two runs of a search counts too.
    """
    objectives = history.config.objectives
    trained = [t for t in history.trials if t.outcome in ("front", "complete", "pruned") and t.order is not None]
    trained.sort(key=lambda t: t.order or 0)
    if not any(t.values for t in trained):
        return []
    begin = min(t.started for t in trained if t.started is not None)
    maximize = [o.direction == "maximize" for o in objectives]
    reference = [o.reference for o in objectives]
    steps = []
    front: list[list[float]] = []
    volume, epochs = 0.0, 0
    for count, trial in enumerate(trained, 1):
        epochs += trial.epochs_done
        if trial.values:
            point = [trial.values[o.name] for o in objectives]
            if not any(_covers(other, point, maximize) for other in front):
                front = [other for other in front if not _covers(point, other, maximize)] + [point]
                volume = hypervolume(np.array(front), reference, maximize)
        minutes = ((trial.ended or begin) - begin) / 60
        steps.append(
            {"trials": count, "epochs": epochs, "minutes": minutes, "hypervolume": volume, "number": trial.number}
        )
    return steps


def importance(history: History, objective: Objective) -> go.Figure | None:
    """The ten hyperparameters that decide most about an objective."""
    found = list(history.importances.get(objective.name, {}).items())[:10]
    if not found:
        return None
    figure = go.Figure()
    figure.add_bar(
        x=[value for _, value in found],
        y=[name.replace("_", " ") for name, _ in found],
        orientation="h",
        marker={"color": COLOURS["complete"]},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(showlegend=False)
    return _laid(figure, 340)


def slice_of(history: History, objective: Objective, name: str) -> go.Figure | None:
    """An objective of complete trials by the value of one hyperparameter."""
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
    _log_costs(figure, None, objective)
    return _laid(figure, 320)


def parallel(history: History) -> go.Figure | None:
    """The most important hyperparameters and the objectives of complete trials, coloured by the first objective."""
    trials = history.complete
    if not trials:
        return None
    ranked = [list(shares)[:TOP] for shares in history.importances.values()]
    names = list(dict.fromkeys(itertools.chain.from_iterable(ranked)))
    dimensions = [_dimension(name, [t.hyperparameters.get(name) for t in trials]) for name in names]
    # Labels stand to the left of their axis, where only the first one has room for long ones.
    dimensions.sort(key=lambda d: -max(map(len, d["ticktext"]), default=0))
    for dimension in dimensions[1:]:
        dimension["ticktext"] = [_cut(text) for text in dimension["ticktext"]]
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
    return _laid(figure, 460)


def learning_curves(history: History, column: str) -> go.Figure | None:
    """A column of the epochs table over epochs: the front's members by themselves, a part of the others in gray."""
    drawn = {t.number: [(r.epoch, at) for r in t.epochs if _finite(at := getattr(r, column))] for t in history.trials}
    members = [t for t in history.front if drawn[t.number]]
    others = [t for t in history.trials if t.outcome != "front" and drawn[t.number]]
    if not members and not others:
        return None
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
            hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4g}<extra></extra>",
        )
    for index, trial in enumerate(_some(history, members)):
        figure.add_scatter(
            x=[epoch for epoch, _ in drawn[trial.number]],
            y=[value for _, value in drawn[trial.number]],
            mode="lines+markers",
            marker={"size": 5},
            line=_line(index),
            name=_member(history, trial),
            customdata=[trial.number] * len(drawn[trial.number]),
            hovertemplate=f"trial {trial.number}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch", type="log" if column != "denoise_loss" else "linear")
    if column != "denoise_loss":
        ticks = sorted({epoch for rows in drawn.values() for epoch, _ in rows})
        figure.update_xaxes(tickvals=ticks, ticktext=[str(t) for t in ticks])
    titles = {"denoise_loss": "loss", "psnr": "psnr (dB)", "accuracy": "accuracy (%)"}
    figure.update_yaxes(title=titles[column], type="log" if column == "denoise_loss" else "linear")
    return _laid(figure, 400)


def gates(history: History) -> go.Figure | None:
    """Learned skip gates by level, of the front's members that have any; of the others where none does."""
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
            line=_line(index),
            name=_member(history, trial),
            hovertemplate=f"trial {trial.number}, skip %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    return _gate_axes(figure)


def confirmed_gates(confirmed: Sequence[Confirmed]) -> go.Figure | None:
    """Learned skip gates by level, of each confirmed network that has any, over its seeds."""
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
            line=_line(index),
            name=f"{name}, denoising alone" if one.spec.get("tasks") == "denoise" else name,
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
    return _gate_axes(figure)


def _gate_axes(figure: go.Figure) -> go.Figure:
    figure.add_hline(y=1, line={"dash": "dot", "width": 1, "color": COLOURS["pruned"]})
    figure.update_xaxes(title="skip, from shallow to deep", dtick=1)
    figure.update_yaxes(title="gate")
    return _laid(figure, 360)


def shown_probes(history: History) -> list[int]:
    """Trials whose stability is explained: the knee, the front's most stable member, the least stable trial."""
    if history.knee is None or not history.probes:
        return []
    score = {t.number: t.values.get("stability", 0.0) for t in history.complete if t.number in history.probes}
    return list(dict.fromkeys([history.knee, max(score, key=score.__getitem__), min(score, key=score.__getitem__)]))


def stability_curve(history: History, number: int) -> go.Figure | None:
    """Probe losses of a trial over steps, the worst that was still to come at each, and the probes that spike."""
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
        figure.add_scatter(x=steps, y=loss, mode="lines", name=name, line=_line(index) | {"width": 1.5})
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
    return _laid(figure, 340)


def workers(history: History) -> go.Figure | None:
    """Trials as bars from start to end, packed into as few rows as were busy at a time."""
    spans = lanes(history)
    if not spans:
        return None
    begin = min(t.started or math.inf for t, _ in spans)
    figure = go.Figure()
    for outcome in NAMES:
        chosen = [(t, lane) for t, lane in spans if t.outcome == outcome]
        if not chosen:
            continue
        figure.add_bar(
            base=[((t.started or 0) - begin) / 60 for t, _ in chosen],
            x=[((t.ended or 0) - (t.started or 0)) / 60 for t, _ in chosen],
            y=[f"worker {lane + 1}" for _, lane in chosen],
            orientation="h",
            name=NAMES[outcome].partition(" (")[0],
            marker={"color": COLOURS[outcome], "line": {"width": 0.5 if len(spans) < MANY else 0, "color": "white"}},
            customdata=[t.number for t, _ in chosen],
            hovertemplate="trial %{customdata}: %{x:.2f} minutes<extra></extra>",
        )
    rows = 1 + max(lane for _, lane in spans)
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_xaxes(title="minutes since the first trial began")
    figure.update_yaxes(categoryorder="array", categoryarray=[f"worker {row + 1}" for row in range(rows)][::-1])
    return _laid(figure, 170 + 34 * min(rows, 16))


def lanes(history: History) -> list[tuple[Trial, int]]:
    """Trials that started and ended, each with the row of `workers` that it is drawn in, from 0."""
    trials = [t for t in history.trials if t.started is not None and t.ended is not None]
    trials.sort(key=lambda t: (t.started, t.number))
    free: list[float] = []
    result = []
    for trial in trials:
        start = trial.started or 0.0
        lane = next((i for i, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [trial.ended or start]
        result.append((trial, lane))
    return result


def _placed(
    history: History, objectives: Sequence[Objective]
) -> list[tuple[str, list[Trial], np.ndarray[Any, np.dtype[np.float64]]]]:
    """Outcome, trials and points, of those trials that can be placed: a duplicate lies where its original does."""
    by_number = {t.number: t for t in history.trials}
    groups = []
    for outcome in reversed(NAMES):  # the front is drawn last, on top
        trials, points = [], []
        for trial in history.trials:
            if trial.outcome != outcome:
                continue
            original = trial if trial.same_as is None else by_number.get(trial.same_as, trial)
            values: Mapping[str, float] = original.values or original.last
            if all(o.name in values for o in objectives):
                trials.append(trial)
                points.append([values[o.name] for o in objectives])
        if trials:
            groups.append((outcome, trials, np.array(points)))
    return groups


def _points(history: History, outcome: str, trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "mode": "markers",
        "name": f"{NAMES[outcome]}: {len(trials)}",
        "customdata": [t.number for t in trials],
        "hovertext": [history.hover[t.number] for t in trials],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _knee(history: History) -> Trial:
    return next(t for t in history.front if t.number == history.knee)


def _some(history: History, trials: Sequence[Trial], count: int = 8) -> list[Trial]:
    """At most `count` trials, the knee first, the others spread evenly."""
    first = [t for t in trials if t.number == history.knee]
    rest = [t for t in trials if t.number != history.knee]
    return first + rest[:: max(1, math.ceil(len(rest) / max(1, count - len(first))))]


def _member(history: History, trial: Trial) -> str:
    return f"trial {trial.number}" + (" (knee)" if trial.number == history.knee else "")


def _line(index: int) -> dict[str, Any]:
    return {"color": LINES[index % len(LINES)], "dash": DASHES[index % len(DASHES)], "width": 2}


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A hyperparameter as an axis of parallel coordinates; choices stand in order at equal distances."""
    choices = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    place = {value: index for index, value in enumerate(choices)}
    return {
        "label": name.replace("_", " "),
        "values": np.array([place.get(v, math.nan) for v in values]),
        "tickvals": list(range(len(choices))),
        "ticktext": [f"{v:g}" if isinstance(v, float) else str(v) for v in choices],
    }


def _cut(text: str, most: int = 12) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _log_costs(figure: go.Figure, x: Objective | None, y: Objective | None) -> None:
    for objective, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        if objective is not None and objective.name in ("params", "macs"):
            update(type="log")


def _covers(a: Sequence[float], b: Sequence[float], maximize: Sequence[bool]) -> bool:
    return all(p >= q if up else p <= q for p, q, up in zip(a, b, maximize, strict=True))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _laid(figure: go.Figure, height: int) -> go.Figure:
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


def _decades(values: Sequence[float]) -> int | None:
    """Steps of a logarithmic axis: decades alone where there are many; None leaves them to `_ticks`."""
    return None if max(values) < 100 * min(values) else 1


def _ticks(axis: Any) -> None:
    """1, 2 and 5 of each decade, all of one size."""
    if axis.type == "log" and axis.tickvals is None and axis.dtick is None:
        axis.dtick = "D2"
        axis.minorloglabels = "complete"
