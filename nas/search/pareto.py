"""Pareto computations on arrays: dominance, ranks, hypervolume, contributions and the knee. All functions are pure.

Every function takes `values` of shape (n, d), finite, with one row for each point, and `maximize` of length d. Inside,
objectives become losses (all minimised), so that each formula is written once.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def losses_of(values: Array, maximize: Sequence[bool]) -> Array:
    values = np.asarray(values, dtype=np.float64).reshape(-1, len(maximize))
    return np.where(np.asarray(maximize), -values, values)


def _non_dominated(losses: Array) -> Mask:
    # In lexicographic order only an earlier point can dominate a point. So the first of the remaining points is on the
    # front, and the points that it dominates are dropped: |front| passes over fewer and fewer points.
    left = np.lexsort(losses.T[::-1])
    columns = losses[left].T
    mask = np.zeros(len(losses), dtype=bool)
    while left.size:
        mask[left[0]] = True
        first = columns[:, 0]
        equal = np.logical_and.reduce([column == value for column, value in zip(columns, first, strict=True)])
        beaten = np.logical_and.reduce([column >= value for column, value in zip(columns, first, strict=True)])
        mask[left[equal]] = True
        left, columns = left[~beaten], columns[:, ~beaten]
    return mask


def non_dominated(values: Array, maximize: Sequence[bool]) -> Mask:
    """Tells for each point whether no other point dominates it, shape (n,). Equal points are treated alike."""
    return _non_dominated(losses_of(values, maximize))


def fronts(values: Array, maximize: Sequence[bool]) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each non-domination rank: the front, the front of the remaining points, and so on (Deb 2002).

    A front is computed only when it is asked for.
    """
    losses = losses_of(values, maximize)
    left = np.arange(len(losses))
    while left.size:
        front = _non_dominated(losses[left])
        yield left[front]
        left = left[~front]


def hypervolume(values: Array, reference_point: Sequence[float], maximize: Sequence[bool]) -> float:
    """Computes the volume that the points dominate up to `reference`, in the product of the objectives' units.

    Points that are not better than the reference in every objective add nothing. Without points the volume is 0.
    """
    ref = losses_of(np.asarray(reference_point, dtype=np.float64), maximize)[0]
    return _hypervolume(losses_of(values, maximize), ref)


def _hypervolume(losses: Array, ref: Array) -> float:
    losses = losses[np.all(losses < ref, axis=1)]
    if not len(losses):
        return 0.0
    if losses.shape[1] == 1:
        return float(ref[0] - losses.min())
    if losses.shape[1] == 2:  # as a prism of height 1
        return _sweep(np.column_stack([losses, np.zeros(len(losses))]), np.append(ref, 1.0))
    losses = losses[np.argsort(losses[:, -1], kind="stable")]
    if losses.shape[1] == 3:
        return _sweep(losses, ref)
    # The volume is cut into slices between consecutive values of the last objective, each one dimension lower.
    losses = losses[_non_dominated(losses)]
    heights = np.diff(np.append(losses[:, -1], ref[-1]))
    return float(sum(h * _hypervolume(losses[: k + 1, :-1], ref[:-1]) for k, h in enumerate(heights) if h > 0))


def _sweep(losses: Array, ref: Array) -> float:
    """Computes a 3-D hypervolume: a plane moves along the third objective over a staircase of the first two.

    `losses` are sorted by the third objective. The staircase is sorted by x, so y falls along it. Each step costs one
    bisection and the points that it removes, O(n log n) in all.
    """
    rx, ry, rz = ref
    xs: list[float] = [-np.inf, rx]
    ys: list[float] = [ry, -np.inf]
    area = volume = 0.0
    last = losses[0, 2]
    for x, y, z in losses:
        volume += area * (z - last)
        last = z
        right = bisect_left(xs, x)
        if ys[right - 1] <= y or (xs[right] == x and ys[right] <= y):
            continue
        # The points from `right` on whose y is not lower are dominated now, so their steps are removed.
        end, left_y, at = right, ys[right - 1], x
        while ys[end] >= y:
            area += (xs[end] - at) * (left_y - y)
            at, left_y = xs[end], ys[end]
            end += 1
        area += (xs[end] - at) * (left_y - y)
        xs[right:end], ys[right:end] = [x], [y]
    return float(volume + area * (rz - last))


def contributions(values: Array, reference_point: Sequence[float], maximize: Sequence[bool]) -> Array:
    """Computes the hypervolume that would be lost without each point, shape (n,); 0 for dominated and repeated
    points."""
    losses = losses_of(values, maximize)
    ref = losses_of(np.asarray(reference_point, dtype=np.float64), maximize)[0]
    return np.array([exclusive(losses, row, ref)[0] for row in range(len(losses))])


def exclusive(losses: Array, row: int, ref: Array) -> tuple[float, Array]:
    """Computes the volume up to `ref` that the point in `row` alone dominates, and the corner that bounds it.

    Along each axis the volume ends where the first point stands that is no worse in all other objectives. Only the
    points within this box take something of it, and they are few.

    Args:
        losses: objectives, all minimised, shape (n, d).
        row: row of the point.
        ref: the reference point, shape (d,).

    Returns:
        The volume, and the worst value of each objective in it, shape (d,).
    """
    point = losses[row]
    no_worse = losses <= point
    elsewhere = np.count_nonzero(no_worse, axis=1)[:, None] - no_worse == losses.shape[1] - 1
    elsewhere[row] = False
    corner = np.minimum(ref, np.where(elsewhere, losses, np.inf).min(axis=0))
    if not (point < corner).all():
        return 0.0, corner
    inside = (losses < corner).all(axis=1)
    inside[row] = False
    taken = _hypervolume(np.maximum(losses[inside], point), corner)
    return max(0.0, float(np.prod(corner - point)) - taken), corner


def net_gaps(values: Array, maximize: Sequence[bool]) -> Array:
    """Computes the distance of each point to the points that an epsilon-net takes before it, shape (n,).

    The net begins with the best point in the first objective, whose gap is infinite, and goes on with the point that is
    farthest from all taken so far (Salinas et al. 2021, arXiv 2106.05680; within ranks: Schmucker et al. 2021, arXiv
    2106.12639). So the largest gaps cover the front evenly. Distances are Euclidean, in units of each objective's
    range. Equal points have one gap.
    """
    points, rows = np.unique(losses_of(values, maximize), axis=0, return_inverse=True)
    gaps = np.empty(len(points))
    if len(points):
        span = points.max(axis=0) - points.min(axis=0)
        points = points / np.where(span > 0, span, 1.0)
        nearest = np.full(len(points), np.inf)
        taken = 0  # points are sorted by the first objective
        for _ in range(len(points)):
            gaps[taken] = nearest[taken]
            nearest = np.minimum(nearest, np.linalg.norm(points - points[taken], axis=1))
            taken = int(np.argmax(nearest))
    return gaps[rows.reshape(-1)]


def best_subset(values: Array, count: int, maximize: Sequence[bool]) -> NDArray[np.int64]:
    """Returns the rows of the `count` best points: whole fronts, and a spread choice from the last one.

    From a front that does not fit, points are taken greedily by the hypervolume that they add to the points taken
    before (at least 63 % of the best possible, Nemhauser 1978). The reference lies a tenth of the front's range beyond
    its worst values. Contributions alone would favour the ends of a front.
    """
    losses = losses_of(values, maximize)
    chosen: list[int] = []
    for members in fronts(values, maximize):
        room = count - len(chosen)
        chosen += members.tolist() if len(members) <= room else members[_spread(losses[members], room)].tolist()
        if len(chosen) >= count:
            break
    return np.array(chosen, dtype=np.int64)


def _spread(losses: Array, count: int) -> list[int]:
    worst = losses.max(axis=0)
    ref = worst + 0.1 * np.where(worst > losses.min(axis=0), worst - losses.min(axis=0), 1.0)
    chosen: list[int] = []
    volume = 0.0
    # Gains only shrink as the choice grows, so an old gain is an upper bound, and most gains are computed once.
    queue = [(-float(np.prod(ref - point)), index, 0) for index, point in enumerate(losses)]
    heapq.heapify(queue)
    while queue and len(chosen) < count:
        gain, index, size = heapq.heappop(queue)
        if size == len(chosen):
            chosen.append(index)
            volume -= gain
        else:
            gain = volume - _hypervolume(losses[[*chosen, index]], ref)
            heapq.heappush(queue, (gain, index, len(chosen)))
    return chosen


def knee(front: Array, maximize: Sequence[bool], weights: Sequence[float] | None = None) -> int:
    """Returns the row of `front` nearest to its ideal point (Das 1999 in its simplest, scale-free form).

    The distance is the weighted Euclidean one. Objectives are scaled by the front's own ideal (best) and nadir (worst).
    An objective in which all members are equal does not count. Weights are 1 by default. The first of equally near
    members is taken, and the only member of a front is its knee.

    Raises:
        ValueError: the front is empty.
    """
    losses = losses_of(front, maximize)
    if not len(losses):
        raise ValueError("an empty front has no knee")
    ideal, nadir = losses.min(axis=0), losses.max(axis=0)
    span = np.where(nadir > ideal, nadir - ideal, 1.0)
    scaled = (losses - ideal) / span
    return int(np.argmin((scaled**2 * np.asarray(weights if weights is not None else 1.0)).sum(axis=1)))
