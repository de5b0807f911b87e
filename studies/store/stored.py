"""Types of columns whose values are looked at when they are read, because a database may come from a stranger.

SQLite keeps any value in any column, and JSON holds anything. A value of another type would be a traceback far from
here, or a wrong figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import JSON, BigInteger, Dialect, Double, LargeBinary, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from nas.errors import StorageError, in_short
from nas.outcome import Outcome

LATEST = 1e11
"""No time of a record is later, in seconds since the epoch. A calendar ends far before the largest number."""


class Stored(TypeDecorator[Any]):
    """A column whose values are looked at when they are read.

    Args:
        column: the type of the column.
        kind: what a value is, in words.
        right: tells whether a value that is not NULL is one.
    """

    impl = Text
    cache_ok = True

    def __init__(self, column: TypeEngine[Any], kind: str, right: Callable[[Any], bool]) -> None:
        super().__init__()
        self.column, self.kind, self.right = column, kind, right
        self.impl = column  # type: ignore[assignment]

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Returns a function that reads a value.

        The function raises StorageError for a value of another kind.
        """
        read = self.impl_instance.result_processor(dialect, coltype)
        right, kind = self.right, self.kind

        def checked(value: Any) -> Any:
            if value is None:
                return None
            try:
                found = value if read is None else read(value)
                fine = found is None or right(found)
            except (ValueError, TypeError, RecursionError, OverflowError):
                fine = False
            if not fine:
                raise StorageError(
                    f"the database holds {in_short(repr(value)[:200])} where {kind} belongs: another program wrote it; "
                    "mend the record, or delete its study"
                )
            return found

        return checked


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number, and no truth value."""
    # An integer of 400 digits raises OverflowError.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(float(value))


def is_numbers(value: object) -> bool:
    """Tells whether a value is an object of finite numbers by name. Older versions wrote null for what they lacked."""
    return isinstance(value, dict) and all(each is None or is_number(each) for each in value.values())


def _is_outcome(value: str) -> bool:
    return isinstance(Outcome.read(value), Outcome)


def text(length: int | None = None) -> Stored:
    """Returns the type of a text of at most `length` characters."""
    return Stored(Text() if length is None else String(length), "a text", lambda value: isinstance(value, str))


INTEGER = Stored(BigInteger(), "a whole number", lambda value: isinstance(value, int) and abs(value) < 2**63)
REAL = Stored(Double(), "a number", lambda value: isinstance(value, (int, float)))
TIME = Stored(Double(), "a time", lambda value: is_number(value) and 0 <= value < LATEST)
ARRAY = Stored(LargeBinary(), "an array", lambda value: isinstance(value, bytes) and len(value) % 4 == 0)
OBJECT = Stored(JSON(none_as_null=True), "a JSON object", lambda value: isinstance(value, dict))
NUMBERS = Stored(JSON(none_as_null=True), "numbers by name", is_numbers)
LIST_OF_NUMBERS = Stored(
    JSON(none_as_null=True),
    "a list of numbers by name",
    lambda value: isinstance(value, list) and all(map(is_numbers, value)),
)
OUTCOME = Stored(String(32), "the end of a trial", _is_outcome)
