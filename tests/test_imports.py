"""Imports run one way, and the heavy ones happen late: read from the source, and seen in a fresh process."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nas", "search_spaces", "studies", "benchmarks")
FILES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "app_cli.py"]
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
PRODUCT = [path for path in FILES if path not in BENCHMARKS]

ROOMS_OF_NAS = (
    {"words"},
    {"errors", "outcome", "parsing"},
    {"types"},
    {"files", "machine"},
    {"data", "search"},
    {"settings"},
    {"protocols"},
    {"training"},
    {"bundles"},
    {"engine"},
)
ROOMS_OF_STUDIES = (
    {"settings", "store", "provenance", "zoo"},
    {"reading"},
    {"bundles"},
    {"pages"},
    {"commands", "notebook"},
)
ROOMS = {"nas": ROOMS_OF_NAS, "studies": ROOMS_OF_STUDIES}
"""Each may import what stands before it, and nothing beside it or behind it."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, but for those that only type checkers read."""
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                name = f"{module}.{alias.name}"
                yield name if name in MODULES else module


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in ("benchmarks", "tests"), module
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


@pytest.mark.parametrize(
    "path",
    sorted(path for package in ROOMS for path in (ROOT / package).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_rooms_use_only_those_before_them(path: Path) -> None:
    package, *own = module_of(path).split(".")[:2]
    place = {room: number for number, rooms in enumerate(ROOMS[package]) for room in rooms}
    for module in imports(path):
        top, *rest = module.split(".")
        if top == package and own and rest and rest[:1] != own:
            assert place[rest[0]] < place[own[0]], f"{module_of(path)} imports {module}"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_experiments_share_what_lies_in_lib_and_nothing_of_each_other(path: Path) -> None:
    own = module_of(path).split(".")[1:2]
    for module in imports(path):
        top, *rest = module.split(".")
        assert top != "tests", module
        assert top != "benchmarks" or rest[:1] in (["lib"], own), f"{module_of(path)} imports {module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    uses = {module: sorted({used for used in imports(path) if used in MODULES}) for module, path in MODULES.items()}
    done: set[str] = set()
    for start in MODULES:
        # Depth first: the modules under way, each with its imports that are still to be followed.
        way = [(start, iter(uses[start]))] if start not in done else []
        while way:
            chain = [module for module, _ in way]
            used = next(way[-1][1], None)
            if used is None:
                done.add(way.pop()[0])
            elif used not in done:
                assert used not in chain, " -> ".join([*chain[chain.index(used) :], used])
                way.append((used, iter(uses[used])))


def test_nas_knows_no_command_line() -> None:
    """Messages name a setting in backticks, and the command line shows its option in the place of that name."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "nas").rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"(?<![-\w])--[a-z{]", line) and path.name != "card.py"  # which prints commands to paste
    ]
    assert found == []


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
