"""What the answers for a split say: intervals, each class, the threshold of two classes, ROC curves."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import auc as area
from sklearn.metrics import balanced_accuracy_score, classification_report, roc_auc_score

from nas.training.batches import NoisyBatch
from nas.training.metrics import Recognition
from nas.training.recognition import best_threshold, class_figures, recognition_of, roc_points, wilson


def answers(labels: list[int], second: list[float]) -> Recognition:
    """Answers for two classes, from the probabilities of the second one."""
    chances = np.stack([1 - np.array(second), np.array(second)], 1)
    return Recognition(np.array(labels), chances.argmax(1), chances)


@pytest.mark.parametrize(("right", "images"), [(0, 5), (5, 5), (3, 17), (950, 1000)])
def test_intervals_are_scipys_wilson_intervals(right: int, images: int) -> None:
    found, wanted = wilson(right, images), binomtest(right, images).proportion_ci(method="wilson")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((right / images, wanted.low, wanted.high))


def test_means_over_draws_have_an_interval_and_no_image_has_none() -> None:
    found = wilson(2.5, 10)
    assert found is not None
    z = NormalDist().inv_cdf(0.975)
    half = z / (10 + z * z) * (2.5 * 7.5 / 10 + z * z / 4) ** 0.5
    assert found.high - found.low == pytest.approx(2 * half)
    assert wilson(0, 0) is None


def test_each_class_has_scikit_learns_recall_and_precision() -> None:
    labels, named = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0]
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (labels, named), 1)
    found = class_figures(confusion.tolist())
    wanted = classification_report(labels, named, output_dict=True, zero_division=np.nan)
    for k in (0, 1):
        recall, precision = found[k].recall, found[k].precision
        assert recall is not None
        assert precision is not None
        assert recall.value == pytest.approx(wanted[str(k)]["recall"])
        assert precision.value == pytest.approx(wanted[str(k)]["precision"])
    assert found[2].precision is None, "it was never answered"
    assert (found[3].images, found[3].recall, found[3].precision) == (0, None, None)


def test_the_threshold_has_the_largest_balanced_accuracy_of_all() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(300) < 0.1).astype(int)
    second = np.clip(0.15 + 0.2 * labels + 0.1 * generator.standard_normal(300), 0.001, 0.999)
    threshold = best_threshold(answers(labels.tolist(), second.tolist()))
    assert threshold is not None
    reached = balanced_accuracy_score(labels, second >= threshold)
    assert reached == pytest.approx(max(balanced_accuracy_score(labels, second >= each) for each in second))
    assert reached > balanced_accuracy_score(labels, second >= 0.5) + 0.1


def test_the_threshold_lies_between_the_images_that_it_parts_and_is_the_usual_one_where_that_is_as_good() -> None:
    assert best_threshold(answers([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9])) == pytest.approx(0.25)
    assert best_threshold(answers([0, 0, 1, 1], [0.1, 0.4, 0.7, 0.9])) == 0.5
    assert best_threshold(answers([1, 0], [0.8, 0.6])) == pytest.approx(0.7)


def test_other_answers_have_no_threshold() -> None:
    three = np.full((3, 3), 1 / 3)
    assert best_threshold(Recognition(np.array([0, 1, 2]), np.array([0, 0, 0]), three)) is None
    assert best_threshold(answers([1, 1], [0.2, 0.7])) is None
    assert best_threshold(None) is None


def test_a_curve_has_the_area_of_its_class() -> None:
    generator = np.random.default_rng(1)
    labels, chances = generator.integers(3, size=200), generator.dirichlet(np.ones(3), 200)
    found = Recognition(labels, chances.argmax(1), chances)
    assert area(*roc_points(found, 2)) == pytest.approx(roc_auc_score(labels == 2, chances[:, 2]))


def test_answers_are_gathered_over_batches() -> None:
    images = torch.zeros(4, 1, 2, 2)
    logits = torch.tensor([[0.0, -1.0], [0.0, -0.1], [0.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([0, 0, 1, 1])

    def batches(shown: torch.Tensor | None) -> list[NoisyBatch]:
        return [
            NoisyBatch(images[:3], images[:3], None if shown is None else shown[:3]),
            NoisyBatch(images[3:], images[3:], None if shown is None else shown[3:]),
        ]

    def predict(noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return noisy, logits[:3] if len(noisy) == 3 else logits[3:]

    found = recognition_of(predict, batches(labels), threshold=0.4)
    assert found is not None
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.answers.tolist() == [0, 1, 1, 1], "the second image has 0.475"
    assert found.probabilities.sum(1).tolist() == pytest.approx([1.0] * 4)
    assert recognition_of(predict, batches(None)) is None
