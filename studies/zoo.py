"""The bundles that skipnas ships, by name. ``python -m benchmarks.zoo`` makes them."""

from __future__ import annotations

import logging
from pathlib import Path

from nas.bundles.files import ARCHITECTURE

log = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "shipped"


def shipped() -> tuple[str, ...]:
    """Returns the names of the bundles that are shipped."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob(f"*/{ARCHITECTURE}")))


def bundle_folder(path: Path) -> Path:
    """Returns the folder of a bundle that a person names: that of a shipped one where there is no such folder."""
    if str(path) not in shipped():
        return path
    if path.exists():
        log.info("%s is taken for the one here, not for the bundle of this name that skipnas ships", path)
        return path
    return SHIPPED / str(path)
