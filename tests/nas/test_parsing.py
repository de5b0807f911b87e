"""Values from text: what is read of each type, and what is refused with words that say how to mend it."""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.parsing import (
    is_host,
    read_address,
    read_host,
    read_names,
    read_number,
    read_path,
    read_seconds,
    read_size,
    read_text,
    read_weights,
    read_whole,
)

NO_NUMBERS = ["", " 1", "²", "½", "٣", "1_000", "0x10", "1,5", "nan", "inf", "-inf", "NaN", "Infinity", "--1", "one"]


@pytest.mark.parametrize(
    ("read", "values", "wrong"),
    [
        (read_whole, {"0": 0, "-7": -7, "+3": 3, "007": 7, "9" * 18: 10**18 - 1}, [*NO_NUMBERS, "1.0", "1" * 19]),
        (read_number, {"1": 1.0, "-.5": -0.5, "2.": 2.0, "1e-3": 0.001, "1E5": 1e5}, [*NO_NUMBERS, "1e999", ".", "e5"]),
        (
            read_seconds,
            {"90": 90.0, "90s": 90.0, "1.5m": 90.0, "2h": 7200.0, "0": 0.0},
            ["soon", "-1", "1d", "", "1e3", "²h", "100001h", "9" * 400, "1h30m"],
        ),
        (
            read_size,
            {"480x640": (480, 640), "1x65536": (1, 65536)},
            ["", "8", "8x", "x8", "0x8", "8x65537", "8X8", "8x8x8", "²x8", "8 x 8", "-8x8", "1e2x8"],
        ),
        (read_text, {"a": "a", "café\u00a0de": "café\u00a0de"}, ["", "  ", "a\0b", "\udcff", "x" * 4097]),
        (read_path, {"a/b": Path("a/b"), "\udcff": Path("\udcff")}, ["", "a\0b", "x" * 256, "a/" * 2100, "\ud800"]),
        (read_names, {"psnr, accuracy": ("psnr", "accuracy")}, ["", "\udcff"]),
        (
            read_weights,
            {"psnr=2,accuracy=.5": {"psnr": 2.0, "accuracy": 0.5}, "psnr=0,accuracy=1": {"psnr": 0.0, "accuracy": 1.0}},
            ["psnr", "psnr=", "psnr=two", "=1", "psnr=1,psnr=2", "psnr=0", "psnr=-1", "psnr=nan", "psnr=inf", "psnr=²"],
        ),
        (
            read_address,
            {
                text: text
                for text in ("auto", "head:6379", "ray://10.0.0.1:10001", "[::1]:6379", "a-b.example:1", "127.0.0.1:1")
            },
            ["", "head", "head:", ":1", "head:0", "head:70000", "head:²", "a b:1", "::1:80", "http://x:1", "1.2.3:5"],
        ),
        (read_host, {"127.0.0.1": "127.0.0.1", "::1": "::1", "localhost": "localhost"}, ["", " ", "a b", "999.1.1.1"]),
    ],
)
def test_values_of_texts(read: Any, values: dict[str, Any], wrong: list[str]) -> None:
    assert {text: read(text) for text in values} == values
    for text in wrong:
        with pytest.raises(ValueError, match=r"give|name each once|is not|has no name"):
            read(text)


def test_a_circle_of_links_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for text in ("loop", "loop/inside"):
        with pytest.raises(ValueError, match="round in a circle"):
            read_path(str(tmp_path / text))


@given(st.text(alphabet=string.printable + "²½٣∞", max_size=12))
def test_what_is_read_as_a_number_is_one(text: str) -> None:
    for read in (read_whole, read_number, read_seconds):
        try:
            value = read(text)
        except ValueError:
            continue
        assert math.isfinite(value)
        assert text.isascii()
        assert not text.isspace()


@given(st.integers(min_value=1 - 10**18, max_value=10**18 - 1))
def test_whole_numbers_come_back(value: int) -> None:
    assert read_whole(str(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back(value: float) -> None:
    assert read_number(repr(value)) == value


def test_hosts() -> None:
    assert is_host("head.cluster.example.")
    assert not is_host("-head")
    assert not is_host("x" * 64)
