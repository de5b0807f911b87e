"""Lists of image files with the class of each: tables in CSV."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nas.data.folders import Column, ImagePage, labelled
from nas.data.listing import SUFFIXES
from nas.data.preparation import Preparation
from nas.data.raw import MISSING, PART_NAMES, PARTS, TRAIN, RawData
from nas.data.white import White
from nas.errors import DataError
from nas.words import visible

log = logging.getLogger(__name__)

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "target", "category"),
    "split": ("split", "set", "subset", "part"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "case", "case_id"),
}
"""What a column may be called, in small letters and with ``_`` for spaces."""

NEEDED = ("path", "label")
SEPARATORS = ",;\t"
MOST_BYTES = 2**28
"""The largest size of a list; a million images take about a quarter of it."""


def read_csv(
    argument: str,
    _root: Path,
    *,
    group_by: str | None = None,
    wanted: Preparation | None = None,
    white: White = White(),  # noqa: B008 (it is frozen)
) -> RawData:
    """Reads ``csv:FILE``: a table with a header, and a row with the path and the label of each image.

    Paths are relative to the folder of the table, and stay below it. A column of splits (train, val, test) and one of
    groups, whose images stay in one split, are used where there are any; `COLUMNS` has their names. Values are
    separated by commas, semicolons or tabs. Images are brought to one size as those of ``folder:DIR``.

    Args:
        argument: the file.
        group_by, wanted, white: see `nas.data.splits.load`.

    Raises:
        DataError: the table cannot be read, a row is not as described, or an image is damaged.
    """
    source, path = f"csv:{argument}", Path(argument)
    header, rows = _table(path, source)
    places = _places(header, source)
    if group_by is not None and "group" in places:
        raise DataError(
            f"{source}: column {header[places['group']]!r} groups the images already; leave `group_by` out, or rename "
            "the column"
        )
    files: list[ImagePage] = []
    names: list[str] = []
    groups: list[str] = []
    known: dict[Path, tuple[int, dict[str, str]]] = {}
    for line, row in rows:
        where = f"{source}: line {line}"
        if len(row) != len(header):
            raise DataError(f"{where} has {len(row)} values, the header has {len(header)}; mend it")
        cell = {name: row[place].strip() for name, place in places.items()}
        if empty := [name for name, text in cell.items() if not text]:
            raise DataError(f"{where} has no {empty[0]} ({header[places[empty[0]]]!r}); fill it in, or remove the line")
        if missing := [name for name, text in cell.items() if text.lower() in MISSING]:
            raise DataError(
                f"{where}: {missing[0]} '{visible(cell[missing[0]])}' stands for a missing value; fill it in, or "
                "remove the line"
            )
        label = cell["label"]
        if "|" in label:
            raise DataError(f"{where}: '{visible(label)}' names several classes, and a network names one; keep one")
        file = _file(cell["path"], path.parent, where)
        first, before = known.setdefault(file, (line, cell))
        if other := [name for name in ("label", "split", "group") if cell.get(name) != before.get(name)]:
            here, there = (visible(each[other[0]]) for each in (cell, before))
            raise DataError(
                f"{where}: {visible(cell['path'])} is {here!r} here and {there!r} in line {first}; keep one of them"
            )
        if first != line:
            continue
        files.append(ImagePage(path=file, part=_part(cell.get("split"), where), name=cell["path"]))
        names.append(label)
        groups.append(cell.get("group", ""))
    classes = _classes(names, source)
    if strangers := sorted(set(names) - {name for file, name in zip(files, names, strict=True) if file.part == TRAIN}):
        raise DataError(f"{source}: class '{visible(strangers[0])}' is not in train; add images of it, or remove it")
    if len(classes) < 2:
        raise DataError(f"{source}: {len(classes)} class(es), classification needs at least 2; use images:DIR without")
    log.info("%s: %s", source, ", ".join(f"{name} from column {header[place]!r}" for name, place in places.items()))
    return labelled(
        source,
        files,
        [classes.index(name) for name in names],
        classes,
        group_by=group_by,
        column=Column(name=header[places["group"]], values=groups) if "group" in places else None,
        wanted=wanted,
        white=white,
    )


def _table(path: Path, source: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header of a table, and its rows with their lines; empty lines are left out."""
    if not path.is_file():
        found = "is no regular file" if path.exists() else "there is no such file"
        raise DataError(f"{source}: {found}; give a .csv file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{source}: has more than {MOST_BYTES:,} bytes; a list of images is shorter")
        text = path.read_text("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max(SEPARATORS, key=first.count)
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); give a file that can be") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: is no table of comma-separated values in UTF-8 ({error}); save it as one") from None
    if len(rows) < 2:
        raise DataError(f"{source}: has no rows; give a header, and a row with path and label for each image")
    return [cell.strip() for cell in rows[0][1]], rows[1:]


def _places(header: Sequence[str], source: str) -> dict[str, int]:
    """Returns the place of each column that is used."""
    plain = [cell.lower().replace(" ", "_") for cell in header]
    found: dict[str, int] = {}
    for name, known in COLUMNS.items():
        places = [place for place, cell in enumerate(plain) if cell in known]
        if len(places) > 1:
            both = " and ".join(f"'{visible(header[place])}'" for place in places[:2])
            raise DataError(f"{source}: columns {both} may both be the {name}; rename one of them")
        if places:
            found[name] = places[0]
        elif name in NEEDED:
            raise DataError(
                f"{source}: no column of the header ({', '.join(visible(cell) for cell in header[:8])}) is the {name}; "
                f"call it {name}"
            )
    return found


def _file(text: str, folder: Path, where: str) -> Path:
    """Returns the image file of a row, which lies below the folder of the table."""
    path = folder / text.replace("\\", "/")
    shown = visible(text)
    if "\0" in text or ".." in path.parts[len(folder.parts) :] or not path.is_relative_to(folder):
        raise DataError(f"{where}: {shown} is not below the folder of the table; put the table beside the images")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{where}: {shown} is no image; supported are {', '.join(sorted(SUFFIXES))}")
    if not path.is_file():
        raise DataError(f"{where}: {shown} does not exist; paths are relative to the folder of the table")
    return path


def _classes(labels: Iterable[str], source: str) -> list[str]:
    """Returns the classes in their order: that of their numbers, when all of them are numbers.

    Raises:
        DataError: two of them are the same number.
    """
    classes = sorted(set(labels))
    written: dict[float, str] = {}
    for name in classes:
        with contextlib.suppress(ValueError):
            other = written.setdefault(float(name), name)
            if other != name:
                raise DataError(
                    f"{source}: labels '{visible(other)}' and '{visible(name)}' are one number; write it in one way"
                )
    return [written[number] for number in sorted(written)] if len(written) == len(classes) else classes


def _part(text: str | None, where: str) -> int:
    """Returns the split that a row names; training where the table has no splits."""
    if text is None:
        return TRAIN
    if text.lower() not in PART_NAMES:
        raise DataError(f"{where}: split '{visible(text)}'; give {', '.join(PARTS)}")
    return PART_NAMES[text.lower()]
