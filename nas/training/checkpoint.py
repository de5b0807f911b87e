"""The files that a trial leaves on disk, by study folder and trial number. Every write is whole or not at all."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nas.errors import StudyError, is_out_of_memory
from nas.files import write_whole
from nas.training.version import FIRST_VERSION, TRAINING_VERSION

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

DAMAGE = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The errors that torch raises for files that were cut off or changed, found by trying."""

FORMAT = 2
"""The format of checkpoints. A checkpoint of another format cannot be continued."""


def weights_path(folder: Path, number: int) -> Path:
    """Returns the path of a finished trial's weights, which are kept while it is the best choice within some limits."""
    return folder / f"trial-{number}.safetensors"


def checkpoint_path(folder: Path, number: int) -> Path:
    """Returns the path of an unfinished trial's newest state."""
    return folder / f"trial-{number}.checkpoint"


def strip_path(folder: Path, number: int) -> Path:
    """Returns the path of the picture of a finished trial's results."""
    return folder / f"trial-{number}.png"


def hang_path(folder: Path, number: int) -> Path:
    """Returns the path of the traceback of a trial that hangs."""
    return folder / f"trial-{number}.hang"


def traceback_path(folder: Path, number: int) -> Path:
    """Returns the path of the traceback of a confirmation's run that ended by a bug, kept until the run is complete."""
    return folder / f"trial-{number}.traceback"


def confirm_dir(folder: Path) -> Path:
    """Returns the folder of a confirmation's runs while they are under way."""
    return folder / "confirm"


def save_weights(network: nn.Module, folder: Path, number: int, digest: str) -> None:
    """Writes the network's state, and creates `folder` if need be. `digest` identifies the candidate."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    content = save(tensors, {"digest": digest})  # `save_file` raises an error of its own where there is no room
    write_whole(weights_path(folder, number), lambda file: file.write_bytes(content))


def save_strip(picture: bytes, folder: Path, number: int) -> None:
    """Writes a trial's picture (see `nas.training.strips.strip`), and creates `folder` if need be."""
    write_whole(strip_path(folder, number), lambda file: file.write_bytes(picture))


def load_weights(network: nn.Module, folder: Path, number: int, digest: str) -> None:
    """Loads a trial's weights into `network`. Files of older versions do not name their candidate.

    Raises:
        StudyError: there are no weights, because they are kept for some trials only; or they cannot be read, or belong
            to another candidate.
    """
    from safetensors import SafetensorError, safe_open

    path = weights_path(folder, number)
    if not path.exists():
        raise StudyError(
            f"trial {number} has no weights at {path}; they are kept for trials on the front, of all trials or of "
            "those that are no larger, on the machine or shared folder of the search; skipnas train trains it again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get("digest", digest)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        if stored == digest:
            network.load_state_dict(tensors)
    except RuntimeError:  # torch raises it for other names and shapes
        raise StudyError(
            f"weights at {path} are of another network than trial {number}; restore the search's file, or pick "
            "another trial"
        ) from None
    except (SafetensorError, OSError) as error:
        raise StudyError(
            f"weights of trial {number} cannot be read from {path} ({str(error).partition(chr(10))[0]}); "
            "restore the file, or confirm and export another trial"
        ) from error
    if stored != digest:
        raise StudyError(
            f"weights at {path} are of candidate {stored}, and trial {number} is {digest}: another study wrote into "
            "this folder; restore the file, or search under a `study` name of its own"
        )


def save_checkpoint(state: Mapping[str, Any], folder: Path, number: int, *, digest: str, seed: int) -> None:
    """Writes the state of a trial under way in place of its last one. `digest` and `seed` identify the candidate."""
    write_state(state, checkpoint_path(folder, number), digest=digest, seed=seed)


def load_checkpoint(folder: Path, number: int, *, digest: str, seed: int) -> dict[str, Any] | None:
    """Returns a trial's newest state, or None when there is none, it cannot be read, or it is another candidate's.

    It also returns None when another version of the training code wrote the state, because a training goes on as it
    began or not at all. Only tensors and plain values are unpickled.
    """
    return read_state(checkpoint_path(folder, number), digest=digest, seed=seed)


def checkpoint_epoch(folder: Path, number: int) -> int | None:
    """Returns the epoch after which a trial's checkpoint goes on; None without a readable one."""
    content = _read(checkpoint_path(folder, number))
    return None if content is None else len(content["state"]["rows"])


def write_state(state: Mapping[str, Any], path: Path, **owner: Any) -> None:
    """Writes tensors and plain values in place of the last ones. `owner` identifies the training."""
    write_tensors({"format": FORMAT, "training": TRAINING_VERSION, "owner": owner, "state": dict(state)}, path)


def write_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Writes tensors and plain values with torch, whole or not at all. Raises OSError where there is no room."""
    import torch

    made = io.BytesIO()
    torch.save(content, made)  # a file that it cannot write is a RuntimeError without a reason
    write_whole(path, lambda file: file.write_bytes(made.getbuffer()))


def read_state(path: Path, **owner: Any) -> dict[str, Any] | None:
    """Returns the state that `write_state` wrote, on the CPU whatever device wrote it; None as in `load_checkpoint`."""
    content = _read(path)
    if content is None or content["owner"] != owner:
        return None
    state: dict[str, Any] = content["state"]
    return state


def _read(path: Path) -> dict[str, Any] | None:
    """Returns format, owner and state; None when the training cannot go on from it, with a warning if there is a
    file."""
    import torch

    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        written_by = content.pop("training", FIRST_VERSION)
        if content.keys() != {"format", "owner", "state"} or content["format"] != FORMAT:
            raise ValueError("it is of something else, or of another version")
    except (OSError, *DAMAGE) as error:
        if is_out_of_memory(error):
            raise  # memory ran out, which tells nothing about the file
        log.warning("checkpoint %s cannot be read (%s); its training starts again", path, type(error).__name__)
        return None
    if written_by != TRAINING_VERSION:
        told = "checkpoint %s is of version %s of the training code, and this is version %s; its training starts again"
        log.warning(told, path, written_by, TRAINING_VERSION)
        return None
    return content


def open_hang(folder: Path, number: int) -> TextIO:
    """Opens an empty file for the traceback of a trial that will be ended because it hangs."""
    folder.mkdir(parents=True, exist_ok=True)
    return hang_path(folder, number).open("w")


def read_hang(folder: Path, number: int) -> str:
    """Returns the traceback of a trial that was ended because it hung; empty when it was not."""
    path = hang_path(folder, number)
    return path.read_text(errors="replace") if path.exists() else ""


def drop_checkpoint(folder: Path, number: int) -> None:
    """Deletes the files of an unfinished trial, if there are any."""
    checkpoint_path(folder, number).unlink(missing_ok=True)
    hang_path(folder, number).unlink(missing_ok=True)
    traceback_path(folder, number).unlink(missing_ok=True)
    for partial in folder.glob(f"trial-{number}.*.partial"):  # of a process that was killed while it wrote
        partial.unlink(missing_ok=True)


def tidy(folder: Path, ended: Iterable[int], kept: Iterable[int]) -> None:
    """Deletes the files of trials that have `ended`: checkpoints, and weights of trials that are not to be `kept`.

    A trial's files are deleted when it ends. This call is for trials whose driver was killed before.
    """
    if folder.exists():
        there = {int(path.name.split(".")[0].removeprefix("trial-")) for path in folder.glob("trial-[0-9]*.*")}
        for number in there & set(ended):
            drop_checkpoint(folder, number)
        drop_weights(folder, there & set(ended) - set(kept))


def drop_weights(folder: Path, numbers: Iterable[int]) -> None:
    """Deletes the weights of these trials, if there are any."""
    for number in numbers:
        weights_path(folder, number).unlink(missing_ok=True)


def drop_all(folder: Path) -> None:
    """Deletes all files of trials in `folder`, what they share, and the folder itself if it is empty then."""
    for path in folder.glob("latency-*"):  # of `nas.bundles.latency`
        path.unlink(missing_ok=True)
    for path in (*folder.glob("trial-*"), *confirm_dir(folder).glob("trial-*")):
        if path.suffix in (".safetensors", ".checkpoint", ".hang", ".traceback", ".png", ".partial"):
            path.unlink(missing_ok=True)
    for empty in (confirm_dir(folder), folder):
        with contextlib.suppress(OSError):
            empty.rmdir()
