"""torch.export with dynamic batch, height and width: one program for every size, equal to eager.

Every size that leaves the deepest level more than one pixel on a side: torch.export fixes whether a size is 1.
"""

from typing import Any

import pytest
import torch
from torch.export import Dim

from nas.types import Task
from search_spaces.unet.network import UNet
from search_spaces.unet.spec import UNetSpec

BASE: dict[str, Any] = {"width": 4, "kernel": 3, "growth": "doubling"}
REPRESENTATIVE = [
    {
        "levels": 3,
        "fusion": "concat",
        "gate": "channel",
        "resampling": "strided",
        "block": "residual",
        "norm": "group",
        "head_attach": "decoder",
    },
    {
        "levels": 2,
        "fusion": "add",
        "gate": "scalar",
        "resampling": "max",
        "block": "conv",
        "norm": "batch",
        "head_hidden": 1,
    },
]
MORE = [
    {"levels": levels, "fusion": fusion, "gate": gate, "resampling": resampling, "block": "conv", "norm": norm}
    for levels, fusion, gate, resampling, norm in [
        (1, "none", "none", "none", "batch"),
        (3, "none", "none", "average", "none"),
        (4, "add", "channel", "none", "group"),
        (5, "concat", "scalar", "average", "batch"),
        (5, "add", "none", "strided", "none"),
    ]
]


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(
    "choices", [*REPRESENTATIVE, *(pytest.param(choices, marks=pytest.mark.slow) for choices in MORE)], ids=str
)
def test_one_exported_program_takes_every_size(choices: dict[str, Any], classes: int) -> None:
    torch.manual_seed(0)
    task = Task(channels=1, classes=classes, height=32, width=32, noise="gaussian:50")
    network = UNet(UNetSpec(**BASE | choices), task).eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(network, (torch.rand(2, 1, 28, 36),), dynamic_shapes=(dynamic,)).module()
    for size in [(1, 1, 28, 28), (3, 1, 17, 23), (3, 1, 64, 40), (2, 1, 33, 17)]:
        noisy = torch.rand(size)
        for exported, eager in zip(program(noisy), network(noisy), strict=True):
            assert exported.shape == eager.shape
            assert torch.allclose(exported, eager, atol=1e-5)
