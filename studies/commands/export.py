"""A bundle written: that of a study's choice, or an existing one again in further formats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.bundles.files import ARCHITECTURE
from nas.bundles.formats import NOTHING_FURTHER, Further
from nas.errors import ConfigError, NoStudiesError, StudyError
from studies.bundles import export_again, export_choice
from studies.reading.study import StudyReader
from studies.settings import NO_LIMITS, STORAGE_VARIABLE, SizeLimits
from studies.zoo import shipped, unknown

KNEE = "knee"


def export(
    name: str,
    to: Path,
    *,
    pick: str = KNEE,
    prefer: Mapping[str, float] | None = None,
    limits: SizeLimits = NO_LIMITS,
    further: Further = NOTHING_FURTHER,
    licence: str | None = None,
    data_root: Path | None = None,
    own_space: str | None = None,
    storage: str | None = None,
) -> dict[str, Any]:
    """Writes a bundle.

    Args:
        name: the folder of a bundle, or the name of a study or of a bundle that skipnas ships, looked up in this order.
        to: the folder to make.
        storage: where the study lies.
        pick, prefer, limits, further, licence, data_root, own_space: see `export_choice`.

    Returns:
        See `export_choice`.

    Raises:
        ConfigError: nothing has this name, or a setting for studies is given for a bundle. Others: see
            `export_choice` and `export_again`.
    """
    study = None if _is_bundle(name) else _study(name, storage)
    if study is not None:
        return export_choice(
            study,
            to,
            pick=pick,
            prefer=prefer,
            limits=limits,
            data_root=data_root,
            licence=licence,
            further=further,
            own_space=own_space,
        )
    given = {
        "pick": pick != KNEE,
        "prefer": prefer,
        "quantize": further.quantize,
        "data_root": data_root,
        "space": own_space,
        "storage": storage and storage != os.environ.get(STORAGE_VARIABLE),  # the variable is for other commands too
        **{f"max_{limit}": True for limit in limits.upper},
    }
    for setting in (setting for setting, value in given.items() if value):
        raise ConfigError(f"`{setting}` is for a study, and {name} is a bundle; leave it out")
    return export_again(Path(name), to, further=further, licence=licence)


def _is_bundle(name: str) -> bool:
    try:
        return (Path(name) / ARCHITECTURE).is_file()
    except OSError:  # too long for a file's name, or in a folder that nobody may enter
        return False


def _study(name: str, storage: str | None) -> StudyReader | None:
    """Opens a study; returns None where there is none and a bundle that skipnas ships has the name.

    Raises:
        ConfigError: nothing has this name. StorageError: the database cannot be read.
    """
    try:
        return StudyReader.open(name, storage)
    except (NoStudiesError, StudyError) as error:
        if name in shipped():
            return None
        raise ConfigError(f"{error}; and {unknown(name)}") from None
