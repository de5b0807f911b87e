"""The origin of a study: versions, commit, hardware, but no paths, host names or user names."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas.data.listing import counted
from nas.machine import processors

PACKAGES = ("skipnas", "torch", "torchvision", "optuna", "ray", "numpy", "sqlalchemy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide the meaning of a number."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Returns processor and GPUs of this machine, and the number of cores that this process may use."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"processor": _processor(), "cores": processors(), "gpus": gpus, "system": platform.system()}


def describe(found: Mapping[str, Any]) -> str:
    """Returns `hardware` in one line."""
    gpus = "".join(f", {gpu}" for gpu in found["gpus"])
    return f"{found['processor']}, {counted(found['cores'], 'core')}{gpus}"


def provenance() -> dict[str, Any]:
    """Returns everything that this module knows, which a study stores when it is created."""
    return {"versions": versions(), "hardware": hardware(), "commit": _commit()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Returns the commit of skipnas's own checkout; None when it was installed from elsewhere."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    commit = _git(here, "describe", "--always", "--abbrev=12")
    # `git describe --dirty` would write the checkout's index, which is nobody's but the user's.
    changed = _git(here, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(folder: Path, *words: str) -> str:
    """Returns what git says of a checkout; "" when it cannot say it."""
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
