"""A long training: averaged weights, accumulated gradients, the best weights, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.data.augmentation import NONE
from nas.data.splits import load
from nas.errors import ConfigError
from nas.settings import FitSettings
from nas.training.batches import DeviceData
from nas.training.fit import BEST, CHECKPOINT, Fit, FitProgress, fit
from nas.training.loop import Diverged
from nas.training.run_folder import LOCK, RUN, claimed, write_run
from nas.training.version import TRAINING_VERSION
from nas.types import Balancing, Recipe, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
CLEAN = Task(channels=1, classes=10, height=8, width=8, noise="none")
CPU = torch.device("cpu")


class Small(nn.Module):
    """A network with a norm's buffers and dropout, both of which a resumed run has to get right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.1))
        self.out, self.head = nn.Conv2d(4, 1, 1), nn.Linear(4, 10)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv(noisy)
        return self.out(features), self.head(features.mean((2, 3)))


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load("digits", subset=90), TASK, CPU, NONE)


RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.01, weight_decay=0.0, classification_weight=0.3)


def start(
    data: DeviceData,
    task: Task = TASK,
    network: Callable[[], nn.Module] = Small,
    recipe: Recipe = RECIPE,
    **settings: object,
) -> Fit:
    torch.manual_seed(0)
    return Fit(network(), task, recipe, data, FitSettings(**settings), precision="fp32")  # type: ignore[arg-type]


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


class Stop(Exception):  # noqa: N818
    """What a test stops a run with."""


@pytest.mark.parametrize("steps", [3, 6, 8])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(data: DeviceData, tmp_path: Path, steps: int) -> None:
    whole = fit(start(data), tmp_path / "whole")

    def stop(progress: FitProgress) -> None:
        if progress.step > steps:
            raise Stop

    with pytest.raises(Stop):
        fit(start(data), tmp_path / "parts", stop, checkpoint_seconds=0)
    torch.manual_seed(99)
    second = start(data)
    parts = fit(second, tmp_path / "parts")
    assert same(whole, parts)
    assert second.epoch == 3


@pytest.mark.parametrize("content", [b"PK\x03\x04 half a zip", None], ids=["damaged", "older version"])
def test_a_checkpoint_that_cannot_be_read_starts_the_training_again(
    data: DeviceData, tmp_path: Path, content: bytes | None
) -> None:
    whole = fit(start(data), tmp_path)
    if content is None:
        torch.save(start(data).state(), tmp_path / CHECKPOINT)
    else:
        (tmp_path / CHECKPOINT).write_bytes(content)
    again = start(data)
    assert same(whole, fit(again, tmp_path))
    assert again.step == 18


def test_the_average_follows_the_weights_and_ema_0_is_them(data: DeviceData) -> None:
    plain = start(data, ema=0.0)
    plain.run_epoch()
    averaged = start(data, ema=0.9)  # made here, so that dropout draws the same
    averaged.run_epoch()
    assert same(plain.network, plain.average)
    assert same(plain.network, averaged.network), "averaging changes nothing of the training"
    assert not torch.equal(averaged.network.out.weight, averaged.average.out.weight)
    assert torch.equal(averaged.network.conv[1].running_mean, averaged.average.conv[1].running_mean)


def test_the_average_is_the_formula(data: DeviceData) -> None:
    run = start(data, ema=0.5)
    weights = [run.network.out.weight.detach().clone()]
    run.run_epoch(lambda: weights.append(run.network.out.weight.detach().clone()))
    wanted = weights[0]
    for t, weight in enumerate(weights[1:], start=1):
        decay = min(0.5, (1 + t) / (10 + t))
        wanted = decay * wanted + (1 - decay) * weight
    torch.testing.assert_close(run.average.out.weight, wanted)


@pytest.mark.parametrize("balancing", ["fixed", "surgery"])
def test_the_average_of_channels_last_weights_is_the_formula_also_after_a_checkpoint(
    data: DeviceData, balancing: Balancing
) -> None:
    """Of a convolution between 4 channels, in whose layout the order of memory is not that of its indices."""

    class Wide(Small):
        def __init__(self) -> None:
            super().__init__()
            self.conv.append(nn.Conv2d(4, 4, 3, padding=1))

    def begin() -> Fit:
        return start(data, network=Wide, recipe=replace(RECIPE, epochs=2, balancing=balancing), ema=0.5, accumulate=2)

    def row_major(state: object) -> object:
        if isinstance(state, Tensor):
            return state.contiguous()
        return {name: row_major(value) for name, value in state.items()} if isinstance(state, Mapping) else state

    run, step = begin(), 0
    assert not run.network.conv[4].weight.is_contiguous()
    wanted = run.network.conv[4].weight.detach().contiguous().clone()

    def follow() -> None:
        nonlocal wanted, step
        step += 1
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * run.network.conv[4].weight.detach()

    run.run_epoch(follow)
    state = row_major(run.state())
    assert isinstance(state, dict)
    run = begin()
    run.load_state(state)
    run.run_epoch(follow)
    assert step == 6
    torch.testing.assert_close(run.average.conv[4].weight, wanted)
    assert run.average.conv[4].weight.stride() == run.network.conv[4].weight.stride()
    for parameter, kept in run.optimizer.state.items():
        assert kept["exp_avg"].stride() == kept["exp_avg_sq"].stride() == parameter.stride()


def test_accumulated_batches_give_the_step_of_one_large_batch() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 10)

        def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
            return self.out(noisy), self.head(noisy.flatten(1))

    data = DeviceData.of(load("digits", subset=64), CLEAN, CPU, NONE)
    torch.manual_seed(1)
    network = Linear()
    first = start(data, CLEAN, lambda: network)
    rows = torch.arange(32)
    whole = first._backward(first._batches(rows))
    wanted = [parameter.grad.clone() for parameter in network.parameters()]
    second = start(data, CLEAN, lambda: network, accumulate=4)
    network.zero_grad()
    parts = second._backward(second._batches(rows))
    torch.testing.assert_close(parts, whole)
    for parameter, gradient in zip(network.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert second.images_per_step == 64


def test_the_best_weights_are_those_of_the_least_validation_loss(data: DeviceData, tmp_path: Path) -> None:
    run = start(data)
    losses = {}

    def observe(progress: FitProgress) -> None:
        if progress.validated is not None:
            losses[progress.validated.epoch] = progress.validated.loss

    fit(run, tmp_path, observe)
    assert set(losses) == {1, 2, 3}
    assert run.best is not None
    assert run.best.loss == min(losses.values())
    assert {path.name for path in tmp_path.iterdir()} == {BEST, CHECKPOINT}


def test_a_validation_that_is_not_a_number_is_divergence_and_never_the_best(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step may spoil weights that no training loss is taken of any more."""
    run = start(data)
    average = run._average

    def spoil() -> None:
        average()
        if run.step == run.steps_per_epoch:
            torch.nn.init.constant_(run.average.out.weight, torch.nan)

    monkeypatch.setattr(run, "_average", spoil)
    fit(run, tmp_path)
    assert run.cuts == 1
    assert run.best is not None
    assert run.best.epoch > 1
    assert all(value.isfinite().all() for value in torch.load(tmp_path / BEST, weights_only=True).values())


def test_a_run_that_diverges_goes_back_to_the_best_weights_at_half_the_rate(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(data)
    second = run.steps_per_epoch + 1
    rates: list[float] = []
    best: dict[str, Tensor] = {}
    average = run._average

    def spoil() -> None:
        average()
        rates.append(run.optimizer.param_groups[0]["lr"])
        if run.step == second:
            best.update(torch.load(tmp_path / BEST, weights_only=True))
            torch.nn.init.constant_(run.network.out.weight, torch.nan)

    went_back = run.go_back

    def go_back(weights: dict[str, Tensor] | None) -> None:
        went_back(weights)
        for network in (run.network, run.average):
            assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
        assert not run.optimizer.state

    monkeypatch.setattr(run, "_average", spoil)
    monkeypatch.setattr(run, "go_back", go_back)
    fit(run, tmp_path)
    assert run.done
    assert run.cuts == 1
    plain = start(data)
    plain.step = 2 * run.steps_per_epoch
    assert rates[2 * run.steps_per_epoch] == pytest.approx(0.01 * 0.5 * plain._schedule())
    assert (
        "the training diverged (loss is nan in epoch 2); it goes on from the weights of epoch 1 at 0.5 of its rate"
        in caplog.messages
    )
    again = start(data)
    fit(again, tmp_path)
    assert again.cuts == 1, "which the checkpoint keeps"


def test_a_run_that_diverges_in_its_last_epoch_ends_with_its_best_weights(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(data)
    average = run._average

    def spoil() -> None:
        average()
        if run.step == run.total_steps:
            torch.nn.init.constant_(run.average.out.weight, torch.nan)

    monkeypatch.setattr(run, "_average", spoil)
    network = fit(run, tmp_path)
    assert (run.cuts, run.best is not None and run.best.epoch < 3) == (0, True)
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
    [told] = caplog.messages
    assert told.startswith(
        "the training diverged in its last epoch (validation loss is nan after epoch 3); it ends with"
    )


def test_a_rate_that_is_far_too_high_ends_the_run(data: DeviceData, tmp_path: Path) -> None:
    run = start(data, recipe=replace(RECIPE, epochs=9, learning_rate=1e9, optimizer="sgd"))
    with pytest.raises(Diverged):
        fit(run, tmp_path)
    assert run.cuts == 3
    assert run.epoch == 4


def test_events_are_written_for_tensorboard(data: DeviceData, tmp_path: Path) -> None:
    fit(start(data), tmp_path / "run", log_to=tmp_path / "logs")
    (events,) = (tmp_path / "logs").glob("events*")
    content = events.read_bytes()
    for tag in (b"train/loss", b"validation/psnr", b"validation/accuracy", b"train/learning_rate"):
        assert tag in content


def test_a_folder_is_of_one_configuration_and_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        claimed(folder, {"noise": "gaussian:50"}),
        pytest.raises(ConfigError, match="being trained in by another process"),
        claimed(folder, {"noise": "gaussian:50"}),
    ):
        pass
    with claimed(folder, {"noise": "gaussian:50"}) as content:
        assert content["configuration"] == {"noise": "gaussian:50"}
    with (
        pytest.raises(ConfigError, match="noise is 'gaussian:50' there, asked for 'gaussian:25'"),
        claimed(folder, {"noise": "gaussian:25"}),
    ):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not an empty folder"), claimed(tmp_path / "full", {}):
        pass
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
    with pytest.raises(ConfigError, match="is a file"), claimed(tmp_path / "full" / "file", {}):
        pass


def test_a_folder_of_which_only_the_lock_was_made_is_empty(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with claimed(tmp_path, {"seed": 1}) as content:
        assert content == {"configuration": {"seed": 1}, "training_version": TRAINING_VERSION}
    (tmp_path / RUN).unlink()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not an empty folder"), claimed(tmp_path, {"seed": 1}):
        pass


def test_the_configuration_is_neither_read_nor_written_without_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second training begins at the moment in which the first writes what it is."""
    refused: list[str] = []

    def write(folder: Path, content: Mapping[str, object]) -> None:
        with pytest.raises(ConfigError) as error, claimed(folder, {"seed": 2}):
            pass
        refused.append(str(error.value))
        write_run(folder, content)

    monkeypatch.setattr("nas.training.run_folder.write_run", write)
    with claimed(tmp_path / "run", {"seed": 1}) as content:
        assert content["configuration"] == {"seed": 1}
    assert refused == [f"`to` {tmp_path / 'run'} is being trained in by another process; wait for it"]


@pytest.mark.parametrize("settings", [{"warm_up": 1.0}, {"ema": 1.0}, {"ema": -0.1}, {"accumulate": 0}, {"seed": -1}])
def test_settings_have_rules(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"^`\w+` is"):
        FitSettings(**settings)  # type: ignore[arg-type]
