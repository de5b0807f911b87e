"""PSNR and accuracy by formula, and against scikit-image; what is measured of classes, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from nas.search.objectives import of_basis
from nas.training.metrics import OF_RUN, ON_IMAGES, PSNR_CAP, Answers, Tally, answered, psnr


def test_psnr_of_a_constant_error() -> None:
    clean = torch.full((2, 3, 4, 5), 0.5)
    assert psnr(clean + 0.1, clean).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)


def test_psnr_is_scikit_images_on_clipped_output() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand((5, 3, 8, 9), generator=generator)
    output = clean + 0.3 * torch.randn(clean.shape, generator=generator)
    expected = [
        peak_signal_noise_ratio(c.numpy(), np.clip(o.numpy(), 0, 1), data_range=1.0)
        for c, o in zip(clean, output, strict=True)
    ]
    assert psnr(output, clean).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_is_capped() -> None:
    clean = torch.rand((1, 1, 4, 4))
    assert psnr(clean, clean).item() == PSNR_CAP


def test_unclipped_gaussian_noise_stands_where_the_literature_has_it() -> None:
    clean = torch.rand((1, 1, 512, 512))
    noisy = clean + 50 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert psnr(noisy, clean, clip=False).item() == pytest.approx(20 * math.log10(255 / 50), abs=0.05)


def test_the_largest_logit_is_answered_or_the_second_class_from_its_threshold_on() -> None:
    assert answered(torch.tensor([[0.1, 0.9], [2.0, 1.0]])).tolist() == [1, 0]
    chances = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], dtype=torch.float64)
    assert answered(chances.log(), 0.299).tolist() == [0, 1, 1]
    assert answered(chances.log(), 0.5).tolist() == [0, 0, 0]


def test_every_metric_that_training_measures_has_its_function() -> None:
    for source, functions in (("images", ON_IMAGES), ("run", OF_RUN)):
        assert [metric.name for metric in of_basis(source)] == list(functions)


def test_a_tally_is_over_images_whatever_their_batches_and_leaves_out_what_does_not_apply() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, denoised = torch.rand(2, 5, 1, 4, 4, generator=generator)
    labels, logits = torch.tensor([0, 1, 2, 0, 1]), torch.eye(3)[torch.tensor([0, 1, 2, 1, 2])]

    def values(*batches: slice, classes: int = 3, labelled: bool = True) -> dict[str, float]:
        tally = Tally()
        for rows in batches:
            shown = labels[rows] if labelled else None
            answers = {"noisy": clean[rows], "clean": clean[rows], "denoised": denoised[rows], "labels": shown}
            tally.add(Answers(logits=logits[rows, :classes], **answers))
        return tally.values()

    expected = {"psnr": pytest.approx(float(psnr(denoised, clean).double().mean())), "accuracy": 60.0}
    assert values(slice(0, 5)) == values(slice(0, 4), slice(4, 5))
    assert {name: values(slice(0, 5))[name] for name in expected} == expected
    assert values(slice(0, 5), classes=0).keys() == values(slice(0, 5), labelled=False).keys() == {"psnr"}


def measured(labels: list[int], logits: torch.Tensor) -> dict[str, float]:
    """The metrics of made-up answers."""
    images = torch.zeros(len(labels), 1, 2, 2)
    tally = Tally()
    tally.add(Answers(noisy=images, clean=images, denoised=images, labels=torch.tensor(labels), logits=logits))
    return {name: value for name, value in tally.values().items() if name != "psnr"}


def logits_of(second: list[float]) -> torch.Tensor:
    """Logits of two classes, from the probabilities of the second one."""
    chance = torch.tensor(second, dtype=torch.float64)
    return torch.stack([(1 - chance).log(), chance.log()], 1)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_what_is_measured_of_classes_is_scikit_learns(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (400,), generator=generator)
    logits = torch.randn(400, classes, generator=generator)
    logits[torch.arange(400), labels] += 1.0
    found = measured(labels.tolist(), logits)
    chances = logits.double().softmax(1).numpy()
    scores = {"y_true": labels.numpy(), "y_pred": logits.argmax(1).numpy()}
    ranked = roc_auc_score(labels, chances[:, 1] if classes == 2 else chances, multi_class="ovr", average="macro")
    assert found["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(**scores), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(f1_score(**scores, average="macro"), abs=1e-6)
    assert found["auc"] == pytest.approx(ranked, abs=1e-6)
    assert ("accuracy_at_sensitivity" in found) == (classes == 2)


def test_calibration_error_is_the_mean_difference_of_confidence_and_accuracy() -> None:
    # Two bins: 0.9 is right three times in four, 0.6 once in two.
    found = measured([1, 1, 1, 0, 1, 0], logits_of([0.9, 0.9, 0.9, 0.9, 0.6, 0.6]))
    assert found["calibration_error"] == pytest.approx(100 * (4 / 6 * 0.15 + 2 / 6 * 0.1))
    assert measured([1, 0], logits_of([1 - 1e-9, 1e-9]))["calibration_error"] == pytest.approx(0, abs=1e-5)
    assert measured([0, 1], logits_of([1 - 1e-9, 1e-9]))["calibration_error"] == pytest.approx(100)


def test_accuracy_at_sensitivity_is_that_of_the_best_threshold_that_finds_enough() -> None:
    # All 20 of the second class must be found but one, and the last of these lies below 3 of the 20 others.
    second = [0.9] * 18 + [0.5, 0.1]
    first = [0.6] * 3 + [0.2] * 17
    found = measured([1] * 20 + [0] * 20, logits_of(second + first))
    assert found["accuracy_at_sensitivity"] == pytest.approx(100 * (19 + 17) / 40)


def test_a_class_without_images_takes_no_part_and_an_unanswered_one_has_no_f1() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [2, 1, 0, 0]])
    found = measured([0, 0, 0, 1], logits)  # class 2 is answered and has no image, class 3 neither
    assert found["balanced_accuracy"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["auc"] == pytest.approx((2 / 3 + 1) / 2)


def test_images_of_one_class_have_no_roc_curve() -> None:
    found = measured([0, 0, 0], logits_of([0.1, 0.7, 0.2]))
    assert found["balanced_accuracy"] == pytest.approx(200 / 3)
    assert found.keys() == {"accuracy", "balanced_accuracy", "macro_f1", "calibration_error"}


def test_a_probability_that_is_no_number_makes_no_figure() -> None:
    found = measured([0, 1], torch.tensor([[0.0, math.nan], [0.0, 1.0]]))
    assert all(math.isnan(value) for name, value in found.items() if name != "accuracy")
