"""Where proposals come from: Optuna's samplers, seeded by trial and asked again until a proposal is new.

What each learns from: ``tpe`` from every trained trial, stopped and diverged ones included, by `RankedTPE`;
``gp`` and ``nsga2`` from COMPLETE trials alone; ``random`` and ``qmc`` from none. Trials of another version of the
training code teach as well: they only say where to look, and a study would otherwise begin anew with each version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler
from optuna.trial import FrozenTrial

from nas.errors import ConfigError
from nas.search.tpe import Acceptable, Past, RankedTPE
from nas.types import Objective, digest_of

TRIES = 20
"""Draws of the sampler before plain random ones take over, for as many tries again."""


def _qmc(seed: int, trial_seed: int, *_: object) -> BaseSampler:
    # The sequence is the study's, so its scrambling is; what it cannot draw (categories) is the trial's.
    return QMCSampler(
        scramble=True, seed=seed, independent_sampler=RandomSampler(trial_seed), warn_independent_sampling=False
    )


Maker = Callable[[int, int, Past, Sequence[Objective], Mapping[str, BaseDistribution], Acceptable], BaseSampler]
"""(the study's seed, the trial's seed, past, objectives, space, acceptable) -> sampler"""

SAMPLERS: dict[str, Maker] = {
    "tpe": lambda seed, *rest: RankedTPE(*rest),
    "gp": lambda seed, trial_seed, *_: GPSampler(seed=trial_seed),
    "nsga2": lambda seed, trial_seed, *_: NSGAIISampler(seed=trial_seed, population_size=20),
    "random": lambda seed, trial_seed, *_: RandomSampler(seed=trial_seed),
    "qmc": _qmc,
}

AUTO = "tpe"
"""What ``auto`` stands for: it stays cheap with many trials and learns from stopped ones."""

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
        past, objectives: what is known of trials, for samplers that learn from stopped ones.
        acceptable: when neither the sampler's draws nor as many plain random ones give such a proposal, the last
            one is returned, and the searcher records why it is not trained.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        space: Mapping[str, BaseDistribution],
        past: Past,
        objectives: Sequence[Objective],
        acceptable: Acceptable,
    ) -> None:
        if name not in CHOICES:
            raise ConfigError(f"sampler {name!r} is not known; choose from {', '.join(CHOICES)}")
        make = SAMPLERS[AUTO if name == "auto" else name]
        self._make: Callable[[int, int], BaseSampler] = lambda seed, trial_seed: make(
            seed, trial_seed, past, objectives, space, acceptable
        )
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
        tries = 1 if isinstance(base, RankedTPE) else TRIES  # which draws many itself
        params: dict[str, Any] = {}
        for attempt in range(tries + TRIES):
            params = base.sample_relative(study, trial, relative) if attempt < tries else {}
            independent = base if attempt < tries else fallback
            for name, distribution in search_space.items():
                if name not in params:
                    params[name] = independent.sample_independent(study, trial, name, distribution)
            if self._acceptable(params):
                break
        return params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A hyperparameter that the space does not have, asked for by somebody else: at random, each for itself."""
        seed = np.random.SeedSequence((self._seed, trial.number, int(digest_of(param_name), 16)))
        sampler = RandomSampler(int(seed.generate_state(1)[0]))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _trial_seed(self, trial: FrozenTrial) -> int:
        return int(np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0])
