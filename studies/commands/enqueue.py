"""The candidates that a new search begins with: reference networks, and the front of another study."""

from __future__ import annotations

from typing import Any

from nas.errors import SpecError
from nas.protocols import SearchSpace, prior_of, sketched
from nas.search.bayes import merits_before
from nas.types import Candidate, Measurement, Recipe
from search_spaces.draws import allows
from studies.reading.study import StudyReader
from studies.store.optuna_bridge import enqueued_params

REFERENCES = 8
"""A search with a prior begins with one reference network for so many trials."""


def measured(source: StudyReader, study: StudyReader) -> dict[str, Measurement]:
    """Returns measurements of another study by digest, if both have the same data, noise, precision and seed, and
    measure latency alike.

    The recipe is part of the digest, epochs included. Trials of another version of the training code are left out.
    """
    for field in ("fingerprint", "subset", "task", "device", "precision", "seed", "latency"):
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
    trials = study.optuna_trials()
    return [enqueued_params(trial) or trial.params for trial in trials if trial.number not in others]


def enqueue_baselines(study: StudyReader, space: SearchSpace, trials: int | None = None) -> list[str]:
    """Enqueues the space's reference networks that the study does not have yet. Returns lines about them.

    Args:
        study: the study.
        space: the study's space.
        trials: the size of the search, of which they take at most a part: an eighth, those that promise most, if the
            study has a prior; else half, or none at all. No line is returned when none is enqueued. None takes all.
    """
    config = study.config
    references = space.baselines(config.task, config.epochs, config.constraints)
    if not references:
        return [f"baselines: space {space.name} has none"] if trials is None else []
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
    if trials is not None:
        enqueued = _some(study, space, enqueued, trials)
        if not enqueued:
            return []
    for name, params in enqueued.items():
        study.optuna_study.enqueue_trial(params, user_attrs={"baseline": name})
    lines = [f"baselines: {', '.join(enqueued)}" if enqueued else "baselines: none that the study does not hold"]
    return [*lines, *([f"left out: {', '.join(left_out)}"] if left_out else [])]


def _some(
    study: StudyReader, space: SearchSpace, references: dict[str, dict[str, Any]], trials: int
) -> dict[str, dict[str, Any]]:
    """Returns the reference networks that a search of some trials begins with of its own accord."""
    prior = prior_of(space, study.config, study.distributions)
    if not prior.trials:
        return references if len(references) <= trials // 2 else {}
    sketches = [sketched(space, params, study.config) for params in references.values()]
    there = [(name, sketch) for name, sketch in zip(references, sketches, strict=True) if sketch is not None]
    config = study.config
    merits = merits_before(
        study.distributions, config.objectives, prior, config.max_macs, [sketch for _, sketch in there]
    )
    best = sorted(range(len(there)), key=lambda row: -merits[row])[: trials // REFERENCES]
    return {there[row][0]: references[there[row][0]] for row in best}
