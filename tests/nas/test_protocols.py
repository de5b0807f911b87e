"""What a network says of itself: defaults for what it leaves out, one line for what is malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.data.splits import Dataset
from nas.errors import ConfigError
from nas.protocols import TASKS, Abilities
from nas.training.batches import DeviceData
from nas.training.loop import Training
from nas.types import Recipe, Task

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")


class Plain(nn.Module):
    """A network that says nothing of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        denoised = self.conv(noisy)
        return denoised, self.head(denoised.flatten(1))


def saying(**said: Any) -> nn.Module:
    """A plain network with these attributes and methods."""
    network = type("Speaking", (Plain,), said)()
    assert isinstance(network, nn.Module)
    return network


def test_what_a_network_leaves_out_has_a_default() -> None:
    network = Plain()
    found = Abilities.of(network)
    assert (found.tasks, found.reach, found.penalty(), list(found.gates())) == (TASKS, None, None, [])
    assert found.reduction == 1
    assert found.evidence_head is None
    assert found.capturable is False
    assert found.parameter_groups() == {"base": list(network.parameters())}


def test_what_a_network_says_is_taken() -> None:
    network = saying(
        tasks=("denoise",),
        reach=1,
        reduction=4,
        gates=lambda self: [torch.ones(2)],
        penalty=lambda self: self.conv.weight.sum(),
        parameter_groups=lambda self: {"base": list(self.conv.parameters()), "sharing": list(self.head.parameters())},
        evidence_head=property(lambda self: self.head),
    )
    found = Abilities.of(network)
    assert found.evidence_head is network.head
    assert (found.tasks, found.reach, found.reduction) == (("denoise",), 1, 4)
    assert torch.equal(found.gates()[0], torch.ones(2))
    assert torch.equal(found.penalty(), network.conv.weight.sum())
    assert [len(group) for group in found.parameter_groups().values()] == [2, 2]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tasks": "denoise"}, "tasks is 'denoise', must be some of denoise, classify"),
        ({"tasks": ()}, r"tasks is \(\), must be some of denoise, classify"),
        ({"tasks": ("denoise", "denoise")}, "must be some of denoise, classify"),
        ({"reach": -1}, "reach is -1, must be a number of pixels, or None"),
        ({"reach": True}, "reach is True, must be a number of pixels, or None"),
        ({"reduction": 0}, "reduction is 0, must be a number of pixels"),
        ({"gates": [1.0]}, r"gates is \[1.0\], must be a method"),
        ({"gates": lambda self: [1.0]}, r"gates\(\) is \[1.0\], must be a list of tensors"),
        ({"evidence_head": "head"}, "evidence_head is 'head', must be a module, or None"),
        ({"capturable": 1}, "capturable is 1, must be True or False"),
        ({"penalty": lambda self: 0.5}, r"penalty\(\) is 0.5, must be a tensor of shape \(\), or None"),
        ({"penalty": lambda self: torch.ones(3)}, r"must be a tensor of shape \(\), or None"),
        ({"parameter_groups": lambda self: []}, r"parameter_groups\(\) is \[\], must be lists of parameters by name"),
        (
            {"parameter_groups": lambda self: {"base": list(self.conv.parameters())}},
            r"parameter_groups\(\) is \['base'\], must be groups that hold every parameter once",
        ),
        (
            {"parameter_groups": lambda self: {"a": list(self.parameters()), "b": list(self.parameters())}},
            "must be groups that hold every parameter once",
        ),
    ],
)
def test_what_is_malformed_is_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"network Speaking: .*{message}") as refused:
        Abilities.of(saying(**said))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("forward", "made"),
    [
        (lambda self, noisy: (noisy.mean((2, 3), keepdim=True), noisy.new_zeros(len(noisy), 10)), "(64, 1, 1, 1)"),
        (lambda self, noisy: (noisy, noisy.new_zeros(len(noisy), 7)), "(64, 7)"),
        (lambda self, noisy: (noisy, noisy.new_zeros(10)), "(10,)"),
    ],
    ids=["image", "classes", "batch"],
)
def test_outputs_of_another_shape_are_refused_and_not_broadcast(
    digits: Dataset, forward: Callable[..., Any], made: str
) -> None:
    data = DeviceData.of(digits, TASK, torch.device("cpu"))
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=1e-3, weight_decay=0.0, classification_weight=0.3)
    with pytest.raises(ConfigError) as refused:
        Training(saying(forward=forward), TASK, recipe, data, seed=0)
    assert str(refused.value).startswith("network Speaking: from images (64, 1, 8, 8) it makes ")
    assert made in str(refused.value)
    assert str(refused.value).endswith("must make (64, 1, 8, 8) and (64, 10)")
