"""Where proposals come from: Optuna's samplers, seeded by trial and asked again until a proposal is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nas.errors import ConfigError

TRIES = 20
"""Draws of the sampler before plain random ones take over, for as many tries again."""


def _qmc(seed: int, trial_seed: int) -> BaseSampler:
    # The sequence is the study's, so its scrambling is; what it cannot draw (categories) is the trial's.
    return QMCSampler(
        scramble=True, seed=seed, independent_sampler=RandomSampler(trial_seed), warn_independent_sampling=False
    )


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, trial_seed: TPESampler(seed=trial_seed),
    "gp": lambda seed, trial_seed: GPSampler(seed=trial_seed),
    "nsga2": lambda seed, trial_seed: NSGAIISampler(seed=trial_seed, population_size=20),
    "random": lambda seed, trial_seed: RandomSampler(seed=trial_seed),
    "qmc": _qmc,
}
AUTO = "tpe"
"""What ``auto`` stands for: univariate TPE, the best of Optuna's that stays cheap with many trials."""

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
        acceptable: whether a proposal may be trained (new, and within its limits). When `2 * TRIES`
            draws give none, the last one is returned and the searcher records why it is not trained.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        space: Mapping[str, BaseDistribution],
        acceptable: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        if name not in CHOICES:
            raise ConfigError(f"sampler {name!r} is not known; choose from {', '.join(CHOICES)}")
        self._make = SAMPLERS[AUTO if name == "auto" else name]
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
