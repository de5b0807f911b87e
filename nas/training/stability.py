"""Training stability: one number in 0..1 from the loss curve of one run. Pure functions.

A run is probed about `PROBES` times, evenly in optimiser steps, on one fixed batch in evaluation mode. With
``L(t) = loss / trivial loss`` (trivial: the noisy input's MSE, or ln(classes)), the score of a task is

    S = mean over t of max(0, 1 - max over s >= t of L(s))

in words: the share of the trivial loss that the network has removed by then and never loses again, averaged over the
run. A run that learns nothing scores 0, and so does one that ends where it began; what a spike takes back counts for
nothing until the spike is over; who learns early and steadily comes near to 1 minus its final loss. After a divergence
every probe counts as lost. There are no constants.

The score of a run is the geometric mean over its active tasks. It depends on losses only through their ratio to the
trivial loss, so neither the scale of the loss nor lambda enters. `benchmarks.stability` holds it against what other
runs of the same networks show, and against other scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.types import ProbeCurve

PROBES = 200
"""Probes in a full run; shorter runs are probed once a step."""

_WINDOW = 9
"""Probes in the running median: wide enough to pass over a spike, narrow enough to follow a schedule."""

_SPIKE_DEVIATIONS = 7.0
Array = NDArray[np.float64]


def lasting(losses: Sequence[float]) -> Array:
    """Share in 0..1 of the trivial loss that is removed for good, at each probe; it never falls.

    Args:
        losses: probe losses over the trivial loss, in order of steps; what is not finite removes nothing.
    """
    loss = np.asarray(losses, dtype=np.float64)
    worst_to_come = np.maximum.accumulate(np.where(np.isfinite(loss), loss, np.inf)[::-1])[::-1]
    return np.asarray(np.maximum(0.0, 1.0 - worst_to_come))


def task_stability(losses: Sequence[float]) -> float:
    """Stability of one task's probe curve, in 0..1; fewer than 3 probes say nothing, and score 0 (see `lasting`)."""
    return 0.0 if len(losses) < 3 else float(lasting(losses).mean())


def stability(probe: ProbeCurve) -> float:
    """Stability of a run that did not diverge, in 0..1: the geometric mean over the tasks that have a curve.

    0 without any. A run that diverged has nothing left to show, and would score 0 whatever came before.
    """
    scores = [task_stability(curve) for curve in (probe.denoise, probe.classify) if curve]
    return math.prod(scores) ** (1.0 / len(scores)) if scores else 0.0


def running_median(y: Array) -> Array:
    """Median of the `_WINDOW` values around each one; the window shrinks evenly at both ends. Shape of `y`."""
    half = np.minimum(np.minimum(np.arange(len(y)), np.arange(len(y))[::-1]), _WINDOW // 2)
    return np.array([np.median(y[i - h : i + h + 1]) for i, h in enumerate(half)])


def spiking(y: Array) -> NDArray[np.bool_]:
    """Which values of `y`, log losses over trivial, stand out above the running median. Shape of `y`.

    No part of the score: for those who look at a curve.
    """
    trend = running_median(y)
    residual = y - trend
    deviation = 1.4826 * float(np.median(np.abs(residual)))
    # A perfectly smooth run has no deviation; any visible step of it would then count as a spike.
    least = 0.01 * max(0.0, -float(trend.min()))
    return residual > _SPIKE_DEVIATIONS * max(deviation, least)
