"""The bundles that skipnas ships, by name. ``python -m benchmarks.zoo`` makes them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nas.bundles.files import ARCHITECTURE
from nas.errors import BundleError

log = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "shipped"


def shipped() -> tuple[str, ...]:
    """Returns the names of the bundles that are shipped."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob(f"*/{ARCHITECTURE}")))


def unknown(name: str) -> str:
    """Says that a name is that of no bundle, and which names are."""
    known = f" ({', '.join(names)})" if (names := shipped()) else ""
    return f"{name!r} is neither the folder of a bundle nor a bundle that skipnas ships{known}"


def bundle_folder(path: Path) -> Path:
    """Returns the folder of a bundle that a person names: that of a shipped one where there is no such folder.

    Raises:
        BundleError: a single word is neither.
    """
    if str(path) not in shipped():
        if str(path) == path.name and not os.path.lexists(path):
            raise BundleError(f"{unknown(path.name)}; give one of these")
        return path
    if path.exists():
        log.info("%s is taken for the one here, not for the bundle of this name that skipnas ships", path)
        return path
    return SHIPPED / str(path)
