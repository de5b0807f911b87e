"""The worked examples of docs/extending.md, which a test applies to a scratch copy of the product.

The heading of an example ends with its number of files in brackets. Its edits are lines that name a place, such as
"In `nas/data/noise.py`, before `def parse_noise`:", with the code below. The code under "It works:" runs afterwards.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"

SECTION = re.compile(r"^## (?P<title>.+?) \((?P<files>\d) files?\)$(?P<text>.*?)(?=^## |\Z)", re.M | re.S)
BLOCK = re.compile(r"(?P<lead>[^\n]+):\n\n```python\n(?P<code>.*?)```", re.S)
PLACE = re.compile(r"In `(?P<file>[^`]+)`, (?:(?P<how>before|after|in place of) `(?P<anchor>[^`]+)`|at the end)$")


@dataclass(frozen=True)
class Example:
    """A section of the page. `edits` are (file, how, anchor, code); `check` is a program that fails without them."""

    title: str
    files: int
    edits: tuple[tuple[str, str, str, str], ...]
    check: str

    def apply(self, root: Path) -> None:
        for name, how, anchor, code in self.edits:
            file = root / name
            text = file.read_text() if file.exists() else ""
            if how == "new":
                file.write_text(f"{text}\n\n{code}" if text else code)
                continue
            lines = text.splitlines(keepends=True)
            found = [number for number, line in enumerate(lines) if anchor in line]
            assert len(found) == 1, f"{name} has {len(found)} lines with {anchor!r}"
            first = found[0] + (how == "after")
            lines[first : found[0] + (how != "before")] = [code]
            file.write_text("".join(lines))


def examples() -> Iterator[Example]:
    for section in SECTION.finditer(PAGE.read_text()):
        edits, check = [], ""
        for block in BLOCK.finditer(section["text"]):
            if block["lead"].endswith("It works"):
                check = block["code"]
            elif place := PLACE.search(block["lead"]):
                edits.append((place["file"], place["how"] or "new", place["anchor"] or "", block["code"]))
            else:
                raise AssertionError(f"{section['title']}: {block['lead']!r} names no place for its code")
        yield Example(section["title"], int(section["files"]), tuple(edits), check)


EXAMPLES = {example.title: example for example in examples()}


def copy_product(folder: Path) -> None:
    """Copies what a change of the product may touch."""
    for name in ("nas", "search_spaces", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app_cli.py", folder)
