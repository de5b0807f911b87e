"""Training and judging by other shots, and by hidden pixels, where no clean images are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.data.augmentation import TURNS
from nas.data.noise import OfData
from nas.data.raw import Shots
from nas.data.splits import Dataset, Split
from nas.training.batches import DeviceData, NoisyBatch, evaluation_batches
from nas.training.evaluation import judge, noisy_psnr
from nas.training.held_out import CELL, HeldOut, hidden_pixels, noise_shares, others_than
from nas.training.loop import Training
from nas.training.metrics import PSNR_CAP, Answers, Tally, self_psnr
from nas.types import Recipe

CPU = torch.device("cpu")
SIGMA = 0.1


def clean_images(count: int, side: int = 32) -> Tensor:
    """Smooth images between 0.2 and 0.8 (count, 1, side, side)."""
    generator = torch.Generator().manual_seed(1)
    down, right = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    speed = 2 + 4 * torch.rand(count, 2, 1, 1, generator=generator)
    return (0.5 + 0.3 * torch.sin(speed[:, 0] * down + speed[:, 1] * right))[:, None]


def shots_of(clean: Tensor, count: int, sigma: Tensor | float = SIGMA) -> Tensor:
    """`count` shots of each image (N, count, C, H, W) with gaussian noise."""
    generator = torch.Generator().manual_seed(2)
    return clean[:, None] + sigma * torch.randn(len(clean), count, *clean.shape[1:], generator=generator)


def split_of(shots: Tensor) -> Split:
    images, count = len(shots), shots.shape[1]
    kept = Shots(shots.flatten(0, 1).numpy(), np.arange(images + 1) * count)
    return Split(shots.mean(1).numpy(), None, kept, clean=False)


def singles(clean: Tensor, sigma: float = SIGMA) -> Split:
    return Split(shots_of(clean, 1, sigma)[:, 0].numpy(), None, None, clean=False)


def dataset(split: Split) -> Dataset:
    return Dataset("noisy:/scans", split, split, split, (), "0123456789abcdef")


class Blurring(nn.Module):
    """A denoiser that is known: the mean of 3 x 3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        padded = nn.functional.pad(noisy, (1, 1, 1, 1), mode="replicate")
        return self.scale * nn.functional.avg_pool2d(padded, 3, 1), noisy.new_zeros(len(noisy), 0)


# --- other shots ---
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("kind", ["gaussian", "as bright as the image"])
def test_self_psnr_from_shots_is_the_true_psnr_of_a_known_denoiser(count: int, kind: str) -> None:
    clean = clean_images(48)
    sigma = SIGMA if kind == "gaussian" else 0.2 * clean[:, None].sqrt()
    batches = list(evaluation_batches(dataset(split_of(shots_of(clean, count, sigma))), "validation", OfData(), CPU))
    assert len(batches) == count
    found = judge(Blurring(), batches).values
    assert set(found) == {"self_psnr"}
    errors = torch.cat([(Blurring()(batch.noisy)[0] - clean).square().flatten(1).mean(1) for batch in batches])
    assert found["self_psnr"] == pytest.approx(-10 * math.log10(float(errors.mean().detach())), abs=0.25)
    untouched = torch.cat([(batch.noisy - clean).square().flatten(1).mean(1) for batch in batches])
    assert noisy_psnr(batches) == pytest.approx(-10 * math.log10(float(untouched.mean())), abs=0.1)


def test_the_target_is_the_mean_of_all_other_shots() -> None:
    shots = shots_of(clean_images(3), 4)
    counts = torch.full((3,), 4)
    target = others_than(shots[:, 1], shots.mean(1), counts)
    assert torch.allclose(target, shots[:, [0, 2, 3]].mean(1), atol=1e-6)


def test_the_share_of_noise_is_that_of_the_other_shots() -> None:
    split = split_of(shots_of(clean_images(2, side=200), 5))
    assert split.shots is not None
    assert noise_shares(split.shots).tolist() == pytest.approx([SIGMA**2 / 4] * 2, rel=0.03)


def test_training_sees_one_shot_and_learns_the_others() -> None:
    clean, count = clean_images(8, side=16), 3
    shots = shots_of(clean, count)
    data = DeviceData.of(dataset(split_of(shots)), dataset(split_of(shots)).task("data"), CPU)
    rows = torch.arange(8)
    batch = data.batch(rows, torch.Generator().manual_seed(0))
    which = [int((shots[row, :, 0] - batch.noisy[row]).abs().amax((1, 2)).argmin()) for row in range(8)]
    assert len(set(which)) > 1, "shots are drawn"
    for row, number in enumerate(which):
        others = [each for each in range(count) if each != number]
        assert torch.allclose(batch.clean[row], shots[row, others].mean(0), atol=1e-5)
    assert data.trivial == pytest.approx(SIGMA**2, rel=0.1), "the noisy input's MSE, without the targets' noise"
    turned = DeviceData.of(dataset(split_of(shots)), dataset(split_of(shots)).task("data"), CPU, TURNS)
    batch = turned.batch(rows, torch.Generator().manual_seed(3))
    assert float(batch.error(batch.noisy).mean()) == pytest.approx(SIGMA**2, rel=0.25), "both are turned alike"


def test_an_error_below_what_can_be_measured_counts_as_that() -> None:
    errors = torch.tensor([0.01, -0.02, 0.015, -0.01])
    doubt = float(errors.double().std()) / 2
    assert self_psnr(errors) == pytest.approx(-10 * math.log10(doubt))
    assert self_psnr(torch.zeros(4)) == PSNR_CAP
    assert self_psnr(torch.tensor([0.001])) == pytest.approx(30)
    assert self_psnr(torch.full((9,), 0.01)) == pytest.approx(20)
    assert not math.isfinite(self_psnr(torch.tensor([math.nan, 1.0])))


# --- hidden pixels ---
@pytest.mark.parametrize("size", [(8, 8), (9, 17), (64, 31)])
def test_one_pixel_of_each_cell_is_replaced_by_a_neighbour(size: tuple[int, int]) -> None:
    height, width = size
    images = torch.arange(2.0 * height * width).reshape(1, 2, height, width).repeat(40, 1, 1, 1)
    hidden, held_out = hidden_pixels(images, torch.Generator().manual_seed(0))
    assert held_out.pixels is not None
    changed = (hidden != images).any(1, keepdim=True)
    assert torch.equal(changed, held_out.pixels), "every hidden pixel has another one's values, and no other changes"
    whole = held_out.pixels[..., : height // CELL * CELL, : width // CELL * CELL]
    cells = whole.unfold(2, CELL, CELL).unfold(3, CELL, CELL).flatten(-2).sum(-1)
    assert (cells == 1).all()
    image, _, row, column = held_out.pixels.nonzero(as_tuple=True)
    place = hidden[image, 0, row, column].long()
    assert torch.equal(hidden[image, 1, row, column].long() - place, torch.full_like(place, height * width))
    assert int((place // width - row).abs().max()) == 2
    assert int((place % width - column).abs().max()) == 2
    seen = torch.bincount(row * width + column, minlength=height * width)
    assert (seen[: 5 * width].reshape(5, width) > 0).float().mean() > 0.6, "which one is random"


def test_the_expected_error_at_hidden_pixels_is_the_true_one_and_the_noise() -> None:
    clean = clean_images(200)
    batches = list(evaluation_batches(dataset(singles(clean)), "validation", OfData(), CPU))
    assert len(batches) == 8
    network = Blurring()
    found = judge(network, batches)
    errors = []
    for batch in batches:
        assert batch.held_out is not None
        with torch.inference_mode():
            errors.append(HeldOut(torch.zeros(200), batch.held_out.pixels).error(network(batch.noisy)[0], clean))
    true = float(torch.cat(errors).mean())
    assert found.denoise == pytest.approx(true + SIGMA**2, rel=0.02)
    assert found.values["self_psnr"] == pytest.approx(-10 * math.log10(true + SIGMA**2), abs=0.1)


def test_a_network_that_sees_no_noise_has_the_noise_alone_as_its_loss() -> None:
    clean = torch.full((100, 1, 32, 32), 0.4)
    (batch, *_) = evaluation_batches(dataset(singles(clean)), "validation", OfData(), CPU)
    assert float(batch.error(clean).mean()) == pytest.approx(SIGMA**2, rel=0.03)
    assert float(batch.error(batch.noisy).mean()) == pytest.approx(2 * SIGMA**2, rel=0.03), "a neighbour's noise too"
    data = DeviceData.of(dataset(singles(clean)), dataset(singles(clean)).task("data"), CPU)
    assert data.trivial == pytest.approx(2 * SIGMA**2, rel=0.05)
    one, other = (data.batch(torch.arange(4), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one.held_out is not None
    assert other.held_out is not None
    assert one.held_out.pixels is not None
    assert other.held_out.pixels is not None
    assert not torch.equal(one.held_out.pixels, other.held_out.pixels)


@pytest.mark.parametrize("single", [True, False])
def test_a_training_without_clean_images_removes_noise(single: bool) -> None:
    clean = clean_images(64, side=16)
    split = singles(clean) if single else split_of(shots_of(clean, 2))
    task = dataset(split).task("data")
    assert not task.clean

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 5, padding=2, padding_mode="reflect")

        def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(noisy), noisy.new_zeros(len(noisy), 0)

    torch.manual_seed(0)
    recipe = Recipe(epochs=150, batch_size=16, learning_rate=0.02, weight_decay=0.0, classification_weight=0.0)
    training = Training(Filter(), task, recipe, DeviceData.of(dataset(split), task, CPU), seed=0)
    for _ in range(recipe.epochs):
        training.run_epoch()
    noisy = shots_of(clean_images(64, side=16), 7)[:, 6]
    with torch.inference_mode():
        error = float((training.network(noisy)[0] - clean).square().mean())
    assert error < 0.25 * SIGMA**2


def test_clean_images_have_psnr_and_others_self_psnr() -> None:
    clean = clean_images(4)
    noisy, logits = clean + 0.1, torch.zeros(4, 0)
    known = Answers(noisy=noisy, clean=clean, denoised=noisy, labels=None, logits=logits)
    held = Answers(
        noisy=noisy, clean=clean, denoised=noisy, labels=None, logits=logits, held_out=HeldOut(torch.full((4,), 0.006))
    )
    values = []
    for answers in (known, held):
        tally = Tally()
        tally.add(answers)
        values.append(tally.values())
    assert values[0] == {"psnr": pytest.approx(20, abs=1e-3)}
    assert values[1] == {"self_psnr": pytest.approx(-10 * math.log10(0.004), abs=1e-3)}
    assert NoisyBatch(noisy, clean).error(noisy).tolist() == pytest.approx([0.01] * 4, rel=1e-3)
