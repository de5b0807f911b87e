"""Lists of image files in CSV: the right images, classes, splits and groups, or one line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.splits import Dataset, load
from nas.errors import DataError, SkipnasError

COUNT = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two folders, whose brightness tells their number."""
    for number in range(COUNT):
        image = np.random.default_rng(number).integers(0, 8, (16, 16)).astype(np.uint8) + 8 * number
        path = tmp_path / f"images/{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path)
    return tmp_path


def name_of(number: int) -> str:
    return f"images/{number % 2}/{number}.png"


def write(folder: Path, lines: Sequence[str], encoding: str = "utf-8") -> str:
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding)
    return f"csv:{folder / 'list.csv'}"


def rows(*more: str, header: str = "path,label", separator: str = ",") -> list[str]:
    """A table in which the images up to 14 are ``cat`` and the others ``dog``; `more` are the other cells by number."""
    lines = [header]
    for number in range(COUNT):
        cells = [name_of(number), "cat" if number < COUNT // 2 else "dog", *(each.format(number) for each in more)]
        lines.append(separator.join(cells))
    return lines


def numbers(data: Dataset) -> list[list[int]]:
    """The numbers of the images in each split."""
    return [(split.images.min(axis=(1, 2, 3)) // 8).tolist() for split in (data.train, data.validation, data.test)]


@pytest.mark.parametrize(
    ("header", "separator", "encoding"),
    [
        ("path,label", ",", "utf-8"),
        ("filename;Class", ";", "utf-8-sig"),  # as a German spreadsheet saves it
        ("Image Path\tTarget", "\t", "utf-8"),
    ],
)
def test_images_have_the_classes_of_their_rows(folder: Path, header: str, separator: str, encoding: str) -> None:
    data = load(write(folder, rows(header=header, separator=separator), encoding))
    assert data.classes == ("cat", "dog")
    assert not data.has_own_splits
    assert sorted(chain(*numbers(data))) == list(range(COUNT))
    for split, found in zip((data.train, data.validation, data.test), numbers(data), strict=True):
        assert split.labels is not None
        assert split.labels.tolist() == [int(number >= COUNT // 2) for number in found]


def test_its_splits_are_kept(folder: Path) -> None:
    lines = rows(header="path,label")
    split = ["Split", *("train" if n % 3 else "val" if n % 2 else "TEST" for n in range(COUNT))]
    data = load(write(folder, [f"{line},{each}" for line, each in zip(lines, split, strict=True)]))
    assert data.has_own_splits
    assert [sorted(found) for found in numbers(data)] == [
        [n for n in range(COUNT) if n % 3],
        [n for n in range(COUNT) if n % 3 == 0 and n % 2],
        [n for n in range(COUNT) if n % 6 == 0],
    ]


def test_the_images_of_a_patient_stay_in_one_split(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = rows(header="path,label")
    patients = ["patient_id", *(f"p{n // 3}" for n in range(COUNT))]
    data = load(write(folder, [f"{line},{each}" for line, each in zip(lines, patients, strict=True)]))
    found = [{n // 3 for n in split} for split in numbers(data)]
    assert all(found)
    assert sum(map(len, found)) == COUNT // 3, "no patient is in two splits"
    assert "30 images in 10 groups by column 'patient_id'" in caplog.text
    assert "path from column 'path', label from column 'label', group from column 'patient_id'" in caplog.text


def test_classes_that_are_numbers_are_in_their_order(folder: Path) -> None:
    lines = ["path,label", *(f"{name_of(n)},{(2, 10, 1)[n % 3]}" for n in range(COUNT))]
    assert load(write(folder, lines)).classes == ("1", "2", "10")
    assert load(write(folder, [lines[0], *(f"{line}.0" for line in lines[1:])])).classes == ("1.0", "2.0", "10.0")


def test_a_path_below_the_folder_may_be_absolute_and_a_row_may_be_there_twice(folder: Path) -> None:
    lines = rows()
    lines[1] = f"{folder / name_of(0)},cat"
    data = load(write(folder, [*lines, lines[5], "", lines[1]]))
    assert sorted(chain(*numbers(data))) == list(range(COUNT))


def with_line(text: str, at: int = 3) -> list[str]:
    lines = rows()
    lines[at] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "has no rows"),
        (["path,label"], "has no rows"),
        (rows(header="x,label"), "no column of the header .* is the path; call it path"),
        (rows(header="path,diagnosis"), "is the label; call it label"),
        (rows("{}", header="path,label,class"), "columns 'label' and 'class' may both be the label"),
        (with_line("images/0/2.png"), "line 4 has 1 values, the header has 2"),
        (with_line("images/0/2.png,"), r"line 4 has no label \('label'\)"),
        (with_line("images/0/2.png,NaN"), "line 4: label 'NaN' stands for a missing value; fill it in"),
        (
            ["path,label", *(f"{name_of(n)},{('1', '1.0', 'dog')[n % 3]}" for n in range(COUNT))],
            "labels '1' and '1.0' are one number",
        ),
        (with_line(" ,cat"), "line 4 has no path"),
        (with_line("images/0/99.png,cat"), "line 4: images/0/99.png does not exist"),
        (with_line("../secret.png,cat"), "line 4: ../secret.png is not below the folder"),
        (with_line("/etc/secret.png,cat"), "line 4: /etc/secret.png is not below the folder"),
        (with_line("images/../../secret.png,cat"), "is not below the folder"),
        (with_line("list.csv,cat"), "line 4: list.csv is no image"),
        (with_line("images/0/2.png,cat|dog"), "names several classes"),
        (with_line("images/0/0.png,dog"), "images/0/0.png is 'dog' here and 'cat' in line 2"),
        (
            [
                *(f"{row},{each}" for row, each in zip(rows(), ["split", *["train"] * 30], strict=True)),
                f"{name_of(0)},cat,test",
            ],
            "line 32: images/0/0.png is 'test' here and 'train' in line 2; keep one",
        ),
        (
            [*(f"{row},{each}" for row, each in zip(rows(), ["case", *range(30)], strict=True)), f"{name_of(0)},cat,9"],
            "line 32: images/0/0.png is '9' here and '0' in line 2; keep one",
        ),
        ([*rows()[:16]], r"1 class\(es\), classification needs at least 2"),
        (rows("middle", header="path,label,split"), "line 2: split 'middle'; give train, validation, test"),
        (
            [f"{line},{each}" for line, each in zip(rows(), ["split", *["train"] * 15, *["test"] * 15], strict=True)],
            "class 'dog' is not in train",
        ),
        (["path,label", '"images/0/0.png,cat'], "is no table of comma-separated values"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder: Path, lines: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        load(write(folder, lines))
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_one_line(folder: Path) -> None:
    (folder / "list.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="is no table of comma-separated values in UTF-8"):
        load(f"csv:{folder / 'list.csv'}")
    os.mkfifo(folder / "pipe.csv")
    for name, told in (
        ("none.csv", "there is no such file"),
        ("pipe.csv", "is no regular file"),
        ("images", "is no regular file"),
    ):
        with pytest.raises(DataError, match=told):
            load(f"csv:{folder / name}")


def test_a_column_of_groups_and_an_expression_are_two_answers(folder: Path) -> None:
    lines = rows("p{}", header="path,label,patient")
    with pytest.raises(SkipnasError, match="column 'patient' groups the images already"):
        load(write(folder, lines), group_by="([0-9]+)")
    data = load(write(folder, rows()), group_by=r"([0-9])\.png")
    found = [{n % 10 for n in split} for split in numbers(data)]
    assert sum(map(len, found)) == 10, "no last digit is in two splits"
