"""Batches on the device: training images, fixed probe and validation batches, and their noise.

Where no clean images are known, other noisy images stand in their place (see `nas.training.held_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nas.data.augmentation import NONE, Augmentation
from nas.data.noise import Noise, parse_noise
from nas.data.splits import Dataset, Split, noise_seed, to_float
from nas.training.held_out import HeldOut, hidden_pixels, noise_shares, others_than
from nas.types import Task

PROBE_IMAGES = 64


class NoisyBatch(NamedTuple):
    """A batch with its noise.

    Attributes:
        noisy: images as a network sees them (N, C, H, W).
        clean: clean images, or the noisy ones that stand in their place.
        labels: classes (N,), or None.
        held_out: how `clean` stands in the place of clean images; None where it holds clean images.
    """

    noisy: Tensor
    clean: Tensor
    labels: Tensor | None = None
    held_out: HeldOut | None = None

    def error(self, images: Tensor) -> Tensor:
        """Returns the mean squared error of images (N, C, H, W) for each (N,), less the noise of held-out targets."""
        if self.held_out is None:
            return (images - self.clean).square().flatten(1).mean(1)
        return self.held_out.error(images, self.clean)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> NoisyBatch:
        """Returns a batch with ``change(tensor)`` in the place of each tensor."""
        noisy, clean, labels, held_out = self
        return NoisyBatch(
            change(noisy),
            change(clean),
            None if labels is None else change(labels),
            None if held_out is None else held_out.mapped(change),
        )

    def tensors(self) -> list[Tensor]:
        """Returns every tensor of the batch, in the order of `mapped`."""
        found: list[Tensor] = []
        self.mapped(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found


class TrainingData(Protocol):
    """The data that `Training` learns from and is judged on."""

    @property
    def device(self) -> torch.device: ...

    @property
    def labels(self) -> Tensor | None:
        """The classes of the training images (len(self),), or None. Where there are some, `batch` takes indices of the
        images."""

    @property
    def probe(self) -> NoisyBatch:
        """The fixed probe batch, from the training split, under noise that is the same on every device."""

    @property
    def validation(self) -> list[NoisyBatch]:
        """Every validation image under each fixed noise draw, the same on every device."""

    @property
    def trivial(self) -> float:
        """The `trivial_loss` of the probe batch."""

    def __len__(self) -> int:
        """Returns the number of training images in an epoch."""

    def order(self, generator: torch.Generator) -> Tensor:
        """Draws the images of one epoch (len(self), ...), as `batch` takes them."""

    def batch(self, rows: Tensor, generator: torch.Generator) -> NoisyBatch:
        """Returns images (N, C, H, W), float32, the clean ones in [0, 1]; and labels (N,) or None."""


def calibration(data: TrainingData, count: int, seed: int) -> Tensor:
    """Draws noisy training images (count, C, H, W) as a training sees them, and returns them on the CPU."""
    generator = torch.Generator(data.device).manual_seed(seed)
    return data.batch(data.order(generator)[:count], generator).noisy.cpu()


@dataclass(frozen=True, slots=True)
class DeviceData:
    """A data set on the device of a trial, with the noise that is drawn once (see `TrainingData`).

    Attributes:
        images: training images (N, C, H, W), uint8 or float32 in [0, 1].
        labels: (N,), or None.
        noise: the noise of training, probe and validation.
        probe: (noisy, clean, labels) of the fixed probe batch, from the training split.
        validation: (noisy, clean, labels) batches: every validation image under each fixed noise draw.
        trivial: the `trivial_loss` of the probe batch.
        augmentation: the flips and turns of training images.
        shots: noisy images (M, C, H, W) beside the clean ones, one of which is drawn for each; None where noise is
            added.
        starts: (N + 1,) the place of each image's first shot (see `nas.data.raw.Shots`).
        clean: False where no clean images are known (see `nas.data.raw.RawData`).
        share: (N,) the share of noise in the other shots of an image; None with clean images or single shots.
    """

    images: Tensor
    labels: Tensor | None
    noise: Noise
    probe: NoisyBatch
    validation: list[NoisyBatch]
    trivial: float
    augmentation: Augmentation = NONE
    shots: Tensor | None = None
    starts: Tensor | None = None
    clean: bool = True
    share: Tensor | None = None

    @classmethod
    def of(cls, data: Dataset, task: Task, device: torch.device, augmentation: Augmentation = NONE) -> DeviceData:
        """Copies `data` to `device` and draws validation and probe noise from the data's fingerprint."""
        noise = parse_noise(task.noise)
        images, labels = tensors(data.train)
        generator = torch.Generator().manual_seed(noise_seed(data.fingerprint))
        chosen = torch.randperm(len(images), generator=generator)[:PROBE_IMAGES]
        probe = next(_fixed(data.train.chosen(chosen.numpy()), noise, generator))
        shots = data.train.shots
        return cls(
            images.to(device),
            None if labels is None else labels.to(device),
            noise,
            moved(probe, device),
            list(evaluation_batches(data, "validation", noise, device)),
            trivial_loss(probe, noise),
            augmentation,
            None if shots is None else torch.tensor(shots.images, device=device),
            None if shots is None else torch.tensor(shots.starts, device=device),
            data.train.clean,
            None if data.train.clean or shots is None else noise_shares(shots).to(device),
        )

    @property
    def device(self) -> torch.device:
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def order(self, generator: torch.Generator) -> Tensor:
        """Returns every image once, in a random order."""
        return torch.randperm(len(self), generator=generator, device=self.device)

    def batch(self, rows: Tensor, generator: torch.Generator) -> NoisyBatch:
        clean = to_float(self.images[rows])
        labels = None if self.labels is None else self.labels[rows]
        if self.shots is None:
            clean = self.augmentation.apply(clean, generator)
            if not self.clean:
                noisy, held_out = hidden_pixels(clean, generator)
                return NoisyBatch(noisy, clean, labels, held_out)
            return NoisyBatch(self.noise.add(clean, generator), clean, labels)
        assert self.starts is not None
        shot = to_float(self.shots[self._drawn(rows, generator)])
        if self.share is not None:
            clean = others_than(shot, clean, self.starts[rows + 1] - self.starts[rows])
        noisy, clean = self.augmentation.apply(torch.cat([shot, clean], dim=1), generator).chunk(2, dim=1)
        return NoisyBatch(noisy, clean, labels, None if self.share is None else HeldOut(self.share[rows]))

    def _drawn(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draws a shot of each image (N,)."""
        assert self.starts is not None
        first, behind = self.starts[rows], self.starts[rows + 1]
        share = torch.rand(len(rows), generator=generator, device=self.device)
        return torch.minimum(first + (share * (behind - first)).long(), behind - 1)


def tensors(split: Split) -> tuple[Tensor, Tensor | None]:
    """Returns a split's images and labels."""
    # The arrays are copied, because Ray's object store returns read-only ones, which torch must not share.
    return torch.tensor(split.images), None if split.labels is None else torch.tensor(split.labels)


def with_noise(clean: Tensor, labels: Tensor | None, noise: Noise, generator: torch.Generator) -> NoisyBatch:
    """Makes a batch with noise, on which a network is judged."""
    return NoisyBatch(noise.add(clean, generator), clean, labels)


def moved(batch: NoisyBatch, device: torch.device) -> NoisyBatch:
    """Moves a batch to a device. Its noise was drawn on the CPU, so that figures of every device are under the same
    noise."""
    return batch.mapped(lambda tensor: tensor.to(device))


def trivial_loss(probe: NoisyBatch, noise: Noise) -> float:
    """Returns the MSE of the noisy probe batch, or for noise ``none`` the images' variance. It is never 0.

    Where pixels are held out, it is the MSE of the neighbours in their places.
    """
    if probe.held_out is not None:
        return max(float(probe.error(probe.noisy).mean()), 1e-8)
    noisy, clean = probe.noisy, probe.clean
    return max(float(clean.var() if noise.name == "none" else (noisy - clean).square().mean()), 1e-8)


def noisy_batches(
    split: Split, noise: Noise, device: torch.device, *, seed: int, draws: int = 1, size: int = 256
) -> Iterator[NoisyBatch]:
    """Yields batches of a whole split under `draws` draws of noise or hidden pixels, or as many of its own shots.

    They are the same for the same seed, on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    for batch in _fixed(split, noise, generator, draws=draws, size=size):
        yield moved(batch, device)


def _fixed(
    split: Split, noise: Noise, generator: torch.Generator, *, draws: int = 1, size: int = 256
) -> Iterator[NoisyBatch]:
    """Yields the batches of `noisy_batches` on the CPU."""
    images, labels = tensors(split)
    shots = split.shots
    if shots is not None:
        counts = torch.tensor(shots.starts[1:] - shots.starts[:-1])
        share = None if split.clean else noise_shares(shots)
    for draw in range(draws):
        drawn = None if shots is None else torch.tensor(shots.images[shots.fixed(draw, draws)])
        for rows in torch.arange(len(images)).split(size):
            shown, clean = None if labels is None else labels[rows], to_float(images[rows])
            if drawn is not None:
                shot = to_float(drawn[rows])
                if share is None:
                    yield NoisyBatch(shot, clean, shown)
                else:
                    others = others_than(shot, clean, counts[rows])
                    yield NoisyBatch(shot, others, shown, HeldOut(share[rows]))
            elif split.clean:
                yield with_noise(clean, shown, noise, generator)
            else:
                noisy, held_out = hidden_pixels(clean, generator)
                yield NoisyBatch(noisy, clean, shown, held_out)


def evaluation_batches(data: Dataset, part: str, noise: Noise, device: torch.device) -> Iterator[NoisyBatch]:
    """Yields the batches on which a split is always judged. Their noise and hidden pixels depend on the data alone.

    Args:
        part: ``train``, ``validation`` or ``test``.
    """
    split: Split = getattr(data, part)
    return noisy_batches(split, noise, device, seed=noise_seed(data.fingerprint), draws=split.draws)
