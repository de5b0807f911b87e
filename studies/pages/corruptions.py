"""The figure of ``evaluate --corruptions``: what a network is worth the more its images are corrupted."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.data.corruptions import CLEAN, CORRUPTIONS, SHOWN
from nas.search.objectives import METRICS
from nas.types import labelled
from nas.words import visible
from studies.pages.style import laid_out, line_style

HEIGHT = 300
"""The height in pixels of a metric's panel."""


TITLED = 110
"""The height in pixels of title and legend."""


def corruption_curves(result: Mapping[str, Any]) -> go.Figure:
    """Draws each metric over the strength, from clean images on, with a line for each kind.

    Args:
        result: as `studies.bundles.evaluate_bundle` returns it, with corruptions.
    """
    corruptions = result["corruptions"]
    metrics = [METRICS[name] for name in SHOWN if name in corruptions[0]]
    figure = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for index, kind in enumerate(CORRUPTIONS):
        levels = [each for each in corruptions if each["kind"] in (CLEAN, kind)]
        for row, metric in enumerate(metrics, start=1):
            figure.add_scatter(
                x=[each["strength"] for each in levels],
                y=[each[metric.name] for each in levels],
                mode="lines+markers",
                line=line_style(index),
                name=kind,
                legendgroup=kind,
                showlegend=row == 1,
                customdata=[each["noise"] for each in levels],
                hovertemplate=f"%{{customdata}}<br>{metric.title} %{{y:{metric.form}}}<extra>{kind}</extra>",
                row=row,
                col=1,
            )
    for row, metric in enumerate(metrics, start=1):
        figure.update_yaxes(title=labelled(metric.title, metric.unit), row=row, col=1)
    figure.update_xaxes(title="strength (0: clean images)", row=len(metrics), col=1)
    which = "all images" if result["split"] == "all" else f"{result['split']} split"
    title = f"{result['bundle']} under corruptions: {result['data']}, {which}, {result['images']:,} images"
    figure.update_layout(
        title={
            "text": escape(visible(title)),
            "font": {"size": 15},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
        }
        | {"yanchor": "top", "pad": {"t": 12}},
        margin={"l": 64, "r": 12, "t": TITLED, "b": 48},
    )
    return laid_out(figure, HEIGHT * len(metrics) + TITLED)
