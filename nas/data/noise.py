"""Noise by name: ``gaussian:50``, ``poisson-gaussian:0.5-2,3``, ``speckle:0.2+rows:4+depth:8``, ``none``.

Names are joined by ``+`` and applied in that order. Each strength is a number, or a range ``A-B`` from which every
image draws its own, uniformly. Only `Noise.add` needs torch; names are read without it.
"""

from __future__ import annotations

import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from nas.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

REACH = 4
"""The half width of a Gaussian kernel, in standard deviations. The weights beyond add up to less than 0.0001."""


@dataclass(frozen=True, slots=True)
class Strength:
    """A strength of noise: one number for all images, or a range in which each image draws its own, uniformly."""

    low: float
    high: float

    @property
    def fixed(self) -> bool:
        """Whether all images have the same strength."""
        return self.low == self.high

    def drawn(self, images: Tensor, generator: Generator) -> Tensor:
        """Returns the strength of each image, (N, 1, 1, 1). Nothing is drawn when it is fixed."""
        # Filled tensors are contiguous whatever the images' memory format, so the noise depends on the seed alone.
        strength = images.new_empty(len(images), 1, 1, 1).fill_(self.low)
        return strength if self.fixed else strength.uniform_(self.low, self.high, generator=generator)

    def __str__(self) -> str:
        return _plain(self.low) if self.fixed else f"{_plain(self.low)}-{_plain(self.high)}"


class Noise(ABC):
    """A kind of noise with its strength."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name; ``parse_noise(noise.name) == noise``."""

    @property
    def clips(self) -> bool:
        """Whether it, or a step of it, brings every value back into [0, 1]."""
        return False

    @abstractmethod
    def add(self, images: Tensor, generator: Generator) -> Tensor:
        """Adds noise to images. The result may leave [0, 1], unless the noise itself clips.

        Args:
            images: floating point (N, C, H, W) in [0, 1], or a little beyond after another noise.
            generator: a generator on the images' device, which is the only source of randomness.

        Returns:
            A tensor of the same shape, dtype and device.
        """


@dataclass(frozen=True, slots=True)
class Gaussian(Noise):
    """White noise of standard deviation `sigma` on the 0..255 scale."""

    sigma: Strength

    @property
    def name(self) -> str:
        return f"gaussian:{self.sigma}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        sigma = self.sigma.drawn(images, generator)
        return images + images.new_empty(images.shape).normal_(generator=generator) * (sigma / 255)


@dataclass(frozen=True, slots=True)
class Poisson(Noise):
    """Photon counts at `peak` photons for a white pixel, scaled back: mean x, variance x / peak.

    There are no photons where an earlier noise has led below black.
    """

    peak: Strength

    @property
    def name(self) -> str:
        return f"poisson:{self.peak}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        import torch

        # CUDA rounds a division by a number and one by a tensor differently, and a fixed peak has always been a number.
        peak = self.peak.low if self.peak.fixed else self.peak.drawn(images, generator)
        return torch.poisson(images.clamp(min=0) * peak, generator) / peak


@dataclass(frozen=True, slots=True)
class PoissonGaussian(Noise):
    """A camera's sensor: counted electrons, and the noise of reading them.

    On the 0..255 scale a pixel x becomes gain * Poisson(x / gain) + N(0, read^2), so its mean is x and its variance
    gain * x + read^2 (Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data,
    2008).

    Attributes:
        gain: levels of the 0..255 scale for one electron.
        read: standard deviation of the read noise on the 0..255 scale.
    """

    gain: Strength
    read: Strength

    @property
    def name(self) -> str:
        return f"poisson-gaussian:{self.gain},{self.read}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        import torch

        gain, read = self.gain.drawn(images, generator) / 255, self.read.drawn(images, generator) / 255
        counted = torch.poisson(images.clamp(min=0) / gain, generator) * gain
        return counted + images.new_empty(images.shape).normal_(generator=generator) * read


@dataclass(frozen=True, slots=True)
class Speckle(Noise):
    """Each value is multiplied by 1 + n, with n normal of standard deviation `spread`, as in coherent light."""

    spread: Strength

    @property
    def name(self) -> str:
        return f"speckle:{self.spread}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        spread = self.spread.drawn(images, generator)
        return images * (1 + images.new_empty(images.shape).normal_(generator=generator) * spread)


@dataclass(frozen=True, slots=True)
class Correlated(Noise):
    """Noise of standard deviation `sigma` on the 0..255 scale whose neighbours are alike, as demosaicing leaves it.

    White noise is blurred with a Gaussian of standard deviation `radius` pixels and brought to `sigma`. Its
    autocorrelation at a distance of d pixels is exp(-d^2 / (4 radius^2)), closely from a radius of 1 on.
    """

    sigma: Strength
    radius: Strength

    @property
    def name(self) -> str:
        return f"correlated:{self.sigma},{self.radius}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        sigma, radius = self.sigma.drawn(images, generator), self.radius.drawn(images, generator)
        # The noise is drawn beyond the border, so that it is the same kind of noise there.
        reach = math.ceil(REACH * self.radius.high)
        n, channels, height, width = images.shape
        noise = images.new_empty(n, channels, height + 2 * reach, width + 2 * reach).normal_(generator=generator)
        weights = _gaussian(radius, reach)
        weights = weights / weights.square().sum(1, keepdim=True).sqrt()  # these keep the variance of white noise
        return images + _weighed(noise, weights) * (sigma / 255)


def _gaussian(radius: Tensor, reach: int) -> Tensor:
    """Returns a Gaussian of each radius (N, 1, 1, 1) at the distances from -reach to reach, (N, 2 reach + 1)."""
    import torch

    offsets = torch.arange(-reach, reach + 1, device=radius.device, dtype=radius.dtype)
    return torch.exp(-offsets.square() / (2 * radius.flatten(1).square()))


def _weighed(images: Tensor, weights: Tensor) -> Tensor:
    """Filters images (N, C, H, W) along both sides by weights of each (N, 2 R + 1), and cuts R at every border.

    Shifted copies are added up, because a convolution on a GPU may round to TF32.
    """
    for dim in (2, 3):
        length = images.shape[dim] - weights.shape[1] + 1
        result = weights[:, :1, None, None] * images.narrow(dim, 0, length)
        for place in range(1, weights.shape[1]):
            result.addcmul_(weights[:, place : place + 1, None, None], images.narrow(dim, place, length))
        images = result
    return images


@dataclass(frozen=True, slots=True)
class Rows(Noise):
    """Each row of each channel is shifted by one normal value of standard deviation `sigma` on the 0..255 scale."""

    sigma: Strength

    @property
    def name(self) -> str:
        return f"rows:{self.sigma}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        sigma = self.sigma.drawn(images, generator)
        return images + images.new_empty(*images.shape[:3], 1).normal_(generator=generator) * (sigma / 255)


@dataclass(frozen=True, slots=True)
class Columns(Noise):
    """Each column of each channel is shifted by one normal value of standard deviation `sigma` on the 0..255 scale."""

    sigma: Strength

    @property
    def name(self) -> str:
        return f"columns:{self.sigma}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        sigma = self.sigma.drawn(images, generator)
        n, channels, _, width = images.shape
        return images + images.new_empty(n, channels, 1, width).normal_(generator=generator) * (sigma / 255)


@dataclass(frozen=True, slots=True)
class SaltPepper(Noise):
    """Loses each value with probability `share`: half of the lost ones become 0, half become 1."""

    share: Strength

    @property
    def name(self) -> str:
        return f"saltpepper:{self.share}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        share = self.share.drawn(images, generator)
        draw = images.new_empty(images.shape).uniform_(generator=generator)
        return images.masked_fill(draw < share, 1).masked_fill(draw < share / 2, 0)


@dataclass(frozen=True, slots=True)
class Jpeg(Noise):
    """Compresses each image as Pillow does at a `quality` from 1 to 100, and opens it again.

    Values are clipped and rounded to 8 bits first. Three channels are a colour image, with Pillow's usual subsampling;
    any other number of channels are gray images. It is done image by image on the CPU, wherever the images are.
    """

    quality: Strength

    @property
    def name(self) -> str:
        return f"jpeg:{self.quality}"

    @property
    def clips(self) -> bool:
        return True

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        import numpy as np
        import torch

        low, high = int(self.quality.low), int(self.quality.high)
        qualities = [low] * len(images)
        if low < high:
            drawn = torch.randint(low, high + 1, (len(images),), generator=generator, device=images.device)
            qualities = drawn.tolist()
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        result = np.empty_like(pixels)
        for each, quality, made in zip(pixels, qualities, result, strict=True):
            made[:] = through_jpeg(each, quality)
        return torch.from_numpy(result).to(images.device).to(images.dtype) / 255


def through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Returns an image (C, H, W) after a JPEG file of a quality: a colour one for three channels, else gray ones."""
    import numpy as np
    import PIL.Image

    def written(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
        with PIL.Image.open(file) as opened:
            return np.asarray(opened)

    if len(pixels) == 3:
        return written(np.ascontiguousarray(pixels.transpose(1, 2, 0))).transpose(2, 0, 1)
    return np.stack([written(channel) for channel in pixels])


@dataclass(frozen=True, slots=True)
class Blur(Noise):
    """Blurs each image by a Gaussian of standard deviation `radius` pixels, as a lens out of focus nearly does.

    Beyond its border an image goes on with the values at the border.
    """

    radius: Strength

    @property
    def name(self) -> str:
        return f"blur:{self.radius}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        import torch.nn.functional as F

        reach = math.ceil(REACH * self.radius.high)
        weights = _gaussian(self.radius.drawn(images, generator), reach)
        return _weighed(F.pad(images, (reach,) * 4, mode="replicate"), weights / weights.sum(1, keepdim=True))


@dataclass(frozen=True, slots=True)
class Contrast(Noise):
    """Brings each value nearer to the mean of its channel: `share` of the difference is left."""

    share: Strength

    @property
    def name(self) -> str:
        return f"contrast:{self.share}"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        mean = images.mean((2, 3), keepdim=True)
        return mean + (images - mean) * self.share.drawn(images, generator)


@dataclass(frozen=True, slots=True)
class Brightness(Noise):
    """Multiplies each image by `factor` and clips it, as a shorter or longer exposure does."""

    factor: Strength

    @property
    def name(self) -> str:
        return f"brightness:{self.factor}"

    @property
    def clips(self) -> bool:
        return True

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        return (images * self.factor.drawn(images, generator)).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Clip(Noise):
    """Clips values to [0, 1], as a camera does."""

    @property
    def name(self) -> str:
        return "clip"

    @property
    def clips(self) -> bool:
        return True

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        return images.clamp(0, 1)


@dataclass(frozen=True, slots=True)
class Depth(Noise):
    """Clips values to [0, 1] and rounds them to the 2^bits levels of a file, as a camera does."""

    bits: int

    @property
    def name(self) -> str:
        return f"depth:{self.bits}"

    @property
    def clips(self) -> bool:
        return True

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        white = (1 << self.bits) - 1
        return (images.clamp(0, 1) * white).round() / white


@dataclass(frozen=True, slots=True)
class Clean(Noise):
    """Leaves the images as they are."""

    @property
    def name(self) -> str:
        return "none"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        return images


@dataclass(frozen=True, slots=True)
class Sum(Noise):
    """Several kinds of noise, one after the other."""

    steps: tuple[Noise, ...]

    @property
    def name(self) -> str:
        return "+".join(step.name for step in self.steps)

    @property
    def clips(self) -> bool:
        return any(step.clips for step in self.steps)

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            images = step.add(images, generator)
        return images


@dataclass(frozen=True, slots=True)
class OfData(Noise):
    """The noise that noisy images of the data have themselves, with clean ones of the same scenes beside them or
    without."""

    @property
    def name(self) -> str:
        return "data"

    def add(self, images: Tensor, generator: Generator) -> Tensor:
        raise ConfigError("noise 'data': these images have no noisy ones beside them; give a noise that can be added")


def parse_noise(text: str) -> Noise:
    """Reads noise from its name, in any case and spelling of the numbers (``Gaussian:50.0 + clip``).

    Raises:
        ConfigError: a kind is unknown, a strength is outside its kind's rule, or kinds cannot be joined like this.
    """
    steps = tuple(_parse_step(part, text) for part in text.split("+"))
    for alone in (Clean(), OfData()):
        if len(steps) > 1 and alone in steps:
            raise ConfigError(f"noise {text!r}: {alone.name} stands alone; leave it out")
    if isinstance(steps[0], Clip | Depth):
        raise ConfigError(
            f"noise {text!r}: {steps[0].name} acts on what a noise has changed; name the noise before it, "
            f"for example gaussian:25+{steps[0].name}"
        )
    return steps[0] if len(steps) == 1 else Sum(steps)


def parse_noises(text: str) -> list[Noise]:
    """Reads names that are joined by commas. A comma before a digit is within a name (``poisson-gaussian:2,5``).

    Raises:
        ConfigError: see `parse_noise`.
    """
    return [parse_noise(part) for part in re.split(r",(?!\s*[0-9.])", text)]


def _parse_step(part: str, text: str) -> Noise:
    """Reads one name of a sum. Raises ConfigError, which names the sum `text` too."""
    said = f"noise {text!r}" + ("" if part == text else f", in {part.strip()!r}")
    kind, colon, strength = part.strip().lower().partition(":")
    if kind not in _KINDS:
        raise ConfigError(f"{said}: unknown kind; give one of {', '.join(k.example for k in _KINDS.values())}")
    rule = _KINDS[kind]
    strengths = _strengths(strength) if colon else ()
    if strengths is None or not rule.allows(strengths):
        raise ConfigError(f"{said}: {rule.text}; for example {rule.example}")
    return rule.build(strengths)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The check, constructor and explanation of one kind of noise."""

    allows: Callable[[Sequence[Strength]], bool]
    build: Callable[[Sequence[Strength]], Noise]
    text: str
    form: str
    example: str


def _within(*rules: Callable[[float], bool]) -> Callable[[Sequence[Strength]], bool]:
    """Makes the check of strengths: one for each rule, whose both ends fulfil it."""

    def allows(strengths: Sequence[Strength]) -> bool:
        return len(strengths) == len(rules) and all(
            rule(strength.low) and rule(strength.high) for rule, strength in zip(rules, strengths, strict=True)
        )

    return allows


_ON_SCALE = "above 0 and at most 255, a range A-B must have A < B"

_KINDS = {
    "gaussian": _Kind(
        allows=_within(lambda sigma: 0 < sigma <= 255),
        build=lambda v: Gaussian(v[0]),
        text=f"sigma must be {_ON_SCALE}",
        form="gaussian:S",
        example="gaussian:50 or gaussian:10-50",
    ),
    "poisson": _Kind(
        allows=_within(lambda peak: 0 < peak <= 1e6),
        build=lambda v: Poisson(v[0]),
        text="the peak must be a number of photons above 0 and at most 1000000, a range A-B must have A < B",
        form="poisson:PEAK",
        example="poisson:30",
    ),
    "poisson-gaussian": _Kind(
        allows=_within(lambda gain: 0.0003 <= gain <= 255, lambda read: 0 <= read <= 255),
        build=lambda v: PoissonGaussian(v[0], v[1]),
        text="give two strengths: the gain must be from 0.0003 to 255 levels for an electron, the read noise from 0 to "
        "255, a range A-B must have A < B",
        form="poisson-gaussian:GAIN,READ",
        example="poisson-gaussian:2,5",
    ),
    "speckle": _Kind(
        allows=_within(lambda spread: 0 < spread <= 1),
        build=lambda v: Speckle(v[0]),
        text="the spread is a part of the brightness, above 0 and at most 1, a range A-B must have A < B",
        form="speckle:S",
        example="speckle:0.2",
    ),
    "correlated": _Kind(
        allows=_within(lambda sigma: 0 < sigma <= 255, lambda radius: 0.3 <= radius <= 16),
        build=lambda v: Correlated(v[0], v[1]),
        text="give two strengths: sigma must be above 0 and at most 255, the radius from 0.3 to 16 pixels, a range A-B "
        "must have A < B",
        form="correlated:S,RADIUS",
        example="correlated:25,1.5",
    ),
    "rows": _Kind(
        allows=_within(lambda sigma: 0 < sigma <= 255),
        build=lambda v: Rows(v[0]),
        text=f"sigma must be {_ON_SCALE}",
        form="rows:S",
        example="rows:5",
    ),
    "columns": _Kind(
        allows=_within(lambda sigma: 0 < sigma <= 255),
        build=lambda v: Columns(v[0]),
        text=f"sigma must be {_ON_SCALE}",
        form="columns:S",
        example="columns:5",
    ),
    "saltpepper": _Kind(
        allows=_within(lambda share: 0 < share < 1),
        build=lambda v: SaltPepper(v[0]),
        text="the share of lost values must be above 0 and below 1, a range A-B must have A < B",
        form="saltpepper:P",
        example="saltpepper:0.1",
    ),
    "jpeg": _Kind(
        allows=_within(lambda quality: 1 <= quality <= 100 and quality.is_integer()),
        build=lambda v: Jpeg(v[0]),
        text="the quality must be a whole number from 1 to 100, a range A-B must have A < B",
        form="jpeg:Q",
        example="jpeg:40",
    ),
    "blur": _Kind(
        allows=_within(lambda radius: 0.3 <= radius <= 16),
        build=lambda v: Blur(v[0]),
        text="the radius must be from 0.3 to 16 pixels, a range A-B must have A < B",
        form="blur:RADIUS",
        example="blur:1.5",
    ),
    "contrast": _Kind(
        allows=_within(lambda share: 0 < share < 1),
        build=lambda v: Contrast(v[0]),
        text="the share of contrast that is left must be above 0 and below 1, a range A-B must have A < B",
        form="contrast:P",
        example="contrast:0.5",
    ),
    "brightness": _Kind(
        allows=_within(lambda factor: 0 < factor <= 16),
        build=lambda v: Brightness(v[0]),
        text="the factor must be above 0 and at most 16, a range A-B must have A < B",
        form="brightness:F",
        example="brightness:0.5",
    ),
    "clip": _Kind(
        allows=lambda v: not v,
        build=lambda v: Clip(),
        text="takes no strength",
        form="clip",
        example="gaussian:25+clip",
    ),
    "depth": _Kind(
        allows=lambda v: len(v) == 1 and v[0].fixed and v[0].low in range(1, 17),
        build=lambda v: Depth(int(v[0].low)),
        text="the depth must be a whole number of bits from 1 to 16, the same for all images",
        form="depth:BITS",
        example="gaussian:25+depth:8",
    ),
    "none": _Kind(
        allows=lambda v: not v, build=lambda v: Clean(), text="takes no strength", form="none", example="none"
    ),
    "data": _Kind(
        allows=lambda v: not v, build=lambda v: OfData(), text="takes no strength", form="data", example="data"
    ),
}


def noise_in_words(name: str) -> str:
    """Returns the noise of a task for people: its name, or ``its own noise`` of data that is noisy itself."""
    return "its own noise" if name == OfData().name else name


def noises_in_short() -> str:
    """Returns the noises in one line of help: ``gaussian:S, poisson:PEAK, ..., none``."""
    forms = ", ".join(kind.form for kind in _KINDS.values())
    return f"{forms}; A-B for a number draws one for each image, and + joins several"


def _strengths(text: str) -> tuple[Strength, ...] | None:
    """Reads ``"10-50,3"`` as the range from 10 to 50, and 3. Returns None for anything but plain finite decimals, alone
    or as A-B with A < B."""
    found = []
    for part in text.split(","):
        numbers = _numbers(part)
        if numbers is None or len(numbers) > 2 or (len(numbers) == 2 and numbers[0] >= numbers[1]):
            return None
        found.append(Strength(numbers[0], numbers[-1]))
    return tuple(found)


def _numbers(strength: str) -> tuple[float, ...] | None:
    """Reads ``"10-50"`` as (10.0, 50.0). Returns None for anything but plain finite decimals joined by ``-``."""
    words = strength.strip().split("-")
    if not all(re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", word) for word in words):
        return None
    values = tuple(map(float, words))
    return values if all(map(math.isfinite, values)) else None


def _plain(value: float) -> str:
    """Returns the shortest decimal that reads back as `value`, without an exponent: 50.0 -> ``50``."""
    return format(Decimal(repr(value)).normalize(), "f")
