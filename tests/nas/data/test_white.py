"""The white level of whole folders, and stacks among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nas.data.splits import load
from nas.data.white import White
from nas.errors import ConfigError, DataError

WHITE_12 = [(281, "H", 1, 4095, False)]


def frames(
    folder: Path, *, white: float, dtype: str = "u2", pages: int = 1, tags: Sequence[tuple[object, ...]] = ()
) -> Path:
    """Six photographs, whose values reach `white`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        values = np.random.default_rng(number).random((pages, 20, 24))
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
