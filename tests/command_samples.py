"""What tests of the commands share: where things are, and what a command said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
"""Real images beside the project; tests that want them skip where they are not."""


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Studied:
    """A finished search: its folder (with runs/studies.db), its study's name, and what it said."""

    folder: Path
    study: str
    said: Said


SEARCH = ["search", "--trials", "4", "--epochs", "2", "--subset", "200", "--max-macs", "400000", "--study", "small"]
