"""The benchmark of training without clean images: one short training of each way, and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import noisy_targets


def test_the_table_has_the_losses_seed_by_seed() -> None:
    clean, shots, blind = (30.0, 30.2, 29.8), (29.9, 30.1, 29.7), (29.0, 29.2, 28.8)
    found = [
        {"way": way, "seed": seed, "psnr": psnr}
        for way, values in zip(noisy_targets.WAYS, (clean, shots, blind), strict=True)
        for seed, psnr in enumerate(values)
    ]
    assert noisy_targets.table(found)[2:] == [
        "| clean targets | 3 | 30.00 ± 0.50 |  |",
        "| Noise2Noise | 3 | 29.90 ± 0.50 | 0.10 (0.10 to 0.10) |",
        "| blind spot | 3 | 29.00 ± 0.50 | 1.00 (1.00 to 1.00) |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("way", noisy_targets.WAYS)
def test_each_way_trains_and_is_judged_on_whole_photographs(tmp_path: Path, way: str) -> None:
    random = np.random.default_rng(0)
    for folder, count in (("train400", 20), ("set12", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            values = random.integers(0, 256, (9, 9)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{number}.png")
    found = noisy_targets.measure({"way": way, "seed": 0, "root": str(tmp_path), "epochs": 1, "version": 3})
    assert found["noisy"] == pytest.approx(20.2, abs=0.2)
    assert found["psnr"] > 5
