"""The comparison of one network for both tasks with two: equal sizes, what each way is given, and the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.joint import WAYS, cost, judged, specs, table
from nas.errors import ConfigError
from nas.training.batches import NoisyBatch
from nas.types import Task

TASK = Task(channels=1, classes=2, height=28, width=28, noise="gaussian:25")


def test_every_way_has_the_macs_of_the_joint_network_or_a_little_less() -> None:
    sizes = {name: cost(spec, TASK) for name, spec in specs(TASK, 8).items()}
    whole = sizes["joint"].macs
    assert sizes["joint"].params <= 100_000
    for way, networks in WAYS.items():
        assert 0.8 * whole < sum(sizes[name].macs for name in networks) <= whole, way
    assert specs(TASK, 8)["denoiser"].tasks == "denoise"
    with pytest.raises(ConfigError, match="no network that can denoise has at most"):
        specs(TASK, 4)


def test_a_way_that_restores_nothing_has_no_psnr() -> None:
    clean = torch.rand(4, 1, 8, 8)
    batch = NoisyBatch(clean + 0.1, clean, torch.tensor([0, 1, 0, 1]))
    logits = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]])

    def nothing(batch: NoisyBatch) -> tuple[Tensor | None, Tensor]:
        return None, logits

    assert judged(nothing, [batch]) == {"accuracy": 75, "balanced_accuracy": 75, "auc": 0.75}
    assert judged(lambda b: (b.noisy - 0.1, logits), [batch])["psnr"] == 60


def test_the_tables_have_means_and_differences_seed_by_seed() -> None:
    def seed(change: float) -> dict[str, Any]:
        values = {"accuracy": 80.0, "balanced_accuracy": 70.0, "auc": 0.9, "params": 1000, "macs": 2_000_000}
        ways = {way: dict(values) for way in WAYS}
        ways["joint"] |= {"psnr": 28.0, "accuracy": 81.0 + change}
        ways["side by side"]["psnr"] = 27.5
        return {"ways": ways, "denoiser": "bm3d"}

    lines = table([seed(0), seed(1)])
    half = 0.5 * 12.706
    assert (
        lines[2]
        == f"| joint | 1,000 | 2,000,000 | 28.00 ± 0.00 | 81.50 ± {half:.2f} | 70.00 ± 0.00 | 0.9000 ± 0.0000 |"
    )
    assert lines[4].startswith("| recognised as it is | 1,000 | 2,000,000 | - | 80.00 ± 0.00 |")
    assert lines[5].startswith("| BM3D first |")
    differences = lines[lines.index("") + 3 :]
    assert differences[0].startswith(
        f"| side by side | 0.50 (0.50 to 0.50) | 1.50 ({1.5 - half:.2f} to {1.5 + half:.2f})"
    )
    assert len(differences) == len(WAYS) - 1
