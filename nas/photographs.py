"""Photographs at full size, for training on random patches: decoded once into a file that is mapped into memory.

What is in use stays in the system's cache, the rest on disk, so that a folder of any size is trained on.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.augmentation import Augmentation
from nas.data import noise_seed, parse_source, split_photographs, to_float
from nas.errors import ConfigError, DataError
from nas.noise import Noise
from nas.sources import TRAIN, VALIDATION, evenly
from nas.training import PROBE_IMAGES, Judged, moved, trivial_loss, with_noise

if TYPE_CHECKING:
    from PIL.Image import Image

JUDGED_SIDE = 256
"""Validation sees the centre of a photograph, up to this side in pixels."""
MOST_JUDGED = 64
"""Photographs that validation sees, spread evenly."""

CPU = torch.device("cpu")

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
            source: as `nas.data.parse_source` takes it.
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


class Patches:
    """Random square patches of the training photographs, a new draw in every epoch (see `TrainingData`).

    A photograph is drawn by its area, and the patch evenly within it.

    Args:
        photographs: those of the training split that are smaller than a patch are left out.
        noise: added by the training, and here to the probe and the validation images.
        patch: side in pixels.
        per_epoch: patches of an epoch; by default as many as fill the photographs once.
        augmentation: of each patch.
        device: where batches are made.
        subset: train on this many photographs only, spread evenly.

    Raises:
        DataError: every photograph is smaller than a patch.
        ConfigError: the subset is outside its rule.
    """

    labels = None

    def __init__(
        self,
        photographs: Photographs,
        noise: Noise,
        *,
        patch: int,
        per_epoch: int | None,
        augmentation: Augmentation,
        device: torch.device,
        subset: int | None = None,
    ) -> None:
        self.photographs, self.noise, self.device = photographs, noise, device
        self.patch, self.augmentation = patch, augmentation
        chosen = photographs.of(TRAIN)
        if subset is not None:
            if not 1 <= subset <= len(chosen):
                raise ConfigError(f"subset {subset}: must be 1 to {len(chosen)}, the photographs for training")
            chosen = evenly(chosen, subset)
        sizes = {index: photographs.shapes[index][:2] for index in chosen}
        self.chosen = [index for index, size in sizes.items() if min(size) >= patch]
        if not self.chosen:
            largest = max(map(min, sizes.values()))
            raise DataError(f"{photographs.name}: no photograph holds a patch of {patch}; --patch {largest} would fit")
        if left_out := len(chosen) - len(self.chosen):
            log.info("%s: %d photographs are smaller than a patch and left out", photographs.name, left_out)
        areas = [math.prod(sizes[index]) for index in self.chosen]
        self._shares = (torch.tensor(areas, dtype=torch.float64) / sum(areas)).float()
        self._corners = torch.tensor([sizes[index] for index in self.chosen]) - patch + 1
        self.per_epoch = per_epoch or max(1, round(sum(areas) / patch**2))

        seed = noise_seed(photographs.fingerprint)
        generator = torch.Generator().manual_seed(seed)
        probe = with_noise(_images(self._cut(self._draw(PROBE_IMAGES, generator))), None, noise, generator)
        self.trivial = trivial_loss(probe, noise)
        self.probe = moved(probe, device)
        generator.manual_seed(seed)  # so that validation is the same whatever the patches are
        self.validation: list[Judged] = [
            moved(with_noise(_images(middles), None, noise, generator), device) for middles in self._centres()
        ]

    def __len__(self) -> int:
        return self.per_epoch

    def order(self, generator: torch.Generator) -> Tensor:
        """The patches of an epoch (per_epoch, 3): their photographs, by place in `chosen`, tops and lefts."""
        return self._draw(self.per_epoch, generator)

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        return self.augmentation.apply(_images(self._cut(rows), self.device), generator), None

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """As `order`, on the CPU, where patches are cut: a device is waited for once an epoch."""
        rows = torch.multinomial(self._shares.to(generator.device), count, True, generator=generator)
        places = torch.rand(count, 2, generator=generator, device=generator.device)
        rows, places = rows.cpu(), places.cpu()
        return torch.cat([rows[:, None], (places.double() * self._corners[rows]).long()], dim=1)

    def _cut(self, rows: Tensor) -> list[NDArray[np.uint8]]:
        side = self.patch
        return [
            self.photographs[self.chosen[row]][top : top + side, left : left + side] for row, top, left in rows.tolist()
        ]

    def _centres(self) -> Iterator[list[NDArray[np.uint8]]]:
        """Batches of the middles of validation photographs, of one shape each."""
        by_shape: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
        for index in evenly(self.photographs.of(VALIDATION), MOST_JUDGED):
            photograph = self.photographs[index]
            height, width = (min(JUDGED_SIDE, side) for side in photograph.shape[:2])
            top, left = ((side - kept) // 2 for side, kept in zip(photograph.shape, (height, width), strict=False))
            middle = photograph[top : top + height, left : left + width]
            by_shape.setdefault(middle.shape, []).append(middle)
        for middles in by_shape.values():
            for start in range(0, len(middles), 8):
                yield middles[start : start + 8]


def _images(photographs: Sequence[NDArray[np.uint8]], device: torch.device = CPU) -> Tensor:
    """(N, C, H, W), float32 in [0, 1], from N photographs (H, W, C) of one size."""
    batch = torch.from_numpy(np.stack(photographs))
    if device.type == "cuda":
        batch = batch.pin_memory().to(device, non_blocking=True)
    return to_float(batch.permute(0, 3, 1, 2).contiguous())
