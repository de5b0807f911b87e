"""The white level of whole folders, and stacks among them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nas.data.splits import load
from nas.data.white import White, question
from nas.errors import ConfigError, DataError

WHITE_12 = [(281, "H", 1, 4095, False)]


def frames(
    folder: Path,
    *,
    white: float,
    dtype: str = "u2",
    pages: int = 1,
    seed: int = 0,
    tags: Sequence[tuple[object, ...]] = (),
) -> Path:
    """Six photographs, whose values reach `white`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        values = np.random.default_rng(seed + number).random((pages, 20, 24))
        values = (values / values.max() * white).astype(dtype)
        tifffile.imwrite(
            folder / f"{dtype}-{number}.tif", values, photometric="minisblack", metadata=None, extratags=tags
        )
    return folder


@pytest.mark.parametrize(
    ("made", "known", "kept"),
    [
        ({"white": 65535}, {}, None),
        ({"white": 4095, "tags": WHITE_12}, {}, 4095),
        ({"white": 4095}, {"given": 4095}, 4095),
        ({"white": 4095}, {"trained": 4095}, 4095),
        ({"white": 200, "dtype": "u1"}, {}, None),
        ({"white": 1, "dtype": "f4"}, {}, None),
        ({"white": 25500, "dtype": "i2"}, {"given": 25500}, 25500),
        ({"white": 65535, "dtype": "u4"}, {"given": 65535}, 65535),
    ],
)
def test_the_level_of_a_folder_is_what_is_given_or_what_all_files_say(
    tmp_path: Path, made: dict[str, object], known: dict[str, float], kept: float | None
) -> None:
    data = load(f"images:{frames(tmp_path / 'a', **made)}", white=White(**known))  # type: ignore[arg-type]
    assert data.white_level == kept
    top = 200 if made.get("dtype") == "u1" else 1
    assert max(split.images.max() for split in (data.train, data.validation, data.test)) == pytest.approx(top)


def test_pages_that_state_different_levels_are_asked_about(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", white=1023, tags=WHITE_12)
    with tifffile.TiffWriter(folder / "pages.tif") as writer:
        for level in (4095, 1023):
            values = np.random.default_rng(level).integers(0, 1024, (20, 24), np.uint16)
            told = [(281, "H", 1, level, True)]
            writer.write(values, photometric="minisblack", metadata=None, extratags=told)
    for white in (White(), White(trained=4095)):
        with pytest.raises(DataError, match="its pages say that white is 1,023 and 4,095; give `white_level`"):
            load(f"images:{folder}", white=white)
    assert load(f"images:{folder}", white=White(given=4095)).white_level == 4095


@pytest.mark.parametrize(
    ("made", "known", "told"),
    [
        ({"white": 4095}, {}, "values of its images end at 4,095, far below the 65,535 of their type"),
        ({"white": 4095}, {"given": 1000}, "black is 0 and white 1,000"),
        ({"white": 200, "dtype": "u1"}, {"given": 4095}, "no image can have `white_level` 4,095"),
        ({"white": 1000, "tags": WHITE_12}, {"trained": 1023}, "says that white is 4,095, and the network .* 1,023"),
        ({"white": 1, "dtype": "f4"}, {"given": 4095}, "its values are fractions up to 1"),
    ],
)
def test_a_level_that_cannot_be_is_refused(
    tmp_path: Path, made: dict[str, object], known: dict[str, float], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        load(f"images:{frames(tmp_path / 'a', **made)}", white=White(**known))  # type: ignore[arg-type]


def test_the_largest_value_of_the_training_images_can_be_white(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a number from then on: with this number, the data is the same."""
    caplog.set_level(logging.INFO)
    counts = frames(tmp_path / "counts", white=600)
    tifffile.imwrite(counts / "brightest.tif", np.full((20, 24), 610, np.uint16), photometric="minisblack")
    frames(counts, white=250, dtype="u1")  # whose 250 are on another scale
    data = load(f"images:{counts}", white=White.asked("data"))
    assert data.white_level == 610
    assert f"images:{counts}: white is 610, the largest value of 7 files" in caplog.messages
    again = load(f"images:{counts}", white=White.asked(610))
    assert (again.fingerprint, again.white_level) == (data.fingerprint, 610)
    assert max(split.images.max() for split in (data.train, data.validation, data.test)) == 1
    shallow = load(f"images:{frames(tmp_path / 'shallow', white=200, dtype='u1')}", white=White.asked("data"))
    assert shallow.white_level == 200
    assert max(split.images.max() for split in (shallow.train, shallow.validation, shallow.test)) == 1
    fractions = load(f"images:{frames(tmp_path / 'fractions', white=12.5, dtype='f4')}", white=White.asked("data"))
    assert fractions.white_level == 12.5


@pytest.mark.parametrize("kind", ["images", "folder", "csv", "pairs", "noisy-single"])
def test_images_for_training_alone_decide_which_value_is_white(tmp_path: Path, kind: str) -> None:
    """Others may not decide, and what lies above is refused instead of being cut off."""
    side = {"pairs": "clean/", "folder": "cats/", "csv": "cats/"}.get(kind, "")
    for seed, (part, most) in enumerate((("train", 600.0), ("val", 400.0), ("test", 500.0))):
        frames(tmp_path / part / side, white=most, seed=100 * seed)
        if kind == "pairs":  # noise leads beyond white
            frames(tmp_path / part / "noisy", white=700, seed=100 * seed)
        if kind in ("folder", "csv"):
            frames(tmp_path / part / "dogs", white=300, seed=100 * seed + 50)
    source = f"{kind}:{tmp_path}"
    if kind == "csv":
        rows = [f"{file.relative_to(tmp_path)},{file.parent.name},{file.relative_to(tmp_path).parts[0]}\n"
                for file in sorted(tmp_path.rglob("*.tif"))]  # fmt: skip
        (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(rows))
        source = f"csv:{tmp_path / 'list.csv'}"
    data = load(source, white=White.asked("data"))
    assert data.white_level == 600
    assert data.test.images.max() == pytest.approx(500 / 600)
    tifffile.imwrite(
        tmp_path / "test" / side / "u2-0.tif", np.full((20, 24), 1300, np.uint16), photometric="minisblack"
    )
    with pytest.raises(
        DataError, match=r"u2-0.tif: has values from 1,300 to 1,300, and black is 0 and white 600; give"
    ):
        load(source, white=White.asked("data"))


def test_data_without_a_largest_value_or_with_a_scale_of_its_own_has_no_level(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="the largest value of its images is 0, which cannot be white; give `white_level`"
    ):
        load(f"images:{frames(tmp_path / 'black', white=0)}", white=White.asked("data"))
    with pytest.raises(ConfigError, match="`white_level` data: digits has a scale of its own; leave it out"):
        load("digits", white=White.asked("data"))


def test_a_study_s_data_is_read_without_asking(tmp_path: Path) -> None:
    data = load(f"images:{frames(tmp_path / 'a', white=4095)}", white=White(ask=False))
    assert data.white_level is None
    assert data.train.images.max() < 0.07
    with pytest.raises(ConfigError, match="`white_level` 4095: digits has a scale of its own"):
        load("digits", white=White(given=4095))


def test_a_dim_frame_among_bright_ones_is_no_question(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", white=65535)
    tifffile.imwrite(folder / "dim.tif", np.full((20, 24), 900, np.uint16), photometric="minisblack")
    assert load(f"images:{folder}").white_level is None


@pytest.mark.parametrize("kind", ["images", "folder"])
def test_pages_are_images_and_those_of_a_stack_lie_in_one_split(tmp_path: Path, kind: str) -> None:
    for name in ("one", "two"):
        frames(tmp_path / name, white=255, dtype="u1", pages=5)
        for number, file in enumerate(sorted((tmp_path / name).iterdir())):
            values = tifffile.imread(file)
            values[:, :, :2] = 10 * number + 100 * (name == "two")  # which stack it is
            tifffile.imwrite(file, values, photometric="minisblack", metadata=None)
    data = load(f"{kind}:{tmp_path}")
    splits = (data.train.images, data.validation.images, data.test.images)
    assert sum(map(len, splits)) == 2 * 6 * 5
    stacks = [{int(image[0, 5, 0]) for image in images} for images in splits]
    assert sum(map(len, stacks)) == len(set.union(*stacks)) == 12


@pytest.mark.parametrize(
    ("most", "full", "camera"),
    [
        (588, 65535, "4095 for a camera of 12 bits"),
        (4095, 65535, "4095 for a camera of 12 bits"),
        (5000, 65535, "16383 for a camera of 14 bits"),
        (65535, 2**32 - 1, "65535 for a camera of 16 bits"),
        (0.2, 1, "4095 for a camera of 12 bits"),
    ],
)
def test_the_question_names_a_camera_that_can_have_the_values(most: float, full: float, camera: str) -> None:
    assert f"give `white_level` ({camera}, {full} if they are that dark, data for their largest value)" in question(
        most, full
    )
