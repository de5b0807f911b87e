"""Every valid spec builds a network that trains, whatever the image's size, and its cost is known without it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unet_strategies import DIGITS, small_specs, specs, tasks

from nas.errors import SpecError
from nas.types import Task
from search_spaces.unet.blocks import ResidualBlock
from search_spaces.unet.fusion import Add, ChannelGate, Concat, Fusion, Gate, ScalarGate
from search_spaces.unet.network import UNet
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import UNetSpec

SPACE = UNetSpace()
JOINT = Task(channels=3, classes=5, height=32, width=32, noise="gaussian:50")
DENOISING = Task(channels=1, classes=0, height=32, width=32, noise="gaussian:50")
BASE: dict[str, Any] = {
    "levels": 3,
    "width": 4,
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "average",
    "block": "conv",
    "norm": "none",
    "kernel": 3,
}


@settings(max_examples=80, deadline=None)
@given(small_specs())
def test_after_two_steps_every_parameter_has_a_gradient(spec: UNetSpec) -> None:
    torch.manual_seed(0)
    network = SPACE.build(spec, JOINT)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    clean, labels = torch.rand(8, 3, 17, 23), torch.arange(8) % 5
    noisy = clean + 0.2 * torch.randn_like(clean)
    for _ in range(3):
        denoised, logits = network(noisy)
        assert denoised.shape == clean.shape
        assert logits.shape == (8, 5)
        optimiser.zero_grad()
        (F.mse_loss(denoised, clean) / 0.04 + F.cross_entropy(logits, labels)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimiser.step()
    dead = [name for name, parameter in network.named_parameters() if not torch.any(parameter.grad)]
    assert not dead


@settings(max_examples=60, deadline=None)
@given(specs(), tasks())
def test_cost_is_what_the_network_measures(spec: UNetSpec, task: Task) -> None:
    # On the meta device, so that wide networks are built and counted without memory or time.
    with torch.device("meta"):
        network = UNet(spec, task).eval()
        noisy = torch.empty(1, task.channels, task.height, task.width)
    with FlopCounterMode(display=False) as counter:
        network(noisy)
    cost = SPACE.cost(spec, task)
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    assert 2 * cost.macs == counter.get_total_flops()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (16, 16), (17, 23)])
@pytest.mark.parametrize("resampling", ["none", "max", "average", "strided"])
def test_images_of_any_size_keep_it(size: tuple[int, int], resampling: str) -> None:
    network = SPACE.build(UNetSpec(**BASE | {"levels": 5, "resampling": resampling}), JOINT).eval()
    denoised, logits = network(torch.rand(2, 3, *size))
    assert denoised.shape == (2, 3, *size)
    assert logits.shape == (2, 5)


def test_without_classes_the_logits_are_empty_and_cost_nothing() -> None:
    spec = UNetSpec(**BASE)
    denoised, logits = SPACE.build(spec, DENOISING)(torch.rand(2, 1, 32, 32))
    assert denoised.shape == (2, 1, 32, 32)
    assert logits.shape == (2, 0)


def test_a_network_too_deep_for_the_task_is_not_built() -> None:
    with pytest.raises(SpecError, match="leave under 2 pixels"):
        SPACE.build(UNetSpec(**BASE | {"levels": 4}), DIGITS)


def test_gates_start_at_one_and_come_shallow_first() -> None:
    scalar = UNet(UNetSpec(**BASE | {"gate": "scalar"}), DIGITS).gates()
    channel = UNet(UNetSpec(**BASE | {"gate": "channel"}), DIGITS).gates()
    assert [tuple(gate.shape) for gate in scalar] == [(), ()]
    assert [tuple(gate.shape) for gate in channel] == [(4,), (8,)]
    for gate in (*scalar, *channel):
        assert torch.allclose(gate, torch.ones_like(gate), atol=1e-6)
        assert not gate.requires_grad
    assert UNet(UNetSpec(**BASE), DIGITS).gates() == []


def test_gates_by_their_formulas() -> None:
    skip = torch.randn(2, 3, 4, 4)
    scalar, channel = ScalarGate(3), ChannelGate(3)
    assert scalar.b.item() == pytest.approx(0.5413, abs=1e-4)
    with torch.no_grad():
        scalar.b.fill_(-0.3)
        channel.g.copy_(torch.tensor([2.0, 0.0, -1.0]))
    assert torch.allclose(scalar(skip), math.log1p(math.exp(-0.3)) * skip)
    assert torch.equal(channel(skip), torch.stack((2 * skip[:, 0], 0 * skip[:, 1], -skip[:, 2]), dim=1))
    assert torch.equal(Gate(3)(skip), skip)


def test_fusions_by_their_formulas() -> None:
    state, skip = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(Fusion(3)(state, skip), state)
    assert torch.equal(Add(3)(state, skip), state + skip)
    assert torch.equal(Concat(3)(state, skip), torch.cat((state, skip), dim=1))


@pytest.mark.parametrize(("fusion", "uses_skip"), [("none", False), ("concat", True), ("add", True)])
def test_past_a_silent_bottleneck_only_a_fused_skip_reaches_the_output(fusion: str, uses_skip: bool) -> None:
    torch.manual_seed(0)
    network = UNet(UNetSpec(**BASE | {"fusion": fusion, "levels": 2}), DIGITS).eval()
    network.downs[0] = torch.nn.Sequential(network.downs[0], _Zero())
    noisy = torch.rand(1, 1, 8, 8)
    depends = not torch.equal(network(noisy)[0], network(1 - noisy)[0])
    assert depends == uses_skip


def test_a_residual_block_without_norm_starts_as_the_identity() -> None:
    features = torch.randn(2, 6, 5, 5)
    assert torch.equal(ResidualBlock(6, 6, 3, "none")(features), features)


class _Zero(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(features)
