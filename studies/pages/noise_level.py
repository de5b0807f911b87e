"""The figure of ``noise``: the level of noise against brightness, with the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from studies.pages.style import COLOURS, laid_out

if TYPE_CHECKING:
    from nas.data.measured_noise import MeasuredNoise

HEIGHT = 420


def noise_level(found: MeasuredNoise) -> go.Figure:
    """Draws the measured standard deviations against brightness, and the fit before and after clipping."""
    brightness = np.linspace(0, 255, 256)
    plain = np.array([found.sigma(float(each)) for each in brightness])
    mean, variance = found.sensor.clipped(brightness)
    figure = go.Figure()
    figure.add_scatter(
        x=[level.brightness for level in found.levels],
        y=[level.sigma for level in found.levels],
        mode="markers",
        name="measured",
        marker={"color": COLOURS["complete"], "size": 8},
        customdata=[round(level.areas) for level in found.levels],
        hovertemplate="brightness %{x:.0f}<br>noise %{y:.2f}<br>%{customdata} areas<extra></extra>",
    )
    figure.add_scatter(
        x=brightness, y=plain, mode="lines", name=found.words, line={"color": COLOURS["front"], "width": 2}
    )
    if not found.correlated:
        figure.add_scatter(
            x=mean,
            y=np.sqrt(variance),
            mode="lines",
            name="after clipping",
            line={"color": COLOURS["front"], "width": 2, "dash": "dot"},
        )
    figure.update_xaxes(title="brightness (0 to 255)", range=[0, 255])
    figure.update_yaxes(title="standard deviation of the noise", rangemode="tozero")
    return laid_out(figure, HEIGHT)
