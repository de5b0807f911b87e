"""What a finished training tells of its less exact programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.errors import BundleError
from studies.commands.train import _conversions_of


def test_a_bundle_says_which_it_was_asked_for(tmp_path: Path) -> None:
    none = {"int8": None, "float16_weights": None, "int8_weights": None}
    for facts in ({}, {"int8": {"pays": False}}, {"int8_weights": {"pays": True}}):
        (tmp_path / "architecture.json").write_text(json.dumps({"facts": facts | {"seed": 1}}))
        assert _conversions_of(tmp_path) == none | facts


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"facts": 3}', b"\xff"])
def test_a_damaged_one_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "architecture.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"architecture.json: cannot be read .*; remove .*, and the same command"):
        _conversions_of(tmp_path)
