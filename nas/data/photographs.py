"""Photographs at full size, for training on random patches: decoded once into a file that is mapped into memory.

What is in use stays in the system's cache, the rest on disk, so that a folder of any size is trained on.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.data.splits import parse_source, split_photographs

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Photographs:
    """A folder of photographs in three splits, none of which shares a photograph with another.

    Attributes:
        name: canonical source, ``images:DIR``.
        paths: of the files.
        channels: 1 when all are gray, else 3.
        shapes: (height, width, channels) of each photograph as it is stored: gray ones have one channel also
            where `channels` is 3.
        part: (N,) the split of each: TRAIN, VALIDATION or TEST, as in a search.
        fingerprint: of the folder, as in a search.
    """

    name: str
    paths: tuple[Path, ...]
    channels: int
    shapes: tuple[tuple[int, int, int], ...]
    part: NDArray[np.int64]
    fingerprint: str
    _pixels: NDArray[np.uint8]
    _starts: tuple[int, ...]

    @classmethod
    def read(cls, source: str, scratch: Path) -> Photographs:
        """Decodes every photograph of ``images:DIR``, those with more than 8 bits rounded to 8.

        Args:
            source: as `nas.data.splits.parse_source` takes it.
            scratch: folder on a disk with room for the decoded photographs; the file there has no name and
                is gone with the process.

        Raises:
            DataError: the folder cannot be read, an image is damaged, or a split would be empty.
        """
        name = parse_source(source)
        shapes: list[tuple[int, int, int]] = []
        with tempfile.TemporaryFile(dir=scratch) as file:

            def keep(_path: Path, image: Image) -> None:
                values = np.rint(np.asarray(image) * 255).astype(np.uint8) if image.mode == "F" else np.asarray(image)
                file.write(values.tobytes())
                shapes.append((image.height, image.width, len(image.getbands())))

            paths, part, fingerprint = split_photographs(name, keep)
            file.flush()
            starts = np.cumsum([0, *map(math.prod, shapes)]).tolist()
            pixels: NDArray[np.uint8] = np.memmap(file, np.uint8, "r", shape=(starts[-1],))
        channels = max(shape[2] for shape in shapes)
        return cls(name, tuple(paths), channels, tuple(shapes), part, fingerprint, pixels, tuple(starts))

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A photograph (H, W, C), mapped, not read."""
        start, end = self._starts[index], self._starts[index + 1]
        stored = self._pixels[start:end].reshape(self.shapes[index])
        return np.broadcast_to(stored, (*stored.shape[:2], self.channels), subok=True)

    def of(self, part: int) -> list[int]:
        """The photographs of a split."""
        return np.flatnonzero(self.part == part).tolist()
