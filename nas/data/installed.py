"""Readers of images that Python packages install: the digits of scikit-learn, the photographs of scikit-image."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.raw import RawData, evenly, raw_data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_digits() -> RawData:
    """Reads the 1,797 handwritten 8x8 digits of scikit-learn (UCI, 1998), with 17 gray levels."""
    import numpy as np

    table = _digits()
    images = (table[:, None, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return raw_data(images, table[:, -1].astype(np.int64), [str(digit) for digit in range(10)])


def _digits() -> NDArray[np.float64]:
    """Returns 64 pixels and the digit of each image, (1797, 65).

    They are read from the file that scikit-learn's function reads. An import of scikit-learn takes a second, in which a
    search would show nothing; it happens only where a version keeps the file elsewhere.
    """
    import numpy as np

    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    data, digits = load_digits(return_X_y=True)
    return np.column_stack([data, digits])


# All are PNG, because the decoder's version decides the pixels of a JPEG, and with them the fingerprint.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_left.png",
)

PHOTO_CELL, PHOTO_PATCH, PHOTO_STRIDE = 64, 32, 16


def photo_cells(height: int, width: int) -> list[list[tuple[int, int]]]:
    """Returns disjoint square cells of a photograph, each a list of the (top, left) corners of its patches.

    Patches overlap within their cell and never leave it, so splits made of whole cells share no pixel.
    """
    steps = range(0, PHOTO_CELL - PHOTO_PATCH + 1, PHOTO_STRIDE)
    return [
        [(top + down, left + right) for down in steps for right in steps]
        for top in range(0, height - PHOTO_CELL + 1, PHOTO_CELL)
        for left in range(0, width - PHOTO_CELL + 1, PHOTO_CELL)
    ]


def read_photographs() -> list[NDArray[np.uint8]]:
    """Returns the photographs that scikit-image installs, gray, each (H, W)."""
    import numpy as np
    import PIL.Image
    from skimage.data import data_dir

    found = []
    for name in PHOTOGRAPHS:
        with PIL.Image.open(Path(data_dir, name)) as image:
            found.append(np.asarray(image.convert("L")))
    return found


def read_photos() -> RawData:
    """Reads gray 32x32 patches. The class is the photograph, and every photograph has as many cells as the smallest
    one."""
    import numpy as np

    photographs = read_photographs()
    cells = [photo_cells(*photograph.shape) for photograph in photographs]
    kept = min(map(len, cells))
    images, labels, groups = [], [], []
    for label, (photograph, candidates) in enumerate(zip(photographs, cells, strict=True)):
        for number, cell in enumerate(evenly(candidates, kept)):
            for top, left in cell:
                images.append(photograph[None, top : top + PHOTO_PATCH, left : left + PHOTO_PATCH])
                labels.append(label)
                groups.append(label * kept + number)
    return raw_data(np.stack(images), labels, [Path(name).stem for name in PHOTOGRAPHS], groups=groups)
