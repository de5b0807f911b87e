"""The classification sets of torchvision by name, read from disk or downloaded."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.data.alike import together_in_training
from nas.data.augmentation import MIRRORS, NONE, TURNS, Augmentation
from nas.data.images import stacked
from nas.data.preparation import KEPT_SIDE, one_size, shrunk
from nas.data.raw import TEST, TRAIN, VALIDATION, RawData, raw_data
from nas.errors import DataError, in_short

if TYPE_CHECKING:
    from PIL.Image import Image

    from nas.data.raw import Images


log = logging.getLogger(__name__)
_BY_FLAG: dict[int, dict[str, Any]] = {TRAIN: {"train": True}, TEST: {"train": False}}
_BY_NAME: dict[int, dict[str, Any]] = {TRAIN: {"split": "train"}, TEST: {"split": "test"}}
_BY_TRAINVAL: dict[int, dict[str, Any]] = {TRAIN: {"split": "trainval"}, TEST: {"split": "test"}}
_ALL_THREE: dict[int, dict[str, Any]] = {**_BY_NAME, VALIDATION: {"split": "val"}}
_WHOLE: dict[int, dict[str, Any]] = {TRAIN: {}}


class TorchvisionSet(NamedTuple):
    """How a classification set of torchvision is read.

    Attributes:
        set_name: its class in `torchvision.datasets`.
        parts: the arguments that open each of its own splits.
        symmetries: those of what its images show. Photographed objects are as likely seen from the other side, and
            textures and images from above from any side; the mirror image of a digit, letter or sign is no example of
            its class.
        track: returns what an image of its training part was taken from, by the set and the image's index: the frames
            of one track, for example. None where every image stands alone.
    """

    set_name: str
    parts: Mapping[int, Mapping[str, Any]]
    symmetries: Augmentation
    track: Callable[[Any, int], str] | None = None


def _track_of_gtsrb(own: Any, index: int) -> str:
    """Returns class and track of a frame that lies in ``00014/00003_00012.ppm``."""
    path = Path(own._samples[index][0])
    return f"{path.parent.name}/{path.name.partition('_')[0]}"


TORCHVISION: Mapping[str, TorchvisionSet] = {
    "caltech101": TorchvisionSet("Caltech101", _WHOLE, MIRRORS),
    "caltech256": TorchvisionSet("Caltech256", _WHOLE, MIRRORS),
    "cifar10": TorchvisionSet("CIFAR10", _BY_FLAG, MIRRORS),
    "cifar100": TorchvisionSet("CIFAR100", _BY_FLAG, MIRRORS),
    # The labels of CLEVR's and Imagenette's test images are not public; their "val" is the test split.
    "clevr": TorchvisionSet("CLEVRClassification", {TRAIN: {"split": "train"}, TEST: {"split": "val"}}, MIRRORS),
    "country211": TorchvisionSet("Country211", {**_BY_NAME, VALIDATION: {"split": "valid"}}, MIRRORS),
    "dtd": TorchvisionSet("DTD", _ALL_THREE, TURNS),
    "emnist": TorchvisionSet("EMNIST", {part: {"split": "balanced", **flag} for part, flag in _BY_FLAG.items()}, NONE),
    "eurosat": TorchvisionSet("EuroSAT", _WHOLE, TURNS),
    "fashion-mnist": TorchvisionSet("FashionMNIST", _BY_FLAG, MIRRORS),
    "fgvc-aircraft": TorchvisionSet("FGVCAircraft", _BY_TRAINVAL, MIRRORS),
    "flowers102": TorchvisionSet("Flowers102", _ALL_THREE, MIRRORS),
    "food101": TorchvisionSet("Food101", _BY_NAME, MIRRORS),
    "gtsrb": TorchvisionSet("GTSRB", _BY_NAME, NONE, _track_of_gtsrb),
    "imagenette": TorchvisionSet(
        "Imagenette",
        {TRAIN: {"split": "train", "size": "160px"}, TEST: {"split": "val", "size": "160px"}},
        MIRRORS,
    ),
    "kmnist": TorchvisionSet("KMNIST", _BY_FLAG, NONE),
    "mnist": TorchvisionSet("MNIST", _BY_FLAG, NONE),
    "oxford-iiit-pet": TorchvisionSet("OxfordIIITPet", _BY_TRAINVAL, MIRRORS),
    "qmnist": TorchvisionSet("QMNIST", _BY_FLAG, NONE),
    "rendered-sst2": TorchvisionSet("RenderedSST2", _ALL_THREE, NONE),
    "semeion": TorchvisionSet("SEMEION", _WHOLE, NONE),
    "stanford-cars": TorchvisionSet("StanfordCars", _BY_NAME, MIRRORS),
    "stl10": TorchvisionSet("STL10", _BY_NAME, MIRRORS),
    "sun397": TorchvisionSet("SUN397", _WHOLE, MIRRORS),
    "svhn": TorchvisionSet("SVHN", _BY_NAME, NONE),
    "usps": TorchvisionSet("USPS", _BY_FLAG, NONE),
}
"""The sets by the names that sources have."""

_ARCHIVES = {".bz2", ".gz", ".mat", ".tar", ".tgz", ".zip"}


def _failures() -> tuple[type[Exception], ...]:
    """Returns the exceptions of torchvision where files are missing or damaged, or there is no network."""
    import tarfile
    import zipfile
    from http.client import HTTPException

    return (
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
    except _failures() as error:
        missing = error
    try:
        archives = [f for f in root.rglob("*") if f.suffix in _ARCHIVES and _belongs(f.relative_to(root), name)]
        with _network_timeout(seconds=30):
            return _unpack(name, root, archives) if archives else _download(name, root)
    except _failures() as error:
        raise DataError(
            f"data {name!r}: not found under {root} ({in_short(missing)}), and no download ({in_short(error)}); "
            "connect to the network, or give as `data_root` a folder with the files of torchvision's "
            f"{TORCHVISION[name].set_name}"
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
    import numpy as np
    import torchvision

    set_name, parts, _, track = TORCHVISION[name]
    labels: list[int] = []
    tracks: list[str] = []

    small: list[Image] = []
    sizes: list[tuple[int, int]] = []
    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results
        cls = getattr(torchvision.datasets, set_name)
        sets = {code: cls(str(root), download=download, **arguments) for code, arguments in parts.items()}
        part = [code for code, own in sets.items() for _ in range(len(own))]
        if (stack := _in_memory(sets.values())) is not None:
            labels = [label for own in sets.values() for label in np.asarray(own.targets).tolist()]
            tracks = [""] * len(part)
        else:
            for code, own in sets.items():
                for index in range(len(own)):
                    image, label = own[index]
                    labels.append(int(label))
                    tracks.append(track(own, index) if track is not None and code == TRAIN else "")
                    sizes.append(image.size)
                    small.append(shrunk(image))
            stack = stacked(one_size(small, sizes, name))
    # Some sets skip numbers or have no names, so the classes are the labels that occur.
    numbers, compact = np.unique(labels, return_inverse=True)
    names = getattr(sets[TRAIN], "classes", None) or range(int(numbers.max()) + 1)
    classes = [names[n][0] if isinstance(names[n], tuple) else str(names[n]) for n in numbers]
    groups, together = together_in_training(name, stack, part, tracks)
    return raw_data(stack, compact, classes, part=part, groups=groups, joined=together)


def _in_memory(sets: Collection[Any]) -> Images | None:
    """Returns the small images (N, C, H, W) of sets that hold them as arrays, and None for other sets.

    Images made of these arrays one after the other would take seconds.
    """
    import numpy as np
    from torchvision.datasets import CIFAR10, MNIST

    found: list[Images] = []
    for own in sets:
        if type(own).__getitem__ is MNIST.__getitem__:
            found.append(own.data.numpy()[:, None])
        elif type(own).__getitem__ is CIFAR10.__getitem__:
            found.append(own.data.transpose(0, 3, 1, 2))
    if len(found) < len(sets) or len({each.shape[1:] for each in found}) > 1:
        return None
    stack = np.concatenate([np.ascontiguousarray(each) for each in found])
    return stack if max(stack.shape[2:]) <= KEPT_SIDE else None


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
