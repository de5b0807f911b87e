"""Pairs of noisy and clean images: how they are found, that they fit, and how they are split and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from nas.data.augmentation import TURNS
from nas.data.noise import OfData, parse_noise
from nas.data.pairs import Problems, grain, shift_between
from nas.data.raw import Shots
from nas.data.sources import noise_for
from nas.data.splits import Dataset, Split, joined_splits, load
from nas.errors import ConfigError, DataError
from nas.training.batches import DeviceData, evaluation_batches

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
SIDE = 24


def scene(seed: int, side: int = SIDE) -> np.ndarray:
    """A smooth image of its own, whose first pixel is the seed."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:side, :side] / side
    image = 120 + 80 * np.sin(random.uniform(2, 9) * down + random.uniform(2, 9) * right + random.uniform(0, 6))
    image[0, 0] = seed
    return image.astype(np.uint8)


def noisy(clean: np.ndarray, shot: int = 0) -> np.ndarray:
    """A shot of a scene. The first pixel is the scene's, and the second the number of the shot."""
    noise = np.random.default_rng([int(clean[0, 0]), shot]).normal(0, 20, clean.shape)
    made = (clean + noise).clip(0, 255).astype(np.uint8)
    made[0, :2] = clean[0, 0], shot
    return made


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def pairs(folder: Path, names: tuple[str, str] = ("noisy", "clean"), count: int = 6, first: int = 0) -> Path:
    for number in range(first, first + count):
        save(folder / names[0] / f"{number}.png", noisy(scene(number)))
        save(folder / names[1] / f"{number}.png", scene(number))
    return folder


def everything(data: Dataset) -> Split:
    return joined_splits((data.train, data.validation, data.test))


def scenes_of(split: Split) -> list[int]:
    """The scene of each clean image; checks that its shots are of the same one."""
    assert split.shots is not None
    for index, image in enumerate(split.images):
        shots = split.shots.images[split.shots.starts[index] : split.shots.starts[index + 1]]
        assert (shots[:, 0, 0, 0] == image[0, 0, 0]).all()
    return [int(image[0, 0, 0]) for image in split.images]


def numbers_of_shots(split: Split) -> list[int]:
    assert split.shots is not None
    return np.diff(split.shots.starts).tolist()


# --- how they are found ---
@pytest.mark.parametrize(
    "names", [("noisy", "clean"), ("lq", "gt"), ("LQ", "GT"), ("input", "target"), ("low", "GT"), ("L", "H")]
)
def test_sides_are_known_by_their_names(tmp_path: Path, names: tuple[str, str]) -> None:
    data = load(f"pairs:{pairs(tmp_path, names)}")
    assert data.classes == ()
    assert sorted(scenes_of(everything(data))) == list(range(6))
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [4, 1, 1]
    assert data.train.images.shape[1:] == (1, SIDE, SIDE), "small images of one size stay whole"
    assert data.fingerprint == load(f"pairs:{pairs(tmp_path / 'again')}").fingerprint


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("train/noisy", "train/clean"), ("test/noisy", "test/clean")),
        (("trainL", "trainH"), ("testL", "testH")),
        (("train_lq", "train_gt"), ("test_lq", "test_gt")),
    ],
)
def test_own_splits_are_kept(tmp_path: Path, train: tuple[str, str], test: tuple[str, str]) -> None:
    pairs(tmp_path, train, count=5)
    pairs(tmp_path, test, count=3, first=5)
    data = load(f"pairs:{tmp_path}")
    assert data.has_own_splits
    assert sorted(scenes_of(data.test)) == [5, 6, 7]
    assert sorted(scenes_of(data.train) + scenes_of(data.validation)) == list(range(5))
    assert len(load(f"pairs:{tmp_path}", subset=2).train.images) == 2


def in_folders(folder: Path, number: int, shot: int) -> Path:
    return folder / "noisy" / str(number) / f"{shot}.png"


def with_numbers(folder: Path, number: int, shot: int) -> Path:
    return folder / "noisy" / f"{number}_{shot:03d}.png"


@pytest.mark.parametrize("place", [in_folders, with_numbers])
def test_several_shots_of_a_scene(tmp_path: Path, place: Callable[[Path, int, int], Path]) -> None:
    for number in range(6):
        save(tmp_path / "clean" / f"{number}.png", scene(number))
        for shot in range(2 + number % 2):
            save(place(tmp_path, number, shot), noisy(scene(number), shot))
    whole = everything(load(f"pairs:{tmp_path}"))
    found = dict(zip(scenes_of(whole), numbers_of_shots(whole), strict=True))
    assert found == {number: 2 + number % 2 for number in range(6)}


def test_scenes_in_folders_on_both_sides_are_no_classes(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "gt" / f"scene{number}" / "mean.png", scene(number))
        for shot in range(3):
            save(tmp_path / "raw" / f"scene{number}" / f"{shot}.png", noisy(scene(number), shot))
    whole = everything(load(f"pairs:{tmp_path}"))
    assert sorted(scenes_of(whole)) == list(range(5))
    assert numbers_of_shots(whole) == [3] * 5


def test_pages_are_shots_of_one_image_or_pairs_of_many(tmp_path: Path) -> None:
    for number in range(5):
        for side in ("noisy", "clean"):
            (tmp_path / "shots" / side).mkdir(parents=True, exist_ok=True)
            (tmp_path / "pages" / side).mkdir(parents=True, exist_ok=True)
        many = [scene(number), scene(100 + number)]
        shots = np.stack([noisy(scene(number), shot) for shot in range(4)])
        tifffile.imwrite(tmp_path / "shots/noisy" / f"{number}.tif", shots, photometric="minisblack")
        tifffile.imwrite(tmp_path / "shots/clean" / f"{number}.tif", scene(number), photometric="minisblack")
        tifffile.imwrite(tmp_path / "pages/noisy" / f"{number}.tif", np.stack([noisy(one) for one in many]))
        tifffile.imwrite(tmp_path / "pages/clean" / f"{number}.tif", np.stack(many))
    whole = everything(load(f"pairs:{tmp_path / 'shots'}"))
    assert (sorted(scenes_of(whole)), numbers_of_shots(whole)) == (list(range(5)), [4] * 5)
    data = load(f"pairs:{tmp_path / 'pages'}")
    assert sorted(scenes_of(everything(data))) == [*range(5), *range(100, 105)]
    for part in (data.train, data.validation, data.test):
        assert {n % 100 for n in scenes_of(part) if n >= 100} == {n for n in scenes_of(part) if n < 100}, "one file"


def test_names_may_tell_the_side_and_the_kind_of_file(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "noisy" / f"{number:04d}_NOISY_SRGB_010.bmp", noisy(scene(number)))
        save(tmp_path / "clean" / f"{number:04d}_GT_SRGB_010.png", scene(number))
    assert sorted(scenes_of(everything(load(f"pairs:{tmp_path}")))) == list(range(5))


def test_folders_that_hold_one_clean_image_each_are_no_classes(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "clean" / f"scene{number}" / "0.png", scene(number))
        save(tmp_path / "noisy" / f"scene{number}" / "0.png", noisy(scene(number)))
    data = load(f"pairs:{tmp_path}")
    assert data.classes == ()
    assert sorted(scenes_of(everything(data))) == list(range(5))


def test_classes_are_told_with_the_way_to_have_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(12):
        name = f"scene{number % 4}/{number}.png"
        save(tmp_path / "clean" / name, scene(number))
        save(tmp_path / "noisy" / name, noisy(scene(number)))
    with caplog.at_level("INFO"):
        assert len(load(f"pairs:{tmp_path}").classes) == 4
    assert (
        "4 classes (scene0, scene1, scene2, ...), one for each folder below the sides; if the folders are scenes, move "
        "their images up, as scene0_1.png, and keep those of a scene together with `group_by`" in caplog.text
    )


def test_classes_lie_below_the_sides(tmp_path: Path) -> None:
    for label in range(2):
        for number in range(5):
            name = f"{'ab'[label]}/{number}.png"
            save(tmp_path / "clean" / name, scene(100 * label + number))
            save(tmp_path / "noisy" / name, noisy(scene(100 * label + number)))
    data = load(f"pairs:{tmp_path}")
    assert data.classes == ("a", "b")
    whole = everything(data)
    assert whole.labels is not None
    assert [n // 100 for n in scenes_of(whole)] == whole.labels.tolist()
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [6, 2, 2]


def test_large_images_are_cut_alike_on_both_sides_and_stay_in_one_split(tmp_path: Path) -> None:
    for number in range(5):
        clean = np.repeat(np.repeat(scene(number, 20), 8, 0), 8, 1)[: 150 + number]
        save(tmp_path / "clean" / f"{number}.png", clean)
        for shot in range(2):
            save(tmp_path / "noisy" / f"{number}" / f"{shot}.png", 255 - clean)
    data = load(f"pairs:{tmp_path}")
    whole = everything(data)
    assert whole.images.shape == (5 * 4, 1, 64, 64)
    assert whole.shots is not None
    assert whole.shots.images.shape == (5 * 4 * 2, 1, 64, 64)
    assert (whole.shots.images.astype(int) + np.repeat(whole.images, 2, 0) == 255).all()
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [12, 4, 4]


def test_equal_clean_images_are_in_one_split(tmp_path: Path) -> None:
    pairs(tmp_path, count=8)
    for number in range(8, 10):
        save(tmp_path / "clean" / f"{number}.png", scene(0))
        save(tmp_path / "noisy" / f"{number}.png", noisy(scene(0), number))
    data = load(f"pairs:{tmp_path}")
    assert sum(0 in scenes_of(part) for part in (data.train, data.validation, data.test)) == 1


def test_shots_of_more_than_8_bits_may_be_below_black_and_are_on_one_scale(tmp_path: Path) -> None:
    for number in range(5):
        for side in ("noisy", "clean"):
            (tmp_path / side).mkdir(exist_ok=True)
        clean = (scene(number) / 255).astype(np.float32)
        tifffile.imwrite(tmp_path / "clean" / f"{number}.tif", 4095 * clean)
        tifffile.imwrite(tmp_path / "noisy" / f"{number}.tif", 4095 * (clean - 0.3).astype(np.float32))
    from nas.data.white import White

    whole = everything(load(f"pairs:{tmp_path}", white=White(given=4095)))
    assert whole.shots is not None
    assert whole.shots.images - whole.images == pytest.approx(-0.3, abs=1e-5)


@pytest.mark.parametrize("bright", [("clean", "noisy"), ("clean",), ("noisy",)])
def test_the_white_level_of_each_side_is_asked_for(tmp_path: Path, bright: tuple[str, ...]) -> None:
    for number in range(5):
        for side, values in (("clean", scene(number)), ("noisy", noisy(scene(number)))):
            counts = (values / 255 * (65535 if side in bright else 4095)).astype(np.uint16)
            (tmp_path / side).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / side / f"{number}.tif", counts)
    if len(bright) == 2:
        assert load(f"pairs:{tmp_path}").white_level is None
        return
    dark = "noisy" if bright == ("clean",) else "clean"
    with pytest.raises(DataError, match=rf"values of its {dark} images end at [34],\d+, far below the 65,535 of"):
        load(f"pairs:{tmp_path}")


def test_another_shot_is_other_data(tmp_path: Path) -> None:
    first = load(f"pairs:{pairs(tmp_path)}").fingerprint
    save(tmp_path / "noisy" / "3.png", noisy(scene(3), 1))
    assert load(f"pairs:{tmp_path}").fingerprint != first


# --- what does not fit ---
def broken(folder: Path, what: str) -> None:
    pairs(folder)
    third = folder / "noisy" / "3.png"
    if what == "missing":
        third.unlink()
    elif what == "size":
        save(third, noisy(scene(3, SIDE + 2)))
    elif what == "colour":
        save(third, np.repeat(noisy(scene(3))[..., None], 3, 2))
    elif what == "depth":
        save(third, noisy(scene(3)).astype(np.uint16) * 257)
    elif what == "swapped":
        (folder / "noisy").rename(folder / "other")
        (folder / "clean").rename(folder / "noisy")
        (folder / "other").rename(folder / "clean")
    elif what == "swapped shots":
        for number in range(6):
            (folder / "clean" / f"{number}.png").rename(folder / "clean" / f"{number}_1.png")
            save(folder / "clean" / f"{number}_2.png", noisy(scene(number), 2))
    elif what == "renumbered":
        for number in range(6):  # scenes 2 and 3 are alike
            save(folder / "noisy" / f"{number}.png", noisy(scene((number + 1) % 6)))
    elif what == "another":
        save(folder / "noisy" / "3" / "0.png", noisy(scene(3)))
        save(folder / "noisy" / "3" / "1.png", noisy(scene(5)))
        third.unlink()
    elif what == "three":
        save(folder / "lq" / "3.png", scene(3))
    elif what == "one":
        (folder / "noisy").rename(folder / "photos")
    elif what == "empty":
        for file in (folder / "noisy").iterdir():
            file.unlink()
    elif what == "twice":
        save(folder / "clean" / "3.bmp", scene(3))
    elif what == "no train":
        for side in ("noisy", "clean"):
            (folder / "test").mkdir(exist_ok=True)
            (folder / side).rename(folder / "test" / side)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("missing", r"1 image without a partner on the other side: .*clean/3.png; give both the same name"),
        ("size", r"1 pair not fitting together: 3.png \(26x26 beside 24x24 pixels\); mend or remove them"),
        ("colour", r"3.png \(gray beside colour\)"),
        ("depth", r"3.png \(8 bits beside more\)"),
        ("swapped", r"the sides look swapped, as the clean images are noisier .* in 6 of 6 pairs; exchange the names"),
        ("swapped shots", r"the sides look swapped, as clean has several images for one in noisy; exchange"),
        ("renumbered", r"5 pairs not fitting together: 0.png \(shows another scene, that of 1.png\), 1.png \(.* 2.png"),
        ("another", r"1 pair not fitting together: 3.png \(shows another scene, that of 5.png\); mend or remove"),
        ("three", r"holds clean, lq, noisy; it needs exactly two folders: noisy and clean, lq and gt"),
        ("one", r"holds clean, photos; it needs exactly two folders"),
        ("empty", r"noisy holds no images; each side needs them"),
        ("twice", r"clean/3.bmp and .*clean/3.png are two clean images of one name"),
        ("no train", r"has no images for training; name one folder train"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, what: str, told: str) -> None:
    broken(tmp_path, what)
    with pytest.raises(DataError, match=told) as error:
        load(f"pairs:{tmp_path}")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"pairs:{tmp_path}: ")


def test_an_expression_that_makes_names_equal_is_told(tmp_path: Path) -> None:
    for side in ("clean", "noisy"):
        for number in range(4):
            save(tmp_path / side / f"{number}-mean.png", scene(number))
    with pytest.raises(
        DataError, match=r"`pair_by` '\(mean\)' finds the same in .*clean/0-mean.png and .*clean/3-mean.png"
    ):
        load(f"pairs:{tmp_path}", pair_by="(mean)")


def test_a_class_that_only_one_side_has_is_told(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        save(tmp_path / "clean" / f"{name}.png", scene(1))
    for name in ("a/1", "a/2", "c/1"):
        save(tmp_path / "noisy" / f"{name}.png", noisy(scene(1)))
    with pytest.raises(DataError, match=r"2 images without a partner .*clean/b/1.png, .*noisy/c/1.png"):
        load(f"pairs:{tmp_path}")


def photograph(side: int) -> np.ndarray:
    from nas.data.installed import read_photographs

    return read_photographs()[3][40 : 40 + side, 100 : 100 + side].astype(np.float32) / 255


@pytest.mark.parametrize("side", [64, 200])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (0.6, 0.4), (1.5, 0.0), (-2, 5), (0, -9)])
def test_a_shift_is_found_under_noise(side: int, down: float, right: float) -> None:
    from scipy.ndimage import shift

    whole = photograph(side + 24)
    clean = whole[12:-12, 12:-12]
    shot = shift(whole, (down, right), order=3)[12:-12, 12:-12] + np.random.default_rng(0).normal(0, 0.1, clean.shape)
    found = shift_between(clean, shot.astype(np.float32))
    assert found == (0 if np.hypot(down, right) <= 1 else pytest.approx(np.hypot(down, right), abs=0.25))


def test_noise_alone_is_no_shift_and_nothing_is() -> None:
    flat = np.full((64, 64), 0.5, np.float32)
    for seed in range(20):
        random = np.random.default_rng(seed)
        assert shift_between(flat + random.normal(0, 0.003, flat.shape).astype(np.float32),
                             flat + random.normal(0, 0.1, flat.shape).astype(np.float32)) == 0  # fmt: skip
    assert shift_between(flat, flat) == 0


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_a_shot_under_any_noise_shows_its_own_scene(sigma: float) -> None:
    problems = Problems("pairs:x")
    for number in range(12):
        clean = scene(number, 40).astype(np.float32) / 255
        shot = clean + np.random.default_rng(number).normal(0, sigma, clean.shape).astype(np.float32)
        problems.check(f"{number}", Image.fromarray(clean), [Image.fromarray(shot)])
    problems.check("flat", Image.fromarray(np.full((40, 40), 0.5, np.float32)), [Image.fromarray(shot)])
    problems.tell()


def test_grain_is_the_noise_of_flat_parts() -> None:
    noise = np.random.default_rng(0).normal(0, 10 / 255, (256, 256)).astype(np.float32)
    assert grain(np.full_like(noise, 0.5) + noise) == pytest.approx(10, rel=0.2)
    assert grain(np.full_like(noise, 0.5)) == 0


# --- how they are drawn ---
def made_up(counts: list[int]) -> Split:
    """Images whose value is their number, and shots that are the scene's value mirrored, plus their number."""
    clean = np.stack([np.full((1, 4, 4), number, np.uint8) for number in range(len(counts))])
    clean[:, 0, 0, 1:] += 40
    shots = [255 - clean[number] - shot for number, count in enumerate(counts) for shot in range(count)]
    return Split(clean, None, Shots(np.stack(shots), np.cumsum([0, *counts])))


def dataset(split: Split, other: Split | None = None) -> Dataset:
    return Dataset("pairs:/none", split, other or split, other or split, (), "00ff")


def test_a_batch_draws_a_shot_of_each_image_and_turns_both_sides_alike() -> None:
    split = made_up([1, 2, 5])
    data = dataset(split)
    on_device = DeviceData.of(data, data.task("data"), CPU, TURNS)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(3).repeat(200)
    noisy_batch, clean, labels, _ = on_device.batch(rows, generator)
    assert labels is None
    shot = torch.round(255 - 255 * (noisy_batch + clean))
    assert (shot.flatten(1) == shot[:, 0, 0, :1]).all(), "every pixel is beside its own, however both are turned"
    assert [sorted(set(shot[rows == row, 0, 0, 0].tolist())) for row in range(3)] == [[0], [0, 1], [0, 1, 2, 3, 4]]
    orientations = {tuple(image.flatten().tolist()) for image in clean[rows == 2]}
    assert len(orientations) == 8
    again = on_device.batch(rows, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], noisy_batch)


@pytest.mark.parametrize(("counts", "draws"), [([1, 1], 1), ([3, 3], 3), ([1, 4], 4), ([20, 20], 8)])
def test_validation_uses_fixed_shots(counts: list[int], draws: int) -> None:
    split = made_up(counts)
    assert split.draws == draws
    batches = list(evaluation_batches(dataset(split), "validation", OfData(), CPU))
    assert len(batches) == draws
    shots = torch.stack(
        [torch.round(255 - 255 * (noisy_batch + clean))[:, 0, 0, 0] for noisy_batch, clean, *_ in batches]
    )
    for number, count in enumerate(counts):
        assert shots[:, number].tolist() == [draw * count // draws for draw in range(draws)]


def test_a_part_of_a_split_keeps_its_shots() -> None:
    split = made_up([1, 3, 2, 4]).chosen([3, 1])
    assert split.shots is not None
    assert split.shots.starts.tolist() == [0, 4, 7]
    assert (split.shots.images[:4, 0, 3, 3] == 255 - 3 - np.arange(4)).all()
    assert (split.shots.images[4:, 0, 3, 3] == 255 - 1 - np.arange(3)).all()


# --- whose noise it is ---
def test_the_noise_is_the_data_s() -> None:
    assert noise_for("pairs:/scans", None, "gaussian:50") == OfData()
    assert noise_for("pairs:/scans", "data", "gaussian:50") == OfData()
    assert noise_for("digits", None, "gaussian:50") == parse_noise("gaussian:50")
    for wanted in ("gaussian:50", "none"):
        with pytest.raises(ConfigError, match=f"noise '{wanted}': pairs:/scans has noisy images of its own; leave"):
            noise_for("pairs:/scans", wanted, "gaussian:50")
    for given, usual in (("data", "gaussian:50"), (None, "data")):
        with pytest.raises(ConfigError, match=r"noise 'data': digits has no noisy images .*; give a `noise`"):
            noise_for("digits", given, usual)
    with pytest.raises(ConfigError, match="no noisy ones beside them"):
        OfData().add(torch.zeros(1, 1, 4, 4), torch.Generator())


def test_pairs_are_not_resized_for_another_network(tmp_path: Path) -> None:
    from nas.data.preparation import Preparation

    pairs(tmp_path)
    wanted = Preparation(height=8, width=8, channels=1)
    with pytest.raises(DataError, match=r"patches of 24x24 pixels, which are never resized, and the network .* 8x8"):
        load(f"pairs:{tmp_path}", wanted=wanted)
