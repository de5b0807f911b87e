"""Networks that are trained together learn what they learn alone, or their speed would say nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.stacking import (
    STEPS_OF,
    batches,
    best,
    built,
    gain,
    grouped,
    table,
)

SIDE, SEEDS = 8, 3


@pytest.mark.parametrize("name", ["unet", "residual-unet"])
@pytest.mark.parametrize("form", ["grouped", "vmap", "captured"])
def test_stacked_networks_learn_as_they_would_alone(name: str, form: str) -> None:
    networks = built(SIDE, name, 4, SEEDS)
    data = batches(SIDE, SEEDS, 3, size=6)
    alone, together = (STEPS_OF[each](networks, bf16=False) for each in ("separate", form))
    for batch in data:  # the second and third losses show the updates of the steps before
        expected = alone(batch)
        torch.testing.assert_close(together(batch), expected, rtol=2e-4, atol=0)
    assert len(set(expected.tolist())) == SEEDS


def test_a_grouped_network_computes_what_its_members_do() -> None:
    networks = built(SIDE, "unet", 4, SEEDS)
    noisy = batches(SIDE, SEEDS, 1, size=5)[0][0]
    denoised, logits = grouped(networks)(noisy.transpose(0, 1).flatten(1, 2))
    for index, network in enumerate(networks):
        one, answers = network(noisy[index])
        torch.testing.assert_close(denoised[:, index : index + 1], one)
        torch.testing.assert_close(logits.unflatten(1, (SEEDS, -1))[:, index], answers)


def test_parts_that_cannot_be_stacked_are_refused() -> None:
    networks = [nn.Sequential(nn.PReLU()) for _ in range(2)]
    with pytest.raises(ValueError, match="0 is a PReLU, which cannot be stacked"):
        grouped(networks)


def test_the_table_takes_ratios_within_rounds_and_the_best_of_both_precisions() -> None:
    seconds = {
        "separate fp32": [2.0, 4.0, 6.0],
        "grouped fp32": [1.0, 1.0, 2.0],
        "vmap fp32": [4.0, 4.0, 6.0],
        "captured fp32": [8.0, 8.0, 12.0],
        "separate bf16": [1.0, 1.0, 3.0],
        "grouped bf16": [2.0, 2.0, 2.0],
        "vmap bf16": [2.0, 1.0, 1.0],
    }
    record = {"side": 8, "network": "unet", "width": 4, "seeds": 3, "seconds": seconds}
    assert gain(record, "grouped", "fp32") == 3.0
    assert best(record) == 1.0
    lines = table([record]).splitlines()
    assert lines[2] == "| 8x8 | unet | 4 | 3 | 3.00 | 1.00 | 0.50 | 0.50 | 1.00 | 1.00 |"
    assert lines[-1].startswith("8x8: ")
