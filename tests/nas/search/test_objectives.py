"""Which objectives a task can have, and from where their hypervolume counts."""

from __future__ import annotations

import dataclasses

import pytest

from nas.errors import ConfigError
from nas.search.confirmation import Interval
from nas.search.objectives import (
    DEFAULT,
    METRICS,
    OBJECTIVES,
    TrivialQuality,
    limits_text,
    metric_of,
    resolve_objectives,
    titled,
)
from nas.types import Constraint, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
TRIVIAL = TrivialQuality(psnr=14.1, accuracy=10.3)
LIMITS = (Constraint(name="params", upper=2_000_000), Constraint(name="macs", upper=6_400_000))


def test_references_are_the_design_s() -> None:
    objectives, notes = resolve_objectives(OBJECTIVES, TASK, TRIVIAL, LIMITS)
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
    assert OBJECTIVES[:3] == DEFAULT


def test_figures_have_the_digits_and_the_unit_of_their_metric() -> None:
    values = {"psnr": 20.8449, "ssim": 0.79614, "accuracy": 97.819, "stability": 0.79649, "latency": 0.51244}
    assert {name: METRICS[name].text(value) for name, value in values.items()} == {
        "psnr": "20.84 dB",
        "ssim": "0.7961",
        "accuracy": "97.82 %",
        "stability": "0.796",
        "latency": "0.512 ms",
    }
    assert METRICS["params"].text(1234567) == METRICS["macs"].figure(1234567.0) == "1,234,567"
    assert METRICS["psnr"].figure(20.8449) == "20.84"
    assert metric_of("of a newer version").text(0.5) == "0.500"


def test_amounts_are_short_in_narrow_tables() -> None:
    shown = {999: "999", 1000: "1k", 12_345: "12.3k", 1_234_567: "1.23M", 2.5e9: "2.5G"}
    assert {value: METRICS["macs"].short(value) for value in shown} == shown
    assert METRICS["latency"].short(12345.6) == "12345.600"


def test_intervals_have_the_digits_of_their_metric() -> None:
    def around(mean: float, half: float) -> Interval:
        return Interval(mean=mean, sd=1.0, low=mean - half, high=mean + half, n=3)

    assert METRICS["psnr"].interval(around(19.5, 0.375)) == "19.50 ± 0.38"
    assert METRICS["latency"].interval(around(0.5, 0.0)) == "0.500 ± 0.000"
    params = METRICS["params"]
    assert params.interval(around(123_456, 500)) == "123,456 ± 500"
    assert params.interval(around(123_456, 500), short=True) == "123k ± 500"
    assert params.interval(around(123_456, 0)) == "123,456"
    assert params.interval(around(123_456, 0), short=True) == "123k"
    assert METRICS["accuracy"].difference(-0.125) == "-0.12"
    assert METRICS["psnr"].difference(0.5) == "+0.50"


def test_figures_in_a_sentence_stand_in_the_order_of_the_table() -> None:
    values = {"noisy_psnr": 14.2, "accuracy": 97.819, "ssim": 0.79614, "psnr": 20.8449, "confusion": None}
    assert titled(values) == "PSNR 20.84 dB, SSIM 0.7961, accuracy 97.82 %"
    assert titled(values | {"accuracy": None}) == "PSNR 20.84 dB, SSIM 0.7961"
    assert titled({"macs": 9_000_000, "params": 1234}) == "1,234 parameters, 9,000,000 MACs"


def test_limits_are_told_with_their_figures() -> None:
    assert limits_text(LIMITS) == "params <= 2,000,000, macs <= 6,400,000"
    assert limits_text(()) == "none"


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
    with pytest.raises(ConfigError, match=r"objective 'macs' needs a limit as its reference, .* give `max_macs`"):
        resolve_objectives(("psnr", "macs"), TASK, TRIVIAL, LIMITS[:1])
    assert resolve_objectives(("psnr", "params"), TASK, TRIVIAL, LIMITS[:1])[0][1].reference == 2_000_000
