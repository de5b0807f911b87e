"""Imports run one way, and the heavy ones happen late: read from the source, and seen in a fresh process."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nas", "search_spaces", "studies")
FILES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "app_cli.py"]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, but for those that only type checkers read."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in ast.walk(node):
                child.names = []  # type: ignore[attr-defined]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.names:
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    for module in imports(path):
        top = module.split(".")[0]
        if room == "nas":
            assert top not in ("search_spaces", "studies", "app_cli"), module
        if room == "search_spaces":
            assert top not in ("studies", "app_cli"), module
            assert top != "nas" or module in ("nas.errors", "nas.types", "nas.protocols"), module
            assert top != "optuna" or module == "optuna.distributions", module
        if top == "ray":
            assert name.startswith("nas/engine/"), module
        if top == "plotly":
            assert name.startswith("studies/pages/"), module
        if top == "typer":
            assert name == "app_cli.py", module


def loaded_by(command: list[str], folder: Path) -> set[str]:
    script = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport app_cli\n"
        f"sys.argv = ['skipnas', *{command!r}]\n"
        "try:\n    app_cli.main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(' '.join(m for m in sys.modules if '.' not in m), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split("\n")[-2].split())


@pytest.mark.parametrize("command", [["--help"], ["search", "--help"], ["studies", "list", "--storage", "old.db"]])
def test_quick_commands_load_neither_torch_nor_ray(command: list[str], tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/assets/studies-0.1.db", tmp_path / "old.db")
    modules = loaded_by(command, tmp_path)
    assert "app_cli" in modules
    assert not modules & {"torch", "ray", "plotly", "sklearn", "skimage"}
