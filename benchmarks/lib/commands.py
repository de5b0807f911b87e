"""Commands of the product, run as people run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def skipnas(*words: str) -> None:
    """Runs a command of this checkout, which prints where this process prints.

    Raises:
        CalledProcessError: it failed; it has said why.
    """
    subprocess.run([sys.executable, str(ROOT / "app_cli.py"), *words], check=True)
