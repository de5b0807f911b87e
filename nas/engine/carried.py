"""A value that reaches a worker together with the places of the driver's modules."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle


@dataclass(frozen=True, slots=True)
class Carried:
    """A value whose class may be of a module of the user's own. Unpickled, it is the value itself."""

    value: Any

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _arrive, (list(sys.path), cloudpickle.dumps(self.value))


def _arrive(places: Sequence[str], payload: bytes) -> Any:
    # They come last, so that no file there hides a module of Python's or of a library.
    sys.path += [place for place in places if place not in sys.path]
    return pickle.loads(payload)
