"""How much each hyperparameter decides about an objective, by trials that a search has chosen.

The model is additive: every choice of every hyperparameter has an effect on the value of a trial, and all effects are
estimated together by ridge regression, whose strength comes from the marginal likelihood. So a hyperparameter is not
credited with what others decide that a sampler has varied along with it, as it would be by comparing groups of trials.
The importance is the variance of its effects over its choices, each counted once, as a share of all variance. This is
the main effect of functional ANOVA (Hutter, Hoos and Leyton-Brown 2014) under an additive model. Integers, floats and
names are all treated as names.

Two further figures say how far to trust it. The interval comes from resampling the trials. The mark of noise is the
importance that the hyperparameter reaches by chance when it decides nothing and all others decide what they do: the
trials' residuals without it are permuted (Freedman and Lane 1983), and the mark is passed by chance in 5 % of studies,
for any hyperparameter together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]

FEWEST = 8
"""The number of trials under which nothing is estimated."""

MOST = 400
"""The number of trials that are looked at, spread evenly over more."""

RESAMPLES, PERMUTATIONS = 200, 1000
COVERED = 0.95
"""The probability of the intervals, and the one with which no mark is passed by chance."""

FENCE = 1.5
"""Values that lie further outside the quartiles than this many interquartile ranges are brought there (Tukey 1977).

One candidate that learned nothing would otherwise outweigh all others.
"""

SIGNALS = np.linspace(0.05, 0.95, 19)
"""The shares of the variance, as the model supposes them beforehand, of which the likeliest is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The importance of a hyperparameter for an objective.

    Attributes:
        share: the share of the variance that its choices decide, 0 to 1.
        low, high: its 95 % interval under resampling of the trials.
        noise: the share that it would reach by chance if it decided nothing.
    """

    share: float
    low: float
    high: float
    noise: float

    @property
    def stands_out(self) -> bool:
        """Whether it is more than noise alone would give."""
        return self.share > self.noise


def importances(chosen: Sequence[Mapping[str, Hashable]], values: Sequence[float]) -> dict[str, Importance]:
    """Returns the importance of each hyperparameter for an objective, the largest first.

    Args:
        chosen: the hyperparameters of each trial; those that every trial has are looked at.
        values: the trials' values of the objective.

    Returns:
        Nothing where there are fewer than `FEWEST` trials, or all values are equal. A hyperparameter that has the same
        value in all trials is left out.
    """
    if len(values) < FEWEST or len(set(values)) == 1:
        return {}
    rows = np.unique(np.linspace(0, len(values) - 1, min(MOST, len(values))).round().astype(int))
    target = _fenced(np.asarray(values, float)[rows])
    names = [name for name in chosen[0] if all(name in trial for trial in chosen)]
    blocks = {name: _indicators([chosen[row][name] for row in rows]) for name in names}
    blocks = {name: block for name, block in blocks.items() if block.shape[1] > 1}
    if not blocks or not target.any():
        return {}
    with threadpool_limits(1, "blas"):  # matrices are too small for more threads, which would only wait for each other
        model = _Model.fitted(list(blocks.values()), target)
        shares = model.shares(target[:, None])[:, 0]
        generator = np.random.Generator(np.random.PCG64(0))
        spread = _resampled(model, target, generator)
        marks = _marks(model, target, generator)
    found = {
        name: Importance(share=float(share), low=float(low), high=float(high), noise=float(mark))
        for name, share, low, high, mark in zip(blocks, shares, *_intervals(shares, spread), marks, strict=True)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].share))


def _indicators(values: Sequence[Hashable]) -> Array:
    """Returns which of its choices each trial has (N, L), in an order that does not matter."""
    choices = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return np.eye(len(choices))[[choices[value] for value in values]]


def _fenced(values: Array) -> Array:
    """Returns values of mean 0 and variance 1, with those far outside brought nearer; zeros when all are equal."""
    low, high = np.quantile(values, [0.25, 0.75])
    if high > low:
        values = np.clip(values, low - FENCE * (high - low), high + FENCE * (high - low))
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros(len(values))


@dataclass(frozen=True, slots=True)
class _Model:
    """Effects of choices by ridge regression.

    Attributes:
        design: the indicators of all choices of all hyperparameters, centred (N, D). They are scaled so that a
            hyperparameter has the same variance beforehand as each other one, however many choices it has, and all
            together the variance 1.
        places: the columns of each hyperparameter.
        scales: the scale of each hyperparameter's columns.
        signal: the share of the variance that all hyperparameters have beforehand.
    """

    design: Array
    places: list[slice]
    scales: list[float]
    signal: float

    @classmethod
    def fitted(cls, indicators: Sequence[Array], target: Array) -> _Model:
        """Chooses the signal by the target's likelihood."""
        scales = [1 / math.sqrt(len(indicators) * (1 - 1 / block.shape[1])) for block in indicators]
        design = np.concatenate([scale * block for scale, block in zip(scales, indicators, strict=True)], axis=1)
        design -= design.mean(0)
        ends = np.cumsum([block.shape[1] for block in indicators]).tolist()
        places = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return cls(design, places, scales, _likeliest(design, target))

    def chosen(self, rows: NDArray[np.int64]) -> _Model:
        """Returns the model of other trials."""
        design = self.design[rows]
        return _Model(design - design.mean(0), self.places, self.scales, self.signal)

    def without(self, index: int, target: Array) -> _Model:
        """Returns the model without one hyperparameter, with the signal that is likeliest for it."""
        design = np.delete(self.design, self.places[index], axis=1)
        return _Model(design, [], [], _likeliest(design, target) if design.shape[1] else SIGNALS[0])

    def coefficients(self, targets: Array) -> Array:
        """Returns the coefficients (D, R) for centred targets (N, R)."""
        ridge = (1 - self.signal) / self.signal
        gram = self.design.T @ self.design + ridge * np.eye(self.design.shape[1])
        found: Array = np.asarray(np.linalg.solve(gram, self.design.T @ targets), np.float64)
        return found

    def fit(self, target: Array) -> tuple[Array, Array]:
        """Returns what the model predicts of a centred target (N,), and residuals that have the noise's variance.

        Where trials are few, a prediction follows their noise, and what it leaves is smaller than the noise is.
        """
        predicted = self.design @ self.coefficients(target[:, None])[:, 0]
        left = target - predicted
        return predicted, left * np.sqrt(_unexplained(left, target) / (left**2).mean())

    def shares(self, targets: Array) -> Array:
        """Returns the share of the variance of each hyperparameter (P, R) for centred targets (N, R)."""
        found = self.coefficients(targets)
        effects = [scale * found[place] for scale, place in zip(self.scales, self.places, strict=True)]
        variances = np.stack([effect.var(axis=0) for effect in effects])
        rest = _unexplained(targets - self.design @ found, targets)
        shares: Array = variances / (variances.sum(0) + rest)
        return shares


def _unexplained(left: Array, targets: Array) -> Array:
    """Returns the variance of what no hyperparameter explains, by the model's likelihood, from its plain residuals."""
    unexplained: Array = (left * targets).mean(0)
    return unexplained


def _likeliest(design: Array, target: Array) -> float:
    """Returns the share of `SIGNALS` under which the target (N,) is likeliest."""
    count = len(target)
    vectors, singular, _ = np.linalg.svd(design, full_matrices=False)
    inside = (vectors.T @ target) ** 2
    variances = SIGNALS[:, None] * singular**2 + (1 - SIGNALS[:, None])
    outside = (max(0.0, float(target @ target - inside.sum())), count - len(singular))
    squares = (inside / variances).sum(1) + outside[0] / (1 - SIGNALS)
    likelihoods = -count * np.log(squares) - np.log(variances).sum(1) - outside[1] * np.log(1 - SIGNALS)
    return float(SIGNALS[np.argmax(likelihoods)])


def _resampled(model: _Model, target: Array, generator: np.random.Generator) -> Array:
    """Returns shares (P, `RESAMPLES`) of trials drawn with replacement."""
    found = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, len(target), len(target))
        drawn = target[rows] - target[rows].mean()
        found.append(model.chosen(rows).shares(drawn[:, None])[:, 0])
    return np.stack(found, 1)


def _intervals(shares: Array, spread: Array) -> tuple[Array, Array]:
    """Returns the lower and upper ends.

    Resampling repeats trials, which shifts all shares, so that its median is brought to the shares first.
    """
    middle = np.median(spread, axis=1)
    low, high = np.quantile(spread, [(1 - COVERED) / 2, (1 + COVERED) / 2], axis=1)
    return np.clip(shares + low - middle, 0, 1), np.clip(shares + high - middle, 0, 1)


def _marks(model: _Model, target: Array, generator: np.random.Generator) -> Array:
    """Returns for each hyperparameter the share that it reaches by chance (P,)."""
    level = 1 - (1 - COVERED) / len(model.places)
    orders = np.argsort(generator.random((len(target), PERMUTATIONS)), axis=0)
    marks = []
    for index in range(len(model.places)):
        predicted, left = model.without(index, target).fit(target)
        permuted = predicted[:, None] + left[orders]
        marks.append(np.quantile(model.shares(permuted - permuted.mean(0))[index], level))
    return np.array(marks)
