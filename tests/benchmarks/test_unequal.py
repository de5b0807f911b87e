"""The comparison of searches on unequal classes: its images and its table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.unequal import CLASSES, SEARCHES, Found, table, write_images
from nas.data.splits import Dataset, Split


def test_images_are_halved_and_in_one_split_each(tmp_path: Path) -> None:
    labels = np.repeat([label for label, _ in CLASSES.values()], 6000).astype(np.int64)
    images = np.zeros((len(labels), 1, 28, 28), np.uint8)
    images[:, :, ::2] = 100
    split = Split(images[:1], labels[:1])
    data = Dataset(
        "made", train=Split(images, labels), validation=split, test=split, classes=("a",) * 10, fingerprint="00ff"
    )
    write_images(data, tmp_path)
    files = list(tmp_path.rglob("*.png"))
    counts = Counter((file.parts[-3], file.parts[-2]) for file in files)
    assert counts[("train", "coat")] == counts[("validation", "coat")] == 19 * counts[("train", "shirt")]
    assert counts[("test", "coat")] == 19 * counts[("test", "shirt")]
    assert len({file.stem for file in files}) == len(files), "no image is in two splits"
    pixels = np.asarray(Image.open(files[0]))
    assert pixels.shape == (14, 14)
    assert (pixels == 50).all()


def test_the_table_has_means_and_the_gain_of_each_seed() -> None:
    def found(balanced: float, moved: float) -> Found:
        values = {"psnr": 22.0, "accuracy": 95.0, "balanced_accuracy": balanced, "auc": 0.75}
        return Found(values=values, threshold=0.5, moved=moved)

    first, second = SEARCHES
    lines = table({first: [found(50, 60), found(52, 62)], second: [found(70, 71), found(68, 69)]})
    assert lines[0].startswith("| search for | accuracy (%) | balanced_accuracy (%) | auc | psnr (dB) |")
    assert lines[2].startswith("| accuracy | 95.00 ± 0.00 | 51.00 ± ")
    told = lines[-1]
    assert told.startswith(f"{second}: +18.0 points of balanced accuracy")
    assert told.endswith("by seed +20.0, +16.0")
    assert pytest.approx(18.0) == float(told.split(": ")[1].split(" ")[0])
