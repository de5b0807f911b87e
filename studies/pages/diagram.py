"""A U-Net drawn from its spec as a small SVG: stages, skips with their gates, resampling, the head."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape

from search_spaces.unet.spec import UNetSpec

BOX, TALL, STEP, SHIFT = 104, 34, 66, 30
WIDTH, LEFT, TOP = 660, 78, 40


def network_svg(spec: UNetSpec, gates: Sequence[Mapping[str, float]] = ()) -> str:
    """Draws the network as it is built.

    Args:
        spec: a spec of the space `unet`.
        gates: learned gates by level, shallow first; their means are written beside the skips.
    """
    left = [(LEFT + SHIFT * i, TOP + STEP * i) for i in range(spec.levels)]
    right = [(WIDTH - LEFT - BOX - SHIFT * i, TOP + STEP * i) for i in range(spec.depth)]
    drawn = ['<g class="wires">']
    drawn += _trunk(spec, left, right)
    drawn += _skips(spec, left, right, gates)
    drawn.append("</g>")
    for level, (x, y) in enumerate(left):
        learned = level < spec.learned
        text = f"{spec.block}, {spec.widths[level]}" if learned else f"Haar, {spec.widths[level]}"
        drawn += _box(x, y, text, f"{spec.kernels[level]}×{spec.kernels[level]}" if learned else "no weights", spec)
    for level, (x, y) in enumerate(right):
        extra = f" +{spec.extra_blocks}" if spec.extra_blocks else ""
        kernel = spec.kernels[level]
        drawn += _box(x, y, f"{spec.block}, {spec.rows[level]}{extra}", f"{kernel}×{kernel}", spec)
    height = TOP + STEP * spec.levels + 58
    drawn += _head(spec, left, right, height)
    drawn += _ends(spec, right)
    label = f"Diagram of a U-Net with {spec.levels} levels, fusion {spec.fusion}, gate {spec.gate}"
    return (
        f'<svg class="network" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(drawn)}</svg>'
    )


def _trunk(spec: UNetSpec, left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> list[str]:
    """Draws the way down the encoder, over the bottom, and up the decoder."""
    parts = []
    for (x, y), (below_x, below_y) in itertools.pairwise(left):
        parts.append(_arrow(x + 20, y + TALL, below_x - 10 + SHIFT - 20, below_y))
    if spec.levels > 1:
        (x, y), name = left[0], "full size" if spec.resampling == "none" else f"{spec.resampling} ½"
        parts.append(_text(x + 10, y + TALL + 20, name, "end"))
    if right:
        (x, y), (to_x, to_y) = left[-1], right[-1]
        if y == to_y:  # AddUNet: the decoder begins on the deepest level, from the state that the encoder leaves there
            middle = y + TALL + 18
            parts.append(
                f'<path d="M{x + BOX - 12} {y + TALL}V{middle}H{to_x + 12}V{to_y + TALL}" marker-end="url(#tip)"/>'
            )
        else:
            parts.append(
                f'<path d="M{x + BOX} {y + TALL // 2}H{to_x + BOX // 2}V{to_y + TALL}" marker-end="url(#tip)"/>'
            )
    for (x, y), (above_x, above_y) in zip(right[1:], right, strict=False):
        parts.append(_arrow(x + BOX - 20, y, above_x + BOX - SHIFT - 10 + 20, above_y + TALL))
    return parts


def _skips(
    spec: UNetSpec,
    left: Sequence[tuple[int, int]],
    right: Sequence[tuple[int, int]],
    gates: Sequence[Mapping[str, float]],
) -> list[str]:
    if spec.fusion == "none":
        return [_text(WIDTH // 2, TOP + 10, "no skips", "middle")] if right else []
    parts = []
    for level, ((x, y), (to_x, _)) in enumerate(zip(left, right, strict=False)):
        middle, line = (x + BOX + to_x) // 2, y + TALL // 2
        parts.append(f'<path class="skip" d="M{x + BOX} {line}H{to_x}" marker-end="url(#tip)"/>')
        if level == 0:
            minus = "x − r, skip r, " if spec.update == "subtractive" else ""
            parts.append(_text(middle, line - 16, f"{minus}{spec.fusion.replace('_', ' ')}", "middle"))
        if spec.fusion == "dense":
            between = sum(node.level == level for node in spec.nodes) - 1
            for index in range(between):
                at = x + BOX + (to_x - x - BOX) * (index + 1) // (between + 1)
                parts.append(f'<circle class="node" cx="{at}" cy="{line}" r="7"/>')
        elif spec.gate != "none":
            parts.append(f'<circle class="gate" cx="{middle}" cy="{line}" r="9"/>')
            parts.append(_text(middle, line + 4, "×", "middle"))
            if level < len(gates) and len(gates) == len(right):
                parts.append(_text(middle + 14, line + 16, f"{gates[level]['mean']:.2f}", "start"))
        if level == 0 and spec.gate != "none":
            parts.append(_text(middle - 14, line + 16, f"{spec.gate.replace('_', ' ')} gate", "end"))
    return parts


def _head(spec: UNetSpec, left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]], height: int) -> list[str]:
    if spec.tasks == "denoise":
        return []
    x, y = WIDTH // 2 - BOX // 2, height - TALL - 8
    hidden = f"{spec.head_hidden} hidden × {spec.head_width}" if spec.head_hidden else "linear"
    from_points = []
    if spec.head_attach in ("bottleneck", "all"):
        bottom_x, bottom_y = left[-1]
        from_points.append((bottom_x + 30, bottom_y + TALL))
    if spec.head_attach == "decoder":
        from_points.append((right[0][0] + BOX - 8, right[0][1] + TALL))
    if spec.head_attach == "all":
        from_points += [(rx + BOX - 8, ry + TALL) for rx, ry in right]
    wires = [
        f'<path class="to-head" d="M{px} {py}V{y + TALL // 2}H{x + BOX + 14 if px > WIDTH // 2 else x - 14}" '
        'marker-end="url(#tip)"/>'
        for px, py in from_points
    ]
    box = (
        f'<rect class="head" x="{x - 14}" y="{y}" width="{BOX + 28}" height="{TALL}" rx="17"/>'
        f"{_text(x + BOX // 2, y + 15, 'classification head', 'middle')}"
        f"{_text(x + BOX // 2, y + 28, hidden, 'middle', 'small')}"
    )
    return [f'<g class="wires">{"".join(wires)}</g>', box]


def _ends(spec: UNetSpec, right: Sequence[tuple[int, int]]) -> list[str]:
    line = TOP + TALL // 2
    parts = [
        f'<g class="wires">{_arrow(8, line, LEFT, line)}</g>',
        _text(8, line - 10, "noisy", "start"),
    ]
    if right and spec.tasks != "classify":
        x = right[0][0] + BOX
        name = "noise" if spec.prediction == "noise" else "image"
        parts += [f'<g class="wires">{_arrow(x, line, WIDTH - 8, line)}</g>', _text(WIDTH - 8, line - 10, name, "end")]
    if spec.columns == 2:
        parts.append(_text(LEFT, 16, f"2 columns, one a task; sharing: {spec.sharing.replace('_', ' ')}", "start"))
    return parts


def _box(x: int, y: int, first: str, second: str, spec: UNetSpec) -> list[str]:
    behind = f'<rect x="{x + 6}" y="{y - 6}" width="{BOX}" height="{TALL}" rx="5"/>' if spec.columns == 2 else ""
    return [
        f'{behind}<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="5"/>',
        _text(x + BOX // 2, y + 15, first, "middle"),
        _text(x + BOX // 2, y + 28, second, "middle", "small"),
    ]


def _arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    return f'<path d="M{x} {y}L{to_x} {to_y}" marker-end="url(#tip)"/>'


def _text(x: int, y: int, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'
