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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.augmentation import Augmentation
from nas.data import parse_source, split_photographs, to_float
from nas.errors import ConfigError, DataError
from nas.noise import Noise
from nas.sources import TRAIN, VALIDATION, open_image
from nas.training import PROBE_IMAGES, Judged

JUDGED_SIDE = 256
"""Validation sees the centre of a photograph, up to this side in pixels."""
MOST_JUDGED = 64
"""Photographs that validation sees, spread evenly."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Photographs:
    """A folder of photographs in three splits, none of which shares a photograph with another.

    Attributes:
        name: canonical source, ``images:DIR``.
        paths: of the files.
        channels: 1 when all are gray, else 3.
        shapes: (height, width) of each photograph.
        part: (N,) the split of each: TRAIN, VALIDATION or TEST, as in a search.
        fingerprint: of the folder, as in a search.
    """

    name: str
    paths: tuple[Path, ...]
    channels: int
    shapes: tuple[tuple[int, int], ...]
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
        paths, part, fingerprint = split_photographs(name)
        headers = [open_image(path, decode=False) for path in paths]
        channels = 1 if all(image.mode in ("1", "L", "LA", "F") or image.mode[0] == "I" for image in headers) else 3
        shapes = tuple((image.height, image.width) for image in headers)
        starts = np.cumsum([0, *(height * width * channels for height, width in shapes)]).tolist()
        with tempfile.TemporaryFile(dir=scratch) as file:
            for path in paths:
                image = open_image(path)
                values = np.asarray(image if image.mode == "F" else image.convert("L" if channels == 1 else "RGB"))
                if image.mode == "F":
                    values = np.rint(values * 255).astype(np.uint8)
                values = np.broadcast_to(np.atleast_3d(values), (*values.shape[:2], channels))
                file.write(values.tobytes())
            file.flush()
            pixels: NDArray[np.uint8] = np.memmap(file, np.uint8, "r", shape=(starts[-1],))
        return cls(name, tuple(paths), channels, shapes, part, fingerprint, pixels, tuple(starts))

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A photograph (H, W, C), mapped, not read."""
        start, end = self._starts[index], self._starts[index + 1]
        return self._pixels[start:end].reshape(*self.shapes[index], self.channels)

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
            chosen = _evenly(chosen, subset)
        self.chosen = [index for index in chosen if min(photographs.shapes[index]) >= patch]
        if not self.chosen:
            largest = max(min(photographs.shapes[index]) for index in chosen)
            raise DataError(f"{photographs.name}: no photograph holds a patch of {patch}; --patch {largest} would fit")
        if left_out := len(chosen) - len(self.chosen):
            log.info("%s: %d photographs are smaller than a patch and left out", photographs.name, left_out)
        areas = [math.prod(photographs.shapes[index]) for index in self.chosen]
        self._shares = torch.tensor(areas, dtype=torch.float64) / sum(areas)
        self.per_epoch = per_epoch or max(1, round(sum(areas) / patch**2))

        seed = int(photographs.fingerprint, 16) % 2**63
        generator = torch.Generator(device).manual_seed(seed)
        rows = torch.multinomial(self._shares.float().to(device), PROBE_IMAGES, True, generator=generator)
        self.probe = self._judged(self._cut(rows, generator), generator)
        denoises = noise.name != "none"
        noisy, clean, _ = self.probe
        self.trivial = max(float((noisy - clean).square().mean() if denoises else clean.var()), 1e-8)
        self.validation = [self._judged(batch, generator) for batch in self._centres()]

    def __len__(self) -> int:
        return self.per_epoch

    def order(self, generator: torch.Generator) -> Tensor:
        """The photographs that patches are cut from."""
        shares = self._shares.float().to(self.device)
        return torch.multinomial(shares, self.per_epoch, replacement=True, generator=generator)

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        return self.augmentation.apply(self._cut(rows, generator), generator), None

    def _cut(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        places = torch.rand(len(rows), 2, generator=generator, device=self.device)
        patches = []
        for row, (down, right) in zip(rows.tolist(), places.tolist(), strict=True):
            photograph = self.photographs[self.chosen[row]]
            height, width = photograph.shape[:2]
            top, left = int(down * (height - self.patch + 1)), int(right * (width - self.patch + 1))
            patches.append(photograph[top : top + self.patch, left : left + self.patch])
        return _images(patches, self.device)

    def _centres(self) -> Iterator[Tensor]:
        """Batches of the middles of validation photographs, by shape."""
        by_shape: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
        for index in _evenly(self.photographs.of(VALIDATION), MOST_JUDGED):
            photograph = self.photographs[index]
            height, width = (min(JUDGED_SIDE, side) for side in photograph.shape[:2])
            top, left = ((side - kept) // 2 for side, kept in zip(photograph.shape, (height, width), strict=False))
            middle = photograph[top : top + height, left : left + width]
            by_shape.setdefault(middle.shape, []).append(middle)
        for middles in by_shape.values():
            for start in range(0, len(middles), 8):
                yield _images(middles[start : start + 8], self.device)

    def _judged(self, clean: Tensor, generator: torch.Generator) -> Judged:
        return self.noise.add(clean, generator), clean, None


def _images(photographs: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """(N, C, H, W), float32 in [0, 1], from N photographs (H, W, C) of one size."""
    batch = torch.from_numpy(np.stack(photographs)).to(device)
    return to_float(batch.permute(0, 3, 1, 2).contiguous())


def _evenly(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, spread evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]
