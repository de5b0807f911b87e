"""The candidates that a new search begins with: reference networks, and the front of another study."""

from __future__ import annotations

from typing import Any

from nas.errors import SpecError
from nas.protocols import SearchSpace
from nas.types import Candidate, Measurement, Recipe
from search_spaces.draws import allows
from studies.reading.study import StudyReader
from studies.store.optuna_bridge import enqueued_params


def measured(source: StudyReader, study: StudyReader) -> dict[str, Measurement]:
    """Returns measurements of another study by digest, if both studies have the same data, noise, precision and seed.

    The recipe is part of the digest, epochs included. Trials of another version of the training code are left out.
    """
    for field in ("fingerprint", "subset", "task", "device", "precision", "seed"):
        if getattr(source.config, field) != getattr(study.config, field):
            return {}
    names = {o.name for o in study.config.objectives}
    return {digest: found for digest, found in source.measurements().items() if names <= set(found.values)}


def enqueue_front(source: StudyReader, study: StudyReader, space: SearchSpace) -> str:
    """Enqueues the front of another study, without candidates that are in this study or outside its space.

    Returns a line about it. A search that was stopped before it had enqueued them all continues with the rest.
    """
    known, count = _proposed(study), 0
    front = source.results(source.progress.front())
    for result in front:
        try:
            recipe = Recipe.from_dict({**result.recipe, "epochs": study.config.epochs})
            encoded = space.encode(Candidate(spec=space.spec(result.spec), recipe=recipe))
        except SpecError:
            continue
        params = {name: encoded.get(name) for name in study.distributions}
        if params not in known and all(allows(d, params[name]) for name, d in study.distributions.items()):
            study.optuna_study.enqueue_trial(params)
            known.append(params)
            count += 1
    line = f"warm start: {count or 'no further'} candidates from study {source.config.study}"
    if count and (others := sorted({result.training_version for result in front} - {study.training_version})):
        versions = " and ".join(map(str, others))
        line += (
            f"; candidates that version {versions} of the training code trained there are trained again, by version "
            f"{study.training_version}"
        )
    return line


def _proposed(study: StudyReader) -> list[dict[str, Any]]:
    """Returns the hyperparameters of a study's trials, including enqueued ones.

    Trials that failed, or that another version of the training code trained, are left out.
    """
    others = {
        record.number
        for record in study.trials()
        if record.outcome.group == "failed" or (record.outcome.trained and record.trained_by != study.training_version)
    }
    trials = study.optuna_study.get_trials(deepcopy=False)
    return [enqueued_params(trial) or trial.params for trial in trials if trial.number not in others]


def enqueue_baselines(study: StudyReader, space: SearchSpace, most: int | None = None) -> list[str]:
    """Enqueues the space's reference networks that the study does not have yet. Returns lines about them.

    Args:
        study: the study.
        space: the study's space.
        most: with more of them than this, or without any, none is enqueued and no line is returned.
    """
    config = study.config
    references = space.baselines(config.task, config.epochs, config.constraints)
    if not references:
        return [f"baselines: space {space.name} has none"] if most is None else []
    known = _proposed(study)
    enqueued: dict[str, dict[str, Any]] = {}
    left_out = []
    for name, candidate in references.items():
        encoded = space.encode(candidate)
        params = {gene: encoded.get(gene) for gene in study.distributions}
        outside = [gene for gene, d in study.distributions.items() if not allows(d, params[gene])]
        cost = space.cost(candidate.spec, config.task)
        over = [c.name for c in config.constraints if c.violation(cost) > 0]
        if outside:
            left_out.append(f"{name} ({outside[0]} {params[outside[0]]} is not in the study's space)")
        elif space.decode(params, config.task, config.epochs) != candidate:
            left_out.append(f"{name} (not in the study's space)")
        elif over:
            left_out.append(f"{name} (over the limit of {over[0]})")
        elif params not in known:
            known.append(params)
            enqueued[name] = params
    if most is not None and len(enqueued) > most:
        return []
    for name, params in enqueued.items():
        study.optuna_study.enqueue_trial(params, user_attrs={"baseline": name})
    lines = [f"baselines: {', '.join(enqueued)}" if enqueued else "baselines: none that the study does not hold"]
    return [*lines, *([f"left out: {', '.join(left_out)}"] if left_out else [])]
