"""A bundle is written and its program run without a file elsewhere and without a socket.

ONNX Runtime 1.32 leaves both by itself (findings/onnxruntime-telemetry.sh).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

CODE = """
import os, time
from pathlib import Path
from bundle_samples import candidate, network_of, noisy_digits, write_bundle
from nas.bundles.onnx_model import open_onnx

one = candidate()
write_bundle(Path("bundle"), one, network_of(one))
open_onnx(Path("bundle/model.onnx"))(noisy_digits(2))
time.sleep(2)  # its thread writes the events
links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
print([target for target in (os.readlink(link) for link in links if link.is_symlink()) if "socket" in target])
"""


def imports(file: Path) -> set[str]:
    """The packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    found = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    found += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in found}


def test_whatever_imports_it_has_switched_it_off_before() -> None:
    places = ("app_cli.py", "nas", "search_spaces", "studies", "benchmarks", "examples", "findings", "tests")
    files = [file for place in places for file in ([ROOT / place] if "." in place else (ROOT / place).rglob("*.py"))]
    using = {file.relative_to(ROOT).as_posix() for file in files if "onnxruntime" in imports(file)}
    others = {name for name in using if not name.startswith(("nas/bundles/", "tests/"))}
    assert others == {"benchmarks/lib/client_program.py"}, "`nas.bundles` switches it off for the modules in it"
    for name in (*others, "tests/conftest.py"):
        text = (ROOT / name).read_text("utf-8")
        before, switch, _ = text.partition('os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")')
        assert switch, name
        assert "import onnxruntime" not in before, name


@pytest.mark.slow
def test_export_and_use_leave_nothing_behind(tmp_path: Path) -> None:
    homes = {"HOME": tmp_path / "home", "XDG_CACHE_HOME": tmp_path / "cache", "TMPDIR": tmp_path / "tmp"}
    for folder in (*homes.values(), tmp_path / "work"):
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {name: str(folder) for name, folder in homes.items()}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert [path for folder in homes.values() for path in folder.rglob("*") if path.is_file()] == []
