"""The fingerprint of an own space's code, and studies whose space has other code by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.code import code_fingerprint

MODULE = '''"""A space."""
import math
import torch
from layers import block


class Space:
    """Its networks."""

    def build(self, spec):
        from heads.linear import head  # late

        return head(block(spec))
'''

CHANGES: dict[str, tuple[str, str, str, bool]] = {
    "a comment": ("space.py", "# late", "# as late as it can be", True),
    "a docstring": ("space.py", "Its networks.", "The networks.", True),
    "blank lines": ("space.py", "import math\n", "import math\n\n\n", True),
    "a line": ("space.py", "return head", "return 2 * head", False),
    "an indentation": ("layers.py", "    spec *= 2", "        spec *= 2", False),
    "a module that it imports": ("layers.py", "3", "5", False),
    "a module that is imported late": ("heads/linear.py", "7", "8", False),
    "a module of a module": ("heads/shared.py", "1", "2", False),
    "a package": ("heads/__init__.py", "", "SIZE = 1", False),
    "a file beside it": ("notes.py", "1", "2", True),
    "a text": ("layers.py", "'relu'", "'gelu'", False),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "space.py": MODULE,
        "layers.py": "def block(spec):\n    if spec:\n        spec += 1\n    spec *= 2\n    return 3 * spec, 'relu'\n",
        "heads/__init__.py": "",
        "heads/linear.py": "from . import shared\n\n\ndef head(x):\n    return shared.scale(x) + 7\n",
        "heads/shared.py": "def scale(x):\n    return x * 1\n",
        "notes.py": "NOTE = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with_what_the_code_does(folder: Path, change: str) -> None:
    name, old, new, same = CHANGES[change]
    before = code_fingerprint("space:SPACE")
    assert len(before) == 16
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(old, new, 1) if old else new)
    assert (code_fingerprint("space:SPACE") == before) is same


def test_a_space_without_source_has_no_fingerprint() -> None:
    assert code_fingerprint("nowhere_to_be_found:SPACE") == code_fingerprint("math:pi") == ""
