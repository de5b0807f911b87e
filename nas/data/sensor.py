"""The noise of a sensor: its variance by brightness, clipped and rounded as in a file, and its gain and read noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WHITE = 255.0
"""All brightnesses are on the scale from 0 to 255."""

FEW_ELECTRONS = 40
"""Below so many electrons their distribution is taken exactly; above it is all but normal."""

GRID = np.concatenate([np.linspace(0, 60, 121), np.linspace(61, 270, 150)])
"""Brightnesses before clipping for which moments are computed."""

MOST_WEIGHT = 1000
"""Areas beyond this number make a variance no more certain, as then the model's own error is larger."""

VISIBLE_GAIN = 0.1
"""The part of the noise's variance by which it must change from dark to bright before a gain is believed."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A Poisson-Gaussian sensor. The variance at brightness x is gain * x + read^2, on the 0..255 scale.

    Attributes:
        gain: levels for one electron; 0 when the noise does not depend on brightness.
        read: standard deviation of the read noise.
    """

    gain: float
    read: float

    def sigma(self, brightness: Array) -> Array:
        """Returns the standard deviation before clipping."""
        found: Array = np.sqrt(self.gain * brightness.clip(0) + self.read**2)
        return found

    def clipped(self, brightness: Array) -> tuple[Array, Array]:
        """Returns mean and variance of pixels after clipping to [0, 255], for brightnesses before.

        Noise is normal but where the electrons are few. There the pixel is a mixture of normals over their counts, as
        in Foi et al. (Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data, 2008).
        """
        from scipy.stats import poisson

        mean, variance = _clipped_normal(brightness, self.sigma(brightness) + 1e-2)
        if self.gain * FEW_ELECTRONS < 1:
            return mean, variance
        few = brightness < self.gain * FEW_ELECTRONS
        counts = np.arange(2 * FEW_ELECTRONS)[:, None]
        weights = poisson.pmf(counts, brightness[few] / self.gain)
        weights /= weights.sum(0)
        levels: Array = np.multiply(self.gain, counts)
        means, variances = _clipped_normal(levels, np.full_like(levels, max(self.read, 1e-2)))
        mean[few] = (weights * means).sum(0)
        variance[few] = (weights * (variances + means**2)).sum(0) - mean[few] ** 2
        return mean, variance

    def variance_at(self, mean: Array, rounding: float) -> Array:
        """Returns the variance of pixels whose mean after clipping is `mean`, with the variance of rounding."""
        means, variances = self.clipped(GRID)
        order = np.argsort(means)
        found: Array = np.interp(mean, means[order], variances[order]) + rounding
        return found

    def before_clipping(self, mean: Array) -> Array:
        """Returns the brightness of pixels whose mean after clipping is `mean`."""
        means = np.maximum.accumulate(self.clipped(GRID)[0])
        found: Array = np.interp(mean, means, GRID)
        return found


def _clipped_normal(mean: Array, sigma: Array) -> tuple[Array, Array]:
    """Returns mean and variance of a normal variable after clipping to [0, 255]."""
    from scipy.special import ndtr

    low, high = -mean / sigma, (WHITE - mean) / sigma
    below_low, below_high = ndtr(low), ndtr(high)
    at_low, at_high = (np.exp(-end * end / 2) / np.sqrt(2 * np.pi) for end in (low, high))
    first = WHITE * (1 - below_high) + mean * (below_high - below_low) + sigma * (at_low - at_high)
    second = (
        WHITE**2 * (1 - below_high)
        + (mean**2 + sigma**2) * (below_high - below_low)
        + sigma * (mean * at_low - (mean + WHITE) * at_high)
    )
    return first, np.maximum(second - first**2, 0)


def fit_sensor(brightness: Array, variance: Array, weight: Array, rounding: float) -> Sensor:
    """Fits gain and read noise to variances that were measured at several brightnesses.

    Relative errors are fitted, and a brightness at which structure of the image raised the variance counts little.
    Brightnesses at which much is clipped to white are left out; the clipping of the others is a part of the model.

    Args:
        brightness, variance: (N,), mean and variance of clipped pixels.
        weight: (N,) number of independent areas that each variance was measured in.
        rounding: variance of rounding to the file's levels.

    Returns:
        A gain of 0 when the variance hardly depends on brightness.
    """
    from scipy.optimize import least_squares

    variance = np.maximum(variance, 1e-6)
    root = np.sqrt(np.minimum(weight, MOST_WEIGHT))
    used = (brightness > 0.5) & (brightness < WHITE - 1)
    if not used.any():
        used = np.ones_like(used)

    def fitted(start: tuple[float, ...]) -> tuple[float, Sensor]:
        def errors(guess: Array) -> Array:
            sensor = Sensor(guess[1] if len(guess) > 1 else 0.0, float(np.sqrt(guess[0])))
            wanted = sensor.variance_at(brightness[used], rounding)
            result: Array = root[used] * (np.log(variance[used]) - np.log(np.maximum(wanted, 1e-6)))
            return result

        scale = np.maximum(np.asarray(start), 1e-3)
        found = least_squares(errors, start, bounds=(0, np.inf), x_scale=scale, loss="soft_l1")
        return float(found.cost), Sensor(float(found.x[1]) if len(start) > 1 else 0.0, float(np.sqrt(found.x[0])))

    for _ in range(2):
        middle = float(np.median(variance[used]))
        bright = max(float(brightness[used].mean()), 1.0)
        starts = [(middle, 1e-3 * middle / bright), (middle / 3, middle / bright)]
        best = min((fitted(start) for start in starts), key=lambda pair: pair[0])[1]
        unclipped = best.before_clipping(brightness)
        fair = (brightness > 0.5) & (brightness < WHITE - 1) & (unclipped < WHITE - 2.5 * best.sigma(unclipped))
        if fair.sum() < 3:
            break
        used = fair
    span = best.gain * float(np.ptp(unclipped[used]))
    if span < VISIBLE_GAIN * float(np.mean(best.sigma(unclipped[used]) ** 2)):
        return fitted((middle,))[1]
    return best
