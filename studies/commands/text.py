"""Tables as plain lines, which need no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns a line for the header and for each row, with every column as wide as its widest cell."""
    cells = [tuple(header), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
