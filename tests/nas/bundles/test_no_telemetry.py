"""A bundle is written and its program run without a file elsewhere and without a socket.

ONNX Runtime 1.32 leaves both by itself (findings/onnxruntime-telemetry.sh).
"""

from __future__ import annotations

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
