"""The classification sets of torchvision by name, read from disk or downloaded."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.images import one_size, stacked
from nas.data.raw import TEST, TRAIN, VALIDATION, RawData, raw_data
from nas.errors import DataError, in_short

if TYPE_CHECKING:
    from PIL.Image import Image

_BY_FLAG: dict[int, dict[str, Any]] = {TRAIN: {"train": True}, TEST: {"train": False}}
_BY_NAME: dict[int, dict[str, Any]] = {TRAIN: {"split": "train"}, TEST: {"split": "test"}}
_BY_TRAINVAL: dict[int, dict[str, Any]] = {TRAIN: {"split": "trainval"}, TEST: {"split": "test"}}
_ALL_THREE: dict[int, dict[str, Any]] = {**_BY_NAME, VALIDATION: {"split": "val"}}
_WHOLE: dict[int, dict[str, Any]] = {TRAIN: {}}

TORCHVISION: dict[str, tuple[str, Mapping[int, Mapping[str, Any]]]] = {
    "caltech101": ("Caltech101", _WHOLE),
    "caltech256": ("Caltech256", _WHOLE),
    "cifar10": ("CIFAR10", _BY_FLAG),
    "cifar100": ("CIFAR100", _BY_FLAG),
    # The labels of CLEVR's and Imagenette's test images are not public; their "val" is the test split.
    "clevr": ("CLEVRClassification", {TRAIN: {"split": "train"}, TEST: {"split": "val"}}),
    "country211": ("Country211", {**_BY_NAME, VALIDATION: {"split": "valid"}}),
    "dtd": ("DTD", _ALL_THREE),
    "emnist": ("EMNIST", {part: {"split": "balanced", **flag} for part, flag in _BY_FLAG.items()}),
    "eurosat": ("EuroSAT", _WHOLE),
    "fashion-mnist": ("FashionMNIST", _BY_FLAG),
    "fgvc-aircraft": ("FGVCAircraft", _BY_TRAINVAL),
    "flowers102": ("Flowers102", _ALL_THREE),
    "food101": ("Food101", _BY_NAME),
    "gtsrb": ("GTSRB", _BY_NAME),
    "imagenette": (
        "Imagenette",
        {TRAIN: {"split": "train", "size": "160px"}, TEST: {"split": "val", "size": "160px"}},
    ),
    "kmnist": ("KMNIST", _BY_FLAG),
    "mnist": ("MNIST", _BY_FLAG),
    "oxford-iiit-pet": ("OxfordIIITPet", _BY_TRAINVAL),
    "qmnist": ("QMNIST", _BY_FLAG),
    "rendered-sst2": ("RenderedSST2", _ALL_THREE),
    "semeion": ("SEMEION", _WHOLE),
    "stanford-cars": ("StanfordCars", _BY_NAME),
    "stl10": ("STL10", _BY_NAME),
    "sun397": ("SUN397", _WHOLE),
    "svhn": ("SVHN", _BY_NAME),
    "usps": ("USPS", _BY_FLAG),
}
"""The class in `torchvision.datasets` of each name, and the arguments that open each of its own splits."""

_ARCHIVES = {".bz2", ".gz", ".mat", ".tar", ".tgz", ".zip"}

_FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    ImportError,
    HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
)


def read_torchvision(name: str, root: Path) -> RawData:
    """Reads a classification set of torchvision from the files under `root`, from archives there, or from the network.

    Archives are unpacked in a temporary folder, so `root` may be read-only. A download appears under `root` only when
    it is complete.

    Raises:
        DataError: there are neither files nor a network.
    """
    try:
        return _open_torchvision(name, root, download=False)
    except _FAILURES as error:
        missing = error
    try:
        archives = [f for f in root.rglob("*") if f.suffix in _ARCHIVES and _belongs(f.relative_to(root), name)]
        with _network_timeout(seconds=30):
            return _unpack(name, root, archives) if archives else _download(name, root)
    except _FAILURES as error:
        raise DataError(
            f"data {name!r}: not found under {root} ({in_short(missing)}), and no download ({in_short(error)}); "
            "connect to the network, or give as --data-root a folder with the files of torchvision's "
            f"{TORCHVISION[name][0]}"
        ) from error


def _belongs(path: Path, name: str) -> bool:
    """Tells whether a part of the path starts with the set's name; ``cifar-100-python.tar.gz`` does not belong to
    ``cifar10``."""
    return any(re.match(plain(name) + r"(?!(?<=[0-9])[0-9])", plain(part)) for part in path.parts)


def _unpack(name: str, root: Path, archives: Iterable[Path]) -> RawData:
    with tempfile.TemporaryDirectory(prefix="skipnas-") as folder:
        for archive in archives:
            copy = Path(folder, archive.relative_to(root))
            copy.parent.mkdir(parents=True, exist_ok=True)
            # The archive is copied, not linked, because torchvision writes over an archive with a wrong checksum.
            shutil.copyfile(archive, copy)
        return _open_torchvision(name, Path(folder), download=True)


def _download(name: str, root: Path) -> RawData:
    made = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".skipnas-", dir=root) as folder:
            raw = _open_torchvision(name, Path(folder), download=True)
            # Files are moved one by one, because copytree would give `root` the mode of the temporary folder, which is
            # private.
            for file in [f for f in Path(folder).rglob("*") if f.is_file()]:
                target = root / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
            return raw
    finally:
        if made:
            with contextlib.suppress(OSError):  # a folder that holds the download stays
                root.rmdir()


def _open_torchvision(name: str, root: Path, *, download: bool) -> RawData:
    import torchvision

    set_name, parts = TORCHVISION[name]
    labels: list[int] = []
    part: list[int] = []

    def images() -> Iterator[Image]:
        for code, own in sets.items():
            for index in range(len(own)):
                image, label = own[index]
                labels.append(int(label))
                part.append(code)
                yield image

    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to --json
        cls = getattr(torchvision.datasets, set_name)
        sets = {code: cls(str(root), download=download, **arguments) for code, arguments in parts.items()}
        stack = stacked(one_size(images(), name))
    # Some sets skip numbers or have no names, so the classes are the labels that occur.
    numbers, compact = np.unique(labels, return_inverse=True)
    names = getattr(sets[TRAIN], "classes", None) or range(int(numbers.max()) + 1)
    classes = [names[n][0] if isinstance(names[n], tuple) else str(names[n]) for n in numbers]
    return raw_data(stack, compact, classes, part=part)


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Limits the time for opening an address, because torchvision would wait for minutes behind a silent firewall."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def plain(name: str) -> str:
    """Keeps letters and digits only, so that ``FashionMNIST`` and ``fashion-mnist`` are one name."""
    return "".join(filter(str.isalnum, name.lower()))
