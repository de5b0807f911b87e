"""What can be built: the search spaces, by the name that ``--space`` takes.

Knows nothing of search, Ray, SQL or plots, and imports torch only when a network is built or counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nas.errors import ConfigError
from search_spaces.unet.space import UNetSpace

if TYPE_CHECKING:
    from nas.protocols import SearchSpace

SPACES: Mapping[str, SearchSpace] = {space.name: space for space in (UNetSpace(),)}


def get_space(name: str) -> SearchSpace:
    """The space of that name. Raises ConfigError, which lists the known names."""
    if name not in SPACES:
        raise ConfigError(f"search space {name!r} is unknown; choose one of: {', '.join(SPACES)}")
    return SPACES[name]
