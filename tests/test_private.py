"""A whole search, export and denoising look up no host, and write no file but in the folders that were named.

Every Python process of them, Ray's and its workers' too, notes what it does by an audit hook. The slow test closes the
network and looks at the calls to the system, so that it also sees what libraries, Ray's programs and git do beside
Python. `tests/nas/bundles/test_no_telemetry.py` has ONNX Runtime's case.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from command_samples import ROOT
from PIL import Image

COMMANDS = (
    "search --study one --trials 2 --epochs 1 --subset 60 --no-baselines --max-macs 400000 --precision fp32",
    "export one --to bundle",
    "denoise bundle scan.png --to restored --onnx",
)

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


class Place:
    """The folder that commands run in, a home and a temporary folder that are empty, and an environment of these."""

    def __init__(self, top: Path) -> None:
        self.work, self.home, self.temporary = (top / name for name in ("work", "home", "temporary"))
        for folder in (self.work, self.home, self.temporary):
            folder.mkdir()
        values = np.random.default_rng(0).integers(0, 255, (24, 24)).astype(np.uint8)
        Image.fromarray(values).save(self.work / "scan.png")
        # What this process or the project's modules have set in it would hide what a command forgets.
        set_here = ("XDG_", "SKIPNAS_", "RAY_", "TUNE_", "ORT_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(set_here)}
        self.env = kept | {
            "RAY_worker_niceness": "0",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command: str, before: Sequence[str] = (), seconds: float = 300) -> None:
        """Runs a command, as an argument of the words `before`."""
        words = [*before, sys.executable, str(ROOT / "app_cli.py"), *command.split()]
        done = subprocess.run(words, cwd=self.work, env=self.env, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stderr

    def is_own(self, path: str) -> bool:
        return path.startswith((str(self.work), str(self.temporary), "/tmp/skipnas-", "/dev/", "/proc/"))

    def check(self) -> None:
        """Checks that the commands left their results, and nothing else."""
        assert list(self.home.iterdir()) == []
        assert [path for path in self.temporary.rglob("*") if not path.is_dir()] == []
        assert list(self.temporary.glob("skipnas-*")) == []
        assert sorted(path.name for path in self.work.iterdir()) == ["bundle", "restored", "runs", "scan.png"]


@pytest.mark.slow
def test_no_host_is_looked_up_and_no_file_is_written_elsewhere(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(NOTING)
    notes = tmp_path / "notes"
    place.env |= {"NOTES": str(notes), "PYTHONPATH": str(tmp_path / "hook")}
    for command in COMMANDS:
        place.run(command)
    noted = {line.partition(" ")[::2] for line in notes.read_text().splitlines()}
    assert [host for kind, host in noted if kind == "host"] == []
    written = [path for kind, path in noted if kind == "file"]
    assert [path for path in written if not place.is_own(path) and path != str(notes)] == []
    assert any(path.startswith(str(place.work / "bundle")) or ".bundle." in path for path in written), (
        "the hook is there"
    )
    place.check()


CLOSED = """
import fcntl, os, socket, struct, sys

# Loopback alone, with an address beside 127.0.0.1, without which many look-ups are not even tried.
with socket.socket() as any_socket:
    for name, request, value in (
        (b"lo", 0x8914, struct.pack("H14x", 0x41)),
        (b"lo:1", 0x8916, struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("192.0.2.1"))),
    ):
        fcntl.ioctl(any_socket, request, struct.pack("16s16s", name, value))
os.execvp(sys.argv[1], sys.argv[1:])
"""
CLOSING = ["unshare", "--map-root-user", "--net", sys.executable, "-c", CLOSED]
NETWORK = ("connect", "sendto")
MAKING = (
    "creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,open,openat,truncate"
)
TRACING = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", "signal=none", "-s", "4096"]
TRACING += ["-e", f"trace={','.join(NETWORK)},{MAKING}", "-o"]
OF_RAY = {"8.8.8.8", "2001:4860:4860::8888"}
"""Ray asks the system by which of its addresses it would reach them, and sends them nothing."""


def permitted() -> bool:
    if not all(map(shutil.which, ("unshare", "strace"))):
        return False
    return subprocess.run([*CLOSING, *TRACING, os.devnull, "true"], capture_output=True, check=False).returncode == 0


def calls(trace: Path) -> Iterator[str]:
    """The calls that succeeded, and those to hosts, each in one line."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<..."):
            text = begun.pop(process, "") + text.partition("resumed>")[2]
        if text.startswith(NETWORK) or " = -1 " not in text:
            yield text


def hosts(call: str) -> set[str]:
    """The hosts that a call to the network names, but for this machine, unless it is asked for names (port 53)."""
    found = re.findall(r'htons\((\d+)\).*?(?:inet_addr\(|AF_INET6, )"([^"]+)"', call)
    here = ("127.", "192.0.2.1", "0.0.0.0", "::ffff:127.")
    return {name for port, name in found if port == "53" or not (name.startswith(here) or name in ("::1", "::"))}


def made(call: str, folder: Path) -> Iterator[str]:
    """The paths that a call makes or writes. Those without a folder are of the command's own."""
    if call.startswith("open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", call):
        return
    for place, name in re.findall(r'(?:<([^<>]*)>, )?"([^"]*)"', call.rpartition(" = ")[0]):
        yield os.path.normpath(Path(place or folder, name))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not permitted(), reason="a user may not close the network (unshare) or look at calls (strace) here")
def test_a_closed_network_is_asked_for_nothing(tmp_path: Path) -> None:
    place, trace = Place(tmp_path), tmp_path / "trace"
    for command in COMMANDS:
        place.run(command, [*CLOSING, *TRACING, str(trace)], seconds=800)
        seen = list(calls(trace))
        asked = {host for call in seen if call.startswith(NETWORK) for host in hosts(call)}
        assert asked <= OF_RAY
        written = {path for call in seen if not call.startswith(NETWORK) for path in made(call, place.work)}
        assert {path for path in written if not place.is_own(path)} == set()
        assert any(path.startswith(str(place.work)) for path in written), "the calls are seen"
    place.check()
