"""torch.export and ONNX with dynamic batch, height and width: one program for every size, equal to eager.

Every size that leaves the deepest level more than one pixel on a side: torch.export fixes whether a size is 1.
"""

import random
from dataclasses import fields
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim

from nas.bundles.export import PARITY_LIMIT, export_bundle
from nas.types import Candidate, Task
from search_spaces.unet.network import UNet
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import UNetSpec

SPACE = UNetSpace()
TASK = Task(channels=1, classes=5, height=32, width=32, noise="gaussian:50")
DRAWN, SAMPLE = 600, 40

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


SHAPE = {field.name for field in fields(UNetSpec)} & set(SPACE.choices(TASK))
"""The hyperparameters of a network; a program knows nothing of its training."""


@lru_cache
def sample() -> list[Candidate]:
    """`SAMPLE` distinct networks of the space with every value of every hyperparameter that they use, and most pairs.

    The next one is always that with most new pairs for its layers, on which the exporters' time depends.
    """
    generator = random.Random(0)
    options = SPACE.choices(TASK)
    drawn: dict[UNetSpec, Candidate] = {}
    while len(drawn) < DRAWN:
        candidate = SPACE.decode({name: generator.choice(values) for name, values in options.items()}, TASK, 1)
        assert isinstance(candidate.spec, UNetSpec)
        if SPACE.cost(candidate.spec, TASK).macs <= 30_000_000:
            drawn[candidate.spec] = candidate
    candidates = list(drawn.values())
    held = [{pair for pair in SPACE.encode(candidate).items() if pair[0] in SHAPE} for candidate in candidates]
    values = sorted(set().union(*held), key=str)
    has = np.array([[value in own for value in values] for own in held], int)
    layers = np.array([2 + spec.levels * spec.columns for spec in drawn])
    new = np.ones((len(values), len(values)), int)
    chosen: list[Candidate] = []
    for _ in range(SAMPLE):
        best = int(np.argmax(((has @ new) * has).sum(1) / layers))
        chosen.append(candidates[best])
        new[np.ix_(has[best] > 0, has[best] > 0)] = 0
    return chosen


def test_the_sample_holds_every_value_of_every_hyperparameter_and_most_pairs() -> None:
    assert len({candidate.spec for candidate in sample()}) == SAMPLE
    encoded = [SPACE.encode(candidate) for candidate in sample()]
    for name, choices in SPACE.choices(TASK).items():
        # What is another name of something else is never found in a spec.
        wanted = set(choices) - {"haar" if name == "resampling" else None}
        assert name not in SHAPE or {params[name] for params in encoded if name in params} == wanted
    items = [sorted((name, str(value)) for name, value in params.items() if name in SHAPE) for params in encoded]
    assert len({pair for each in items for pair in combinations(each, 2)}) > 2300, "60 drawn at random had 2312"


@pytest.mark.slow
@pytest.mark.parametrize("index", range(SAMPLE))
def test_programs_compute_what_the_network_does(index: int, tmp_path: Path) -> None:
    torch.manual_seed(index)
    candidate = sample()[index]
    network = SPACE.build(candidate.spec, TASK)
    images = torch.rand(4, 1, 32, 32)
    network(images)  # in training mode, so that running statistics are not those that batch norm starts with
    parity = export_bundle(
        tmp_path / "bundle",
        space=SPACE,
        candidate=candidate,
        task=TASK,
        classes=["a", "b", "c", "d", "e"],
        network=network,
        images=images,
        facts={},
    )
    assert parity["holds"]
    assert parity["limit"] == PARITY_LIMIT == 1e-4
