"""Studies and spaces as facts (for ``--json``) and as lines (for people)."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError
from nas.types import Task
from search_spaces import SPACES, get_space

if TYPE_CHECKING:
    from nas.protocols import SearchSpace
    from studies.ledger import SqlLedger
    from studies.storage import StudySummary

DRAWS_PER_SAMPLE = 1000
"""Draws tried for each sampled architecture before the limits are called too tight."""


def summary_facts(summary: StudySummary) -> dict[str, Any]:
    """A line of ``studies list``."""
    config = summary.config
    return {
        "study": summary.name,
        "space": config.space,
        "data": config.data,
        "noise": config.task.noise,
        "counts": dataclasses.asdict(summary.counts),
        "trained": summary.counts.trained,
        "best": dict(summary.best),
        "created": summary.created,
        "updated": summary.updated,
        "command": summary.command,
    }


def study_facts(ledger: SqlLedger) -> dict[str, Any]:
    """Everything that is fixed in a study, how its trials ended, and where it comes from."""
    counts = ledger.counts()
    return {
        "config": ledger.config.to_dict(),
        "counts": dataclasses.asdict(counts) | {"trained": counts.trained},
        "front": ledger.front(),
        "hyperparameters": {name: choices(d) for name, d in ledger.distributions.items()},
        "provenance": {key: value for key, value in ledger.provenance.items() if key != "data_root"},
        "command": ledger.command,
        "created": ledger.created,
        "ended_early": [
            {"trial": record.number, "reason": record.reason, "detail": record.detail}
            for record in ledger.trials()
            if record.reason
        ],
    }


def study_lines(ledger: SqlLedger) -> list[str]:
    """`study_facts` for people: the last line of a traceback stands for the whole, which ``--json`` has."""
    facts = study_facts(ledger)
    config, counts, task = ledger.config, facts["counts"], ledger.config.task
    reasons: dict[str, list[str]] = {}
    for ended in facts["ended_early"]:
        reasons.setdefault(ended["reason"], []).append(str(ended["trial"]))
    lines = [
        f"study       {config.study}, made {time.strftime('%Y-%m-%d %H:%M', time.localtime(ledger.created))}",
        f"command     {ledger.command}",
        f"space       {config.space} (version {config.space_version}), {len(ledger.distributions)} hyperparameters",
        f"data        {config.data}, {task.channels}x{task.height}x{task.width}, {task.classes} classes, "
        f"fingerprint {config.fingerprint}" + (f", {config.subset} training images" if config.subset else ""),
        f"noise       {task.noise}",
        f"training    {config.epochs} epochs, {config.device}, {config.precision}, {config.threads} threads, "
        f"seed {config.seed}, sampler {config.sampler}",
        "objectives  " + ", ".join(f"{o.name} ({o.direction}, from {o.reference:.4g})" for o in config.objectives),
        "limits      " + ", ".join(f"{c.name} <= {c.upper:,}" for c in config.constraints),
        f"trials      {counts['trained']} trained: {counts['complete']} complete, {counts['pruned']} pruned; "
        f"{counts['failed']} failed, {counts['running']} running, {counts['waiting']} waiting",
        f"front       {', '.join(map(str, facts['front'])) or 'empty'}",
        "versions    " + ", ".join(f"{k} {v}" for k, v in facts["provenance"].get("versions", {}).items()),
    ]
    for reason, numbers in reasons.items():
        lines.append(f"{reason:<11} trials {', '.join(numbers)}")
    for ended in facts["ended_early"]:
        if ended["detail"]:
            lines.append(f"trial {ended['trial']}: {ended['reason']}: {ended['detail'].strip().splitlines()[-1]}")
    return lines


def space_facts(
    name: str | None, *, sample: int = 0, data: str = "digits", data_root: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """The spaces as a task sees them: hyperparameters, number of combinations, limits, and drawn specs.

    Raises:
        ConfigError: an unknown space, or limits so tight that no architecture was found.
    """
    from nas.data import load

    for option, value in (("--sample", sample), ("--seed", seed)):
        if value < 0:
            raise ConfigError(f"{option} is {value}; give at least 0")
    spaces = [get_space(name)] if name else list(SPACES.values())
    loaded = load(data, root=data_root)
    _, channels, height, width = loaded.train.images.shape
    task = Task(channels=channels, classes=len(loaded.classes), height=height, width=width, noise="gaussian:50")
    return {
        "task": dataclasses.asdict(task),
        "spaces": [_space_facts(space, task, sample, seed) for space in spaces],
    }


def _space_facts(space: SearchSpace, task: Task, sample: int, seed: int) -> dict[str, Any]:
    distributions = space.distributions(task)
    facts: dict[str, Any] = {
        "space": space.name,
        "version": space.version,
        "hyperparameters": {name: choices(d) for name, d in distributions.items()},
        "combinations": math.prod(len(choices(d)) for d in distributions.values()),
        "limits": {c.name: c.upper for c in space.limits(task)},
    }
    if sample:
        facts["sample"] = _sample(space, task, sample, seed)
    return facts


def _sample(space: SearchSpace, task: Task, count: int, seed: int) -> list[dict[str, Any]]:
    import numpy as np

    generator = np.random.default_rng(seed)
    options = {name: choices(d) for name, d in space.distributions(task).items()}
    found: dict[str, dict[str, Any]] = {}
    for _ in range(DRAWS_PER_SAMPLE * count):
        params = {name: values[generator.integers(len(values))] for name, values in options.items()}
        candidate = space.decode(params, task, 1)
        cost = space.cost(candidate.spec, task)
        if all(c.violation(cost) <= 0 for c in space.limits(task)):
            spec = candidate.spec.to_dict()
            found.setdefault(candidate.digest, {"spec": spec, "params": cost.params, "macs": cost.macs})
        if len(found) == count:
            return list(found.values())
    raise ConfigError(f"--sample {count}: only {len(found)} architectures of {space.name!r} were found; ask for fewer")


def space_lines(facts: Mapping[str, Any]) -> list[str]:
    """`space_facts` for people."""
    task = facts["task"]
    lines = [f"for images of {task['channels']}x{task['height']}x{task['width']} in {task['classes']} classes"]
    for space in facts["spaces"]:
        limits = ", ".join(f"{name} <= {upper:,}" for name, upper in space["limits"].items())
        lines += [
            "",
            f"{space['space']} (version {space['version']}): {space['combinations']:,} combinations, {limits}",
        ]
        width = max(map(len, space["hyperparameters"]))
        lines += [
            f"  {name:<{width}}  {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}"
            for name, values in space["hyperparameters"].items()
        ]
        for drawn in space.get("sample", ()):
            spec = ", ".join(f"{key} {value}" for key, value in drawn["spec"].items())
            lines.append(f"  {drawn['params']:,} params, {drawn['macs']:,} MACs: {spec}")
    return lines


def choices(distribution: Any) -> list[Any]:
    """Every value of a discrete distribution of Optuna, in order."""
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    values = [distribution.low]
    while values[-1] + distribution.step <= distribution.high:
        values.append(values[-1] + distribution.step)
    return values
