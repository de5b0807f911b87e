"""The search space of a study, with the code that it had when its candidates were trained."""

from __future__ import annotations

from nas.errors import StudyError
from nas.protocols import SearchSpace
from search_spaces import stored_space
from search_spaces.code import code_fingerprint
from search_spaces.recipes import space_of_study
from studies.store.opened import OpenedStudy

CODE = "space_code"
"""The key of the fingerprint among the facts about a study's origin."""


def space_code(name: str) -> str | None:
    """Returns the fingerprint of a user's own space; None for the project's own, which have versions."""
    return (code_fingerprint(name) or None) if ":" in name else None


def study_space(study: OpenedStudy, said: str | None = None) -> SearchSpace:
    """Returns a study's space.

    Args:
        study: the study.
        said: the space as a person names it now; see `search_spaces.stored_space`.

    Raises:
        ConfigError: it cannot be imported, or nobody asked for it.
        StudyError: it is a user's own, and its code is not that with which the study's candidates were trained.
    """
    config = study.config
    space = stored_space(config.space, said)
    stored, now = study.provenance.get(CODE), space_code(config.space)
    if stored is not None and stored != now:
        raise StudyError(
            f"the code of space {config.space!r} has changed since study {config.study!r} was trained with it "
            f"(fingerprint {now}, was {stored}); restore it, or search under another `study` name"
        )
    return space_of_study(space, config.task, config.class_weights, config.label_smoothing)
