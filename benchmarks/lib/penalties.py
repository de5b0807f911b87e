"""A stability score with penalties, with which the project's own is compared. All functions are pure.

With ``y = ln(loss / trivial loss)`` in nats, over the probes of a run,

    S = A^2 * (1 - exp(-D / 0.1)) * exp(-(20 p + 4 E + 2 F + 0.25 N))

    A  share of the planned run that was done before it diverged
    D  nats gained below trivial by the running median: a run that learns nothing scores 0
    p  share of probes that spike above the running median, by more than 7 robust deviations
    E  mean regress from the best so far over the run, in units of D
    F  the same over the last 5 % of the run
    N  robust deviation of the residual around the running median, in units of D

The project's score had this form until `benchmarks.stability` had measured it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.training.stability import running_median, spiking


@dataclass(frozen=True, slots=True)
class Traits:
    """D, p, E, F and N of one task's probe curve, of which the score is made."""

    gained: float
    spikes: float
    regress: float
    last_regress: float
    roughness: float


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants of the score: the unit of D in nats (`gain`), and the weights in the exponent."""

    gain: float = 0.1
    spikes: float = 20.0
    regress: float = 4.0
    last_regress: float = 2.0
    roughness: float = 0.25


WEIGHTS = Weights()


def traits(losses: Sequence[float]) -> Traits | None:
    """Computes the traits of one task's probe curve.

    Args:
        losses: losses over the trivial loss in order of steps, the first before any training.

    Returns:
        the traits; None for fewer than 3 finite probes, and for a run that never gets below trivial.
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


def penalised(losses: Sequence[float], share_done: float = 1.0, weights: Weights = WEIGHTS) -> float:
    """Computes the score of one task's probe curve.

    Args:
        losses: see `traits`.
        share_done: A, the share of the planned run before divergence (1 for a run that did not diverge).
        weights: the constants.

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
