"""Figures of a study, made with plotly by pure functions: from records to a figure, or None where data is missing.

Colour-blind people can tell the colours apart, on white and on black, and shapes say the same. Figures have no
background and no font colours of their own, so that a page can apply its theme.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nas.search.growth import Growth
from nas.search.importance import FEWEST
from nas.search.objectives import followed
from studies.pages.curves import (
    confirmed_gates,
    gates,
    hypervolume_over,
    learning_curves,
    shown_probes,
    stability_curve,
    workers,
)
from studies.pages.fronts import by_size, front_3d, front_pair, sizes
from studies.pages.hyperparameters import TOP, importance, parallel, slice_of
from studies.pages.recognition import Answered, reliability, roc_curves
from studies.reading.history import History, hypervolume_steps

if TYPE_CHECKING:
    from nas.search.confirmation import Confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure with its texts.

    Attributes:
        name: name for files and anchors.
        section: the part of the report that shows it.
        title: one line.
        text: explains how to read the figure.
        figure: None where data is missing; `lacks` says why.
        lacks: the text that replaces a missing figure.
        wide: whether the figure needs more width than a phone has.
    """

    name: str
    section: str
    title: str
    text: str
    figure: go.Figure | None
    lacks: str = ""
    wide: bool = False


def all_plots(history: History, confirmed: Sequence[Confirmed] = (), answered: Answered | None = None) -> list[Plot]:
    """Returns every figure of a study, of its confirmation and of the knee's answers, in the order of the report."""
    none = "No trial is complete yet."
    objectives = history.config.objectives
    metrics = followed(history.config.objective_names)
    plots = [
        Plot(
            name="front",
            section="front",
            title="The front in three dimensions",
            text="Turn it with the mouse or a finger. A trial is on the front when no other trial is at least as "
            "good in all objectives and better in one.",
            figure=front_3d(history),
            lacks=none
            if len(objectives) >= 3
            else f"This study has {len(objectives)} objective(s); the figure needs three.",
        )
    ]
    for first, second in itertools.combinations(objectives, 2):
        plots.append(
            Plot(
                name=f"front-{first.name}-{second.name}",
                section="pairs",
                title=f"{first.name} and {second.name}",
                text="",
                figure=front_pair(history, first, second),
                lacks=none,
            )
        )
    plots.append(
        Plot(
            name="size",
            section="pairs",
            title="Size of the candidates",
            text="Parameters and multiply-accumulates of all proposals; the dashed lines are the study's limits.",
            figure=sizes(history),
            lacks="Nothing was proposed yet.",
        )
    )
    for metric in metrics:
        figure = by_size(history, metric)
        if figure is not None:
            plots.append(
                Plot(
                    name=f"by-size-{metric.name}",
                    section="by-size",
                    title=f"The best {metric.title} at each size",
                    text="The axis spans the best values; a double click shows worse trials too.",
                    figure=figure,
                )
            )
    plots += _recognition_plots(history, answered)
    steps = hypervolume_steps(history)
    growth = Growth(times=[step["epochs"] for step in steps], volumes=[step["hypervolume"] for step in steps])
    promise = growth.promise()
    foretold = "" if promise is None else f"As many epochs again would probably add about {promise:.2g}."
    for axis, words in (("trials", "trials"), ("epochs", "epochs spent"), ("minutes", "time")):
        plots.append(
            Plot(
                name=f"hypervolume-{axis}",
                section="progress",
                title=f"Hypervolume over {words}",
                text=foretold if axis == "epochs" else "",
                figure=hypervolume_over(steps, axis),
                lacks=none,
            )
        )
    complete = len(history.complete)
    unknown = "Nothing can be said yet: " + (
        f"it takes at least {FEWEST} complete trials, and there are {complete}."
        if complete < FEWEST
        else f"in {complete} complete trials no hyperparameter stands out from what noise alone would give."
    )
    for objective in objectives:
        plots.append(
            Plot(
                name=f"importance-{objective.name}",
                section="importance",
                title=f"What matters for {objective.name}",
                text="",
                figure=importance(history, objective),
                lacks=unknown,
            )
        )
    for objective in objectives:
        for name in [name for name, each in history.importances[objective.name].items() if each.stands_out][:TOP]:
            plots.append(
                Plot(
                    name=f"slice-{objective.name}-{name}",
                    section="slices",
                    title=f"{objective.name} by {name.replace('_', ' ')}",
                    text="",
                    figure=slice_of(history, objective, name),
                    lacks=none,
                )
            )
    plots.append(
        Plot(
            name="parallel",
            section="parallel",
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
            section="curves",
            title="Training loss",
            text="Mean denoising loss of each epoch, in units of the noisy input's error.",
            figure=learning_curves(history, "denoise_loss"),
            lacks="No trial has finished an epoch yet.",
        )
    )
    for metric in metrics:
        figure = learning_curves(history, metric.name)
        if figure is not None or metric.name in {o.name for o in objectives}:
            plots.append(
                Plot(
                    name=f"curve-{metric.name}",
                    section="curves",
                    title=f"Validation {metric.name}",
                    text="",
                    figure=figure,
                    lacks="No trial was validated yet.",
                )
            )
    plots.append(
        Plot(
            name="gates",
            section="gates",
            title="Learned gate of each skip",
            text="The factors of the skips, from the shallowest to the deepest; bars span the channels.",
            figure=gates(history),
            lacks="No complete trial has learned gates.",
        )
    )
    plots.append(
        Plot(
            name="gates-confirmed",
            section="gates",
            title="Gates of denoising alone and of the joint task",
            text="Means over seeds with 95 % intervals. AddUNet claims that the joint task moves the gates: shallow "
            "ones go up for reconstruction, deep ones for classification.",
            figure=confirmed_gates(confirmed),
            lacks="No network with learned gates was confirmed. The command skipnas confirm with --baselines trains "
            "AddUNet both ways.",
        )
    )
    for number in shown_probes(history):
        plots.append(
            Plot(
                name=f"stability-{number}",
                section="stability",
                title=f"Loss and spikes of trial {number}",
                text="",
                figure=stability_curve(history, number),
                lacks="The trial has no probe curve.",
            )
        )
    if not history.probes:
        plots.append(
            Plot(name="stability", section="stability", title="Loss and spikes", text="", figure=None, lacks=none)
        )
    plots.append(
        Plot(
            name="workers",
            section="workers",
            title="Workers over time",
            text="Each bar is a trial, each row a worker that was busy at that time.",
            figure=workers(history),
            lacks="No trial has started yet.",
        )
    )
    return plots


def _recognition_plots(history: History, answered: Answered | None) -> list[Plot]:
    if not history.config.task.classifies:
        return []
    lacks = "They need the weights of the knee and the validation images, which are not here."
    return [
        Plot(
            name="roc",
            section="recognition",
            title="One class against the rest",
            text="ROC curves with the area under each; chance is dotted.",
            figure=roc_curves(answered),
            lacks=lacks if answered is None else "All validation images are of one class.",
        ),
        Plot(
            name="reliability",
            section="recognition",
            title="Confidence and accuracy",
            text="Where answers are as often right as they are confident, the points lie on the dotted line. A larger "
            "point is of more images. Bars are 95 % intervals.",
            figure=reliability(answered),
            lacks=lacks,
        ),
    ]
