"""Every optimiser steps as its plain version does, whatever layout gradients and restored states come in.

torch's fused kernels on the CPU do not look at strides. So each network of the papers, whose weights are channels-last,
is trained beside a twin of its parameters: row-major copies that a plain optimiser moves by the same gradients.
"""

from __future__ import annotations

import dataclasses
import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from unet_strategies import DIGITS

from nas.data.splits import load
from nas.training.balancing import BALANCES
from nas.training.batches import DeviceData
from nas.training.loop import Training
from nas.training.optimizers import OPTIMIZERS, Optimizer
from search_spaces.unet.references import REFERENCES, reference_network
from search_spaces.unet.space import UNetSpace

SPACE = UNetSpace()
PLAIN = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load("digits", subset=64), DIGITS, torch.device("cpu"))


def start(name: str, data: DeviceData, **recipe: Any) -> Training:
    """A narrow reference network, its weights drawn from a fixed seed; an epoch is four steps."""
    candidate = reference_network(name, DIGITS, epochs=2)
    torch.manual_seed(0)
    network = SPACE.build(dataclasses.replace(candidate.spec, width=4), DIGITS)
    recipe = {"batch_size": 16, "weight_decay": 0.1, **recipe}
    return Training(network, DIGITS, dataclasses.replace(candidate.recipe, **recipe), data, seed=0)


class Twin:
    """Row-major copies of a run's parameters, moved by a plain optimiser with the run's gradients.

    Each step begins at the run's weights, so that a difference is that step's own and rounding does not pile up.
    """

    def __init__(self, run: Training, optimizer: str) -> None:
        self.run = run
        self.parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        self.copies = {p: nn.Parameter(p.detach().contiguous().clone()) for p in self.parameters}
        groups = [
            {**group, "params": [self.copies[p] for p in group["params"]]} for group in run.optimizer.param_groups
        ]
        for group in groups:
            group["fused"] = group["foreach"] = False
        self.optimizer = PLAIN[optimizer](groups)
        self.steps = 0

    def follow(self, run: Training) -> None:
        """From here on `run` is what is copied, with this twin's own momenta and variances."""
        self.run = run
        renewed = [p for group in run.optimizer.param_groups for p in group["params"]]
        self.copies = {new: self.copies[old] for new, old in zip(renewed, self.parameters, strict=True)}
        self.parameters = renewed
        step = run.optimizer.step

        def both(rates: None = None) -> None:
            self._before(run.optimizer)
            step(rates)

        run.optimizer.step = both  # type: ignore[method-assign]

    def _before(self, optimizer: Optimizer) -> None:
        with torch.no_grad():
            for parameter, copy in self.copies.items():
                copy.copy_(parameter)
                copy.grad = None if parameter.grad is None else parameter.grad.contiguous().clone()
        for own, theirs in zip(self.optimizer.param_groups, optimizer.param_groups, strict=True):
            own["lr"] = theirs["lr"]

    def check(self) -> None:
        self.optimizer.step()
        self.steps += 1
        for parameter, copy in self.copies.items():
            assert parameter.shape == copy.shape
            torch.testing.assert_close(parameter, copy, rtol=1e-5, atol=1e-6, msg=lambda text: f"{self.steps}: {text}")


def row_major(state: Any) -> Any:
    """The same values, each tensor row-major: how another program may have written them."""
    if isinstance(state, torch.Tensor):
        return state.contiguous()
    if isinstance(state, dict):
        return {name: row_major(value) for name, value in state.items()}
    return state


@pytest.mark.parametrize("balancing", BALANCES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", REFERENCES)
def test_fused_steps_are_plain_steps_also_after_a_checkpoint(
    name: str, optimizer: str, balancing: str, data: DeviceData
) -> None:
    recipe = {"optimizer": optimizer, "balancing": balancing}
    first = start(name, data, **recipe)
    twin = Twin(first, optimizer)
    twin.follow(first)
    first.run_epoch(twin.check)
    file = io.BytesIO()
    torch.save(row_major(first.state()), file)
    file.seek(0)
    second = start(name, data, **recipe)
    second.load_state(torch.load(file, weights_only=True))
    twin.follow(second)
    second.run_epoch(twin.check)
    assert twin.steps == 8
    for parameter, state in second.optimizer.state.items():
        for value in state.values():
            assert value.dim() == 0 or value.stride() == parameter.stride()


def test_a_step_takes_gradients_of_any_layout(data: DeviceData) -> None:
    """Of a convolution with 4 channels, whose row-major and channels-last orders differ."""
    run = start("unet", data)
    twin = Twin(run, "adamw")
    weight = next(p for p in twin.parameters if p.dim() == 4 and min(p.shape[:2]) > 1 and p.shape[2] > 1)
    assert not weight.is_contiguous()
    twin.follow(run)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    assert weight.grad.is_contiguous()
    values = weight.grad.clone()
    run.optimizer.step()
    twin.check()
    assert torch.equal(weight.grad, values)
    assert weight.grad.stride() == weight.stride()
