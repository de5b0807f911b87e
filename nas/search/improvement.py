"""The hypervolume that a candidate of uncertain values is expected to add to a front, exactly."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from nas.search.pareto import Array, best_subset

MOST = {1: 1, 2: 200, 3: 30, 4: 12, 5: 7}
"""The largest front by number of objectives, which bounds the number of cells; of a larger one a spread choice is
taken."""


def expected_improvement(mean: Array, sd: Array, front: Array, reference_point: Array) -> Array:
    """Computes the expected hypervolume improvement (Emmerich et al. 2006) of independent normal values, exactly.

    The coordinates of the front cut the space of all objectives but the last into cells. Above each cell the front
    reaches up to one height, so the volume that a point adds is a sum over cells: the part of the cell that the point
    dominates times its excess over the height. As values are independent, the expectation of each summand is a product.

    Args:
        mean, sd: (n, d) means and standard deviations of the values; all are maximised.
        front: (m, d) values of the front; points that dominate each other do no harm.
        reference_point: (d,) the point from which volume counts.

    Returns:
        (n,) expected gains, at least 0, in the product of the objectives' units.
    """
    dimensions = len(reference_point)
    front = front[(front > reference_point).all(axis=1)]
    most = MOST.get(dimensions, 4)
    if len(front) > most:
        front = front[best_subset(front, most, [True] * dimensions)]
    lows = [np.unique(np.append(front[:, k], reference_point[k])) for k in range(dimensions - 1)]
    # A point of the front reaches above a cell if it is beyond the cell's lower end in every objective but the last.
    heights = np.full([len(low) for low in lows], reference_point[-1])
    for point in front:
        reached = np.ix_(*(low < point[k] for k, low in enumerate(lows))) if lows else ()
        heights[reached] = np.maximum(heights[reached], point[-1])
    levels, level_of = np.unique(heights, return_inverse=True)
    gains = _excess(mean[:, -1:], sd[:, -1:], levels[None, :])[:, level_of.reshape(heights.shape)]
    for k, low in reversed(list(enumerate(lows))):
        above = _excess(mean[:, k : k + 1], sd[:, k : k + 1], low[None, :])
        parts = above - np.append(above[:, 1:], np.zeros((len(mean), 1)), axis=1)
        gains = np.einsum("n...k,nk->n...", gains, parts)
    return np.asarray(gains.reshape(len(mean)))


def _excess(mean: Array, sd: Array, bound: Array) -> Array:
    """Returns the expected excess of normal values over bounds, E[max(Y - bound, 0)]."""
    sd = np.maximum(sd, 1e-9)
    t = (mean - bound) / sd
    return np.asarray((mean - bound) * ndtr(t) + sd * np.exp(-0.5 * t * t) / np.sqrt(2.0 * np.pi))
