"""What can be built: the search spaces, by the name that ``--space`` takes.

Knows nothing of search, Ray, SQL or plots, and imports torch only when a network is built or counted.
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
    """The space of that name, or a user's own: ``module:object``, imported from sys.path or the current folder.

    Importing runs the module, so a name that is not the user's own is looked up with `known_space`.

    Raises:
        ConfigError: an unknown name, or one that leads to no space.
    """
    return _own_space(name) if ":" in name else known_space(name)


def known_space(name: str) -> SearchSpace:
    """The project's own space of that name; imports nothing. Raises ConfigError, which lists the known names."""
    if name not in SPACES:
        raise ConfigError(
            f"search space {name!r} is unknown; choose one of: {', '.join(SPACES)} (or your own: module:object)"
        )
    return SPACES[name]


def _where(error: Exception) -> str:
    """The line of a module that raised, for its author; empty when it is not of a file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = last.filename not in (__file__, importlib.__file__) and not last.filename.startswith("<")
    return f", {last.filename} line {last.lineno}" if own else ""


def _own_space(name: str) -> SearchSpace:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # stays, so that Ray's workers find the module too
    try:
        space = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"search space {name!r} cannot be imported ({type(error).__name__}: {error}{_where(error)}); "
            "give module:object with a module on sys.path or in the current folder"
        ) from error
    return OwnSpace.of(space, name)
