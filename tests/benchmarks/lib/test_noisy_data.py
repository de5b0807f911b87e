"""Noisy data sets made of clean ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.lib.noisy import with_shots
from nas.data.splits import Split


def test_the_noisy_images_are_the_clean_ones_with_the_noise() -> None:
    clean = Split(np.full((3, 1, 64, 64), 128, np.uint8), None)
    for shots in (1, 2):
        alone, known = with_shots(clean, "gaussian:25", shots, seed=1)
        assert (alone.clean, known.clean) == (False, True)
        assert known.shots is not None
        assert np.diff(known.shots.starts).tolist() == [shots] * 3
        assert known.shots.images.std() == pytest.approx(25 / 255, rel=0.05)
        assert alone.images.std() == pytest.approx(25 / 255 / shots**0.5, rel=0.05)
        assert (known.images == np.float32(128 / 255)).all()
        assert (alone.shots is None) is (shots == 1)
