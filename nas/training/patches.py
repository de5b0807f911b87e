"""Random patches of photographs as training data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.data.augmentation import Augmentation
from nas.data.noise import Noise
from nas.data.photographs import Photographs
from nas.data.raw import TRAIN, VALIDATION, evenly
from nas.data.splits import noise_seed, to_float
from nas.errors import ConfigError, DataError
from nas.training.batches import PROBE_IMAGES, NoisyBatch, moved, trivial_loss, with_noise

if TYPE_CHECKING:
    from nas.data.image_file import Shown

log = logging.getLogger(__name__)

JUDGED_SIDE = 256
"""The largest side in pixels of a photograph's centre that validation sees."""

MOST_JUDGED = 64
"""The largest number of photographs that validation sees, spread evenly."""

CPU = torch.device("cpu")


class Patches:
    """Random square patches of the training photographs, drawn anew in every epoch (see `TrainingData`).

    A photograph is drawn in proportion to its area, and the patch uniformly within it.

    Args:
        photographs: the folder; training photographs that are smaller than a patch are left out.
        noise: noise of the training, the probe and the validation images.
        patch: side in pixels.
        per_epoch: patches of an epoch; by default as many as fill the photographs once.
        augmentation: augmentation of each patch.
        device: the device on which batches are made.
        subset: number of photographs to train on, spread evenly; by default all.

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
            raise DataError(
                f"{photographs.name}: no photograph holds a patch of {patch}; a `patch` of {largest} would fit"
            )
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
        generator.manual_seed(seed)  # so that validation does not depend on the patches
        self.validation: list[NoisyBatch] = [
            moved(with_noise(_images(middles), None, noise, generator), device) for middles in self._centres()
        ]

    def __len__(self) -> int:
        return self.per_epoch

    def order(self, generator: torch.Generator) -> Tensor:
        """Draws the patches of an epoch (per_epoch, 3): their photographs, by place in `chosen`, tops and lefts."""
        return self._draw(self.per_epoch, generator)

    def batch(self, rows: Tensor, generator: torch.Generator) -> NoisyBatch:
        clean = self.augmentation.apply(_images(self._cut(rows), self.device), generator)
        return NoisyBatch(self.noise.add(clean, generator), clean)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws as `order` does. The result is on the CPU, where patches are cut, so a device is waited for once an
        epoch."""
        rows = torch.multinomial(self._shares.to(generator.device), count, True, generator=generator)
        places = torch.rand(count, 2, generator=generator, device=generator.device)
        rows, places = rows.cpu(), places.cpu()
        return torch.cat([rows[:, None], (places.double() * self._corners[rows]).long()], dim=1)

    def _cut(self, rows: Tensor) -> list[Shown]:
        side = self.patch
        return [
            self.photographs[self.chosen[row]][top : top + side, left : left + side] for row, top, left in rows.tolist()
        ]

    def _centres(self) -> Iterator[list[Shown]]:
        """Yields batches of the centres of validation photographs, each batch with one shape."""
        by_shape: dict[tuple[int, ...], list[Shown]] = {}
        for index in evenly(self.photographs.of(VALIDATION), MOST_JUDGED):
            photograph = self.photographs[index]
            height, width = (min(JUDGED_SIDE, side) for side in photograph.shape[:2])
            top, left = ((side - kept) // 2 for side, kept in zip(photograph.shape, (height, width), strict=False))
            middle = photograph[top : top + height, left : left + width]
            by_shape.setdefault(middle.shape, []).append(middle)
        for middles in by_shape.values():
            for start in range(0, len(middles), 8):
                yield middles[start : start + 8]


def _images(photographs: Sequence[Shown], device: torch.device = CPU) -> Tensor:
    """Stacks N photographs (H, W, C) of one size to (N, C, H, W), float32 in [0, 1]."""
    if len({photograph.dtype for photograph in photographs}) > 1:  # 8 bits and more
        photographs = [np.asarray(to_float(torch.from_numpy(np.array(each)))) for each in photographs]
    batch = torch.from_numpy(np.stack(photographs))
    if device.type == "cuda":
        batch = batch.pin_memory().to(device, non_blocking=True)
    return to_float(batch.permute(0, 3, 1, 2).contiguous())
