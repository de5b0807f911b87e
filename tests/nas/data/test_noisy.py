"""Noisy images without clean ones: which are shots of one scene, classes, splits, and what cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from nas.data.augmentation import MIRRORS, NONE, TURNS
from nas.data.noise import OfData
from nas.data.shots import Correlated, Likeness, likeness_of
from nas.data.sources import augmentation_for, list_sources, noise_for, parse_source, sources_in_short
from nas.data.splits import Dataset, Split, joined_splits, load
from nas.errors import ConfigError, DataError

SIDE = 32


def shot(seed: int, number: int = 0, side: int = SIDE) -> np.ndarray:
    """A noisy image of a scene of its own."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:side, :side] / side
    image = 120 + 60 * np.sin(random.uniform(2, 9) * down + random.uniform(2, 9) * right + random.uniform(0, 6))
    noise = np.random.default_rng([seed, number]).normal(0, 25, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, *pages: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, np.stack(pages), photometric="minisblack")
    else:
        Image.fromarray(pages[0]).save(path)


def everything(data: Dataset) -> Split:
    return joined_splits((data.train, data.validation, data.test))


def in_folders(folder: Path, scene: int, number: int) -> Path:
    return folder / f"scene {scene}" / f"{number}.png"


def with_numbers(folder: Path, scene: int, number: int) -> Path:
    return folder / f"scene{scene}_{number}.png"


def scenes(folder: Path, place=in_folders, count: int = 10, shots: int = 3, first: int = 0) -> Path:  # type: ignore[no-untyped-def]
    for scene in range(first, first + count):
        for number in range(shots):
            save(place(folder, scene, number), shot(scene, number))
    return folder


def stacks(folder: Path, count: int = 10, pages: int = 3, *, independent: bool = False) -> Path:
    for scene in range(count):
        shown = [shot(100 * scene + number if independent else scene, number) for number in range(pages)]
        save(folder / f"{scene}.tif", *shown)
    return folder


# --- shots of one scene ---
@pytest.mark.parametrize("place", [in_folders, with_numbers])
def test_shots_lie_in_folders_or_have_numbers(tmp_path: Path, place: object) -> None:
    data = load(f"noisy:{scenes(tmp_path, place)}")
    split = everything(data)
    assert (data.classes, split.clean, split.images.shape) == ((), False, (10, 1, SIDE, SIDE))
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [6, 2, 2]
    assert data.validation.draws == 3
    assert split.shots is not None
    assert np.diff(split.shots.starts).tolist() == [3] * 10
    means = split.shots.images.reshape(10, 3, 1, SIDE, SIDE).mean(1, dtype=np.float64) / 255
    assert np.allclose(split.images, means, atol=1e-6)
    wanted = {shot(scene, number).tobytes() for scene in range(10) for number in range(3)}
    assert {image.tobytes() for image in split.shots.images} == wanted
    assert data.task("data").clean is False


@pytest.mark.parametrize("independent", [False, True])
def test_pages_are_shots_when_they_look_alike(
    tmp_path: Path, independent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = load(f"noisy:{stacks(tmp_path, independent=independent)}")
    split = everything(data)
    assert len(split.images) == (30 if independent else 10)
    assert (split.shots is None) is independent
    (line,) = [message for message in caplog.messages if "pages of one file" in message]
    if independent:
        assert "are taken for scenes of their own, as they correlate by" in line
        assert "noisy-shots:DIR" in line
        assert split.images.dtype == np.uint8
    else:
        assert "pages of one file are taken for shots of one scene, as they correlate by 0.9" in line
        assert "noisy-single:DIR" in line
    assert caplog.messages[-1].endswith("(blind spot)" if independent else "(Noise2Noise)")


def test_it_can_be_said_which_they_are(tmp_path: Path) -> None:
    stacks(tmp_path / "alike")
    single = load(f"noisy-single:{tmp_path / 'alike'}")
    assert len(everything(single).images) == 30
    assert everything(single).shots is None
    for part in (single.train, single.validation, single.test):
        assert len(part.images) % 3 == 0, "pages of a file stay in one split"
    stacks(tmp_path / "different", independent=True)
    together = load(f"noisy-shots:{tmp_path / 'different'}")
    assert len(everything(together).images) == 10
    assert together.fingerprint != load(f"noisy-single:{tmp_path / 'different'}").fingerprint


def test_numbered_images_of_different_scenes_are_no_shots(tmp_path: Path) -> None:
    for scene in range(10):
        save(tmp_path / f"img_{scene}.png", shot(scene))
    split = everything(load(f"noisy:{tmp_path}"))
    assert split.shots is None
    assert len(split.images) == 10


def test_a_scene_with_one_shot_among_others_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scenes(tmp_path)
    save(tmp_path / "scene 99" / "0.png", shot(99))
    assert len(everything(load(f"noisy:{tmp_path}")).images) == 10
    assert any(message.endswith("left out: 1 scene with one shot") for message in caplog.messages)


def fields(seed: int, count: int, contrast: float, side: int = 96) -> list[np.ndarray]:
    """Scenes around 0.5 with a texture of the given standard deviation."""
    random = np.random.default_rng(seed)
    found = [gaussian_filter(random.standard_normal((side, side)), 3) for _ in range(count)]
    return [0.5 + contrast * field / field.std() for field in found]


def shots_of(scenes: list[np.ndarray], count: int, noise: float) -> list[list[np.ndarray]]:
    random = np.random.default_rng(99)
    return [[scene + random.normal(0, noise, scene.shape) for _ in range(count)] for scene in scenes]


def vignetting(amplitude: float = 0.4, side: int = 96) -> np.ndarray:
    place = np.linspace(-1, 1, side) ** 2
    darker: np.ndarray = -amplitude * (place + place[:, None]) / 2
    return darker


def in_sixes(images: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The images as if each six were of one scene."""
    return [[image for (image,) in images[start : start + 6]] for start in range(0, len(images), 6)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("contrast", "noise", "shared"), [(0.04, 0.1, 0), (0.15, 0.4, 0), (0.12, 0.03, 0), (0.2, 0.05, 0), (0.12, 0.03, 1)]
)
def test_shots_correlate_within_scenes_only(seed: int, contrast: float, noise: float, shared: float) -> None:
    """Whatever is hidden by noise, and whatever all images have in common, which is vignetting here."""
    for amplitude in (0.4, 1.2):
        common = shared * vignetting(amplitude)
        true = [common + scene for scene in fields(seed, 36, contrast)]
        for count in (2, 4):
            assert likeness_of(shots_of(true[:6], count, noise)).shots is True
            assert likeness_of(shots_of(true[:1], count, noise)).shots is True
        unrelated = in_sixes(shots_of(true, 1, noise))
        assert likeness_of(unrelated).shots is False
        if amplitude < 1:  # one scene alone leaves strong vignetting open
            assert likeness_of(unrelated[:1]).shots is False


def lit(seed: int, darkest: float, side: int = 96) -> np.ndarray:
    """A spotlight somewhere on an image, as a factor from `darkest` to 1."""
    down, right = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
    place = np.linspace(-1, 1, side)
    light: np.ndarray = np.exp(-((place[:, None] - down) ** 2 + (place - right) ** 2) / 0.5)
    return darkest + (1 - darkest) * light


@pytest.mark.parametrize("seed", range(3))
def test_light_of_its_own_in_each_folder_makes_no_shots(seed: int) -> None:
    """Folders are samples there, each under one light; shots are known under light that changes."""
    random = np.random.default_rng(seed)
    subjects = fields(seed, 24, 0.03)
    for darkest in (0.1, 0.3):
        light = [lit(6 * seed + folder, darkest) for folder in range(6)]
        unrelated = [
            [light[folder] * subjects[4 * folder + shot] + random.normal(0, 0.02, (96, 96)) for shot in range(4)]
            for folder in range(6)
        ]
        found = likeness_of(unrelated)
        assert found.smooth.above > 0.5, "as shots would be"
        assert found.shots is None, "which is a question"
    changing = [
        [lit(10 * scene + shot, 0.5) * subjects[scene] + random.normal(0, 0.01, (96, 96)) for shot in range(4)]
        for scene in range(6)
    ]
    assert likeness_of(changing).shots is True


@pytest.mark.parametrize(
    ("smooth", "fine", "shots"),
    [
        ((0.98, 0.26), (0.90, 0.05), True),
        ((0.78, 0.23), (0.35, 0.04), True),  # strong noise hides most of the fine structure
        ((0.60, 0.47), (0.92, 0.06), True),  # shots under a light that changes
        ((0.99, 0.85), (0.05, 0.06), None),  # different subjects under one light for each folder
        ((0.42, 0.60), (0.57, 0.39), None),  # one place where something large moves
        ((0.46, 0.68), (0.01, 0.06), False),  # different subjects under vignetting
        ((0.70, 0.76), (0.78, 0.80), False),  # a pattern of the sensor in all images
        ((0.50, None), (0.70, None), True),
        ((0.90, None), (0.10, None), False),
    ],
)
def test_both_structures_decide_whether_images_are_shots(
    smooth: tuple[float, float | None], fine: tuple[float, float | None], shots: bool | None
) -> None:
    """The figures are those of photographs."""
    assert Likeness(smooth=Correlated(*smooth), fine=Correlated(*fine)).shots is shots


def test_nothing_tells_noise_from_shots_of_nothing() -> None:
    flat = [np.full((32, 32), 0.5)] * 6
    assert likeness_of(shots_of(flat, 2, 0.1)).shots is False
    assert likeness_of([[flat[0], flat[0]]]).shots is False, "without noise too"
    odd = shots_of(fields(0, 4, 0.2), 3, 0.1)
    odd[0][0] = odd[0][0][:50]
    assert likeness_of(odd).shots is True, "one shot that does not fit is told where it is read"


def test_vignetting_makes_no_shots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for number, ((image,)) in enumerate(shots_of([vignetting(1.2) + each for each in fields(1, 36, 0.12)], 1, 0.03)):
        pixels = (255 * image + 60).clip(0, 255).astype(np.uint8)
        save(tmp_path / f"slide{'abcdef'[number // 6]}_{number % 6:03}.png", pixels)
    split = everything(load(f"noisy:{tmp_path}"))
    assert (split.shots, len(split.images)) == (None, 36)
    assert any("and images of different scenes by up to 0." in message for message in caplog.messages)


def test_shots_with_numbers_are_found_in_folders_of_images_that_are_alike(tmp_path: Path) -> None:
    """The stripes of a class are alike in fine structure, and the shots of each subject far more so."""
    side = 16
    down, right = np.mgrid[:side, :side] / side
    for label, along in (("lying", down), ("standing", right)):
        for number in range(10):
            random = np.random.default_rng([len(label), number])
            clean = 120 + 90 * np.sin(random.uniform(6, 12) * along + random.uniform(0, 6))
            for shot_of_it in range(2):
                noisy = (clean + random.normal(0, 8, clean.shape)).clip(0, 255).astype(np.uint8)
                save(tmp_path / label / f"{label}{number}_{shot_of_it}.png", noisy)
    data = load(f"noisy:{tmp_path}")
    assert (len(everything(data).images), data.classes) == (20, ("lying", "standing"))


def test_a_class_is_no_scene(tmp_path: Path) -> None:
    """Images of a class have much in common, which they share with those of other classes here."""
    random = np.random.default_rng(5)
    body, marks = fields(6, 1, 0.1)[0], fields(7, 5, 0.03)
    for label, mark in enumerate(marks):
        for number, own in enumerate(fields(10 + label, 6, 0.1)):
            image = body + mark + own - 1 + random.normal(0, 0.05, own.shape)
            save(tmp_path / f"class{label}" / f"{number}.tif", image.astype(np.float32))
    split = everything(load(f"noisy:{tmp_path}"))
    assert (split.shots, len(split.images)) == (None, 30)


@pytest.mark.parametrize(
    ("count", "told"), [(6, "and images of different scenes by up to 0."), (1, "there is no other scene to compare")]
)
def test_what_is_open_is_asked(tmp_path: Path, count: int, told: str) -> None:
    """The noise hides most of what shots have in common."""
    for scene, shots in enumerate(shots_of(fields(2, count, 0.04), 4, 0.2)):
        for number, image in enumerate(shots):
            save(tmp_path / f"scene {scene}" / f"{number}.tif", image.astype(np.float32))
    with pytest.raises(
        DataError, match=r"not clear whether images of one folder .* by 0\.\d\d.*; give noisy-shots:DIR or"
    ):
        load(f"noisy:{tmp_path}")
    with pytest.raises(DataError, match=told):
        load(f"noisy:{tmp_path}")


# --- classes, splits and patches ---
def test_class_folders_hold_scenes_or_images(tmp_path: Path) -> None:
    for label in ("cats", "dogs"):
        scenes(tmp_path / "shots" / label, first=100 * len(label) + ord(label[0]))
        for scene in range(8):
            save(tmp_path / "single" / label / f"{label}-a{scene}b.png", shot(1000 * ord(label[0]) + scene))
    shots, single = (load(f"noisy:{tmp_path / name}") for name in ("shots", "single"))
    assert shots.classes == single.classes == ("cats", "dogs")
    assert shots.train.labels is not None
    assert single.train.labels is not None
    assert np.bincount(shots.train.labels).tolist() == [6, 6]
    assert (everything(shots).shots is None, everything(single).shots is None) == (False, True)
    assert len(everything(single).images) == 16


def test_own_splits_are_kept(tmp_path: Path) -> None:
    scenes(tmp_path / "train")
    scenes(tmp_path / "test", count=3, first=20)
    data = load(f"noisy:{tmp_path}")
    assert data.has_own_splits
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [8, 2, 3]


def test_large_images_are_cut_alike(tmp_path: Path) -> None:
    for scene in range(5):
        for number in range(2):
            save(tmp_path / f"{scene}a" / f"{number}.png", shot(scene, number, side=130))
    split = everything(load(f"noisy:{tmp_path}"))
    assert split.images.shape == (20, 1, 64, 64)
    assert split.shots is not None
    first = [shot(scene, number, side=130)[:64, :64].tobytes() for scene in range(5) for number in range(2)]
    assert set(first) <= {image.tobytes() for image in split.shots.images}


# --- what cannot be used ---
def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    for kind in ("noisy", "noisy-shots", "noisy-single"):
        with pytest.raises(DataError, match=f"{kind}:.* holds no images"):
            load(f"{kind}:{tmp_path}")
    with pytest.raises(DataError, match="cannot be read"):
        load(f"noisy:{tmp_path / 'missing'}")
    with pytest.raises(ConfigError, match="DIR is missing; give noisy-shots:DIR"):
        parse_source("noisy-shots:")


def test_a_single_shot_where_several_are_needed_is_one_line(tmp_path: Path) -> None:
    scenes(tmp_path / "some")
    save(tmp_path / "some" / "scene 99" / "0.png", shot(99))
    with pytest.raises(DataError, match=r"1 scene with a single shot: scene 99/0.png; Noise2Noise needs two or more"):
        load(f"noisy-shots:{tmp_path / 'some'}")
    for scene in range(10):
        save(tmp_path / "all" / f"photo{scene}x.png", shot(scene))
    with pytest.raises(DataError, match=r"photo0x.png is a single shot, and Noise2Noise needs two or more of each"):
        load(f"noisy-shots:{tmp_path / 'all'}")


@pytest.mark.parametrize("further", [(), ("masks",)])
def test_sides_of_pairs_are_no_classes(tmp_path: Path, further: tuple[str, ...]) -> None:
    for number, folder in enumerate(("noisy", "GT", *further)):
        for scene in range(5):
            save(tmp_path / folder / f"image{scene}x.png", shot(10 * number + scene))
    with pytest.raises(DataError, match=r"folders noisy and GT are the sides of pairs and no classes; give pairs:DIR"):
        load(f"noisy:{tmp_path}")
    assert len(everything(load(f"noisy:{tmp_path / 'noisy'}")).images) == 5


def test_shots_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    scenes(tmp_path)
    save(in_folders(tmp_path, 3, 1), shot(3, 1)[:20])
    with pytest.raises(
        DataError, match=r"1 shot not .*: scene 3/1.png beside scene 3/0.png \(32x20 beside 32x32 pixels\)"
    ):
        load(f"noisy:{tmp_path}")
    save(in_folders(tmp_path, 3, 1), shot(3, 0))
    with pytest.raises(DataError, match=r"scene 3/1.png \(equal to scene 3/0.png, and so not independent\)"):
        load(f"noisy:{tmp_path}")
    save(in_folders(tmp_path, 3, 1), np.roll(shot(3, 1), 4, axis=1))
    with pytest.raises(DataError, match=r"scene 3/1.png beside scene 3/0.png \(shifted by [34]"):
        load(f"noisy-shots:{tmp_path}")


def test_the_noise_is_the_data_s() -> None:
    for kind in ("noisy", "noisy-shots", "noisy-single"):
        assert noise_for(f"{kind}:/scans", None, "gaussian:50") == OfData()
        with pytest.raises(ConfigError, match="has noisy images of its own; leave"):
            noise_for(f"{kind}:/scans", "gaussian:25", "gaussian:50")
        assert augmentation_for(f"{kind}:/scans", labelled=False) == TURNS
        assert augmentation_for(f"{kind}:/scans") == NONE
        assert augmentation_for(f"{kind}:/scans", True) == MIRRORS
        assert f"{kind}:DIR" in list_sources()
    assert sources_in_short().endswith("pairs:DIR or noisy:DIR")
