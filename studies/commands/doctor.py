"""Checks of versions, devices, Ray and storage, with advice on each."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.data.listing import counted
from nas.errors import ClusterError, NoStudiesError, SkipnasError, StorageError
from nas.machine import processors, temporary_folder

if TYPE_CHECKING:
    from studies.store.connection import Storage

LITTLE_DISK = 2 * 2**30
"""The free bytes below which Ray's object store and the studies may not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: ``ok``, ``note`` (worth knowing) or ``bad`` (needs repair), with advice."""

    subject: str
    state: Literal["ok", "note", "bad"]
    text: str
    advice: str = ""

    def line(self) -> str:
        return f"{self.state:<4}  {self.subject:<10}  {self.text}" + (f" -> {self.advice}" if self.advice else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(storage: str | None) -> list[Finding]:
    """Checks everything that a search needs. It starts nothing, and changes nothing but an outdated schema."""
    return [*_versions(), *_devices(), *_ray(), *_disk(storage), *_storage(storage)]


def _versions() -> Iterator[Finding]:
    from studies.provenance import versions

    found = versions()
    missing = [name for name, version in found.items() if version == "not installed" and name != "skipnas"]
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        yield Finding(subject="versions", state="bad", text=text, advice=f"pip install {' '.join(missing)}")
    else:
        yield Finding(subject="versions", state="ok", text=text)


def _devices() -> Iterator[Finding]:
    import torch

    from studies.provenance import describe, hardware

    found = hardware()
    yield Finding(subject="processor", state="ok", text=describe(found | {"gpus": ()}))
    if found["gpus"]:
        yield Finding(subject="GPU", state="ok", text=", ".join(found["gpus"]))
    elif Path("/proc/driver/nvidia").exists():
        yield Finding(
            subject="GPU",
            state="bad",
            text=f"an NVIDIA driver is there, but torch {torch.__version__} sees no device",
            advice="install the torch build for this driver's CUDA version",
        )
    else:
        yield Finding(subject="GPU", state="note", text="none; trials train on the CPU")


def _ray() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield Finding(
            subject="Ray",
            state="note",
            text=f"RAY_ADDRESS is set to {address}",
            advice="a search starts its own Ray all the same; give --address to join a cluster",
        )
    else:
        text = f"a search starts its own, with {counted(processors(), 'trial')} at a time"
        yield Finding(subject="Ray", state="ok", text=text)


def _disk(url: str | None) -> Iterator[Finding]:
    """Checks the room for the studies, for Ray's files (see `nas.engine.session.scratch`), and for its shared
    memory."""
    from studies.store.files import files_dir

    try:
        studies = files_dir(url, "any").parent
    except StorageError:  # `_storage` reports it
        studies = Path.cwd()
    there = next(folder for folder in (studies, *studies.parents) if os.access(folder, os.F_OK))
    places = [("disk", there), ("shared", Path("/dev/shm"))]
    try:
        places.insert(1, ("temporary", temporary_folder()))
    except ClusterError as error:
        yield Finding(subject="temporary", state="bad", text=str(error))
    for name, folder in places:
        if not folder.exists():
            continue
        free = shutil.disk_usage(folder).free
        text = f"{free / 2**30:.1f} GiB free in {folder}"
        if free >= LITTLE_DISK:
            yield Finding(subject=name, state="ok", text=text)
        elif name == "shared":
            advice = "Ray shares data through files in /tmp then; a container gets more by --shm-size=2g"
            yield Finding(subject=name, state="note", text=text, advice=advice)
        else:
            yield Finding(subject=name, state="bad", text=text, advice="free at least 2 GiB")


def _storage(url: str | None) -> Iterator[Finding]:
    from studies.store.catalog import list_studies, lost_studies
    from studies.store.database import open_storage
    from studies.store.files import files_dir

    try:
        with open_storage(url, must_exist=True) as storage:
            summaries = list_studies(storage)
            yield Finding(subject="storage", state="ok", text=f"{storage.masked}, {len(summaries)} studies")
            if lost := lost_studies(storage):
                text = f"records of {', '.join(lost)} are left, which another program deleted"
                folders = ", ".join(str(files_dir(url, name)) for name in lost if files_dir(url, name).exists())
                advice = "the next new study clears them away" + (f"; delete {folders} by hand" if folders else "")
                yield Finding(subject="studies", state="note", text=text, advice=advice)
            for summary in summaries:
                if summary.counts.running:
                    words = ["skipnas", "search", "--study", summary.name]
                    words += ["--trials", str(summary.counts.trained + summary.counts.running)]
                    words += [] if url is None else ["--storage", storage.masked]
                    yield from _unfinished(storage, summary.name, shlex.join(words))
    except SkipnasError as error:
        missing = isinstance(error, NoStudiesError)
        yield Finding(subject="storage", state="note" if missing else "bad", text=str(error))


def _unfinished(storage: Storage, name: str, command: str) -> Iterator[Finding]:
    """Reports the trials that are being trained, with their drivers, and the interrupted ones that `command`
    continues."""
    from nas.training.checkpoint import checkpoint_epoch
    from studies.reading.study import StudyReader
    from studies.store.files import files_dir

    drivers: dict[str, list[int]] = {}
    interrupted = []
    for trial in StudyReader.open(name, storage).unfinished():
        if trial.driver is not None:
            drivers.setdefault(trial.driver.label, []).append(trial.number)
        else:
            interrupted.append(trial)
    for driver, numbers in drivers.items():
        yield Finding(subject="trials", state="ok", text=f"study {name}: {_trials(numbers)} being trained by {driver}")
    for trial in interrupted:
        epoch = checkpoint_epoch(files_dir(storage.url, name), trial.number)
        start = "the beginning" if epoch is None else f"its checkpoint after epoch {epoch}"
        why = "its search was stopped" if trial.dead is None else f"{trial.dead.label} is dead"
        yield Finding(
            subject="trials",
            state="note",
            text=f"study {name}: trial {trial.number} is interrupted at epoch {trial.epochs_done}, {why}",
            advice=f"the next search goes on with it from {start}: {command}",
        )


def _trials(numbers: list[int]) -> str:
    return f"trial {numbers[0]} is" if len(numbers) == 1 else f"trials {', '.join(map(str, numbers))} are"
