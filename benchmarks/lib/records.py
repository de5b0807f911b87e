"""A file of records, one a line, to which an experiment adds as it goes, so that it measures nothing twice.

Only one process writes to it. An experiment may be stopped at any moment: a line that was cut short is passed over when
the file is read, and its record is measured again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.types import canonical_json, digest_of

Record = Mapping[str, Any]


def read(path: Path) -> dict[str, Record]:
    """Reads finished records by key. A line that is no record (cut short, or about a session) is passed over."""
    records: dict[str, Record] = {}
    for line in _lines(path):
        if "key" in line:
            records[line["key"]] = line
    return records


def sessions(path: Path) -> list[Record]:
    """Reads what `note_session` kept, in order."""
    return [line["session"] for line in _lines(path) if "session" in line]


def append(path: Path, record: Record) -> None:
    """Adds one line and waits until it is on the disk. A line that was cut short before is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        cut_short = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut_short = file.read(1) != b"\n"
        file.write(b"\n" * cut_short + canonical_json(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def note_session(path: Path, about: Record) -> None:
    """Keeps when and where the records that follow were made."""
    append(path, {"session": about})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def key_of(what: Record) -> str:
    """Returns the key of the record of a description."""
    return digest_of(canonical_json(what))


def measured(asked: Sequence[Record], path: Path, measure: Callable[[Record], Record]) -> list[Record]:
    """Returns the records of all that is asked for, in its order.

    Args:
        asked: descriptions, each of which identifies its record.
        path: the file; a record that it lacks is measured and added to it.
        measure: makes the record of a description.
    """
    done = dict(read(path))
    for what in asked:
        key = key_of(what)
        if key not in done:
            done[key] = {"key": key, **measure(what)}
            append(path, done[key])
            print(f"{len(done)}: {canonical_json(what)}", file=sys.stderr)
    return [done[key_of(what)] for what in asked]
