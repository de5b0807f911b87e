"""What a trial leaves on disk, keyed by study folder and trial number; every write is atomic."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import StudyError

if TYPE_CHECKING:
    from torch import nn


def weights_path(folder: Path, number: int) -> Path:
    """Where the weights of a finished trial lie while it is on the front."""
    return folder / f"trial-{number}.safetensors"


def save_weights(network: nn.Module, folder: Path, number: int) -> Path:
    """Writes the network's state, complete or not at all, creating `folder` if need be."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    target = weights_path(folder, number)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


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


def drop_weights(folder: Path, numbers: Iterable[int]) -> None:
    """Deletes the weights of these trials, where there are any."""
    for number in numbers:
        weights_path(folder, number).unlink(missing_ok=True)


def drop_all(folder: Path) -> None:
    """Deletes everything that trials left in `folder`, and the folder itself if nothing else is in it."""
    for path in folder.glob("trial-*.safetensors"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
