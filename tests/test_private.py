"""A whole search, export and denoising look up no host, and write no file but in the folders that were named.

Every Python process of them, Ray's and its workers' too, notes what it does by an audit hook. What libraries do beside
Python shows in the folders themselves; `tests/nas/bundles/test_no_telemetry.py` has ONNX Runtime's case.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from command_samples import ROOT
from PIL import Image

NOTING = """
import ipaddress, os, socket, sys

log = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
own = {"localhost", "", socket.gethostname()}

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
        host = host.decode() if isinstance(host, bytes) else str(host or "")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if host not in own:
                os.write(log, f"host {host}\\n".encode())
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            os.write(log, f"file {os.path.abspath(os.fsdecode(path))}\\n".encode())

sys.addaudithook(note)
"""


def test_no_host_is_looked_up_and_no_file_is_written_elsewhere(tmp_path: Path) -> None:
    work, home, temporary, notes = (tmp_path / name for name in ("work", "home", "temporary", "notes"))
    for folder in (work, home, temporary, tmp_path / "hook"):
        folder.mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NOTING)
    values = np.random.default_rng(0).integers(0, 255, (24, 24)).astype(np.uint8)
    Image.fromarray(values).save(work / "scan.png")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SKIPNAS_", "RAY_"))} | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "NOTES": str(notes),
        "PYTHONPATH": str(tmp_path / "hook"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for command in (
        "search --study one --trials 2 --epochs 1 --subset 60 --no-baselines --max-macs 400000 --precision fp32",
        "export one --to bundle",
        "denoise bundle scan.png --to restored --onnx",
    ):
        words = [sys.executable, str(ROOT / "app_cli.py"), *command.split()]
        done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    noted = {line.partition(" ")[::2] for line in notes.read_text().splitlines()}
    assert [host for kind, host in noted if kind == "host"] == []
    written = [path for kind, path in noted if kind == "file"]
    own = (str(work), str(temporary), "/tmp/skipnas-", "/dev/", "/proc/", str(notes))
    assert [path for path in written if not path.startswith(own)] == []
    assert any(path.startswith(str(work / "bundle")) or ".bundle." in path for path in written), "the hook is there"
    assert list(home.iterdir()) == []
    assert [path for path in temporary.rglob("*") if not path.is_dir()] == []
    assert list(temporary.glob("skipnas-*")) == []
    assert sorted(path.name for path in work.iterdir()) == ["bundle", "restored", "runs", "scan.png"]
