"""What a trial leaves on disk, keyed by study folder and trial number; every write is whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nas.errors import StudyError

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def weights_path(folder: Path, number: int) -> Path:
    """Where the weights of a finished trial lie while it is on the front."""
    return folder / f"trial-{number}.safetensors"


def checkpoint_path(folder: Path, number: int) -> Path:
    """Where a trial that is not finished keeps its newest state."""
    return folder / f"trial-{number}.checkpoint"


def hang_path(folder: Path, number: int) -> Path:
    """Where a trial that hangs leaves a traceback."""
    return folder / f"trial-{number}.hang"


def save_weights(network: nn.Module, folder: Path, number: int) -> None:
    """Writes the network's state, creating `folder` if need be."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    _write(weights_path(folder, number), lambda file: save_file(tensors, file))


def load_weights(network: nn.Module, folder: Path, number: int) -> None:
    """Loads a trial's weights into `network`.

    Raises:
        StudyError: there are none: weights are kept for trials on the front only.
    """
    from safetensors.torch import load_file

    path = weights_path(folder, number)
    if not path.exists():
        raise StudyError(
            f"trial {number} has no weights at {path}; they are kept for trials on the front, "
            "on the machine or shared folder of the search"
        )
    network.load_state_dict(load_file(path))


def save_checkpoint(state: Mapping[str, Any], folder: Path, number: int, *, digest: str, seed: int) -> None:
    """Writes the state of a trial under way in place of its last one. `digest` and `seed` say whose it is."""
    import torch

    content = {"digest": digest, "seed": seed, "state": dict(state)}
    _write(checkpoint_path(folder, number), lambda file: torch.save(content, file))


def load_checkpoint(folder: Path, number: int, *, digest: str, seed: int) -> dict[str, Any] | None:
    """A trial's newest state; None when there is none, it cannot be read, or it is of another candidate.

    Nothing is unpickled but tensors and plain values.
    """
    import torch

    path = checkpoint_path(folder, number)
    if not path.exists():
        return None
    try:
        content = torch.load(path, weights_only=True)
        if (content["digest"], content["seed"]) == (digest, seed):
            state: dict[str, Any] = content["state"]
            return state
    except Exception as error:  # torch raises a dozen kinds for a damaged file; each means the same here
        log.warning("checkpoint %s cannot be read (%s); its trial starts again", path, type(error).__name__)
    return None


def open_hang(folder: Path, number: int) -> TextIO:
    """An empty file for the traceback of a trial that will be ended because it hangs."""
    folder.mkdir(parents=True, exist_ok=True)
    return hang_path(folder, number).open("w")


def read_hang(folder: Path, number: int) -> str:
    """Where a trial hung when it was ended; empty when it was not."""
    path = hang_path(folder, number)
    return path.read_text(errors="replace") if path.exists() else ""


def drop_checkpoint(folder: Path, number: int) -> None:
    """Deletes what an unfinished trial kept, if there is anything."""
    checkpoint_path(folder, number).unlink(missing_ok=True)
    hang_path(folder, number).unlink(missing_ok=True)


def drop_weights(folder: Path, numbers: Iterable[int]) -> None:
    """Deletes the weights of these trials, where there are any."""
    for number in numbers:
        weights_path(folder, number).unlink(missing_ok=True)


def drop_all(folder: Path) -> None:
    """Deletes everything that trials left in `folder`, and the folder itself if nothing else is in it."""
    for path in folder.glob("trial-*"):
        if path.suffix in (".safetensors", ".checkpoint", ".hang", ".partial"):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write(target: Path, write: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
