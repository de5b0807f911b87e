"""PSNR and accuracy by formula, and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from nas.search.objectives import of_basis
from nas.training.metrics import OF_NETWORK, OF_RUN, ON_IMAGES, PSNR_CAP, Answers, Tally, correct, psnr


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


def test_correct_takes_the_largest_logit() -> None:
    logits = torch.tensor([[0.1, 0.9], [2.0, 1.0]])
    assert correct(logits, torch.tensor([1, 1])).tolist() == [True, False]


def test_every_metric_that_training_measures_has_its_function() -> None:
    for source, functions in (("images", ON_IMAGES), ("run", OF_RUN), ("network", OF_NETWORK)):
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
    assert values(slice(0, 5)) == values(slice(0, 4), slice(4, 5)) == expected
    assert values(slice(0, 5), classes=0).keys() == values(slice(0, 5), labelled=False).keys() == {"psnr"}
