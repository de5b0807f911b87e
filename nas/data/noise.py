"""Noise by name: ``gaussian:50``, ``gaussian:10-50``, ``poisson:30``, ``saltpepper:0.1``, ``none``.

Only `Noise.add` needs torch; names are read without it.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from nas.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Noise(ABC):
    """A kind of noise with its strength."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name; ``parse_noise(noise.name) == noise``."""

    @abstractmethod
    def add(self, images: Tensor, generator: Generator) -> Tensor:
        """Adds noise to images. The result is not clipped.

        Args:
            images: floating point (N, C, H, W) in [0, 1].
            generator: a generator on the images' device, which is the only source of randomness.

        Returns:
            A tensor of the same shape, dtype and device.
        """


@dataclass(frozen=True, slots=True)
class Gaussian(Noise):
    """White noise with one sigma for each image, uniform in [low, high] on the 0..255 scale (blind if low < high)."""

    low: float
    high: float

    @property
    def name(self) -> str:
        blind = f"-{_plain(self.high)}" if self.low < self.high else ""
        return f"gaussian:{_plain(self.low)}{blind}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        # Filled tensors are contiguous whatever the images' memory format, so the noise depends on the seed alone.
        sigma = images.new_empty(len(images), 1, 1, 1).fill_(self.low)
        if self.low < self.high:
            sigma.uniform_(self.low, self.high, generator=generator)
        return images + images.new_empty(images.shape).normal_(generator=generator) * (sigma / 255)


@dataclass(frozen=True, slots=True)
class Poisson(Noise):
    """Photon counts at `peak` photons for a white pixel, scaled back: mean x, variance x / peak."""

    peak: float

    @property
    def name(self) -> str:
        return f"poisson:{_plain(self.peak)}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        import torch

        return torch.poisson(images * self.peak, generator) / self.peak


@dataclass(frozen=True, slots=True)
class SaltPepper(Noise):
    """Loses each value with probability `share`: half of the lost ones become 0, half become 1."""

    share: float

    @property
    def name(self) -> str:
        return f"saltpepper:{_plain(self.share)}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        draw = images.new_empty(images.shape).uniform_(generator=generator)
        return images.masked_fill(draw < self.share, 1).masked_fill(draw < self.share / 2, 0)


@dataclass(frozen=True, slots=True)
class Clean(Noise):
    """Leaves the images as they are."""

    @property
    def name(self) -> str:
        return "none"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        return images


def parse_noise(text: str) -> Noise:
    """Reads noise from its name, in any case and spelling of the numbers (``Gaussian:50.0``).

    Raises:
        ConfigError: the kind is unknown, or the strength is outside the kind's rule.
    """
    kind, colon, strength = text.strip().lower().partition(":")
    if kind not in _KINDS:
        raise ConfigError(f"noise {text!r}: unknown kind; give one of {', '.join(k.example for k in _KINDS.values())}")
    rule = _KINDS[kind]
    numbers = _numbers(strength) if colon else ()
    if numbers is None or not rule.allows(numbers):
        raise ConfigError(f"noise {text!r}: {rule.text}; for example {rule.example}")
    return rule.build(numbers)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The check, constructor and explanation of one kind of noise."""

    allows: Callable[[Sequence[float]], bool]
    build: Callable[[Sequence[float]], Noise]
    text: str
    form: str
    example: str


_KINDS = {
    "gaussian": _Kind(
        allows=lambda v: len(v) in (1, 2) and v[0] > 0 and v[-1] <= 255 and (len(v) == 1 or v[0] < v[1]),
        build=lambda v: Gaussian(v[0], v[-1]),
        text="sigma must be above 0 and at most 255, a range A-B must have A < B",
        form="gaussian:S or :A-B",
        example="gaussian:50 or gaussian:10-50",
    ),
    "poisson": _Kind(
        allows=lambda v: len(v) == 1 and 0 < v[0] <= 1e6,
        build=lambda v: Poisson(v[0]),
        text="the peak must be a number of photons above 0 and at most 1000000",
        form="poisson:PEAK",
        example="poisson:30",
    ),
    "saltpepper": _Kind(
        allows=lambda v: len(v) == 1 and 0 < v[0] < 1,
        build=lambda v: SaltPepper(v[0]),
        text="the share of lost values must be above 0 and below 1",
        form="saltpepper:P",
        example="saltpepper:0.1",
    ),
    "none": _Kind(
        allows=lambda v: not v, build=lambda v: Clean(), text="takes no strength", form="none", example="none"
    ),
}


def noises_in_short() -> str:
    """Returns the noises in one line of help: ``gaussian:S or :A-B, poisson:PEAK, saltpepper:P, none``."""
    return ", ".join(kind.form for kind in _KINDS.values())


def _numbers(strength: str) -> tuple[float, ...] | None:
    """Reads ``"10-50"`` as (10.0, 50.0). Returns None for anything but plain finite decimals joined by ``-``."""
    words = strength.split("-")
    if not all(re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", word) for word in words):
        return None
    values = tuple(map(float, words))
    return values if all(map(math.isfinite, values)) else None


def _plain(value: float) -> str:
    """Returns the shortest decimal that reads back as `value`, without an exponent: 50.0 -> ``50``."""
    return format(Decimal(repr(value)).normalize(), "f")
