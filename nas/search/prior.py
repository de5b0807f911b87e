"""Earlier trials of other tasks, from which a search of the same space begins to learn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.types import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """One candidate that was trained for another task.

    Attributes:
        task: a number for the task.
        hyperparameters: the candidate, canonical (`nas.protocols.SearchSpace.encode`).
        params, macs: its costs.
        scores: its value by metric as `nas.search.bayes.score` gives it, against the best of its task.
    """

    task: int
    hyperparameters: Mapping[str, Any]
    params: int
    macs: int
    scores: Mapping[str, float]

    @property
    def cost(self) -> Cost:
        """Its costs."""
        return Cost(params=self.params, macs=self.macs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What the earlier trials say of one metric.

    Attributes:
        unit: typical shortfall from the best value of a task, in the metric's unit (see `nas.search.bayes.score`).
        noise: variance of a score over seeds.
        variance: variance of a score among candidates.
        coupling: covariance of the scores of one candidate in two tasks, as a share of their variance.
        relevance: how much each hyperparameter and each cost matters (see `nas.search.codes.Codes.weights`).
    """

    unit: float
    noise: float
    variance: float
    coupling: float
    relevance: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is known of a space before a search begins.

    Attributes:
        trials: earlier trials.
        beliefs: what they say, by metric.
        step_macs: the time that a training step takes whatever its network computes, as the number of MACs of one image
            that take as long (see `nas.search.bayes.effort`).
        training_version: version of the training code that trained the trials.
    """

    trials: Sequence[EarlierTrial] = ()
    beliefs: Mapping[str, Belief] = field(default_factory=dict)
    step_macs: float = 0.0
    training_version: int = 0

    @classmethod
    def read(cls, path: Path) -> Prior:
        """Reads a prior from its JSON file.

        Raises:
            ConfigError: the file is no prior.
        """
        try:
            found = json.loads(path.read_text())
            names, known = found["names"], found["choices"]
            trials = [
                EarlierTrial(
                    task=task,
                    hyperparameters={n: known[n][i] for n, i in zip(names, indices, strict=True)},
                    params=params,
                    macs=macs,
                    scores=dict(zip(found["metrics"], scores, strict=True)),
                )
                for task, indices, params, macs, scores in found["trials"]
            ]
            beliefs = {metric: Belief(**belief) for metric, belief in found["beliefs"].items()}
            return cls(
                trials=trials,
                beliefs=beliefs,
                step_macs=found["step_macs"],
                training_version=found["training_version"],
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ConfigError(f"prior {path} cannot be read ({error}); make it anew") from None
