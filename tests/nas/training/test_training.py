"""The loop: what it optimises, that it repeats exactly, and that it notices a loss that is lost."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from toy_space import ToyNet, ToySpace, ToySpec

from nas.data.splits import Dataset, load
from nas.search.early_stopping import is_milestone
from nas.training.batches import DeviceData, noisy_batches
from nas.training.evaluation import Evaluation, judge, noisy_psnr
from nas.training.loop import Diverged, Training
from nas.types import Recipe, Task, candidate_seed

CPU = torch.device("cpu")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
RECIPE = Recipe(epochs=4, batch_size=64, learning_rate=3e-2, weight_decay=1e-4, classification_weight=0.3)
SPACE = ToySpace()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", subset=300)


@pytest.fixture(scope="module")
def data(digits: Dataset) -> DeviceData:
    return DeviceData.of(digits, TASK, CPU)


def evaluation(
    data: DeviceData, *, fault: str = "none", seed: int = 1, task: Task = TASK, **changes: object
) -> Evaluation:
    spec = ToySpec(width=8, fault=fault)
    recipe = dataclasses.replace(RECIPE, **changes)
    return Evaluation(lambda: SPACE.build(spec, task), task, recipe, data, SPACE.cost(spec, task), seed=seed)


def test_a_run_learns_and_measures_everything(data: DeviceData) -> None:
    run = evaluation(data, epochs=27)
    rows = []
    while not run.done:
        rows.append(run.advance())
    assert rows[-1].denoise_loss < rows[0].denoise_loss
    assert [row.epoch for row in rows] == list(range(1, 28))
    assert [row.epoch for row in rows if row.validated] == [1, 3, 9, 27]
    result = run.measurement()
    every = {"psnr", "accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error", "stability"}
    assert set(result.values) == {*every, "params", "macs"}
    assert all(row.values.keys() == every for row in rows if row.validated)
    assert {name: result.values[name] for name in rows[-1].values} == rows[-1].values
    assert result.values["psnr"] > noisy_psnr(data.validation)
    assert 0 < result.values["stability"] <= 1
    assert result.gates[0].keys() == {"mean", "min", "max"}
    assert result.peak_memory > 0
    assert result.seconds >= sum(row.seconds for row in rows)


def test_the_same_seed_repeats_exactly_and_another_does_not(data: DeviceData) -> None:
    def weights(seed: int) -> torch.Tensor:
        run = evaluation(data, seed=seed)
        while not run.done:
            run.advance()
        return torch.cat([p.flatten() for p in run.training.network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_denoising_loss_is_in_units_of_the_noise(data: DeviceData) -> None:
    class Identity(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return noisy + 0 * self.zero, torch.zeros(len(noisy), 10) + 0 * self.zero

    run = Training(Identity(), TASK, RECIPE, data, seed=0)
    denoise, classify = run.run_epoch()
    assert denoise == pytest.approx(1.0, rel=0.05)
    assert classify == pytest.approx(math.log(10), rel=1e-5)
    curve = run.probe_curve()
    assert curve.denoise[0] == pytest.approx(1.0, rel=1e-5)
    assert curve.classify[0] == pytest.approx(1.0, rel=1e-5)


def test_about_two_hundred_probes_evenly_in_steps(data: DeviceData) -> None:
    run = evaluation(data, epochs=50, batch_size=32)
    while not run.done:
        run.advance()
    steps = run.training.probe_curve().steps
    assert len(steps) == 201
    assert steps[0] == 0
    assert steps[-1] == run.training.total_steps == 500
    assert {b - a for a, b in itertools.pairwise(steps)} <= {2, 3}


def test_a_short_run_is_probed_at_every_step(data: DeviceData) -> None:
    run = evaluation(data, epochs=1)
    run.advance()
    assert run.training.probe_curve().steps == tuple(range(run.training.total_steps + 1))


def test_the_schedule_warms_up_and_ends_at_zero(data: DeviceData) -> None:
    run = evaluation(data, epochs=20).training
    rates = []
    for run.step in range(run.total_steps):  # noqa: B020
        rates.append(run._schedule())
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[0] <= 0.25
    assert rates[-1] < 0.01


@pytest.mark.parametrize("fault", ["nan"])
def test_nan_is_divergence(data: DeviceData, fault: str) -> None:
    with pytest.raises(Diverged, match="loss is nan in epoch 1"):
        evaluation(data, fault=fault).advance()


def test_blowing_up_is_divergence(data: DeviceData) -> None:
    run = evaluation(data, epochs=50, learning_rate=1e4)
    with pytest.raises(Diverged, match=r"loss (rose|is)"):
        [run.advance() for _ in range(50)]


def test_validation_noise_is_drawn_once(digits: Dataset) -> None:
    first, second = (DeviceData.of(digits, TASK, CPU).validation for _ in range(2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    # 359 images under 6 draws, each its own.
    assert sum(len(clean) for _, clean, *_ in first) == 6 * 359
    assert not torch.equal(first[0][0], first[2][0])


def test_what_is_judged_and_probed_is_the_same_on_every_device(digits: Dataset, data: DeviceData) -> None:
    """A device that computes nothing: whatever is known of it was drawn on the CPU."""
    meta = torch.device("meta")
    elsewhere = DeviceData.of(digits, TASK, meta)
    assert elsewhere.trivial == data.trivial
    assert [noisy.shape for noisy, *_ in elsewhere.validation] == [noisy.shape for noisy, *_ in data.validation]
    moved = (elsewhere.images, elsewhere.labels, *elsewhere.probe[:3], *elsewhere.validation[0][:3])
    assert {tensor.device for tensor in moved if tensor is not None} == {meta}


def test_judging_is_in_true_fp32_whatever_training_rounds_to(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    forward = ToyNet.forward

    def look(self: ToyNet, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.backends.cudnn.allow_tf32)
        return forward(self, noisy)

    monkeypatch.setattr(ToyNet, "forward", look)
    network = SPACE.build(ToySpec(width=4), TASK)
    judge(network, data.validation)
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32, "as it was"


def test_judge_gives_the_losses_in_their_units(data: DeviceData) -> None:
    network = SPACE.build(ToySpec(width=4), TASK).eval()
    found = judge(network, data.validation[:1], trivial=0.5)
    noisy, clean, labels, _ = data.validation[0]
    assert labels is not None
    with torch.no_grad():
        denoised, logits = network(noisy)
        assert found.denoise == pytest.approx(float((denoised - clean).square().mean()) / 0.5, rel=1e-5)
        assert found.classify == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_judge_leaves_the_mode_and_is_repeatable(data: DeviceData) -> None:
    network = SPACE.build(ToySpec(width=4), TASK)
    assert judge(network, data.validation) == judge(network, data.validation)
    assert network.training


def test_without_labels_there_is_no_accuracy(digits: Dataset) -> None:
    unlabelled = dataclasses.replace(
        digits,
        classes=(),
        train=dataclasses.replace(digits.train, labels=None),
        validation=dataclasses.replace(digits.validation, labels=None),
    )
    task = dataclasses.replace(TASK, classes=0)
    run = evaluation(DeviceData.of(unlabelled, task, CPU), task=task)
    row = run.advance()
    assert row.values.keys() == {"psnr", "stability"}
    assert row.classify_loss is None
    assert run.training.probe_curve().classify == ()


def test_bf16_trains_and_is_judged_in_fp32(data: DeviceData) -> None:
    spec = ToySpec(width=8)
    results = []
    for precision in ("fp32", "bf16"):
        run = Evaluation(
            lambda: SPACE.build(spec, TASK), TASK, RECIPE, data, SPACE.cost(spec, TASK), seed=1, precision=precision
        )
        while not run.done:
            row = run.advance()
        assert next(run.training.network.parameters()).dtype == torch.float32
        results.append(row.values["psnr"])
    assert results[0] == pytest.approx(results[1], abs=0.2)


def test_milestones_are_the_rungs() -> None:
    assert [e for e in range(1, 28) if is_milestone(e, 27)] == [1, 3, 9, 27]
    assert [e for e in range(1, 21) if is_milestone(e, 20)] == [1, 3, 9, 20]
    assert [e for e in range(1, 2) if is_milestone(e, 1)] == [1]


def test_a_candidate_s_seed_depends_on_study_and_digest() -> None:
    seeds = {candidate_seed(s, d) for s in (0, 1) for d in ("a", "b")}
    assert len(seeds) == 4
    assert candidate_seed(0, "a") == candidate_seed(0, "a")


def test_noisy_batches_cover_the_split(digits: Dataset, data: DeviceData) -> None:
    batches = noisy_batches(digits.test, data.noise, CPU, seed=3, size=100)
    assert torch.equal(torch.cat([clean for _, clean, *_ in batches]), torch.tensor(digits.test.images))
