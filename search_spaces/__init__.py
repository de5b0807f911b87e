"""The search spaces, by the name that ``--space`` takes.

This room knows nothing of search, Ray, SQL or plots. It imports torch only to build or count a network.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ConfigError
from search_spaces.own import OwnSpace
from search_spaces.unet.space import RESTRICTIONS, UNetSpace

if TYPE_CHECKING:
    from nas.protocols import SearchSpace

SPACES: Mapping[str, SearchSpace] = {name: UNetSpace(name=name) for name in RESTRICTIONS}


def get_space(name: str) -> SearchSpace:
    """Returns the space of that name: one of the project's, or a user's own as ``module:object``.

    The module is imported from sys.path or the current folder, which runs its code. Use `known_space` for a name that
    does not come from the user.

    Raises:
        ConfigError: the name is unknown, or it leads to no space.
    """
    return _own_space(name) if ":" in name else known_space(name)


def stored_space(name: str, said: str | None = None) -> SearchSpace:
    """Returns the space that a stored study names.

    A database may come from a stranger, so the code of an own space is only imported when the user said its name too.

    Args:
        name: the space of the study.
        said: the space that the user named; None for none.

    Raises:
        ConfigError: the user has not named the own space, or see `get_space`.
    """
    if ":" in name and said != name:
        raise ConfigError(
            f"the study has a search space of its own, {name!r}, whose code would be imported; if you trust it, say so "
            f"with `space` {name}"
        )
    return get_space(name)


def known_space(name: str) -> SearchSpace:
    """Returns the project's own space of that name, and imports nothing. Raises ConfigError, which lists the known
    names."""
    if name not in SPACES:
        raise ConfigError(
            f"search space {name!r} is unknown; choose one of: {', '.join(SPACES)} (or your own: module:object)"
        )
    return SPACES[name]


def _where(error: Exception) -> str:
    """Returns file and line of a module's error, for its author, or "" when the error does not come from a file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = last.filename not in (__file__, importlib.__file__) and not last.filename.startswith("<")
    return f", {last.filename} line {last.lineno}" if own else ""


def _own_space(name: str) -> SearchSpace:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # it stays there, so that Ray's workers find the module too
    try:
        space = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"search space {name!r} cannot be imported ({type(error).__name__}: {error}{_where(error)}); "
            "give module:object with a module on sys.path or in the current folder"
        ) from error
    return OwnSpace.of(space, name)
