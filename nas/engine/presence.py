"""Whether the Ray of a run is still there. Without it Ray soon ends the driver, and says nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import ray._private.worker as ray_worker

LOOK_SECONDS = 5.0
"""The seconds between two calls at the head of a cluster."""

UNANSWERED = 3
"""The number of calls in a row without an answer after which a cluster counts as lost."""

NEEDED = {"raylet": "raylet", "gcs_server": "control store"}
"""The processes of a local Ray that nothing goes on without, in words for people."""


class RayLost(BaseException):
    """Ray is gone. It is no `Exception`, because Tune would wait for its workers before it passes one on."""


class Presence:
    """Looks after the Ray that this process is connected to; call `lost` often."""

    def __init__(self) -> None:
        node: Any = ray_worker._global_node
        self._processes = {
            words: [info.process for info in node.all_processes.get(kind, ())]
            for kind, words in NEEDED.items()
            if node is not None
        }
        self._started_here = any(self._processes.values())
        self._head = "" if self._started_here or node is None else node.gcs_address
        self._raylet = None if self._started_here or node is None else _process_with(node.raylet_socket_name)
        self._looked, self._unanswered = time.monotonic(), 0

    def lost(self) -> str:
        """Returns what is gone, in words; "" while all is there."""
        for words, processes in self._processes.items():
            if any(process.poll() is not None for process in processes):
                return f"its {words} has ended"
        if self._raylet is not None and not self._raylet.exists():
            return "its raylet on this machine has ended"
        return self._cluster_lost()

    def _cluster_lost(self) -> str:
        if not self._head or time.monotonic() - self._looked < LOOK_SECONDS:
            return ""
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            self._unanswered = 0
        except OSError:
            self._unanswered += 1
        self._looked = time.monotonic()
        return f"its head at {self._head} answers no more" if self._unanswered >= UNANSWERED else ""


def _process_with(word: str) -> Path | None:
    """Returns the folder in /proc of Ray's process whose command line contains a word; None without one."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = line.read_bytes()
            if b"raylet/raylet" in text and word.encode() in text:
                return line.parent
    return None
