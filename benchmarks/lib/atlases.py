"""The atlases of the space ``unet``: their tasks, and the file of trained candidates.

`FILE` holds what `benchmarks.atlas` has trained. ::

    records = read()["digits"]
    records[0]["hyperparameters"], records[0]["psnr"], records[0]["curve"]["9"]

A record has the candidate's hyperparameters, costs, CPU seconds of its training and of a step for one image, origin,
the values of `VALUES` (or ``diverged``), and under ``curve`` these values after each validated epoch. `ATLAS.md` beside
the file is its card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import records
from benchmarks.lib.records import Record
from benchmarks.lib.runs import Setting
from search_spaces import get_space

SPACE = get_space("unet")
FILE = Path(__file__).parents[1] / "atlas.npz"
FOLDER = Path("runs/atlas")
VALUES = ("psnr", "accuracy", "stability")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasTask:
    """One task of the atlas: a setting, and its largest network as a share of the space's limit of MACs."""

    setting: Setting
    share: float


def atlas_tasks(root: Path | None) -> dict[str, AtlasTask]:
    """Returns the tasks by name. `root` is the folder with the files of Fashion-MNIST and of the CIFAR-10 subset."""
    cifar = f"folder:{root / 'cifar10-subset'}" if root else "cifar10"
    digits = Setting(data="digits", subset=None, noise="gaussian:50", epochs=27, root=root)

    def small(data: str, noise: str, subset: int | None = 2000) -> AtlasTask:
        return AtlasTask(setting=Setting(data=data, subset=subset, noise=noise, epochs=9, root=root), share=0.04)

    return {
        "digits": AtlasTask(setting=digits, share=1.0),
        "photos": small("photos", "gaussian:25", subset=None),
        "fashion": small("fashion-mnist", "gaussian:50"),
        "cifar": small(cifar, "gaussian:25"),
    }


def paths(name: str, folder: Path) -> tuple[Path, Path]:
    """Returns the files of a task's runs and of their times."""
    return folder / f"{name}.jsonl", folder / f"{name}-times.jsonl"


def from_runs(folder: Path = FOLDER, begun: Mapping[str, Sequence[Record]] | None = None) -> dict[str, list[Record]]:
    """Reads the finished runs of each task that are timed, in the order of their numbers.

    Args:
        folder: the folder of runs.
        begun: records of an atlas that goes on: they stand where the folder has no run of that number.
    """
    found: dict[str, list[Record]] = {}
    for name in atlas_tasks(None):
        runs, times = (records.read(path) for path in paths(name, folder))
        timed = {record["number"]: record for record in (begun or {}).get(name, ())}
        for key, record in runs.items():
            if key in times:
                timed[record["number"]] = {**record, "image_seconds": times[key]["image_seconds"]}
        if timed:
            found[name] = [timed[number] for number in sorted(timed)]
    return found


def write(atlases: Mapping[str, Sequence[Record]], path: Path = FILE) -> None:
    """Packs records into one file. Values keep four digits after the point, and seconds two."""
    rows = [(name, record) for name, some in atlases.items() for record in some]
    names = sorted({name for _, record in rows for name in record["hyperparameters"]})
    choices: dict[str, list[Any]] = {name: [] for name in names}
    drawn = np.full((len(rows), len(names)), 255, np.uint8)
    epochs = sorted({int(epoch) for _, record in rows for epoch in record["curve"]})
    curves = np.full((len(rows), len(epochs), len(VALUES)), np.nan, np.float32)
    for row, (_, record) in enumerate(rows):
        for column, name in enumerate(names):
            if name in record["hyperparameters"]:
                value = record["hyperparameters"][name]
                if value not in choices[name]:
                    choices[name].append(value)
                drawn[row, column] = choices[name].index(value)
        for epoch, values in record["curve"].items():
            known = [np.nan if value is None else value for value in values]
            curves[row, epochs.index(int(epoch))] = np.round(known, 4)
    about = {"tasks": list(atlases), "names": names, "choices": choices, "epochs": epochs}
    np.savez_compressed(
        path,
        about=np.array(json.dumps(about)),
        task=np.array([list(atlases).index(name) for name, _ in rows], np.uint8),
        number=np.array([record["number"] for _, record in rows], np.int32),
        origin=np.array([record["origin"] for _, record in rows]),
        drawn=drawn,
        curves=curves,
        diverged=np.array(["diverged" in record for _, record in rows]),
        params=np.array([record["params"] for _, record in rows], np.int64),
        macs=np.array([record["macs"] for _, record in rows], np.int64),
        image_seconds=np.array([record["image_seconds"] for _, record in rows], np.float32),
        cpu_seconds=np.array([record["cpu_seconds"] for _, record in rows], np.float32).round(2),
    )


def read(path: Path = FILE) -> dict[str, list[Record]]:
    """Reads the records of each task from the file, without unpickling anything."""
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        columns = {name: arrays[name].tolist() for name in arrays.files if name != "about"}
    found: dict[str, list[Record]] = {name: [] for name in about["tasks"]}
    for row, task in enumerate(columns["task"]):
        hyperparameters = {
            name: about["choices"][name][index]
            for name, index in zip(about["names"], columns["drawn"][row], strict=True)
            if index != 255
        }
        curve = {
            str(epoch): values
            for epoch, values in zip(about["epochs"], columns["curves"][row], strict=True)
            if not np.isnan(values).all()
        }
        diverged = columns["diverged"][row]
        last: dict[str, Any] = (
            {"diverged": "yes"} if diverged else dict(zip(VALUES, list(curve.values())[-1], strict=True))
        )
        plain = {
            name: columns[name][row] for name in ("number", "origin", "params", "macs", "cpu_seconds", "image_seconds")
        }
        found[about["tasks"][task]].append({**plain, **last, "hyperparameters": hyperparameters, "curve": curve})
    return found
