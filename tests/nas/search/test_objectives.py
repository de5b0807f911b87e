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
    unequal,
)
from nas.types import Constraint, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
TRIVIAL = TrivialQuality(psnr=14.1, counts=(103, 97, *(100,) * 8))
LIMITS = (Constraint(name="params", upper=2_000_000), Constraint(name="macs", upper=6_400_000))


def test_references_are_the_design_s() -> None:
    names = [name for name in OBJECTIVES if name != "accuracy_at_sensitivity" and not METRICS[name].stands_for]
    objectives, notes = resolve_objectives(names, TASK, TRIVIAL, LIMITS)
    assert not notes
    assert {o.name: pytest.approx(o.reference) for o in objectives} == {
        "psnr": 14.1,
        "accuracy": 10.3,
        "stability": 0.0,
        "balanced_accuracy": 10.0,
        "macro_f1": 2 * 0.103 / 1.103 / 10,
        "auc": 0.5,
        "calibration_error": 90.0,
        "params": 2_000_000,
        "macs": 6_400_000,
        "latency": 1000.0,
    }
    assert {o.name for o in objectives if o.direction == "minimize"} == {
        *("calibration_error", "params", "macs", "latency")
    }


def test_references_of_two_classes_are_those_of_always_answering_one() -> None:
    two = dataclasses.replace(TASK, classes=2)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "accuracy_at_sensitivity", "calibration_error")
    objectives, _ = resolve_objectives(names, two, TrivialQuality(psnr=14.1, counts=(95, 5)), LIMITS)
    assert {o.name: pytest.approx(o.reference) for o in objectives} == {
        "accuracy": 95.0,
        "balanced_accuracy": 50.0,
        "macro_f1": (2 * 0.95 / 1.95 + 0) / 2,
        "auc": 0.5,
        "accuracy_at_sensitivity": 5.0,
        "calibration_error": 50.0,
    }


@pytest.mark.parametrize(
    ("name", "classes", "counts", "reason"),
    [
        ("balanced_accuracy", 0, (), "the data has no labels"),
        ("auc", 0, (), "the data has no labels"),
        ("auc", 3, (0, 9, 0), "it needs 2 classes in the validation images, which are of 1"),
        ("accuracy_at_sensitivity", 10, (1,) * 10, "it is for 2 classes, and the data has 10"),
        ("accuracy_at_sensitivity", 2, (0, 9), "it needs 2 classes in the validation images, which are of 1"),
    ],
)
def test_what_was_asked_for_beside_the_default_is_refused_where_it_cannot_be_had(
    name: str, classes: int, counts: tuple[int, ...], reason: str
) -> None:
    task, trivial = dataclasses.replace(TASK, classes=classes), TrivialQuality(psnr=14.1, counts=counts)
    with pytest.raises(ConfigError) as refused:
        resolve_objectives(("psnr", name), task, trivial, LIMITS)
    assert str(refused.value) == f"objective {name!r} cannot be had ({reason}); leave it out of `objectives`"


def test_a_class_with_most_of_the_images_is_told() -> None:
    line = unequal(("ill", "well"), (5, 95))
    assert line is not None
    assert line.startswith("95 % of the images are of class well, so always answering it has an accuracy of 95 %")
    assert unequal(("ill", "well"), (40, 60)) is None
    assert unequal(("ill", "well"), (39, 61)) is not None
    assert unequal((), ()) is None


def test_a_class_without_validation_images_takes_no_part_in_a_reference() -> None:
    trivial = TrivialQuality(psnr=14.1, counts=(30, 0, 10))
    objectives, _ = resolve_objectives(
        ("accuracy", "balanced_accuracy"), dataclasses.replace(TASK, classes=3), trivial, LIMITS
    )
    assert [o.reference for o in objectives] == [75.0, 50.0]


def test_the_default_is_the_first_three() -> None:
    """As `search --help` says."""
    assert tuple(name for name in OBJECTIVES if not METRICS[name].stands_for)[:3] == DEFAULT


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
    objectives, notes = resolve_objectives(DEFAULT, task, TrivialQuality(psnr=14.1), LIMITS)
    assert [o.name for o in objectives] == ["psnr", "stability"]
    assert notes == ["objective accuracy drops out: the data has no labels"]


def test_without_clean_images_psnr_is_self_supervised_and_says_so() -> None:
    task = dataclasses.replace(TASK, noise="data", clean=False)
    for asked in (DEFAULT, ("self_psnr", "accuracy", "stability"), ("psnr", "self_psnr", "accuracy", "stability")):
        objectives, notes = resolve_objectives(asked, task, TRIVIAL, LIMITS)
        assert [o.name for o in objectives] == ["self_psnr", "accuracy", "stability"]
        assert objectives[0].reference == 14.1
        told = ["objective psnr is self_psnr: no clean images are known"]
        assert notes == (told if "psnr" in asked else [])
    with pytest.raises(
        ConfigError, match=r"'self_psnr' cannot be had .clean images are known, so psnr can be measured"
    ):
        resolve_objectives(("self_psnr", "accuracy"), TASK, TRIVIAL, LIMITS)


def test_noise_none_leaves_classification() -> None:
    task = dataclasses.replace(TASK, noise="none")
    objectives, notes = resolve_objectives(DEFAULT, task, TRIVIAL, LIMITS)
    assert [o.name for o in objectives] == ["accuracy", "stability"]
    assert "nothing to restore" in notes[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("psnr", "ssim"), "objective 'ssim' is not known; choose from psnr, self_psnr, accuracy"),
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
