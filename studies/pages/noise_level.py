"""The figure of ``noise``: the level of noise against brightness, with the fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from nas.errors import ConfigError
from nas.files import write_whole
from studies.pages.drawing import draw
from studies.pages.style import COLOURS, laid_out
from studies.settings import FIGURE_FORMATS

if TYPE_CHECKING:
    from nas.data.measured_noise import MeasuredNoise

HEIGHT, WIDTH = 420, 640
PAGE = "html"


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


def check_target(target: Path) -> None:
    """Checks the name of a picture before anything is measured. Raises ConfigError."""
    kind = target.suffix.lower().removeprefix(".")
    if kind not in (PAGE, *FIGURE_FORMATS):
        endings = ", ".join(f".{each}" for each in (PAGE, *FIGURE_FORMATS))
        raise ConfigError(f"`to` {target}: its ending says no format; give one of {endings}")
    if target.is_dir() or not target.parent.is_dir():
        what = f"{target} is a folder" if target.is_dir() else f"folder {target.parent} does not exist; create it first"
        raise ConfigError(f"`to` {target}: {what}; give the name of a file")


def write_noise_level(found: MeasuredNoise, target: Path) -> None:
    """Writes the figure, as a page that needs no network, or as svg, pdf or png, which a browser draws.

    Raises:
        ConfigError: the file cannot be written, or there is no browser.
    """
    figure, kind = noise_level(found), target.suffix.lower().removeprefix(".")
    try:
        if kind == PAGE:
            write_whole(target, lambda file: file.write_text(figure.to_html(include_plotlyjs=True), "utf-8"))
        else:
            write_whole(target, lambda file: draw([(figure, file, WIDTH)], kind, "to"))
    except OSError as error:
        raise ConfigError(f"cannot write {target} ({error.strerror}); name a file in a folder that exists") from None
