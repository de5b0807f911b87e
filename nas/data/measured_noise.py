"""The noise of images, measured: from flat areas of noisy images, or from pairs of noisy and clean ones.

Everything is on the 0..255 scale of `nas.data.noise`. The images must come from one setting of one instrument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.jpeg_traces import jpeg_quality
from nas.data.made_noise import Pair, middles_of, sigma_before_jpeg, strength_made, strength_of
from nas.data.noise import parse_noise, through_jpeg
from nas.data.sensor import WHITE, Array, Sensor, fit_sensor
from nas.data.spectrum import (
    Blocks,
    Colour,
    Flat,
    Plane,
    common_spectrum,
    correlated_spectrum,
    fit_colour,
    flattest,
    frequencies,
)
from nas.errors import DataError

SMALL, LARGE = 8, 32
"""The sides of blocks in which the level is measured, and the spectrum."""

MOST_SMALL, MOST_LARGE = 200_000, 20_000
"""The numbers of blocks that are looked at."""

LOW_OF_SMALL, HIGH_OF_SMALL = (3, 8), 9
LOW_OF_LARGE, HIGH_OF_LARGE = (1, 4), 5
"""Sums of frequencies by which flat blocks are chosen, and by which noise is judged. The lowest of small blocks take no
part, so that a gradient is flat."""

FIRSTS = (HIGH_OF_LARGE, 8, 12, 16)
"""Sums of frequencies from which on correlated noise is looked for; the first at which no image is seen is taken."""

FALL = 1.7
"""The least ratio of middle to high frequencies of noise that is called correlated, without clean images."""

SHARE_CORRELATED = 0.25
"""The least part of correlated noise in the variance that is believed; what images show looks like a little of it."""

PEAKED, MOST_PEAKED = 1.05, 1.2
"""The fourth moment, over that of a normal variable, below which coefficients are taken for noise; and the largest that
is if none is below."""

SHARE_WHITE = 0.15
"""White noise beside correlated noise is told from this part of the variance on: rounding and the grain of photographs
are below."""

SHARE_OF_LINES = 0.03
"""The least variance of rows or columns, as a part of the variance, that is believed."""

SHARE_LOST = 0.002
"""The least share of salt and pepper that is believed."""

MOST_LOST = 0.5
"""The largest share of salt and pepper. With more lost pixels the median of neighbours is one of them."""

FAR = 4.0
"""Standard deviations that a black or white pixel must be away from its neighbours' median to be salt or pepper."""

MOST_CLIPPED = 0.1
"""The largest share of black and white pixels in an area where the noise is measured, if there are such areas."""

GROWS = 1.5
"""How many times stronger correlated noise must be in the brightest areas than in the darkest before this is told."""

NO_NOISE = 0.3
"""Standard deviations below are rounding."""

UNEVEN = 1.25
"""The ratio of low to high frequencies in the flattest blocks above which they are not flat."""

AGREE, FEWEST_AGREEING, SHARE_AGREEING = 1.4, 3, 0.25
"""Correlated noise is the same in all images, and no image is below it. So the levels of at least so many images, and
of this share of them, must lie within the factor `AGREE`, with no more than a third as many below."""

WIDE = 1.45
"""The radius in pixels from which on correlated noise has hardly any middle frequencies."""

UNLIKE = 1.5
"""The ratio of the noise of two images above which they are not from one setting."""

FEWEST_AREAS = 4
"""The fewest blocks that do not overlap in which the noise of one image is measured."""

WELL_MADE = 1.12
"""The ratio of two strengths of noise, 1 dB, within which words are said to make the noise that pairs have."""

BAD_FIT = 0.15
"""The relative error of the fit, weighted by areas, from which on it is told."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A noisy image, and its clean one if there is one: (C, H, W), float32 on the 0..255 scale."""

    noisy: NDArray[np.float32]
    clean: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The noise at one brightness: mean of the pixels, standard deviation, and number of areas it was measured in."""

    brightness: float
    sigma: float
    areas: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNoise:
    """Noise as `measure_noise` finds it.

    Attributes:
        images: number of images.
        pairs: whether clean images were there.
        levels: standard deviation by brightness, as measured.
        sensor: gain and read noise of the noise whose pixels are independent.
        correlated: standard deviation of the noise whose neighbours are alike; 0 without.
        radius: of the correlated noise, in pixels; 0 without.
        rows, columns: standard deviations of whole rows and columns; 0 without.
        saltpepper: share of pixels that are lost to black or white; 0 without.
        jpeg: lowest and highest quality of JPEG whose traces the pixels have; None without.
        bits: depth of the files; None for floats.
        clipped: share of pixels that are black or white.
        strength: root mean square of noisy minus clean pixels; None without clean images.
        remarks: sentences about what the figures do not tell.
    """

    images: int
    pairs: bool
    levels: tuple[Level, ...]
    sensor: Sensor
    correlated: float = 0.0
    radius: float = 0.0
    rows: float = 0.0
    columns: float = 0.0
    saltpepper: float = 0.0
    jpeg: tuple[int, int] | None = None
    bits: int | None = None
    clipped: float = 0.0
    strength: float | None = None
    remarks: tuple[str, ...] = field(default=())

    def sigma(self, brightness: float) -> float:
        """Returns the standard deviation of the fit at a brightness, without rows, columns, salt and pepper."""
        white = float(self.sensor.sigma(np.array([brightness]))[0])
        return float(np.hypot(white, self.correlated))

    @property
    def words(self) -> str:
        """The canonical name of the noise (see `nas.data.noise.parse_noise`)."""
        parts = []
        if self.sensor.gain > 0:
            parts.append(f"poisson-gaussian:{_short(max(self.sensor.gain, 3e-4))},{_short(self.sensor.read)}")
        elif self.sensor.read >= NO_NOISE:
            parts.append(f"gaussian:{_short(self.sensor.read)}")
        if self.correlated:
            parts.append(f"correlated:{_short(self.correlated)},{_short(self.radius)}")
        parts += [f"rows:{_short(self.rows)}"] * (self.rows > 0)
        parts += [f"columns:{_short(self.columns)}"] * (self.columns > 0)
        parts += [f"saltpepper:{_short(self.saltpepper)}"] * (self.saltpepper > 0)
        if self.jpeg is not None:
            parts.append(_jpeg_words(self.jpeg))
        elif parts and self.bits is not None:
            parts.append(f"depth:{self.bits}")
        return parse_noise("+".join(parts) or "none").name

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "noise": self.words,
            "images": self.images,
            "pairs": self.pairs,
            "gain": self.sensor.gain,
            "read": self.sensor.read,
            "correlated": self.correlated,
            "radius": self.radius,
            "rows": self.rows,
            "columns": self.columns,
            "saltpepper": self.saltpepper,
            "jpeg": None if self.jpeg is None else list(self.jpeg),
            "bits": self.bits,
            "clipped": self.clipped,
            "strength": self.strength,
            "levels": [
                {"brightness": each.brightness, "sigma": each.sigma, "fit": self.sigma(each.brightness)}
                for each in self.levels
            ],
            "remarks": list(self.remarks),
        }


def measure_noise(pictures: Sequence[Picture], bits: int | None) -> MeasuredNoise:
    """Measures the noise of images.

    Args:
        pictures: images of one instrument, all with clean ones or all without. Channels are measured alike.
        bits: depth of their files; None for floats.

    Raises:
        DataError: no image has sides of at least 8 pixels, or the images are black and white, so that no noise is told
            from what they show.
    """
    pairs = all(picture.clean is not None for picture in pictures)
    qualities = [quality for each in pictures if (quality := jpeg_quality(_gray(each.noisy))) is not None]
    jpeg = (min(qualities), max(qualities)) if 2 * len(qualities) > len(pictures) else None
    both = [(each.noisy, each.clean) for each in pictures if each.clean is not None] if pairs else []
    if jpeg is not None and pairs:
        pictures = [_through_jpeg(each) for each in pictures]
    lost, planes, clipped = _without_impulses(pictures)
    small = Blocks.of(planes, SMALL, MOST_SMALL)
    if not len(small.brightness):
        raise DataError(f"no image has sides of at least {SMALL} pixels, which noise is measured in; give larger ones")
    rounding = 0.0 if bits is None else (255 / (2**bits - 1)) ** 2 / 12
    flats = flattest(small, LOW_OF_SMALL, HIGH_OF_SMALL, share=0.01, fewest=60, all_below=True)
    if jpeg is None:
        likeness = _likeness(pictures, planes, pairs)
    else:
        told = "the level is that which leaves as much as the pairs have" if pairs else "there was more of it before"
        remark = f"JPEG has changed the noise: {told}, and correlation, rows and columns cannot be told."
        likeness = _Likeness(remarks=(remark,))
    colour, remarks = likeness.colour, list(likeness.remarks)
    if not (pairs or (colour.correlated and likeness.agreed)) and _unevenness(flats, colour) > UNEVEN:
        remarks.append("There are hardly any flat areas, so the noise may be less than this.")
    kept = 1 - lost
    white = _white_levels(_clear(flats), colour, kept)
    sensor, correlated, levels = fit_sensor(*white, rounding), 0.0, white
    if colour.correlated:
        levels = _coloured_levels(likeness.flats, colour, kept)
        whole = fit_sensor(*levels, rounding)
        middle = float(np.average(levels[0], weights=levels[2]))
        total = float(whole.sigma(np.array([middle]))[0]) ** 2
        if float(sensor.sigma(np.array([middle]))[0]) ** 2 < SHARE_WHITE * total:
            sensor = Sensor(0.0, 0.0)
        correlated = float(np.sqrt(max(total - float(sensor.sigma(np.array([middle]))[0]) ** 2, 0)))
        low, high = whole.sigma(np.array([levels[0].min(), levels[0].max()]))
        if high > GROWS * low and not sensor.gain:
            remarks.append(
                f"The correlated noise grows with brightness, from {low:.3g} to {high:.3g}, which no name of noise "
                "says; the words have its mean."
            )
    if jpeg is not None and pairs:
        sensor = Sensor(0.0, sigma_before_jpeg(_jpeg_words(jpeg), middles_of(both)))
    if float(np.max(sensor.sigma(white[0]))) < NO_NOISE:
        sensor = Sensor(0.0, 0.0)
    if jpeg is None:
        remarks += _misfits(pictures, planes, colour, sensor, rounding, white)
    if max(sensor.gain, sensor.read, correlated, likeness.rows, likeness.columns) > WHITE or lost > MOST_LOST:
        raise DataError(
            "the images are mostly black and white pixels, in which noise cannot be told from what they show; "
            "give images with shades of gray"
        )
    found = MeasuredNoise(
        images=len(pictures),
        pairs=pairs,
        levels=tuple(
            Level(brightness=float(b), sigma=float(np.sqrt(v)), areas=float(n)) for b, v, n in zip(*levels, strict=True)
        ),
        sensor=sensor,
        correlated=correlated,
        radius=colour.radius if correlated else 0.0,
        rows=likeness.rows,
        columns=likeness.columns,
        saltpepper=lost,
        jpeg=jpeg,
        bits=bits,
        clipped=clipped,
        strength=strength_of(both) if pairs else None,
        remarks=tuple(remarks),
    )
    return replace(found, remarks=(*found.remarks, *_other_strength(found.words, middles_of(both))))


def _jpeg_words(jpeg: tuple[int, int]) -> str:
    low, high = jpeg
    return f"jpeg:{low}" if low == high else f"jpeg:{low}-{high}"


def _other_strength(words: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yields a remark where words make more or less noise than pairs have."""
    if not pairs:
        return
    made, there = strength_made(words, pairs), strength_of(pairs)
    if max(made, there) > WELL_MADE * max(min(made, there), NO_NOISE):
        yield (
            f"The words make noise of {made:.3g} levels, and the pairs differ by {there:.3g}: it is of another kind. "
            "Train on the pairs themselves, as pairs:DIR."
        )


# --- what is measured ---
NO_COLOUR = Colour(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Likeness:
    """How the noise of neighbouring pixels is alike.

    Attributes:
        colour: white and correlated noise.
        rows, columns: standard deviations of whole rows and columns; 0 without.
        agreed: whether several images show the same correlated noise; None where they are too few, and for pairs.
        flats: the flat areas that this was read from.
        remarks: sentences about what cannot be told.
    """

    colour: Colour = NO_COLOUR
    rows: float = 0.0
    columns: float = 0.0
    agreed: bool | None = None
    flats: Sequence[Flat] = ()
    remarks: tuple[str, ...] = ()


def _likeness(pictures: Sequence[Picture], planes: Sequence[tuple[Plane, Plane | None]], pairs: bool) -> _Likeness:
    """Tells how the noise of neighbouring pixels is alike, from large blocks."""
    blocks = Blocks.of(planes, LARGE, MOST_LARGE)
    flats = _usable(flattest(blocks, LOW_OF_LARGE, HIGH_OF_LARGE, share=0.01, fewest=10))
    if not flats:
        remark = f"No image has sides of {LARGE} pixels, so correlation, rows and columns cannot be told."
        return _Likeness(remarks=(remark,))
    spectrum, peakedness = common_spectrum(flats)
    colour = _believed_colour(spectrum, peakedness, pairs)
    agreed: bool | None = None
    remarks: tuple[str, ...] = ()
    if colour.correlated and not pairs:
        agreed = _agreement(pictures, planes, colour.radius)
        if agreed is None:
            remarks = (
                "Structure may have been taken for correlated noise, as the images are too few to agree on it; pairs "
                "with clean images or more images tell.",
            )
        elif not agreed:
            colour = Colour(0.0, colour.white, 0.0)
            remarks = (
                "The noise looks correlated, but the images do not agree on it, so it was taken for structure and left "
                "out; pairs with clean images or more flat images tell.",
            )
    return _Likeness(
        colour=colour,
        rows=_lines(spectrum, peakedness, colour),
        columns=_lines(spectrum.T, peakedness.T, colour),
        agreed=agreed,
        flats=flats,
        remarks=remarks,
    )


def _without_impulses(pictures: Sequence[Picture]) -> tuple[float, list[tuple[Plane, Plane | None]], float]:
    """Returns the share of salt and pepper, the planes without it, and the share of pixels that are black or white.

    A black or white pixel counts where noise alone hardly reaches from its neighbours' median. There must be both
    kinds: images may have black text or white stars.
    """
    from scipy.ndimage import median_filter

    found: list[tuple[Plane, Plane | None, Plane, NDArray[np.bool_]]] = []
    black = white = of_black = of_white = clipped = pixels = 0
    for picture in pictures:
        for channel, noisy in enumerate(picture.noisy):
            clean = None if picture.clean is None else picture.clean[channel]
            usual = median_filter(noisy, 5) if clean is None else clean
            far = FAR * 1.4826 * float(np.median(np.abs(noisy - usual))) + 2
            at_black, at_white = (noisy <= 0) & (usual > far), (noisy >= 255) & (usual < 255 - far)
            black, of_black = black + int(at_black.sum()), of_black + int((usual > far).sum())
            white, of_white = white + int(at_white.sum()), of_white + int((usual < 255 - far).sum())
            clipped, pixels = clipped + int(((noisy <= 0) | (noisy >= 255)).sum()), pixels + noisy.size
            found.append((noisy, clean, usual, at_black | at_white))
    share = 2 * min(black / max(of_black, 1), white / max(of_white, 1))
    if share < SHARE_LOST:
        return 0.0, [(noisy, clean) for noisy, clean, _, _ in found], clipped / max(pixels, 1)
    mended = [(np.where(lost, usual, noisy), clean) for noisy, clean, usual, lost in found]
    return share, mended, clipped / max(pixels, 1)


def _unevenness(flats: Sequence[Flat], colour: Colour) -> float:
    """Returns the median ratio of low to high frequencies in the flattest blocks, over that of noise of a colour; below
    1 where they show noise alone."""
    total, inside = frequencies(SMALL)
    low = inside & (total >= LOW_OF_SMALL[0]) & (total <= LOW_OF_SMALL[1])
    high = inside & (total >= HIGH_OF_SMALL)

    def ratio(spectrum: Array) -> float:
        return float(spectrum[low].mean() / max(spectrum[high].mean(), 1e-9))

    expected = 1.0
    if colour.correlated:
        expected = ratio(colour.white + colour.correlated * correlated_spectrum(colour.radius, SMALL))
    return float(np.median([ratio(each.spectrum) for each in flats])) / expected


def _by_image(
    pictures: Sequence[Picture], planes: Sequence[tuple[Plane, Plane | None]]
) -> Iterator[Sequence[tuple[Plane, Plane | None]]]:
    """Yields the planes of each image."""
    first = 0
    for picture in pictures:
        yield planes[first : first + len(picture.noisy)]
        first += len(picture.noisy)


def _agreement(pictures: Sequence[Picture], planes: Sequence[tuple[Plane, Plane | None]], radius: float) -> bool | None:
    """Tells whether images agree on the strength of their middle frequencies, where each is flattest.

    Noise of a large radius has little but low frequencies, by which blocks are chosen. So its strength is the median
    over brightnesses of frequencies that are just above.

    What images show is stronger in some than in others. Correlated noise is the same in all, and is the least that is
    found in any. None is returned where too few images have blocks.
    """
    total, inside = frequencies(LARGE)
    first, typical = (LARGE // 4, np.median) if radius > WIDE else (LARGE // 2, np.min)
    middle = inside & (total >= first) & (total < 2 * first)
    levels = []
    for each in _by_image(pictures, planes):
        blocks = Blocks.of(each, LARGE, max(MOST_LARGE // len(pictures), 4000))
        flats = _usable(flattest(blocks, LOW_OF_LARGE, HIGH_OF_LARGE, share=0.01, fewest=10))
        if flats:
            found = [float(np.sqrt(flat.spectrum[middle].mean())) for flat in flats]
            levels.append(float(typical(found)) if min(found) > NO_NOISE else 0.0)
    if len(levels) < FEWEST_AGREEING:
        return None
    ordered = np.sort(levels)
    for below, level in enumerate(ordered):
        agreeing = int(((ordered >= level) & (ordered <= AGREE * level)).sum())
        if level > NO_NOISE and agreeing >= max(FEWEST_AGREEING, SHARE_AGREEING * len(ordered), 3 * below):
            return True
    return False


def _misfits(
    pictures: Sequence[Picture],
    planes: Sequence[tuple[Plane, Plane | None]],
    colour: Colour,
    sensor: Sensor,
    rounding: float,
    white: tuple[Array, Array, Array],
) -> Iterator[str]:
    """Yields remarks where the noise is not what the words say: images of several strengths, and a bad fit.

    An image takes part where it has flat areas, so that what it shows does not count as noise.
    """
    total, inside = frequencies(SMALL)
    high = inside & (total >= HIGH_OF_SMALL)
    coloured = 0.0
    if colour.correlated:
        coloured = colour.correlated * float(correlated_spectrum(colour.radius, SMALL)[high].mean())
    ratios = []
    for each in _by_image(pictures, planes):
        blocks = Blocks.of(each, SMALL, max(MOST_SMALL // len(pictures), 4000))
        if not len(blocks.brightness):
            continue
        flats = flattest(blocks, LOW_OF_SMALL, HIGH_OF_SMALL, share=0.01, fewest=60, all_below=True)
        flats = [flat for flat in _clear(flats) if _unevenness([flat], colour) <= UNEVEN]
        areas = np.array([flat.independent for flat in flats])
        if areas.sum() < FEWEST_AREAS:
            continue
        found = np.array([flat.spectrum[high].mean() for flat in flats])
        wanted = sensor.variance_at(np.array([flat.brightness for flat in flats]), rounding) + coloured
        floor = NO_NOISE**2
        ratios.append(float(np.average(np.sqrt((found + floor) / (wanted + floor)), weights=areas)))
    told = not colour.correlated or pictures[0].clean is not None  # what images show hides in correlated noise
    if told and ratios and max(ratios) > UNLIKE * min(ratios):
        yield (
            f"The noise of one image is {max(ratios) / min(ratios):.1f} times that of another, and the words have one "
            "strength; measure the images of each setting alone."
        )
    brightness, variance, areas = white
    if not colour.correlated and max(sensor.gain, sensor.read) > 0:
        fit = np.sqrt(sensor.variance_at(brightness, rounding))
        error = float(np.sqrt(np.average((np.sqrt(variance) / fit - 1) ** 2, weights=areas)))
        if error > BAD_FIT:
            yield (
                f"The fit is off by {100 * error:.0f} % on average, so the noise is of another kind than the words "
                "say; compare noise and fit in the table."
            )


def _clear(flats: Sequence[Flat]) -> Sequence[Flat]:
    """Returns the flat areas with little clipping, which can be computed where all of an area is equally bright."""
    clear = [each for each in flats if each.clipped < MOST_CLIPPED]
    return clear if len(clear) >= 3 else flats


def _usable(flats: Sequence[Flat]) -> Sequence[Flat]:
    """Returns the flat areas where little is clipped, or the least clipped ones, as clipping whitens noise."""
    return [each for each in flats if each.clipped < 0.01] or sorted(flats, key=lambda each: each.clipped)[:1]


def _believed_colour(spectrum: Array, peakedness: Array, pairs: bool) -> Colour:
    """Returns the colour of a spectrum, judged from the lowest frequency on at which only noise is seen.

    Correlated noise is left out where it is little. What images show looks like it at low frequencies, so the noise
    must also fall from middle to high ones.
    """
    total, inside = frequencies(LARGE)

    def mean(values: Array, low: int, high: int) -> float:
        return float(values[inside & (total >= low) & (total < high)].mean())

    peaked = {first: 1.0 if pairs else mean(peakedness, first, first + 4) for first in FIRSTS}
    first = next((each for each in FIRSTS if peaked[each] < PEAKED), min(FIRSTS, key=lambda each: peaked[each]))
    colour = fit_colour(spectrum, first)
    share = colour.correlated / max(colour.white + colour.correlated, 1e-9)
    falls = pairs or mean(spectrum, LARGE // 2, LARGE) > FALL * mean(spectrum, LARGE, 2 * LARGE)
    believed = peaked[first] < MOST_PEAKED and share > SHARE_CORRELATED and falls
    return colour if believed else Colour(0.0, colour.white, 0.0)


def _lines(spectrum: Array, peakedness: Array, colour: Colour) -> float:
    """Returns the standard deviation of whole rows, by the power of coefficients that do not vary along a row.

    N pixels of a row add up to N times the variance of its shift, beside the noise of the pixels themselves.
    """
    side = len(spectrum)
    excess = spectrum - (colour.correlated * correlated_spectrum(colour.radius, side) if colour.correlated else 0)
    half = side // 2
    each = excess[half:, 0] - excess[half:, 1:4].mean(1)
    variance = float(each.mean()) / side
    error = float(each.std(ddof=1)) / np.sqrt(len(each)) / side
    noise = colour.white + colour.correlated
    if float(peakedness[half:, 0].mean()) > PEAKED:  # edges of what some blocks show
        return 0.0
    return float(np.sqrt(variance)) if variance > max(SHARE_OF_LINES * noise, 4 * error, NO_NOISE**2) else 0.0


def _white_levels(flats: Sequence[Flat], colour: Colour, kept: float) -> tuple[Array, Array, Array]:
    """Returns brightness, variance of independent pixels, and number of areas, from small blocks."""
    total, inside = frequencies(SMALL)
    high = inside & (total >= HIGH_OF_SMALL)
    below = 0.0
    if colour.correlated:
        below = colour.correlated * float(correlated_spectrum(colour.radius, SMALL)[high].mean())
    variance = [max(each.spectrum[high].mean() - below, 0.0) / kept for each in flats]
    return _columns(flats, variance)


def _coloured_levels(flats: Sequence[Flat], colour: Colour, kept: float) -> tuple[Array, Array, Array]:
    """Returns brightness, variance of all noise, and number of areas, from large blocks and the shape of a spectrum."""
    total, inside = frequencies(LARGE)
    used = inside & (total >= HIGH_OF_LARGE)
    shape = correlated_spectrum(colour.radius, LARGE)[used]
    variance = []
    for each in flats:
        weighted = shape / (each.spectrum[used] + 0.02 * each.spectrum[used].max() + 1e-9) ** 2
        correlated = float((each.spectrum[used] - colour.white) @ weighted / (shape @ weighted))
        variance.append((max(correlated, 0.0) + colour.white) / kept)
    return _columns(flats, variance)


def _columns(flats: Sequence[Flat], variance: Sequence[float]) -> tuple[Array, Array, Array]:
    brightness, areas = ([getattr(each, name) for each in flats] for name in ("brightness", "independent"))
    return np.array(brightness), np.array(variance, float), np.array(areas)


def _through_jpeg(picture: Picture) -> Picture:
    """Returns a pair whose clean image has been compressed as the noisy one was, if that was, so that they differ in
    noise alone."""
    clean, quality = picture.clean, jpeg_quality(_gray(picture.noisy))
    if clean is None or quality is None:
        return picture
    pixels = np.rint(clean).clip(0, 255).astype(np.uint8)
    return Picture(picture.noisy, through_jpeg(pixels, quality).astype(np.float32))


def _gray(image: NDArray[np.float32]) -> Plane:
    """Returns the luminance of an image (C, H, W), as JPEG has it."""
    if len(image) != 3:
        first: Plane = image[0]
        return first
    luminance: Plane = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image, 1)
    return luminance


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")
