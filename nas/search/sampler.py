"""Proposals for a study: samplers by name, seeded by trial and asked again until a proposal is new and within limits.

``bayes`` and ``tpe`` learn from every trained trial, stopped and diverged ones included, ``gp`` and ``nsga2`` from
complete trials alone, ``random`` and ``qmc`` from none. Trials of another version of the training code count too,
because they show where good networks may lie, and a study would otherwise begin anew with each version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler

from nas.errors import ConfigError
from nas.search.bayes import bayes_draws
from nas.search.past import Acceptable, Past, Propose, Sketch
from nas.search.prior import Prior
from nas.search.tpe import ranked_tpe
from nas.types import Cost, Objective

TRIES = 20
"""The number of draws of an Optuna sampler after which plain random draws take over, and the number of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One trial for which a sampler proposes hyperparameters.

    Attributes:
        number: number of the trial.
        seed: seed of the trial, from the study's seed and the number.
        study_seed: seed of the study.
        space: every hyperparameter.
        objectives: objectives of the values that `past` has.
        past: past of the study.
        acceptable: tells whether a proposal may be trained. A sampler need not ask it, because its next draw is taken
            after one that is not acceptable.
        sketch: returns the candidate of a proposal, or None for one that is not valid.
        prior: earlier trials of other tasks.
        max_macs: the limit of MACs, 0 for none.
    """

    number: int
    seed: int
    study_seed: int
    space: Mapping[str, BaseDistribution]
    objectives: Sequence[Objective]
    past: Past
    acceptable: Acceptable
    sketch: Callable[[Mapping[str, Any]], Sketch | None]
    prior: Prior
    max_macs: int


Sampler = Callable[[Question], Iterator[dict[str, Any]]]
"""Draws for one trial, each with every hyperparameter. The first acceptable draw becomes the proposal."""


def _tpe(question: Question) -> Iterator[dict[str, Any]]:
    """Yields one draw: the best acceptable one of many, or a random one while TPE has nothing to learn from."""
    found = ranked_tpe(
        question.number,
        question.past,
        seed=question.seed,
        space=question.space,
        objectives=question.objectives,
        acceptable=question.acceptable,
    )
    yield found or next(random_draws(question.seed, question.space))


def optunas(make: Callable[[Question], BaseSampler]) -> Sampler:
    """Makes a sampler of one of Optuna's, which alone need a study and a trial in it."""

    def draws(question: Question) -> Iterator[dict[str, Any]]:
        sampler = make(question)
        study, trial = question.past.as_optuna(question.number)
        sampler.before_trial(study, trial)
        relative = sampler.infer_relative_search_space(study, trial)
        for _ in range(TRIES):
            params = sampler.sample_relative(study, trial, relative)
            for name, distribution in question.space.items():
                if name not in params:
                    params[name] = sampler.sample_independent(study, trial, name, distribution)
            yield params

    return draws


def random_draws(seed: int, space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Yields draws in which every hyperparameter is independent, again and again."""
    sampler, nothing = RandomSampler(seed), None
    while True:  # it looks at neither study nor trial
        yield {name: sampler.sample_independent(nothing, nothing, name, space[name]) for name in space}  # type: ignore[arg-type]


SAMPLERS: dict[str, Sampler] = {
    "bayes": bayes_draws,
    "tpe": _tpe,
    "gp": optunas(lambda question: GPSampler(seed=question.seed)),
    "nsga2": optunas(lambda question: NSGAIISampler(seed=question.seed, population_size=20)),
    "random": lambda question: islice(random_draws(question.seed, question.space), TRIES),
    # The study seeds the sequence and its scrambling; the trial seeds the categories, which the sequence cannot draw.
    "qmc": optunas(
        lambda question: QMCSampler(
            scramble=True,
            seed=question.study_seed,
            independent_sampler=RandomSampler(question.seed),
            warn_independent_sampling=False,
        )
    ),
}

AUTO = "bayes"
"""The sampler that a new study gets for ``auto``: see docs/samplers.md for the comparison."""

AUTO_BEFORE = "tpe"
"""The sampler of studies that have kept ``auto``, which older versions wrote."""

CHOICES = ("auto", *SAMPLERS)


NO_PRIOR = Prior()


def plain_sketch(params: Mapping[str, Any]) -> Sketch:
    """Returns a candidate of which nothing is known but its hyperparameters."""
    return Sketch(params=params, digest=str(params), cost=Cost(params=0, macs=0), batch_size=1, fits=True)


def proposer(
    name: str,
    seed: int,
    space: Mapping[str, BaseDistribution],
    objectives: Sequence[Objective],
    acceptable: Acceptable,
    *,
    sketch: Callable[[Mapping[str, Any]], Sketch | None] = plain_sketch,
    prior: Prior = NO_PRIOR,
    max_macs: int = 0,
) -> Propose:
    """Returns the function that proposes the trials of a study.

    Each proposal depends on the study's seed, the trial's number and the stored study alone, so a search that was
    stopped and continued proposes the same as one that was not. When neither the sampler's draws nor `TRIES` random
    ones are acceptable, the last one is proposed, and the caller records why it is not trained.

    Args:
        name: one of `CHOICES`.
        seed: seed of the study.
        space: every hyperparameter.
        objectives: objectives of the study.
        acceptable: tells whether a proposal may be trained.
        sketch: returns the candidate of a proposal, or None for one that is not valid; by default one without costs.
        prior: earlier trials of other tasks; none by default.
        max_macs: the limit of MACs; 0 for none.

    Raises:
        ConfigError: the name is not known.
    """
    if name != "auto" and name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is not known; choose from {', '.join(CHOICES)}")
    sampler = SAMPLERS[AUTO_BEFORE if name == "auto" else name]

    def propose(number: int, past: Past) -> dict[str, Any]:
        trial_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        question = Question(
            number=number,
            seed=trial_seed,
            study_seed=seed,
            space=space,
            objectives=objectives,
            past=past,
            acceptable=acceptable,
            sketch=sketch,
            prior=prior,
            max_macs=max_macs,
        )
        params: dict[str, Any] = {}
        for params in chain(sampler(question), islice(random_draws(trial_seed, space), TRIES)):
            if acceptable(params):
                break
        return params

    return propose
