"""What a finished training tells of its int8 program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.errors import BundleError
from studies.commands.train import _int8_of


def test_a_bundle_says_whether_it_has_one(tmp_path: Path) -> None:
    for facts, wanted in (({}, None), ({"int8": {"pays": False}}, {"pays": False})):
        (tmp_path / "architecture.json").write_text(json.dumps({"facts": facts}))
        assert _int8_of(tmp_path) == wanted


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"facts": 3}', b"\xff"])
def test_a_damaged_one_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "architecture.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"architecture.json: cannot be read .*; remove .*, and the same command"):
        _int8_of(tmp_path)
