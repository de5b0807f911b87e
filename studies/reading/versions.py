"""Whether the figures of a study compare: which versions of the training code they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nas.training.version import TRAINING_VERSION
from studies.reading.best import join_words

if TYPE_CHECKING:
    from studies.store.ledger import SqlLedger


def training_versions(ledger: SqlLedger) -> dict[str, dict[int, int]]:
    """Under ``trials`` and ``confirming runs``: version of the training code -> how many it trained to an end."""
    runs = Counter(run.training_version for run in ledger.confirmations())
    return {"trials": ledger.training_versions(), "confirming runs": dict(sorted(runs.items()))}


def versions_line(trained: Mapping[str, Mapping[int, int]]) -> str:
    """What there is to know of `training_versions` before figures are compared; empty when all are of this version."""
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
