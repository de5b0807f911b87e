"""Which objectives a task can have, and from where their hypervolume counts."""

from __future__ import annotations

import dataclasses

import pytest

from nas.errors import ConfigError
from nas.search.objectives import DEFAULT, KINDS, TrivialQuality, digits_of, resolve_objectives
from nas.types import Constraint, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
TRIVIAL = TrivialQuality(psnr=14.1, accuracy=10.3)
LIMITS = (Constraint(name="params", upper=2_000_000), Constraint(name="macs", upper=6_400_000))


def test_references_are_the_design_s() -> None:
    objectives, notes = resolve_objectives(tuple(KINDS), TASK, TRIVIAL, LIMITS)
    assert not notes
    assert {o.name: o.reference for o in objectives} == {
        "psnr": 14.1,
        "accuracy": 10.3,
        "stability": 0.0,
        "params": 2_000_000,
        "macs": 6_400_000,
        "latency": 1000.0,
    }
    assert {o.name for o in objectives if o.direction == "minimize"} == {"params", "macs", "latency"}


def test_the_default_is_the_first_three() -> None:
    """As `search --help` says."""
    assert tuple(KINDS)[:3] == DEFAULT


def test_amounts_have_no_decimals() -> None:
    found = {name: digits_of(name) for name in (*KINDS, "of a newer version")}
    assert [name for name, digits in found.items() if digits is None] == ["params", "macs", "of a newer version"]


def test_accuracy_drops_out_without_labels_and_says_so() -> None:
    task = dataclasses.replace(TASK, classes=0)
    objectives, notes = resolve_objectives(DEFAULT, task, TrivialQuality(psnr=14.1, accuracy=None), LIMITS)
    assert [o.name for o in objectives] == ["psnr", "stability"]
    assert notes == ["objective accuracy drops out: the data has no labels"]


def test_noise_none_leaves_classification() -> None:
    task = dataclasses.replace(TASK, noise="none")
    objectives, notes = resolve_objectives(DEFAULT, task, TRIVIAL, LIMITS)
    assert [o.name for o in objectives] == ["accuracy", "stability"]
    assert "nothing to restore" in notes[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("psnr", "ssim"), "objective 'ssim' is not known; choose from psnr, accuracy"),
        (("psnr", "psnr"), "objective 'psnr' is named twice"),
        (("stability",), "no objective is left of stability: noise is none and the data has no labels"),
    ],
)
def test_refusals(names: tuple[str, ...], message: str) -> None:
    task = dataclasses.replace(TASK, noise="none", classes=0) if names == ("stability",) else TASK
    with pytest.raises(ConfigError, match=message):
        resolve_objectives(names, task, TRIVIAL, LIMITS)


def test_a_cost_without_a_limit_has_no_reference() -> None:
    with pytest.raises(ConfigError, match=r"objective 'macs' needs a limit as its reference, .* give --max-macs"):
        resolve_objectives(("psnr", "macs"), TASK, TRIVIAL, LIMITS[:1])
    assert resolve_objectives(("psnr", "params"), TASK, TRIVIAL, LIMITS[:1])[0][1].reference == 2_000_000
