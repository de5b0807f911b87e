"""Directories of tags that hang below a page of a TIFF: EXIF and GPS. They are copied, with their places told anew.

A directory holds, for each tag, a code, a type, a count, and the value or its place in the file (TIFF 6.0, section 2;
EXIF 3.0, section 4.6). Offsets are 4 bytes long, or 8 in a BigTIFF.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

EXIF, GPS, INTEROPERABILITY, MAKER_NOTE = 34665, 34853, 40965, 37500
DIRECTORIES: Mapping[int, str] = {EXIF: "EXIF", GPS: "GPS"}
"""The tags of a page that name the place of a directory."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""

LONG, LONG8 = 4, 16
MOST_TAGS = 1000
"""The most tags of a directory."""

Tag = tuple[int, int, int, "bytes | tuple[Tag, ...]"]
"""Code, type, count and content: bytes in the file's order, or the tags of a directory."""


class Readable(Protocol):
    """A file that is read at any place."""

    def seek(self, offset: int, /) -> int: ...

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Budget:
    """What the directories of one file may still hold, all pages together.

    Directories can name the same bytes many times, so that a small file could stand for any amount of memory.

    Attributes:
        tags: tags that may still be read.
        size: bytes of their values that may still be read.
    """

    tags: int = 20_000
    size: int = 2**24


@dataclass(frozen=True, slots=True)
class Form:
    """How numbers lie in a TIFF.

    Attributes:
        order: ``<`` or ``>``.
        big: whether it is a BigTIFF.
    """

    order: str
    big: bool

    @property
    def word(self) -> int:
        """The bytes of an offset."""
        return 8 if self.big else 4

    def offset(self, content: bytes | bytearray) -> int:
        return int(struct.unpack(f"{self.order}{'Q' if self.big else 'I'}", content[: self.word])[0])

    def packed(self, offset: int) -> bytes:
        return struct.pack(f"{self.order}{'Q' if self.big else 'I'}", offset)

    @property
    def _count(self) -> struct.Struct:
        return struct.Struct(f"{self.order}{'Q' if self.big else 'H'}")

    @property
    def _tag(self) -> struct.Struct:
        return struct.Struct(f"{self.order}HH{'Q8s' if self.big else 'I4s'}")

    def fields(self, file: Readable, offset: int) -> tuple[list[tuple[int, int, int, bytes]], int]:
        """Reads a directory as it is stored.

        Returns:
            Code, type, count and field of each tag, where a field is a value or its place; and the place of the offset
            of the next directory.

        Raises:
            ValueError, struct.error: the directory is damaged.
        """
        file.seek(offset)
        (count,) = self._count.unpack(file.read(self._count.size))
        if count > MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        found = [self._tag.unpack(file.read(self._tag.size)) for _ in range(count)]
        return found, offset + self._count.size + count * self._tag.size

    def directory(self, fields: Sequence[tuple[int, int, int, bytes]], following: int) -> bytes:
        """Returns a directory as it is stored, in the order of its codes."""
        packed = b"".join(self._tag.pack(*field) for field in sorted(fields))
        return self._count.pack(len(fields)) + packed + self.packed(following)

    def size(self, tags: int) -> int:
        """The bytes of a directory without what lies elsewhere."""
        return self._count.size + tags * self._tag.size + self.word


def read_directory(
    file: Readable, offset: int, form: Form, budget: Budget, *, inner: bool
) -> tuple[tuple[Tag, ...], bool]:
    """Reads the tags of a directory with their contents.

    A maker's note is left out, because it holds places in the file of which only the maker knows.

    Args:
        file: the file.
        offset: the place of the directory.
        form: the form of the file.
        budget: what may still be read; what is read is taken off.
        inner: whether it may name an interoperability directory, as EXIF does once. No other directory may.

    Returns:
        The tags, and whether it had a maker's note.

    Raises:
        ValueError, struct.error: the directory is damaged, or holds more than the budget.
    """
    if budget.tags <= 0:
        raise ValueError("the directories of the file hold too many tags")
    tags: list[Tag] = []
    noted = False
    fields, _ = form.fields(file, offset)
    budget.tags -= len(fields)
    for code, kind, count, field in fields:
        size = SIZES.get(kind, 0) * count
        if not 0 < size <= budget.size:
            raise ValueError(f"tag {code} of {size} bytes")
        if code == MAKER_NOTE:
            noted = True
        elif code == INTEROPERABILITY:
            if not inner:
                raise ValueError("an interoperability directory at a place where none may be")
            inner = False
            below, _ = read_directory(file, form.offset(field), form, budget, inner=False)
            tags.append((code, kind, count, below))
        else:
            if size > form.word:
                file.seek(form.offset(field))
                field = file.read(size)
                budget.size -= size
            if len(field) < size:
                raise ValueError(f"tag {code} is cut off")
            tags.append((code, kind, count, field[:size]))
    return tuple(tags), noted


def with_directories(content: bytes, pages: Sequence[Mapping[int, tuple[Tag, ...]]], form: Form) -> bytes:
    """Adds directories to the pages of a TIFF.

    They are appended, each behind a copy of the page's own directory that names them and takes its place.

    Args:
        content: the file.
        pages: the directories of its first pages, by the tags that name them.
        form: the form of the file.
    """
    made = bytearray(content)
    file = io.BytesIO(content)
    pointer = 8 if form.big else 4
    for directories in pages:
        fields, following = form.fields(file, form.offset(made[pointer:]))
        if directories:
            made += bytes(len(made) % 2)
            start = len(made)
            behind = bytearray()
            size = form.size(len(fields) + len(directories))
            for code, tags in directories.items():
                place = start + size + len(behind)
                behind += _laid_out(tags, place, form)
                fields.append((code, LONG8 if form.big else LONG, 1, form.packed(place)))
            made += form.directory(fields, form.offset(made[following:])) + behind
            made[pointer : pointer + form.word] = form.packed(start)
            following = start + size - form.word
        pointer = following
    return bytes(made)


def _laid_out(tags: Sequence[Tag], start: int, form: Form) -> bytes:
    """Returns a directory, with all that belongs to it behind it, for its place in a file."""
    fields, behind = [], bytearray()
    for code, kind, count, content in tags:
        place = start + form.size(len(tags)) + len(behind)
        if isinstance(content, tuple):
            behind += _laid_out(content, place, form)
            field = form.packed(place)
        elif len(content) <= form.word:
            field = content.ljust(form.word, b"\0")
        else:
            behind += content
            field = form.packed(place)
        behind += bytes(len(behind) % 2)
        fields.append((code, kind, count, field))
    return form.directory(fields, 0) + bytes(behind)
