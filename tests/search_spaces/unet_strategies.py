"""What hypothesis draws: tasks, specs and points of the space ``unet``."""

from typing import Any

from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas.types import Task
from search_spaces.unet.spec import CHOICES, RANGES, UNetSpec

DIGITS = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
BASE: dict[str, Any] = {
    "levels": 3,
    "width": 4,
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "average",
    "block": "conv",
    "norm": "none",
    "kernel": 3,
}
"""A small U-Net; tests change what they are about."""


def tasks(side: int = 40) -> st.SearchStrategy[Task]:
    """Tasks with images of up to `side` pixels, a third of them without classes."""
    return st.builds(
        Task,
        channels=st.sampled_from((1, 3)),
        classes=st.sampled_from((0, 2, 10)),
        height=st.integers(1, side),
        width=st.integers(1, side),
        noise=st.sampled_from(("gaussian:50", "none")),
    )


def specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[UNetSpec]:
    """Every valid spec; a field that is given in `fixed` is drawn from there."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
        **{name: st.integers(low, high) for name, (low, high) in RANGES.items()},
        "head_dropout": st.floats(0, 0.9),
        # Without this most specs would be of one task, and most of the rest have two columns.
        "tasks": st.sampled_from(("joint",) * 6 + ("denoise", "classify")),
    }
    return st.builds(_spec, **(fields | fixed))


def small_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[UNetSpec]:
    """Specs that are quick to build and run; dropout leaves something of a small batch."""
    small: dict[str, st.SearchStrategy[Any]] = {
        "levels": st.integers(1, 4),
        "width": st.integers(4, 7),
        "extra_blocks": st.integers(0, 2),
        "head_width": st.integers(8, 12),
        "head_dropout": st.floats(0, 0.5),
    }
    return specs(**(small | fixed))


def points(distributions: dict[str, BaseDistribution]) -> st.SearchStrategy[dict[str, Any]]:
    """Points of a search space, as Optuna would propose them."""
    return st.fixed_dictionaries({name: _values(each) for name, each in distributions.items()})


def _spec(**fields: Any) -> UNetSpec:
    """Sluice networks of two subspaces need an even width."""
    odd = fields["sharing"] == "sluice_2" and fields["width"] % 2
    return UNetSpec(**fields | {"width": fields["width"] - odd})


def _values(distribution: BaseDistribution) -> st.SearchStrategy[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return st.sampled_from(distribution.choices)
    assert isinstance(distribution, IntDistribution), "every hyperparameter lies on a grid"
    return st.sampled_from(range(distribution.low, distribution.high + 1, distribution.step))
