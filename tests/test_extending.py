"""Each worked example of docs/extending.md fits into the files that it names, touches few of them, and works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from extending_examples import EXAMPLES, copy_product

MOST_FILES = {
    "A skip fusion": 3,
    "An objective that rungs may use": 3,
    "A noise": 2,
    "A source of a new kind": 2,
    "A sampler": 2,
    "An early-stopping rule": 2,
    "A search option": 2,
    "A figure of the report": 2,
    "An export format": 2,
}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the product."""
    copy_product(tmp_path)
    return tmp_path


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=250)


def test_every_usual_addition_has_an_example() -> None:
    assert set(EXAMPLES) == set(MOST_FILES)


@pytest.mark.parametrize("title", MOST_FILES)
def test_an_example_fits_and_touches_few_files(title: str, scratch: Path) -> None:
    example = EXAMPLES[title]
    example.apply(scratch)
    files = {name for name, *_ in example.edits}
    assert len(files) == example.files <= MOST_FILES[title]
    for name in files:
        compile((scratch / name).read_text(), name, "exec")
    assert example.check


@pytest.mark.slow
@pytest.mark.parametrize("title", MOST_FILES)
def test_an_example_works_once_it_is_applied(title: str, scratch: Path) -> None:
    example = EXAMPLES[title]
    assert run(example.check, scratch).returncode != 0, "it passes without the change"
    example.apply(scratch)
    done = run(example.check, scratch)
    assert done.returncode == 0, done.stderr
