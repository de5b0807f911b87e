"""The part of the report about classes: each class, ROC curves, reliability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from study_samples import Driver, make_measurement, read

from nas.training.metrics import Recognition
from studies.pages.recognition import Answered, reliability, roc_curves
from studies.pages.report import render
from studies.pages.samples import Samples
from studies.reading.history import read_history
from studies.store.ledger import SqlLedger

SECOND = np.array([0.1, 0.2, 0.3, 0.45, 0.35, 0.4, 0.8, 0.9])
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def answered(draws: int = 1) -> Answered:
    """Answers for two classes, of which the second is answered too seldom."""
    chances = np.stack([1 - SECOND, SECOND], 1)
    found = Recognition(np.tile(LABELS, draws), np.tile(chances.argmax(1), draws), np.tile(chances, (draws, 1)))
    return Answered(trial=0, classes=("well", "<ill>"), found=found, draws=draws)


def test_the_curve_of_two_classes_is_that_of_the_second_with_the_threshold_on_it() -> None:
    figure = roc_curves(answered())
    assert figure is not None
    curve, point, chance = figure.data
    assert curve.name == "<ill>: 0.8750"
    assert answered().threshold == pytest.approx(0.325)
    assert (point.x[0], point.y[0]) == (0.25, 1.0)
    assert (list(chance.x), list(chance.y)) == ([0, 1], [0, 1])


def test_of_many_classes_those_that_are_recognised_worst_are_drawn() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 10)
    chances = generator.dirichlet(np.ones(12), 120)
    chances[labels == 3] = np.eye(12)[3]
    chances /= chances.sum(1, keepdims=True)
    names = tuple(f"class {k}" for k in range(12))
    found = Answered(trial=0, classes=names, found=Recognition(labels, chances.argmax(1), chances), draws=1)
    figure = roc_curves(found)
    assert figure is not None
    shown = [float(trace.name.split(": ")[1]) for trace in figure.data if trace.name]
    assert len(shown) == 8
    assert shown == sorted(shown)
    assert not any((trace.name or "").startswith("class 3:") for trace in figure.data)


def test_images_of_one_class_have_no_curve() -> None:
    one = answered()
    assert roc_curves(replace(one, found=replace(one.found, labels=np.zeros(8, int)))) is None
    assert roc_curves(None) is reliability(None) is None


def test_draws_of_the_noise_are_no_further_images() -> None:
    first, second = answered(), answered(draws=3)
    assert first.by_class == second.by_class
    assert [each.images for each in second.by_class] == [4, 4]
    figure = reliability(second)
    assert figure is not None
    points = figure.data[1]
    assert sum(points.customdata) == pytest.approx(8)
    assert max(points.error_y.array) > 0.2, "an interval of at most 4 images is wide"


def test_the_page_tells_of_each_class_worst_first(new_study: Callable[..., SqlLedger]) -> None:
    ledger = new_study()
    number = Driver(ledger).start()
    ledger.complete(number, make_measurement(20.0))
    study = read(ledger)
    page = render(study, read_history(study), Samples(answered=answered()))
    section = page.partition('<section id="recognition">')[2].partition("</section>")[0]
    assert section.index("&lt;ill&gt;</td>") < section.index("well</td>")
    assert '<td class="n">50.0 (15.0 to 85.0)</td><td class="n">100.0 (34.2 to 100.0)</td>' in section
    assert "A bundle answers &lt;ill&gt; from a probability of 0.325 on" in section
    assert '<div class="plot" id="roc"' in section
    assert '<div class="plot" id="reliability"' in section
    without = render(study, read_history(study), Samples())
    assert "They need the weights of the knee" in without.partition('<section id="recognition">')[2]
