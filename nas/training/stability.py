"""Training stability: one number in 0..1 from the loss curve of one run. All functions are pure.

A run is probed about `PROBES` times, evenly in optimiser steps, on one fixed batch in evaluation mode. With
``L(t) = loss / trivial loss`` (the noisy input's MSE, or ln(classes)), the score of a task is

    S = mean over t of max(0, 1 - max over s >= t of L(s))

In words, this is the share of the trivial loss that the network has removed by then and never loses again, averaged
over the run. A run that learns nothing scores 0, and so does a run that ends where it began. Progress that a spike
takes back does not count until the spike is over. A network that learns early and steadily comes near to 1 minus its
final loss. After a divergence every probe counts as lost. The formula has no constants.

The score of a run is the geometric mean over its active tasks. It depends on losses only through their ratio to the
trivial loss, so neither the scale of the loss nor lambda matters. `benchmarks.stability` compares it with other runs of
the same networks, and with other scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.types import ProbeCurve

PROBES = 200
"""The number of probes in a full run. A run with fewer steps is probed once a step."""

_WINDOW = 9
"""The number of probes in the running median: enough to pass over a spike, few enough to follow a schedule."""

_SPIKE_DEVIATIONS = 7.0
Array = NDArray[np.float64]


def lasting(losses: Sequence[float]) -> Array:
    """Returns the share in 0..1 of the trivial loss that is removed for good, at each probe. It never falls.

    Args:
        losses: probe losses over the trivial loss, in order of steps; a loss that is not finite removes nothing.
    """
    loss = np.asarray(losses, dtype=np.float64)
    worst_to_come = np.maximum.accumulate(np.where(np.isfinite(loss), loss, np.inf)[::-1])[::-1]
    return np.asarray(np.maximum(0.0, 1.0 - worst_to_come))


def task_stability(losses: Sequence[float]) -> float:
    """Returns the stability of one task's probe curve, in 0..1 (see `lasting`). Fewer than 3 probes score 0."""
    return 0.0 if len(losses) < 3 else float(lasting(losses).mean())


def stability(probe: ProbeCurve) -> float:
    """Returns the stability of a run that did not diverge, in 0..1: the geometric mean over the tasks with a curve.

    It is 0 without any curve. A diverged run would score 0 whatever came before.
    """
    scores = [task_stability(curve) for curve in (probe.denoise, probe.classify) if curve]
    return math.prod(scores) ** (1.0 / len(scores)) if scores else 0.0


def running_median(y: Array) -> Array:
    """Returns the median of the `_WINDOW` values around each value. The window shrinks evenly at both ends. Shape of
    `y`."""
    half = np.minimum(np.minimum(np.arange(len(y)), np.arange(len(y))[::-1]), _WINDOW // 2)
    return np.array([np.median(y[i - h : i + h + 1]) for i, h in enumerate(half)])


def spiking(y: Array) -> NDArray[np.bool_]:
    """Tells which values of `y`, logarithms of losses over trivial, stand out above the running median. Shape of `y`.

    This is not part of the score, but helps people to read a curve.
    """
    trend = running_median(y)
    residual = y - trend
    deviation = 1.4826 * float(np.median(np.abs(residual)))
    # A perfectly smooth run has no deviation, so that every visible step of it would count as a spike.
    least = 0.01 * max(0.0, -float(trend.min()))
    return residual > _SPIKE_DEVIATIONS * max(deviation, least)
