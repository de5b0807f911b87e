"""The data set of a study, loaded again as the search saw it."""

from __future__ import annotations

from pathlib import Path

from nas.data.splits import Dataset, load
from nas.data.white import White
from nas.errors import StudyError
from studies.reading.study import StudyReader


def study_data(study: StudyReader, root: Path | None = None) -> Dataset:
    """Loads the data set of a study and checks it against its fingerprint.

    Raises:
        StudyError: the data has changed since the study was made.
        DataError: the data cannot be read.
    """
    config = study.config
    root = root or path_or_none(study.provenance.get("data_root"))
    # The fingerprint tells whether a study's data is what it was, whatever is known of white.
    white = White(given=config.white_level, ask=False)
    data = load(
        config.data, root=root, subset=config.subset, group_by=config.group_by, pair_by=config.pair_by, white=white
    )
    if data.fingerprint != config.fingerprint:
        raise StudyError(
            f"the data of study {config.study!r} ({config.data}) has changed: fingerprint {data.fingerprint}, "
            f"was {config.fingerprint}; restore it, or start a new study"
        )
    return data


def path_or_none(text: str | None) -> Path | None:
    return None if text is None else Path(text)
