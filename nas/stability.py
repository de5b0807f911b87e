"""Training stability: one number in 0..1 from the loss curve of one run. Pure functions.

A run is probed about `PROBES` times, evenly in optimiser steps, on one fixed batch in evaluation mode.
With ``y = ln(loss / trivial loss)`` (trivial: the noisy input's MSE, or ln(classes)) in nats,

    S = A^2 * (1 - exp(-D / 0.1)) * exp(-(20 p + 4 E + 2 F + 0.25 N))

    A  share of the planned run that was done before it diverged
    D  nats gained below trivial by the running median: a run that learns nothing scores 0
    p  share of probes that spike above the running median, by more than 7 robust deviations
    E  mean regress from the best so far over the run, in units of D
    F  the same over the last 5 % of the run
    N  robust deviation of the residual around the running median, in units of D

The score of a run is the geometric mean over its active tasks. It depends on losses only through their
ratio to the trivial loss, so neither the scale of the loss nor lambda enters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.types import ProbeCurve

PROBES = 200
"""Probes in a full run; shorter runs are probed once a step."""

_WINDOW = 9
"""Probes in the running median: wide enough to pass over a spike, narrow enough to follow a schedule."""

_SPIKE_DEVIATIONS = 7.0

Array = NDArray[np.float64]


def running_median(y: Array) -> Array:
    """Median of the `_WINDOW` values around each one; the window shrinks evenly at both ends. Shape of `y`."""
    half = np.minimum(np.minimum(np.arange(len(y)), np.arange(len(y))[::-1]), _WINDOW // 2)
    return np.array([np.median(y[i - h : i + h + 1]) for i, h in enumerate(half)])


def spiking(y: Array) -> NDArray[np.bool_]:
    """Which values of `y`, in nats, stand out above the running median. Shape of `y`."""
    trend = running_median(y)
    residual = y - trend
    deviation = 1.4826 * float(np.median(np.abs(residual)))
    # A perfectly smooth run has no deviation; any visible step of it would then count as a spike.
    least = 0.01 * max(0.0, -float(trend.min()))
    return residual > _SPIKE_DEVIATIONS * max(deviation, least)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the score is made of: D, p, E, F and N of one task's probe curve."""

    gained: float
    spikes: float
    regress: float
    last_regress: float
    roughness: float


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants of the score: D is held against `gain` nats, the others are weights in the exponent."""

    gain: float = 0.1
    spikes: float = 20.0
    regress: float = 4.0
    last_regress: float = 2.0
    roughness: float = 0.25


WEIGHTS = Weights()


def traits(losses: Sequence[float]) -> Traits | None:
    """Traits of one task's probe losses over the trivial loss, in order of steps, the first before any training.

    None for fewer than 3 finite probes, and for a run that never gets below trivial.
    """
    loss = np.asarray(losses, dtype=np.float64)
    loss = loss[np.isfinite(loss)]
    if len(loss) < 3:
        return None
    y = np.log(np.maximum(loss, 1e-12))
    trend = running_median(y)
    gained = -float(trend.min())
    if gained <= 0.0:
        return None
    regress = y - np.minimum.accumulate(y)
    last = max(1, round(0.05 * len(y)))
    return Traits(
        gained=gained,
        spikes=float(np.mean(spiking(y))),
        regress=float(regress.mean()) / gained,
        last_regress=float(regress[-last:].mean()) / gained,
        roughness=1.4826 * float(np.median(np.abs(y - trend))) / gained,
    )


def task_stability(losses: Sequence[float], share_done: float = 1.0, weights: Weights = WEIGHTS) -> float:
    """Stability of one task's probe curve.

    Args:
        losses: see `traits`.
        share_done: A, the share of the planned run before divergence (1 for a run that did not diverge).
        weights: of the traits.

    Returns:
        A value in 0..1; 0 for a curve without traits.
    """
    found = traits(losses)
    if found is None:
        return 0.0
    penalty = (
        weights.spikes * found.spikes
        + weights.regress * found.regress
        + weights.last_regress * found.last_regress
        + weights.roughness * found.roughness
    )
    return share_done**2 * (1.0 - math.exp(-found.gained / weights.gain)) * math.exp(-penalty)


def stability(probe: ProbeCurve, share_done: float = 1.0) -> float:
    """Stability of a run in 0..1: the geometric mean over the tasks that have a curve; 0 without any."""
    scores = [task_stability(curve, share_done) for curve in (probe.denoise, probe.classify) if curve]
    return math.prod(scores) ** (1.0 / len(scores)) if scores else 0.0
