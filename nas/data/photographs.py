"""Photographs at full size for training on random patches. They are decoded once into a file that is mapped into
memory.

The pixels in use stay in the system's cache and the rest on disk, so that a training can use a folder of any size.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.data.sources import parse_source
from nas.data.splits import split_photographs
from nas.data.white import White

if TYPE_CHECKING:
    from PIL.Image import Image

    from nas.data.image_file import Shown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Photographs:
    """A folder of photographs in three splits, which share no photograph.

    Attributes:
        name: canonical source, ``images:DIR``.
        paths: the file of each photograph. Each page of a stack is one.
        channels: 1 when all photographs are gray, else 3.
        shapes: (height, width, channels) of each photograph as it is stored; a gray one has one channel even where
            `channels` is 3.
        part: (N,) the split of each: TRAIN, VALIDATION or TEST, as in a search.
        fingerprint: the folder's fingerprint, as in a search.
        white_level: value that is white in all images of more than 8 bits; None where each has its type's.
    """

    name: str
    paths: tuple[Path, ...]
    channels: int
    shapes: tuple[tuple[int, int, int], ...]
    part: NDArray[np.int64]
    fingerprint: str
    white_level: float | None
    _content: NDArray[np.uint8]
    _starts: tuple[int, ...]
    _types: tuple[np.dtype[Any], ...]

    @classmethod
    def read(
        cls,
        source: str,
        scratch: Path,
        *,
        group_by: str | None = None,
        white: White = White(),  # noqa: B008 (it is frozen)
    ) -> Photographs:
        """Decodes every photograph of ``images:DIR``, those with more than 8 bits as floats.

        Args:
            source: name of the source, as `nas.data.sources.parse_source` takes it.
            scratch: folder on a disk with room for the decoded photographs. The file there has no name and disappears
                with the process.
            group_by, white: see `nas.data.splits.load`.

        Raises:
            DataError: the folder cannot be read, an image is damaged, or a split would be empty.
        """
        name = parse_source(source)
        shapes: list[tuple[int, int, int]] = []
        types: list[np.dtype[Any]] = []
        with tempfile.TemporaryFile(dir=scratch) as file:

            def keep(_path: Path, image: Image) -> None:
                values = np.atleast_3d(np.asarray(image))
                file.write(values.tobytes())
                shapes.append(values.shape)
                types.append(values.dtype)

            found = split_photographs(name, keep, group_by=group_by, white=white)
            file.flush()
            sizes = (math.prod(shape) * dtype.itemsize for shape, dtype in zip(shapes, types, strict=True))
            starts = np.cumsum([0, *sizes]).tolist()
            content: NDArray[np.uint8] = np.memmap(file, np.uint8, "r", shape=(starts[-1],))
        kept = [shapes[place] for place in found.places]
        return cls(
            name=name,
            paths=found.paths,
            channels=max(shape[2] for shape in kept),
            shapes=tuple(kept),
            part=found.part,
            fingerprint=found.fingerprint,
            white_level=found.white_level,
            _content=content,
            _starts=tuple(starts[place] for place in found.places),
            _types=tuple(types[place] for place in found.places),
        )

    def __getitem__(self, index: int) -> Shown:
        """Returns a photograph (H, W, C), uint8 or float32 in [0, 1], mapped into memory but not read."""
        start, shape, dtype = self._starts[index], self.shapes[index], self._types[index]
        content = self._content[start : start + math.prod(shape) * dtype.itemsize]
        stored = content.view(dtype).reshape(shape)
        return np.broadcast_to(stored, (*shape[:2], self.channels), subok=True)

    @property
    def deep(self) -> bool:
        """Whether some of them have more than 8 bits."""
        return any(dtype != np.uint8 for dtype in self._types)

    def of(self, part: int) -> list[int]:
        """Returns the indices of the photographs in a split."""
        return np.flatnonzero(self.part == part).tolist()
