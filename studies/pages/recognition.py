"""How well the knee recognises the classes of the validation images: each class, ROC curves, and reliability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from nas.search.objectives import METRICS, Metric, metric_of
from studies.pages.style import COLOURS, laid_out, line_style, shortened

if TYPE_CHECKING:
    from nas.training.metrics import Recognition
    from nas.training.recognition import ClassFigures

CURVES = 8
"""The largest number of classes whose ROC curves are drawn: those that are recognised worst."""

POINTS = 300
"""The largest number of points of a curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A network's answers for the validation images.

    Attributes:
        trial: number of the network's trial.
        classes: names by index.
        found: the answers under every noise draw.
        draws: number of noise draws.
    """

    trial: int
    classes: tuple[str, ...]
    found: Recognition
    draws: int

    @property
    def threshold(self) -> float | None:
        """The threshold that an export chooses; None unless there are two classes."""
        from nas.training.recognition import best_threshold

        return best_threshold(self.found)

    @property
    def by_class(self) -> list[ClassFigures]:
        """The figures of each class. Draws of one image are no further images."""
        from nas.training.recognition import class_figures

        count = len(self.classes)
        pairs = np.bincount(self.found.labels * count + self.found.answers, minlength=count**2)
        return class_figures((pairs.reshape(count, count) / self.draws).tolist())

    @property
    def figures(self) -> list[tuple[Metric, float]]:
        """The metrics of the answers that are defined for them."""
        from nas.training.metrics import OF_CLASSES

        found = ((metric_of(name), compute(self.found)) for name, compute in OF_CLASSES.items())
        return [(metric, value) for metric, value in found if value is not None]


def roc_curves(answered: Answered | None) -> go.Figure | None:
    """Draws the ROC curve of each class against the rest, worst first; of two classes that of the second one."""
    if answered is None or len(answered.found.present) < 2:
        return None
    from sklearn.metrics import auc

    from nas.training.recognition import roc_points

    found, two = answered.found, len(answered.classes) == 2
    curves = {label: roc_points(found, label) for label in ([1] if two else found.present.tolist())}
    areas = {label: float(auc(*curve)) for label, curve in curves.items()}
    figure = go.Figure()
    for index, label in enumerate(sorted(curves, key=areas.__getitem__)[:CURVES]):
        wrong, right = curves[label]
        kept = np.unique(np.linspace(0, len(wrong) - 1, min(len(wrong), POINTS)).round().astype(int))
        name = answered.classes[label]
        figure.add_scatter(
            x=wrong[kept],
            y=right[kept],
            mode="lines",
            line=line_style(index),
            name=f"{shortened(name, 20)}: {METRICS['auc'].figure(areas[label])}",
            hovertemplate=f"{name}: %{{y:.1%}} found, %{{x:.1%}} of the others taken for it<extra></extra>",
        )
    if two and (threshold := answered.threshold) is not None:
        taken = found.probabilities[:, 1] >= threshold
        figure.add_scatter(
            x=[taken[found.labels == 0].mean()],
            y=[taken[found.labels == 1].mean()],
            mode="markers",
            marker={"size": 11, "symbol": "diamond", "color": COLOURS["front"]},
            name=f"threshold {threshold:.3g}",
            hovertemplate="%{y:.1%} found, %{x:.1%} of the others taken for it<extra></extra>",
        )
    _diagonal(figure)
    figure.update_xaxes(title="other images that are taken for the class", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="images of the class that are found", range=[0, 1.01], tickformat=".0%")
    return laid_out(figure, 420)


def reliability(answered: Answered | None) -> go.Figure | None:
    """Draws the accuracy of the answers over their confidence, with Wilson intervals; areas are numbers of images."""
    if answered is None:
        return None
    from nas.training.metrics import calibration_bins, calibration_error
    from nas.training.recognition import wilson

    count, confidence, accuracy = calibration_bins(answered.found).T
    images = count / answered.draws
    shares = [wilson(a * n, n) for a, n in zip(accuracy, images, strict=True)]
    figure = go.Figure()
    _diagonal(figure)
    figure.add_scatter(
        x=confidence,
        y=accuracy,
        error_y={
            "array": [0.0 if s is None else s.high - s.value for s in shares],
            "arrayminus": [0.0 if s is None else s.value - s.low for s in shares],
            "thickness": 1,
            "width": 3,
        },
        mode="lines+markers",
        line=line_style(0),
        marker={"size": 6 + 22 * np.sqrt(count / count.max())},
        customdata=images,
        name="answers",
        hovertemplate="confidence %{x:.1%}, right %{y:.1%}, %{customdata:.0f} images<extra></extra>",
    )
    error = METRICS["calibration_error"].titled(calibration_error(answered.found))
    figure.add_annotation(text=error, x=0.02, y=0.98, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(title="confidence", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="answers that are right", range=[0, 1.05], tickformat=".0%")
    figure.update_layout(showlegend=False)
    return laid_out(figure, 420)


def _diagonal(figure: go.Figure) -> None:
    line = {"dash": "dot", "width": 1, "color": COLOURS["pruned"]}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, showlegend=False, hoverinfo="skip")
