"""The image files of a folder, and everything there that is left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset(
    {".bmp", ".jfif", ".jpeg", ".jpg", ".npy", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The endings of image files, in small letters."""

ARRAY = ".npy"
"""The ending of arrays, which are images only where no other image files are: beside these they are labels, masks or
features."""

EVIDENCE = ".evidence.png"
"""The ending that ``denoise`` adds to the name of a restored image, for the picture of where the evidence for its class
lies: ``scan.tif.evidence.png``."""

SYSTEM_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "__pycache__",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
        "~snapshot",
    }
)
"""Folders that storage boxes, archives and systems make beside people's own, in small letters."""

SYSTEM_FILES = frozenset({"desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"})

NAMED = 3
"""The number of names that a line about left-out files gives of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files below a folder.

    Attributes:
        images: files whose names end as images do, in an order that is the same on every machine.
        hidden: hidden and system files and folders, whose contents nobody looked at.
        others: all other files.
    """

    images: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    def __add__(self, other: Listing) -> Listing:
        return Listing(
            images=self.images + other.images, hidden=self.hidden + other.hidden, others=self.others + other.others
        )

    def left_out(self) -> list[str]:
        """Returns a part of a sentence for each kind of left-out files: ``2 other files (.csv, .txt)``."""
        parts = []
        if files := sum(_files_in(path) for path in self.hidden):
            parts.append(f"{counted(files, 'hidden or system file')} ({_some(path.name for path in self.hidden)})")
        if self.others:
            endings = (EVIDENCE if is_evidence(path) else path.suffix.lower() or path.name for path in self.others)
            parts.append(f"{counted(len(self.others), 'other file')} ({_some(endings)})")
        return parts


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder of this name is hidden, or made by a system and not by people."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


def is_evidence(path: Path) -> bool:
    """Tells whether a file has the name of a picture of evidence, which is no image that anybody took."""
    name = path.name.lower()
    return name.endswith(EVIDENCE) and Path(name.removesuffix(EVIDENCE)).suffix in SUFFIXES


def list_folder(folder: Path, *, without: Path | None = None) -> Listing:
    """Lists a folder at any depth. Links to folders are followed, but no folder is entered twice.

    Folders that are reached without links come first, so that a link to one of them adds nothing.

    Args:
        folder: its own name may be a hidden one.
        without: a folder that is passed over in silence.

    Raises:
        OSError: a folder cannot be read.
    """
    entered = set() if without is None or not without.is_dir() else {_identity(without)}
    images: list[Path] = []
    hidden: list[Path] = []
    others: list[Path] = []
    folders, links = [folder], list[Path]()
    while folders or links:
        top = folders.pop() if folders else links.pop(0)
        if (identity := _identity(top)) in entered:
            continue
        entered.add(identity)
        for path in sorted(top.iterdir()):
            kind = _kind(path)
            if is_hidden(path.name):
                hidden.append(path)
            elif kind == "folder":
                (links if path.is_symlink() else folders).append(path)
            elif kind == "file" and _is_image(path):
                images.append(path)
            else:
                others.append(path)
    shown = images_among(images)
    others += set(images).difference(shown)
    return Listing(images=tuple(sorted(shown)), hidden=tuple(sorted(hidden)), others=tuple(sorted(others)))


def list_top(folder: Path) -> tuple[tuple[Path, ...], Listing]:
    """Returns the folders inside a folder, links to folders among them, and its own files. Raises OSError."""
    paths = sorted(folder.iterdir())
    shown = [path for path in paths if not is_hidden(path.name)]
    files = [path for path in shown if _kind(path) != "folder"]
    images = images_among([path for path in files if _kind(path) == "file" and _is_image(path)])
    listing = Listing(
        images=images,
        hidden=tuple(path for path in paths if is_hidden(path.name)),
        others=tuple(path for path in files if path not in images),
    )
    return tuple(path for path in shown if _kind(path) == "folder"), listing


def images_among(files: Sequence[Path]) -> tuple[Path, ...]:
    """Returns the images among files with their endings: without arrays where there are others."""
    others = tuple(path for path in files if path.suffix.lower() != ARRAY)
    return others or tuple(files)


def counted(number: int, noun: str) -> str:
    """Returns ``1 file`` or ``1,200 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_evidence(path)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _kind(path: Path) -> str:
    """Returns ``folder``, ``file``, or ``other`` for devices and pipes, which might never end.

    A link that leads nowhere counts as a file, so that whoever opens it says so.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _files_in(path: Path) -> int:
    """Returns the number of files in a folder at any depth, where it can be read; 1 for a file."""
    if path.is_dir() and not path.is_symlink():
        return sum(len(names) for _, _, names in os.walk(path))
    return 1


def _some(names: Iterable[str]) -> str:
    distinct = sorted(set(names))
    return ", ".join(distinct[:NAMED]) + (", ..." if len(distinct) > NAMED else "")
