"""The comparison of found networks with classical denoisers on pairs: its images, its rivals and its table."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import pairs
from benchmarks.pairs import Scene
from nas.data.sensor import Sensor


def test_areas_of_a_microscope_scene_share_no_pixel(tmp_path: Path) -> None:
    clean = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for side in ("gt", "raw"):
        (tmp_path / side).mkdir()
    for number in (1, 2):
        Image.fromarray(clean).save(tmp_path / "gt" / f"Confocal_FISH_{number}.png")
        Image.fromarray(clean ^ number).save(tmp_path / "raw" / f"Confocal_FISH_{number}.png")
    for part, scene in pairs.microscope_scenes(tmp_path):
        pairs.write_scene(tmp_path / "images", part, scene)
    found = {part: pairs.read_scenes(tmp_path / "images", part) for part in ("train", "val", "test")}
    pixels = np.concatenate([scene.clean.ravel() for (scene,) in found.values()])
    assert sorted(pixels) == list(range(256))
    assert {part: scene.clean.shape for part, (scene,) in found.items()} == {
        "train": (8, 16),
        "val": (8, 8),
        "test": (8, 8),
    }
    for (scene,) in found.values():
        assert scene.name == "Confocal_FISH"
        assert [int(shot[0, 0] ^ scene.clean[0, 0]) for shot in scene.shots] == [1, 2]


def test_each_photograph_of_the_bursts_is_in_one_split() -> None:
    photographs = [(str(number), np.full((64, 64), 100, np.uint8)) for number in range(24)]
    parts = defaultdict(list)
    for part, scene in pairs.burst_scenes(photographs):
        parts[part].append(scene)
    assert {part: len(scenes) for part, scenes in parts.items()} == {"train": 15, "val": 3, "test": 6}
    assert len({scene.name for scenes in parts.values() for scene in scenes}) == 24
    shots = np.stack([shot for scene in parts["train"] for shot in scene.shots]).astype(float)
    assert shots.shape == (15 * pairs.SHOTS, 64, 64)
    assert shots.mean() == pytest.approx(100, abs=0.2)
    assert shots.var() == pytest.approx(2 * 100 + 6**2 + 1 / 12, rel=0.02)


def test_the_sensor_is_measured_in_pairs() -> None:
    clean = np.linspace(10, 180, 256).round().astype(np.uint8).repeat(256).reshape(256, 256)
    ((_, scene),) = pairs.burst_scenes([("ramp", clean)])
    sensor = pairs.sensor_of([scene])
    assert sensor.gain == pytest.approx(2, rel=0.03)
    assert sensor.read == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize("brightness", [8, 60, 180])
def test_a_stabilised_denoiser_sees_one_strength_and_has_no_bias(brightness: int) -> None:
    random, sensor = np.random.default_rng(0), Sensor(gain=2.0, read=3.0)
    noisy = 2 * random.poisson(brightness / 2, (512, 512)) + random.normal(0, 3, (512, 512))
    seen = []

    def mean(image: np.ndarray, sigma: float) -> np.ndarray:
        seen.append(float(image.std()) / sigma)
        return np.full_like(image, image.mean())

    restored = pairs.stabilised(mean, sensor)((noisy / 255).astype(np.float32)[:, :, None], 0.0)
    assert seen == pytest.approx([1], abs=0.05)
    assert restored.mean() * 255 == pytest.approx(brightness, abs=0.15)


def test_shots_are_judged_beside_their_clean_image() -> None:
    clean = np.full((16, 16), 100, np.uint8)
    scene = Scene("a", clean, (clean + 5, clean - 10))
    found = pairs.judged("noisy", scene, [])
    assert found["psnr"] == pytest.approx(np.mean([20 * np.log10(255 / error) for error in (5, 10)]), abs=1e-4)
    images, beside = pairs.restored("noisy", scene, [])
    assert images.shape == beside.shape == (2, 1, 16, 16)
    assert torch.equal(beside[0], beside[1])


def test_the_table_compares_images_pair_by_pair() -> None:
    def images(*psnr: float) -> list[dict[str, float | str]]:
        names = ("Confocal_MICE", "Confocal_FISH")
        return [{"image": name, "psnr": value, "ssim": value / 40} for name, value in zip(names, psnr, strict=True)]

    plain, better = pairs.RIVALS
    rows = {plain: [images(30, 32)], better: [images(32, 34)], "found": [images(30, 33), images(32, 33)]}
    lines = pairs.table(rows)
    assert lines[0].startswith("| | PSNR (dB) | to BM3D | to BM3D, variance stabilised | SSIM | to BM3D |")
    assert lines[2].startswith("| BM3D | 31.00 ± 12.71 |  | -2.00 (-2.00 to -2.00) | 0.775 ± 0.318 |  | -0.050 ")
    assert lines[4].startswith("| found | 32.00 ± 12.71 | +1.00 (+1.00 to +1.00) | -1.00 (-1.00 to -1.00) | 0.800 ")
    assert lines[-1] == "found: 31.50, 32.50 dB by seed."
    assert pairs.instrument_table(rows) == [
        "| PSNR (dB), to BM3D, variance stabilised | Confocal (2 images) |",
        "|---|---|",
        "| BM3D | 31.00, -2.00 (-2.00 to -2.00) |",
        "| BM3D, variance stabilised | 33.00 |",
        "| found | 32.00, -1.00 (-1.00 to -1.00) |",
    ]
    assert pairs.image_table(rows)[2:] == [
        "| Confocal_MICE | 30.00 | 32.00 | 31.00 |",
        "| Confocal_FISH | 32.00 | 34.00 | 33.00 |",
    ]


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def skipnas(*words: str) -> None:
        asked.append(words)
        if words[0] != "search":
            target = Path(words[words.index("--to") + 1])
            (target / "bundle" if words[0] == "train" else target).mkdir(parents=True)

    monkeypatch.setattr(pairs, "skipnas", skipnas)
    options = pairs.parsed(["--to", str(tmp_path), "--seeds", "2", "--epochs", "7", "--search-epochs", "3"])
    for _ in range(2):
        rows = pairs.search_and_train(tmp_path, options)
    assert [words[0] for words in asked] == ["search", "export", "train", "train"]
    assert "--epochs 3 --time-limit 10m" in " ".join(asked[0])
    assert asked[2][1] == f"{tmp_path.name}:psnr"
    assert rows == {
        "found, 3 epochs": [tmp_path / "found"],
        "found, 7 epochs": [tmp_path / f"trained-7-seed-{seed}/bundle" for seed in range(2)],
    }
