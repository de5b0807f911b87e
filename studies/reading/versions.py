"""The versions of the training code behind the figures of a study, which tell whether the figures compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nas.training.version import TRAINING_VERSION
from studies.reading.best import join_words

if TYPE_CHECKING:
    from studies.reading.study import StudyReader


def training_versions(study: StudyReader) -> dict[str, dict[int, int]]:
    """Returns, under ``trials`` and ``confirming runs``, version of the training code -> number of trained ones."""
    runs = Counter(run.training_version for run in study.progress.confirmations())
    return {"trials": study.training_versions(), "confirming runs": dict(sorted(runs.items()))}


def versions_line(trained: Mapping[str, Mapping[int, int]]) -> str:
    """Returns a warning about `training_versions` for a comparison of figures; empty when all are of this version."""
    if {version for versions in trained.values() for version in versions} <= {TRAINING_VERSION}:
        return ""
    told = [
        f"version {version} trained {count} {what if count > 1 else what.removesuffix('s')}"
        for what, versions in trained.items()
        for version, count in versions.items()
    ]
    return (
        f"training code: {join_words(told)}, and this is version {TRAINING_VERSION}; "
        "figures of different versions do not compare (CHANGELOG.md)"
    )
