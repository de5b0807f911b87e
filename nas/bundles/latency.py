"""The latency of a network where it counts: that of its exported program, in ONNX Runtime or by a command of the user.

Weights do not change the time, so a network with random ones is measured, before it is trained. Networks of one
architecture share a measurement, and the workers of a study measure one after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnxruntime
import torch
from torch import nn

from nas.bundles.onnx_export import exporters_quiet, fixed_model
from nas.bundles.onnx_model import INPUT
from nas.errors import LatencyError, in_short, is_out_of_memory
from nas.files import read_small, write_whole
from nas.settings import MODEL
from nas.types import LatencySetting, Spec, Task, canonical_json, digest_of

BLOCKS, BLOCK_SECONDS, MOST_SECONDS = 5, 0.1, 10.0
"""Blocks of runs in ONNX Runtime, the time that each of them takes at least, and the time after which none is begun."""

WARM_UP = 3
"""Runs that are not timed. The first ones allocate memory."""

RUNS, TRIES, RUN_SECONDS = 3, 3, 60.0
"""Runs of a command, the number of times that each is tried, and the time after which one is ended."""

TAIL = 4096
"""The bytes at the end of a command's output that are read."""

NUMBER = re.compile(r"(?<![\w.,])[+-]?(?:\d+(?:[.,]\d+)*\.?|\.\d+)(?:[eE][+-]?\d+)?")
"""A number as programs print it, also one with commas, which mean tenths to some and thousands to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Measures the networks of a study.

    Attributes:
        setting: where they are measured. A command in it is run.
        folder: the study's folder, which its workers share.
        shared: whether networks of one architecture share a measurement.
        working: the folder in which a command runs, where it is there; None for that of this process.
    """

    setting: LatencySetting
    folder: Path
    shared: bool = True
    working: Path | None = None

    def measure(self, spec: Spec, task: Task, build: Callable[[], nn.Module]) -> dict[str, float]:
        """Returns the metrics ``latency`` and ``latency_spread`` of a network in ms, which `build` makes.

        Raises:
            LatencyError: the program or the command fails.
        """
        identity = {"spec": spec.to_dict(), "setting": dataclasses.asdict(self.setting)}
        file = self.folder / f"latency-{digest_of(canonical_json(identity))}.json"
        if (found := self._known(file)) is not None:
            return found
        model = program(build, task, self.setting)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            if (found := self._known(file)) is not None:  # another worker has measured it meanwhile
                return found
            found = metrics(timed(model, self.setting, file.with_suffix(".onnx"), working=self.working))
            if self.shared:
                text = json.dumps(found)
                write_whole(file, lambda partial: partial.write_text(text, "utf-8"))
        return found

    def _known(self, file: Path) -> dict[str, float] | None:
        """Returns what a worker has measured; None where none has, or the file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if self.shared:
                found = json.loads(read_small(file))
                return {name: float(found[name]) for name in ("latency", "latency_spread")}
        return None


def metrics(runs: list[float]) -> dict[str, float]:
    """Returns the metrics of some runs' milliseconds: their median, and the largest less the least."""
    return {"latency": float(np.median(runs)), "latency_spread": max(runs) - min(runs)}


def program(build: Callable[[], nn.Module], task: Task, setting: LatencySetting) -> bytes:
    """Returns the ONNX program of a network for the setting's images, as a bundle has it for one size.

    Torch's global generator is the same afterwards as before.
    """
    with torch.random.fork_rng(devices=[]), exporters_quiet():
        torch.manual_seed(0)
        network = build().eval()
        model = fixed_model(network, task, setting.height, setting.width, setting.batch)
    content: bytes = model.SerializeToString()
    return content


def timed(
    model: bytes, setting: LatencySetting, file: Path, runs: int = RUNS, working: Path | None = None
) -> list[float]:
    """Returns the milliseconds for an image, of several runs.

    Args:
        model: the ONNX program.
        setting: where it runs.
        file: where the program lies while a command runs.
        runs: number of runs of a command.
        working: see `Meter`.

    Raises:
        LatencyError: the program or the command fails.
    """
    if setting.command is None:
        found = run_times(model, setting)
    else:
        try:
            file.write_bytes(model)
            place = working if working is not None and working.is_dir() else None
            found = [_tried(setting.command, file, place) for _ in range(runs)]
        finally:
            file.unlink(missing_ok=True)
    return [each / setting.batch for each in found]


def clock_for(setting: LatencySetting) -> Callable[[], float]:
    """Returns a clock for runs in ONNX Runtime: one thread on the CPU is timed by its own, which stands still while the
    machine does other work."""
    return time.thread_time if (setting.provider, setting.threads) == ("cpu", 1) else time.perf_counter


def run_times(
    model: bytes,
    setting: LatencySetting,
    clock: Callable[[], float] | None = None,
    shape: Sequence[int] | None = None,
) -> list[float]:
    """Returns the milliseconds of a run in ONNX Runtime: the least of each of several blocks of runs.

    Within a block, whatever else the machine does only makes a run longer. What lasts for longer than a block makes the
    blocks differ.

    Args:
        model: the ONNX program.
        setting: where it runs.
        clock: see `clock_for`.
        shape: shape of the images; None for the only one that the program takes.
    """
    clock = clock or clock_for(setting)
    try:
        session = _session(model, setting)
        size = shape or session.get_inputs()[0].shape
        images = {INPUT: np.random.default_rng(0).random(size, np.float32)}
        for _ in range(WARM_UP):
            session.run(None, images)
        begun = clock()
        found: list[float] = []
        while len(found) < BLOCKS and (not found or clock() - begun < MOST_SECONDS):
            least, block = math.inf, clock()
            while math.isinf(least) or clock() - block < BLOCK_SECONDS:
                started = clock()
                session.run(None, images)
                least = min(least, clock() - started)
            found.append(1000 * least)
    except LatencyError:
        raise
    except Exception as error:  # ONNX Runtime raises errors of many kinds
        if is_out_of_memory(error):
            raise  # that is the trial's outcome
        raise LatencyError(f"ONNX Runtime cannot run a network at {setting.size} ({in_short(error)})") from error
    return found


def _session(model: bytes, setting: LatencySetting) -> onnxruntime.InferenceSession:
    known = {name.removesuffix("ExecutionProvider").lower(): name for name in onnxruntime.get_available_providers()}
    if setting.provider not in known:
        raise LatencyError(
            f"ONNX Runtime {onnxruntime.__version__} has no provider {setting.provider!r} here; it has "
            f"{', '.join(known)}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads or 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=[known[setting.provider]])
    if session.get_providers()[0] != known[setting.provider]:  # it takes the CPU without a word
        raise LatencyError(f"ONNX Runtime {onnxruntime.__version__} cannot start its provider {setting.provider!r}")
    return session


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time measure: two would slow each other down, and a board may run one program only."""
    lock = os.open(folder, os.O_RDONLY)  # a lock on the folder leaves no file behind
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


# --- a command ---
class _FailedError(Exception):
    """A run of a command that gave no time, with the reason."""


def _tried(command: str, file: Path, working: Path | None) -> float:
    """Returns the milliseconds that a command prints; tries it again when it fails."""
    reason = ""
    for _ in range(TRIES):
        try:
            return _milliseconds(command, file, working)
        except _FailedError as error:
            reason = str(error)
    raise LatencyError(f"{command!r} {reason}, {TRIES} times in a row")


def _milliseconds(command: str, file: Path, working: Path | None) -> float:
    words = [word.replace(MODEL, str(file)) for word in shlex.split(command)]
    # Files take the output, because pipes would be waited for as long as anything that the command left holds them.
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                words,
                cwd=working,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=complaints,
                start_new_session=True,
            )
        except OSError as error:
            raise _FailedError(f"cannot be started ({error.strerror})") from None
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise _FailedError(f"took more than {RUN_SECONDS:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said, told = _end_of(printed), _end_of(complaints)
    if code:
        last = in_short(([*said.splitlines(), *told.splitlines()] or ["it printed nothing"])[-1])
        raise _FailedError(f"ended with code {code} ({last})")
    said = re.sub(rf"\S*{re.escape(file.name)}\S*", "", said.replace(str(file), ""))  # its digits are no time
    numbers = NUMBER.findall(said)
    if not numbers:
        raise _FailedError(f"printed no number ({in_short(said) if said.strip() else 'nothing at all'})")
    if "," in numbers[-1] or numbers[-1].count(".") > 1:
        raise _FailedError(f"printed {numbers[-1]} as its last number; let it print a plain one, such as 3.5")
    value = float(numbers[-1])
    if not 0 < value < math.inf:
        raise _FailedError(f"printed {numbers[-1]} as its last number, which are no milliseconds")
    return value


def _end_of(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
    return file.read().decode(errors="replace")
