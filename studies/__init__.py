"""Studies: the data that searches keep, and the pages that people look at.

In a notebook::

    from studies import open_study

    study = open_study("digits-gaussian-50")
    study.trials()      # a data frame, one row for each trial
    study.figure("front-psnr-accuracy")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.notebook import Study, open_study

__all__ = ["Study", "open_study"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # it is imported late, so that commands without figures do not load them
        from studies import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'studies' has no attribute {name!r}")
