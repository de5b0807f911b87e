"""Where proposals come from: Optuna's samplers, seeded by trial and asked again until a proposal is new.

What each learns from: ``tpe`` from every trained trial, stopped and diverged ones included, by `RankedTPE`;
``gp`` and ``nsga2`` from COMPLETE trials alone; ``random`` and ``qmc`` from none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nas.errors import ConfigError
from nas.pareto import best_subset
from nas.types import Objective

TRIES = 20
"""Draws of the sampler before plain random ones take over, for as many tries again."""


Judged = Mapping[int, tuple[int, tuple[float, ...]]]
"""Trial number -> (epoch up to which it was judged, values there); () for one that diverged."""

KNOWN = 250
"""Trials that TPE is shown at most: the 25 best and a random choice of the others, so that it stays cheap."""


class RankedTPE(BaseSampler):
    """Tree-structured Parzen estimator over trials that are ranked by rung, then by non-domination.

    Optuna's own treatment of several objectives puts stopped trials into the good set when few are
    complete, and needs their values where a study must not have any. Here the good set is the best tenth
    of all trained trials: those judged at the highest epoch first, within an epoch by `best_subset`. It
    is handed to Optuna's univariate TPE as a single objective in memory. Trials under way count as bad,
    which keeps parallel proposals apart.

    Args:
        seed: of this sampler.
        judged: what is known of trained trials.
        objectives: of the judged values.
    """

    def __init__(self, seed: int, judged: Callable[[], Judged], objectives: Sequence[Objective]) -> None:
        self._judged, self._objectives = judged, objectives
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed)
        self._tpe = TPESampler(seed=seed, n_startup_trials=0, constant_liar=False)
        self._ranked: optuna.Study | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._ranked is None:
            self._ranked = self._rank(study, trial)
        sampler = self._tpe if self._ranked.get_trials(deepcopy=False) else self._random
        return sampler.sample_independent(self._ranked, trial, param_name, param_distribution)

    def _rank(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """The trials worth knowing, as a study of one objective: 0 for the good ones, 1 for the others."""
        ranked = optuna.create_study()
        judged = self._judged()
        if len(judged) < STARTUP_TRIALS:
            return ranked
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = {t.number: t for t in study.get_trials(deepcopy=False, states=states) if t.number != trial.number}
        # Optuna's default takes this share of a study of one objective for its good set.
        good = set(best_judged(judged, math.ceil(0.1 * min(len(trials), KNOWN)), self._objectives))
        others = sorted(trials.keys() - good)
        if len(others) > KNOWN - len(good):
            others = self._rng.choice(others, KNOWN - len(good), replace=False).tolist()
        # In order of their numbers: the estimator weighs later observations more.
        for number in sorted([*good, *others]):
            known = trials[number]
            ranked.add_trial(
                optuna.create_trial(
                    params=known.params, distributions=known.distributions, value=float(number not in good)
                )
            )
        return ranked


def best_judged(judged: Judged, count: int, objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the `count` best trials: by epoch, and within an epoch by `nas.pareto.best_subset`.

    Trials without values come last and are never among them.
    """
    epochs = sorted({epoch for epoch, values in judged.values() if values}, reverse=True)
    chosen: list[int] = []
    for epoch in epochs:
        numbers = [number for number, (at, values) in judged.items() if values and at == epoch]
        values = np.array([judged[number][1] for number in numbers])
        rows = best_subset(values, count - len(chosen), [o.direction == "maximize" for o in objectives])
        chosen += [numbers[row] for row in rows]
        if len(chosen) >= count:
            break
    return chosen


STARTUP_TRIALS = 10
"""Trained trials before TPE takes over from random draws."""


def _qmc(seed: int, trial_seed: int, judged: object, objectives: object) -> BaseSampler:
    # The sequence is the study's, so its scrambling is; what it cannot draw (categories) is the trial's.
    return QMCSampler(
        scramble=True, seed=seed, independent_sampler=RandomSampler(trial_seed), warn_independent_sampling=False
    )


SAMPLERS: dict[str, Callable[[int, int, Callable[[], Judged], Sequence[Objective]], BaseSampler]] = {
    "tpe": lambda seed, trial_seed, judged, objectives: RankedTPE(trial_seed, judged, objectives),
    "gp": lambda seed, trial_seed, judged, objectives: GPSampler(seed=trial_seed),
    "nsga2": lambda seed, trial_seed, judged, objectives: NSGAIISampler(seed=trial_seed, population_size=20),
    "random": lambda seed, trial_seed, judged, objectives: RandomSampler(seed=trial_seed),
    "qmc": _qmc,
}
AUTO = "tpe"
"""What ``auto`` stands for: the best of them that stays cheap with many trials and learns from stopped ones."""

CHOICES = ("auto", *SAMPLERS)


class NovelSampler(BaseSampler):
    """An Optuna sampler that draws again while its proposal is not acceptable.

    A new base sampler is made for each trial from the study's seed and the trial's number, so proposals
    depend on the stored study alone: a search that is stopped and continued proposes the same as one
    that was not.

    Args:
        name: one of `CHOICES`.
        seed: the study's seed.
        space: every hyperparameter; all are drawn here.
        judged, objectives: what is known of trained trials, for samplers that learn from stopped ones.
        acceptable: whether a proposal may be trained (new, and within its limits). When `2 * TRIES`
            draws give none, the last one is returned and the searcher records why it is not trained.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        space: Mapping[str, BaseDistribution],
        judged: Callable[[], Judged],
        objectives: Sequence[Objective],
        acceptable: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        if name not in CHOICES:
            raise ConfigError(f"sampler {name!r} is not known; choose from {', '.join(CHOICES)}")
        make = SAMPLERS[AUTO if name == "auto" else name]
        self._make = lambda seed, trial_seed: make(seed, trial_seed, judged, objectives)
        self._seed = seed
        self._space = dict(space)
        self._acceptable = acceptable

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trial_seed = self._trial_seed(trial)
        base = self._make(self._seed, trial_seed)
        base.before_trial(study, trial)
        relative = base.infer_relative_search_space(study, trial)
        fallback = RandomSampler(trial_seed)
        params: dict[str, Any] = {}
        for attempt in range(2 * TRIES):
            params = base.sample_relative(study, trial, relative) if attempt < TRIES else {}
            independent = base if attempt < TRIES else fallback
            for name, distribution in search_space.items():
                if name not in params:
                    params[name] = independent.sample_independent(study, trial, name, distribution)
            if self._acceptable(params):
                break
        return params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Only reached for an enqueued trial that leaves a hyperparameter open."""
        base = self._make(self._seed, self._trial_seed(trial))
        return base.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._make(self._seed, self._trial_seed(trial)).after_trial(study, trial, state, values)

    def _trial_seed(self, trial: FrozenTrial) -> int:
        return int(np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0])
