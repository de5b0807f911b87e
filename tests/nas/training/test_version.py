"""The version of the training code says what each version changed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from nas.training import version


def test_the_docstring_lists_each_version() -> None:
    nodes = ast.parse(Path(version.__file__).read_text()).body
    at = next(i for i, node in enumerate(nodes) if isinstance(node, ast.Assign) and "TRAINING" in ast.dump(node))
    text = nodes[at + 1]
    assert isinstance(text, ast.Expr)
    listed = [int(number) for number in re.findall(r"^(\d+)\.", ast.literal_eval(text.value), re.MULTILINE)]
    assert listed == list(range(version.FIRST_VERSION, version.TRAINING_VERSION + 1))
