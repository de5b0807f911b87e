"""A small SVG of the skip gates by depth: each setting is a panel, each task a line with bars for 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.claims.results import Results
from benchmarks.lib.stats import Interval, mean_interval

FIGURE = "claims-gates.svg"
"""The name of its file."""

COLOURS = ("#1f4e8c", "#b34700", "#2f7d32")
"""They are dark enough for white paper, and differ in lightness and marker as well as in hue."""

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 42
COLUMNS = 2
LEGEND = 34

Panel = Mapping[str, Sequence[Interval]]
"""The gates of each task, shallow first."""


def gates_figure(results: Results) -> str:
    """Draws the figure of claim b."""
    lines = {
        "denoising alone": "addunet, denoising alone",
        "joint, head at bottleneck": "addunet",
        "joint, head at decoder end": "addunet, head at decoder end",
    }
    panels = {}
    for setting in results.plan.settings:
        panel = {}
        for label, network in lines.items():
            by_seed = list(results.gates(network, setting).values())
            if by_seed:
                panel[label] = [mean_interval(level) for level in zip(*by_seed, strict=True)]
        panels[setting.name] = panel
    return gates_svg(panels)


def gates_svg(panels: Mapping[str, Panel]) -> str:
    """Draws one panel for each setting. Every panel has its own scale, which includes 1, where gates start."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * WIDTH, LEGEND + rows * HEIGHT
    tasks = list(dict.fromkeys(task for panel in panels.values() for task in panel))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#1a1a1a">',
        "<title>Learned skip gates by depth</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    x = float(LEFT)
    for index, task in enumerate(tasks):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<line x1="{x:.0f}" y1="18" x2="{x + 26:.0f}" y2="18" stroke="{colour}" stroke-width="2"/>')
        parts.append(_marker(index, x + 13, 18.0))
        parts.append(f'<text x="{x + 32:.0f}" y="22">{escape(task)}</text>')
        x += 60 + 6.4 * len(task)
    for index, (title, panel) in enumerate(panels.items()):
        parts.append(
            f'<g transform="translate({index % COLUMNS * WIDTH} {LEGEND + index // COLUMNS * HEIGHT})">'
            + "".join(_panel(title, panel, tasks))
            + "</g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, panel: Panel, tasks: Sequence[str]) -> list[str]:
    depth = max((len(gates) for gates in panel.values()), default=0)
    ends = [1.0] + [v for gates in panel.values() for g in gates for v in (g.mean, g.low, g.high) if v == v]
    margin = 0.08 * (max(ends) - min(ends)) or 0.1
    low, high = min(ends) - margin, max(ends) + margin
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at_x(level: int) -> float:
        return LEFT + wide * (level + 0.5) / max(depth, 1)

    def at_y(value: float) -> float:
        return TOP + tall * (high - value) / (high - low)

    parts = [
        f'<text x="{LEFT + wide / 2:.0f}" y="22" text-anchor="middle" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{tall}" fill="none" stroke="#666666"/>',
        f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">skip, from shallow to deep</text>',
        f'<text transform="translate(13 {TOP + tall / 2:.0f}) rotate(-90)" text-anchor="middle">gate</text>',
        f'<line x1="{LEFT}" y1="{at_y(1.0):.1f}" x2="{LEFT + wide}" y2="{at_y(1.0):.1f}" '
        'stroke="#999999" stroke-dasharray="4 3"/>',
    ]
    for tick in _ticks(low, high):
        y = at_y(tick)
        parts.append(f'<line x1="{LEFT - 4}" y1="{y:.1f}" x2="{LEFT}" y2="{y:.1f}" stroke="#666666"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for level in range(depth):
        parts.append(f'<text x="{at_x(level):.1f}" y="{TOP + tall + 16}" text-anchor="middle">{level + 1}</text>')
    for task, gates in panel.items():
        index = tasks.index(task)
        colour = COLOURS[index % len(COLOURS)]
        shift = 7.0 * (index - (len(tasks) - 1) / 2)
        points = [(at_x(level) + shift, at_y(gate.mean)) for level, gate in enumerate(gates)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for (x, y), gate in zip(points, gates, strict=True):
            if gate.low == gate.low:
                parts.append(
                    f'<line x1="{x:.1f}" y1="{at_y(gate.low):.1f}" x2="{x:.1f}" y2="{at_y(gate.high):.1f}" '
                    f'stroke="{colour}" stroke-width="1.5"/>'
                )
            parts.append(_marker(index, x, y))
    return parts


def _marker(index: int, x: float, y: float) -> str:
    colour = COLOURS[index % len(COLOURS)]
    if index % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    if index % 3 == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f} l5 9 h-10 z" fill="{colour}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Chooses between 3 and 7 round values inside the range."""
    for exponent in range(2, -5, -1):
        for base in (5.0, 2.0, 1.0):
            step = base * 10.0**exponent
            first, last = -(-low // step), high // step
            if last - first + 1 >= 3:
                return [round(i * step, 6) for i in range(int(first), int(last) + 1)]
    return []
