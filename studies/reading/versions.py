"""What figures of a study come from, which tells whether they compare: versions of the training code, and the place
where latency was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nas.training.version import TRAINING_VERSION
from studies.reading.best import join_words

if TYPE_CHECKING:
    from nas.settings import StudyConfig
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


def latency_line(config: StudyConfig, limits: Iterable[str] = ()) -> str:
    """Returns how latency was measured; empty where it is neither an objective nor one of the `limits`."""
    if "latency" not in {*config.objective_names, *limits}:
        return ""
    if config.latency is None:
        return (
            "latency: of eager PyTorch, by an older version; it does not compare with that of exported programs "
            "(CHANGELOG.md)"
        )
    return f"latency: the time for one image, of a run on {config.latency.images}, {config.latency.place}"
