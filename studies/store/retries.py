"""Calls that are repeated while the database cannot be reached."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from nas.errors import StorageError

PATIENCE_SECONDS = 60.0
"""The seconds for which a driver waits for a database that is gone."""

RETRY_SECONDS = 1.0
"""The seconds between its tries."""

P = ParamSpec("P")
T = TypeVar("T")


class Patience:
    """Whether the calls of the objects that share it wait for a database that is gone.

    Attributes:
        waits: True while a driver is at work; whoever only reads is told at once.
    """

    waits = False


class Patient(Protocol):
    """An object that shares a patience with others of its study."""

    @property
    def patience(self) -> Patience: ...


D = TypeVar("D", bound=Patient)


def patient(method: Callable[Concatenate[D, P], T]) -> Callable[Concatenate[D, P], T]:
    """Makes a method wait while a driver is at work: the call is repeated while the database cannot be reached.

    A call may have taken effect although its answer was lost, so these methods tolerate a second call.
    """

    @functools.wraps(method)
    def call(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return method(self, *args, **kwargs)
            except StorageError as error:
                cause = error.__cause__
                if isinstance(cause, StorageInternalError):  # Optuna wraps the error
                    cause = cause.__cause__
                gone = isinstance(cause, OperationalError | InterfaceError)
                if not self.patience.waits or not gone or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    return call
