"""Folders as people have them: what is read of them, what is left out, and what stays together."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import data_dir

from nas.data.alike import Appearances, by_name
from nas.data.folders import read_folder
from nas.data.listing import list_folder
from nas.data.preparation import Preparation, fitted
from nas.data.raw import TEST, TRAIN, VALIDATION, RawData
from nas.data.splits import Dataset, assign, load, photographs
from nas.errors import ConfigError, DataError

Make = Callable[[Path], None]


def picture(seed: int, height: int = 16, width: int = 16) -> Image.Image:
    """Smooth shapes with some noise, which survive shrinking as a photograph does."""
    random = np.random.default_rng(seed)
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    values = np.full((height, width), 120.0)
    for _ in range(6):
        phase, (a, b) = random.uniform(0, 6), random.uniform(-9, 9, 2)
        values += 25 * np.sin(a * down + b * right + phase)
    return Image.fromarray((values + random.normal(0, 5, values.shape)).clip(0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def classes(top: Path, *, images: int = 10, side: int = 16, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(names):
        for number in range(images):
            save(top / name / f"{number:02}.png", picture(100 * label + number, side, side))
    return top


def splits(data: Dataset) -> list[list[bytes]]:
    return [[image.tobytes() for image in split.images] for split in (data.train, data.validation, data.test)]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(": ")[2] for record in caplog.records]


# --- what is left out, and told in one line ---
def checkpoints(top: Path) -> None:
    for image in sorted(top.glob("*/*.png")):
        save(image.parent / ".ipynb_checkpoints" / f"{image.stem}-checkpoint.png", Image.open(image))


def storage_box(top: Path) -> None:
    save(top / "@eaDir" / "00.png" / "SYNOPHOTO_THUMB_M.jpg", picture(1))
    save(top / "cat" / "@eaDir" / "00.png" / "SYNOPHOTO_THUMB_M.jpg", picture(2))


def archive_of_a_mac(top: Path) -> None:
    (top / "__MACOSX").mkdir()
    (top / "__MACOSX" / "._00.png").write_bytes(b"\0\5\x16\7")
    (top / "cat" / "._00.png").write_bytes(b"\0\5\x16\7")
    (top / ".DS_Store").touch()


def systems(top: Path) -> None:
    for place in ("Thumbs.db", "cat/desktop.ini", "$RECYCLE.BIN/1.png", "lost+found/2.png", "#recycle/cat/3.png"):
        (top / place).parent.mkdir(parents=True, exist_ok=True)
        (top / place).touch()


def notes(top: Path) -> None:
    for place in ("readme.txt", "cat/labels.csv", "dog/labels.CSV", "dog/raw.npy", "dog/LICENSE"):
        (top / place).touch()
    (top / "docs").mkdir()
    save(top / "loose.png", picture(3))


def evidence(top: Path) -> None:
    save(top / "cat" / "00.png.evidence.png", picture(60))
    save(top / "dog" / "Scan.TIF.Evidence.PNG", picture(61))


def special_files(top: Path) -> None:
    os.mkfifo(top / "cat" / "endless.png")


LEFT_OUT: list[tuple[str, Make, str]] = [
    ("copies of notebooks", checkpoints, "left out: 20 hidden or system files (.ipynb_checkpoints)"),
    ("thumbnails of a storage box", storage_box, "left out: 2 hidden or system files (@eaDir)"),
    ("an archive of a Mac", archive_of_a_mac, "left out: 3 hidden or system files (.DS_Store, ._00.png, __MACOSX)"),
    (
        "leavings of systems",
        systems,
        "left out: 5 hidden or system files (#recycle, $RECYCLE.BIN, Thumbs.db, ...)",
    ),
    ("notes", notes, "left out: 5 other files (.csv, .npy, .txt, ...), 1 image beside the class folders"),
    ("pictures of evidence", evidence, "left out: 2 other files (.evidence.png)"),
    ("a pipe", special_files, "left out: 1 other file (.png)"),
]


@pytest.mark.parametrize(("make", "line"), [row[1:] for row in LEFT_OUT], ids=[row[0] for row in LEFT_OUT])
def test_what_is_left_out_changes_nothing_and_is_told_in_one_line(
    tmp_path: Path, make: Make, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    top = classes(tmp_path / "set")
    plain = load(f"folder:{top}")
    make(top)
    if (top / "docs").exists():
        (top / "docs").rmdir()  # an empty folder would be an empty class, which is refused
    with caplog.at_level(logging.INFO):
        found = load(f"folder:{top}")
    assert found.fingerprint == plain.fingerprint
    assert splits(found) == splits(plain)
    assert told(caplog) == [line]


def test_photographs_leave_out_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = classes(tmp_path, side=70)
    plain = load(f"images:{top}")
    storage_box(top)
    with caplog.at_level(logging.INFO):
        assert load(f"images:{top}").fingerprint == plain.fingerprint
    assert told(caplog)[0] == "left out: 2 hidden or system files (@eaDir)"


@pytest.mark.parametrize("ending", ["bmp", "webp", "pgm", "ppm", "pbm", "jfif", "JPG", "tif"])
def test_every_kind_of_image_file_is_read(tmp_path: Path, ending: str) -> None:
    for name in ("cat", "dog"):
        for number in range(3):
            image = picture(number + 10 * (name == "dog")).convert({"ppm": "RGB", "pbm": "1"}.get(ending, "L"))
            kind = {"jfif": "JPEG", "JPG": "JPEG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}.get(ending, "PPM")
            save(tmp_path / name / f"{number}.{ending}", image, format=kind)
    assert len(read_folder(str(tmp_path), tmp_path).images) == 6


def test_links_to_folders_are_followed_and_no_folder_is_entered_twice(tmp_path: Path) -> None:
    top = classes(tmp_path / "set", images=3)
    elsewhere = save(tmp_path / "elsewhere" / "deep" / "z.png", picture(50)).parents[1]
    (top / "cat" / "linked").symlink_to(elsewhere)
    (top / "cat" / "again").symlink_to(elsewhere)
    (elsewhere / "deep" / "loop").symlink_to(elsewhere)
    (top / "cat" / "up").symlink_to(top / "cat")
    found = list_folder(top / "cat")
    assert [path.relative_to(top).as_posix() for path in found.images] == [
        "cat/00.png",
        "cat/01.png",
        "cat/02.png",
        "cat/again/deep/z.png",
    ]
    assert len(read_folder(str(top), top).images) == 7


def test_a_link_to_a_folder_of_the_set_adds_nothing(tmp_path: Path) -> None:
    top = tmp_path / "set"
    for number in range(6):
        save(top / "sub" / f"{number}.png", picture(number, 40, 40))
    plain = load(f"images:{top}")
    (top / "a").symlink_to(top / "sub")
    assert load(f"images:{top}").fingerprint == plain.fingerprint


# --- folders called train ---
def test_photographs_sorted_into_train_and_other_folders_are_all_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classes(tmp_path, names=("train", "city", "sea"), images=3, side=64)
    with caplog.at_level(logging.INFO):
        assert sum(map(len, splits(load(f"images:{tmp_path}")))) == 9
    assert told(caplog)[0] == "train: no split folder, because city stands beside it"


def test_train_may_be_a_class_beside_others(tmp_path: Path) -> None:
    assert load(f"folder:{classes(tmp_path, names=('train', 'car', 'plane'))}").classes == ("car", "plane", "train")


def test_loose_photographs_beside_train_make_it_a_folder_as_any(tmp_path: Path) -> None:
    classes(tmp_path, names=("train", "test"), images=4, side=64)
    assert [len(split) for split in splits(load(f"images:{tmp_path}"))] == [3, 1, 4]
    save(tmp_path / "loose.png", picture(77, 64, 64))
    assert sum(map(len, splits(load(f"images:{tmp_path}")))) == 9
    assert load(f"images:{tmp_path}").has_own_splits is False


def test_class_folders_beside_split_folders_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        classes(tmp_path / part)
    classes(tmp_path, names=("unsorted",))
    rule = r"'unsorted' stands beside 'test', which holds class folders; keep either split folders or class folders"
    with pytest.raises(DataError, match=rule):
        load(f"folder:{tmp_path}")


def test_files_and_empty_folders_beside_split_folders_do_no_harm(tmp_path: Path) -> None:
    classes(tmp_path / "train", names=("cat", "dog"))
    classes(tmp_path / "test", names=("cat", "dog"), side=18)
    (tmp_path / "docs").mkdir()
    (tmp_path / "readme.txt").touch()
    assert load(f"folder:{tmp_path}").has_own_splits


# --- images that set the size for all ---
def test_an_icon_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = classes(tmp_path, side=40)
    plain = load(f"folder:{top}")
    save(top / "cat" / "icon.png", picture(9, 10, 10))
    with caplog.at_level(logging.INFO):
        assert load(f"folder:{top}").fingerprint == plain.fingerprint
        assert load(f"images:{top}").train.images.shape[1:] == (1, 40, 40)
    assert told(caplog)[0] == "left out, as far smaller than the others: 1 image(s): cat/icon.png (10x10)"


def test_the_image_that_sets_the_size_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(classes(tmp_path, side=40) / "cat" / "small.png", picture(9, 15, 30))
    with caplog.at_level(logging.INFO):
        assert load(f"folder:{tmp_path}").train.images.shape[1:] == (1, 15, 15)
    assert told(caplog)[-1] == "images are resized and cut to 15x15 pixels, the short side of cat/small.png"


# --- images that are equal ---
def in_one_split(data: Dataset, expected: int) -> None:
    """Each image is near to itself only, so what lies in two splits would be found twice."""
    parts = [set(part) for part in splits(data)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts))
    assert sum(len(part) for part in splits(data)) == expected


def test_equal_images_are_in_one_split_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = classes(tmp_path)
    for image in sorted((top / "cat").iterdir()):
        shutil.copy(image, image.with_name(f"copy of {image.name}"))
    Image.open(top / "dog" / "00.png").convert("RGB").save(top / "dog" / "also.bmp")  # the same pixels
    with caplog.at_level(logging.INFO):
        found = load(f"folder:{top}")
    in_one_split(found, 31)
    assert told(caplog) == ["11 of 31 images are equal to another one; equal images stay in one split"]
    assert found.fingerprint == load(f"folder:{top}").fingerprint


WAYS = ["BOX", "BILINEAR", "BICUBIC", "LANCZOS", "NEAREST"]


@pytest.mark.parametrize("way", WAYS)
def test_images_that_are_equal_but_for_size_are_found(way: str) -> None:
    whole = [picture(seed, 90, 70) for seed in range(20)]
    small = [image.resize((35, 45), Image.Resampling[way]) for image in whole[:15]]
    found = Appearances()
    for image in (*whole, *small):
        found.add(image)
    groups, resized = found.equal(range(35), lambda index: (*whole, *small)[index])
    assert groups.tolist() == [*range(20), *range(15)]
    assert resized == 15


def test_thumbnails_in_jpeg_are_found_and_frames_of_a_film_are_not(tmp_path: Path) -> None:
    with Image.open(Path(data_dir, "astronaut.png")) as opened:
        photograph = opened.convert("RGB")
    film = [photograph.crop((left, 0, left + 300, 300)) for left in (0, 4, 8)]
    film[0].resize((120, 120)).save(tmp_path / "thumb.jpg", quality=70)
    images = [*film, Image.open(tmp_path / "thumb.jpg").convert("RGB"), film[1].resize((200, 200)).rotate(90)]
    found = Appearances()
    for image in images:
        found.add(image)
    groups, resized = found.equal(range(5), images.__getitem__)
    assert (groups.tolist(), resized) == ([0, 1, 2, 0, 4], 1)


def test_flat_images_of_different_sizes_are_equal_only_in_their_very_gray() -> None:
    images = [Image.new("L", (20 + i, 20 + i), gray) for i, gray in enumerate((10, 10, 11, 200))]
    found = Appearances()
    for image in images:
        found.add(image)
    assert found.equal(range(4), images.__getitem__)[0].tolist() == [0, 0, 2, 3]


def test_resized_copies_in_a_folder_stay_in_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = classes(tmp_path, side=64)
    for image in sorted((top / "dog").iterdir()):
        save(image.with_name(f"{image.stem}_small.png"), Image.open(image).resize((40, 40)))
    raw = read_folder(str(top), top)
    part = assign(raw, "x", "0" * 16)
    names = sorted(path.name for path in (top / "dog").iterdir())
    by_stem = dict(zip(names, part[10:].tolist(), strict=True))
    assert all(by_stem[f"{i:02}.png"] == by_stem[f"{i:02}_small.png"] for i in range(10))
    with caplog.at_level(logging.INFO):
        load(f"images:{top}")
    assert "10 of 30 images are equal to another one, 10 of them but for size" in caplog.text


def test_equal_images_of_two_classes_are_told_and_stay_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    top = classes(tmp_path)
    for number in range(3):
        shutil.copy(top / "cat" / f"{number:02}.png", top / "dog" / f"again{number}.png")
    with caplog.at_level(logging.INFO):
        in_one_split(load(f"folder:{top}"), 23)
    assert "3 of 23 images are equal to another one, 3 in another class" in caplog.text


def test_own_test_images_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classes(tmp_path / "train", images=12)
    for name in ("cat", "dog"):
        for number in range(4):
            (tmp_path / "test" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "train" / name / f"{number:02}.png", tmp_path / "test" / name / f"{number:02}.png")
    with caplog.at_level(logging.INFO):
        found = load(f"folder:{tmp_path}")
    assert [len(part) for part in splits(found)] == [13, 3, 8]
    in_one_split(found, 24)
    assert "8 of 32 images are equal to another one, 8 left out of an earlier split" in caplog.text


def test_equal_photographs_are_in_one_split(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / f"{number}.png", picture(number, 64, 64))
        save(tmp_path / "copies" / f"{number}.png", picture(number, 64, 64))
    in_one_split(load(f"images:{tmp_path}"), 18)
    held_out = {path.name for part in ("validation", "test") for path in photographs_of(tmp_path, part)}
    assert len(held_out) == 4
    assert all(len(photographs_of(tmp_path, part)) == 4 for part in ("validation", "test"))


def photographs_of(folder: Path, part: str, group_by: str | None = None) -> list[Path]:
    return photographs(f"images:{folder}", part, seen=None, group_by=group_by)[0]


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("digits", "556bccd460710c95"), ("photos", "2e42c4c36c452bfd"), ("folder", "48538287dd3c0f1d")],
)
def test_data_without_anything_of_this_is_split_as_ever(tmp_path: Path, name: str, fingerprint: str) -> None:
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for number in range(10):
            save(tmp_path / label / f"{number}.png", Image.fromarray(random.integers(0, 256, (16, 12), np.uint8)))
    found = load(name if name != "folder" else f"folder:{tmp_path}")
    assert found.fingerprint == fingerprint


# --- images that belong together by their names ---
def tracks(top: Path, *, of: int = 5, frames: int = 6) -> Path:
    for label in ("stop", "yield"):
        for track in range(of):
            for frame in range(frames):
                seed = 1000 * (label == "stop") + 100 * track + frame
                save(top / label / f"{track:05}_{frame:05}.ppm", picture(seed).convert("RGB"))
    return top


def test_frames_of_a_track_are_in_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = tracks(tmp_path)
    with caplog.at_level(logging.INFO):
        raw = read_folder(str(top), top, group_by=r"(\w+/\d+)_")
    assert told(caplog) == [r"60 images in 10 groups by '(\\w+/\\d+)_'"]
    part = assign(raw, "x", "0" * 16)
    assert all(len(set(part[start : start + 6])) == 1 for start in range(0, 60, 6))
    assert [int((part == code).sum()) for code in (TRAIN, VALIDATION, TEST)] == [36, 12, 12]
    grouped = load(f"folder:{top}", group_by=r"(\w+/\d+)_")
    assert (grouped.group_by, grouped.has_own_splits) == (r"(\w+/\d+)_", False)
    assert grouped.fingerprint != load(f"folder:{top}").fingerprint, "other splits, other data"
    assert load(f"folder:{top}", group_by=r"(.*)[.]").fingerprint == load(f"folder:{top}").fingerprint


def test_patients_with_images_of_several_classes_are_in_one_split(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for patient in range(30):
        for number in range(int(random.integers(2, 9))):
            label = "tumour" if random.random() < 0.3 else "healthy"
            save(tmp_path / label / f"p{patient}_{number}.png", picture(100 * patient + number))
    raw = read_folder(str(tmp_path), tmp_path, group_by=r"/(p\d+)_")
    part = assign(raw, "x", "0" * 16)
    for group in range(30):
        assert len(set(part[raw.groups == group])) == 1
    assert raw.labels is not None
    for label in (0, 1):
        shares = [np.mean(part[raw.labels == label] == code) for code in (TRAIN, VALIDATION, TEST)]
        assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.07)


def test_a_class_that_one_group_has_whole_is_named() -> None:
    labels = np.array([0, 1] * 4 + [2, 2])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    raw = RawData(np.zeros((10, 1, 2, 2), np.uint8), labels, ("a", "b", "c"), np.zeros(10, np.int64), groups, True)
    with pytest.raises(
        DataError, match=r"class 'c' has 1 group\(s\) for train \(equal images are one group\), at least 3 needed"
    ):
        assign(raw, "x", "0" * 16)


def test_tiles_of_a_slide_are_in_one_split_of_photographs(tmp_path: Path) -> None:
    for slide in range(5):
        for tile in range(4):
            save(tmp_path / f"slide{slide}_{tile}.png", picture(10 * slide + tile, 64, 64))
    held = [photographs_of(tmp_path, part, r"^slide\d+") for part in ("validation", "test")]
    assert [len({path.name[:6] for path in paths}) for paths in held] == [1, 1]
    assert [len(paths) for paths in held] == [4, 4]
    with pytest.raises(DataError, match=r"there are 1 group\(s\) for train \(equal images are one group\), at least 3"):
        load(f"images:{tmp_path}", group_by="slide")


def test_an_expression_must_find_something_in_every_path(tmp_path: Path) -> None:
    save(tracks(tmp_path) / "stop" / "extra.png", picture(5))
    with pytest.raises(DataError, match=r"`group_by` '\\\\d\+_' finds nothing in stop/extra.png; give an expression"):
        load(f"folder:{tmp_path}", group_by=r"\d+_")
    with pytest.raises(
        ConfigError,
        match="digits has no files to group; it is for folder:DIR, csv:FILE, images:DIR, pairs:DIR and noisy:DIR",
    ):
        load("digits", group_by="x")


def test_folders_that_divide_a_group_are_refused(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("test", 50)):
        for label in ("cat", "dog"):
            for number in range(4):
                save(tmp_path / part / label / f"p{number}_{part}.png", picture(seed + number + 10 * (label == "dog")))
    rule = "keeps cat/p0_train.png of train and cat/p0_test.png of test together; move them into one split folder"
    with pytest.raises(DataError, match=rule):
        load(f"folder:{tmp_path}", group_by=r"p\d+")


def test_groups_in_brackets_make_the_key() -> None:
    paths = ["a/t1_f1.png", "a/t1_f2.png", "b/t1_f1.png", "b/t2_f1.png"]
    assert by_name(paths, r"t(\d+)", "x").tolist() == [0, 0, 0, 3]
    assert by_name(paths, r"(\w)/t(\d+)", "x").tolist() == [0, 0, 2, 3]
    assert by_name(paths, r"f\d", "x").tolist() == [0, 1, 0, 0]


# --- how images are made ready ---
def test_an_image_of_the_training_set_becomes_what_it_was(tmp_path: Path) -> None:
    top = tmp_path / "set"
    sizes = [(256, 256), (200, 300), (90, 140), (48, 52), (129, 131)]
    for label in ("cat", "dog"):
        for number, (height, width) in enumerate(sizes):
            save(top / label / f"{number}.png", picture(number + 10 * (label == "dog"), height, width))
    raw = read_folder(str(top), top)
    assert raw.images.shape[1:] == (1, 48, 48)
    wanted = Preparation(height=48, width=48, channels=1)
    for number in range(5):
        with Image.open(top / "cat" / f"{number}.png") as image:
            assert np.array_equal(np.asarray(wanted.apply(image)), raw.images[number, 0])
    (top / "cat" / "3.png").unlink()  # the image that set the size
    again = load(f"folder:{top}", wanted=wanted)
    assert again.train.images.shape[1:] == (1, 48, 48)


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [((64, 32), (16, 16), (16, 16)), ((10, 10), (64, 64), (64, 64)), ((300, 200), (12, 16), (12, 16))],
)
def test_images_of_any_size_are_brought_to_one(
    size: tuple[int, int], wanted: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(picture(0, *size), wanted).size == expected


def test_the_centre_is_cut_out_and_averaged() -> None:
    values = np.zeros((20, 60), np.uint8)
    values[:, 20:40] = np.arange(20) * 10
    found = np.asarray(fitted(Image.fromarray(values), (10, 10)))
    assert found.tolist() == [[5 + 20 * i for i in range(10)]] * 10


def test_training_sees_a_phone_s_image_as_people_do(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = picture(0, 20, 16)
    save(tmp_path / "cat" / "a.png", upright)
    save(tmp_path / "cat" / "b.png", upright.rotate(90, expand=True), exif=exif)
    for number in range(3):
        save(tmp_path / "dog" / f"{number}.png", picture(number + 1, 20, 16))
    raw = read_folder(str(tmp_path), tmp_path)
    assert np.array_equal(raw.images[0], raw.images[1])
    assert raw.groups[0] == raw.groups[1], "one appearance, one split"
