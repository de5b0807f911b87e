"""Studies and spaces as facts (for ``--json``) and as lines (for people)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError
from nas.search.objectives import METRICS, metric_of, titled
from nas.settings import kept_settings
from nas.types import Recipe, Task
from search_spaces import SPACES, get_space
from search_spaces.draws import choices, is_discrete, sampled
from studies.commands.text import columns
from studies.reading.versions import training_versions, versions_line

if TYPE_CHECKING:
    from nas.protocols import SearchSpace
    from studies.reading.study import StudyReader
    from studies.store.catalog import StudySummary

_TRIAL_FIELDS = (
    "reason",
    "digest",
    "values",
    "params",
    "macs",
    "epochs_done",
    "seconds",
    "peak_memory",
    "seed",
    "training_version",
    "spec",
    "recipe",
)

_UNITS = {"seconds": "{:,.1f} s", "peak_memory": "{:,.0f} MiB"}
"""The fields of a trial that have a unit and are no metric."""

COUNTED = 20_000
"""Combinations up to which distinct architectures are counted one by one, and draws that estimate more."""


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


def list_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns `summary_facts` of several studies as a table."""
    names = ("study", "space", "data", "noise", "trained")
    cells = [(*(row[n] for n in names), row["counts"]["running"], row["counts"]["failed"]) for row in rows]
    return columns((*names, "running", "failed"), cells)


def study_facts(study: StudyReader) -> dict[str, Any]:
    """Everything that is fixed in a study, how its trials ended, and where it comes from."""
    counts = study.progress.counts()
    return {
        "config": study.config.to_dict(),
        "settings": kept_settings(study.config),
        "counts": dataclasses.asdict(counts) | {"trained": counts.trained},
        "training_versions": training_versions(study),
        "front": study.progress.front(),
        "hyperparameters": {name: _shown(d) for name, d in study.distributions.items()},
        "provenance": {key: value for key, value in study.provenance.items() if key != "data_root"},
        "command": study.command,
        "created": study.created,
        "ended_early": [
            {"trial": record.number, "reason": record.reason, "detail": record.detail}
            for record in study.trials()
            if record.outcome.ended_early
        ],
    }


def study_lines(study: StudyReader, facts: Mapping[str, Any]) -> list[str]:
    """`study_facts` for people: the last line of a traceback stands for the whole, which ``--json`` has."""
    config, counts, task = study.config, facts["counts"], study.config.task
    reasons: dict[str, list[str]] = {}
    for ended in facts["ended_early"]:
        reasons.setdefault(ended["reason"], []).append(str(ended["trial"]))
    lines = [
        f"study       {config.study}, made {time.strftime('%Y-%m-%d %H:%M', time.localtime(study.created))}",
        f"command     {study.command}",
        f"space       {config.space} (version {config.space_version}), {len(study.distributions)} hyperparameters",
        f"data        {config.data}, {task.channels}x{task.height}x{task.width}, {task.classes} classes, "
        f"fingerprint {config.fingerprint}" + (f", {config.subset} training images" if config.subset else ""),
        "settings    " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts["settings"].items()),
        f"training    {config.device}, {config.threads} threads; begun by version {config.training_version} of the "
        "training code",
        "objectives  "
        + ", ".join(
            f"{o.name} ({o.direction}, from {metric_of(o.name).figure(o.reference)})" for o in config.objectives
        ),
        f"trials      {counts['trained']} trained: {counts['complete']} complete, {counts['pruned']} pruned; "
        f"{counts['failed']} failed, {counts['running']} running, {counts['waiting']} waiting",
        f"front       {', '.join(map(str, facts['front'])) or 'empty'}",
        "versions    " + ", ".join(f"{k} {v}" for k, v in facts["provenance"].get("versions", {}).items()),
    ]
    if told := versions_line(facts["training_versions"]):
        lines.append(told)
    for reason, numbers in reasons.items():
        lines.append(f"{reason:<11} trials {', '.join(numbers)}")
    for ended in facts["ended_early"]:
        if ended["detail"]:
            lines.append(f"trial {ended['trial']}: {ended['reason']}: {ended['detail'].strip().splitlines()[-1]}")
    return lines


def trial_facts(study: StudyReader, number: int) -> dict[str, Any]:
    """Everything that is recorded of a trial. Raises StudyError when there is nothing."""
    record = study.trial(number)
    facts = {name: getattr(record, name) for name in _TRIAL_FIELDS} | {"training_version": record.trained_by}
    return {"trial": number, "state": record.outcome.state.lower(), **facts, "detail": record.detail}


def trial_lines(facts: Mapping[str, Any]) -> list[str]:
    """`trial_facts` for people; a traceback comes last, in full."""
    lines = []
    for name, value in facts.items():
        if value is None or value == "" or name == "detail":
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {_shown_fact(k, v)}" for k, v in value.items())
        elif name in _UNITS:
            value = _UNITS[name].format(value)
        elif name in METRICS:
            value = _shown_fact(name, value)
        lines.append(f"{name.replace('_', ' '):<12} {value}")
    return [*lines, *(["", *facts["detail"].rstrip().splitlines()] if facts["detail"] else [])]


def _shown_fact(name: str, value: Any) -> str:
    if name in METRICS:
        return METRICS[name].text(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def space_facts(
    name: str | None, *, sample: int = 0, data: str = "digits", data_root: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """The spaces as a task sees them: hyperparameters, number of combinations, limits, and drawn specs.

    Raises:
        ConfigError: an unknown space, or limits so tight that no architecture was found.
    """
    from nas.data.splits import load
    from nas.data.white import White

    spaces = [get_space(name)] if name else list(SPACES.values())
    task = load(data, root=data_root, white=White(ask=False)).task("gaussian:50")
    return {
        "task": dataclasses.asdict(task),
        "spaces": [_space_facts(space, task, sample, seed, COUNTED // len(spaces)) for space in spaces],
    }


def _space_facts(space: SearchSpace, task: Task, sample: int, seed: int, draws: int) -> dict[str, Any]:
    distributions = space.distributions(task)
    discrete = all(map(is_discrete, distributions.values()))
    facts: dict[str, Any] = {
        "space": space.name,
        "version": space.version,
        "hyperparameters": {name: _shown(d) for name, d in distributions.items()},
        "combinations": math.prod(len(choices(d)) for d in distributions.values()) if discrete else None,
        "architectures": _architectures(space, task, draws) if discrete else None,
        "limits": {c.name: c.upper for c in space.limits(task)},
    }
    if sample:
        facts["sample"] = _sample(space, task, sample, seed)
    return facts


def _architectures(space: SearchSpace, task: Task, draws: int) -> dict[str, float]:
    """How many distinct specs the space holds, and the standard error of that as a share of it.

    Hyperparameters that bear a recipe's name are left at their first choice. Small spaces are counted. In
    large ones each spec stands for the one combination that it is encoded to: the share of random
    combinations that are so, times their number, estimates the specs without bias.
    """
    import numpy as np

    recipe = {field.name for field in dataclasses.fields(Recipe)}
    options = {name: choices(d) for name, d in space.distributions(task).items()}
    first = {name: values[0] for name, values in options.items()}
    options = {name: values for name, values in options.items() if name not in recipe}
    combinations = math.prod(map(len, options.values()))
    if combinations <= draws:
        points = (first | dict(zip(options, values, strict=True)) for values in itertools.product(*options.values()))
        return {"count": len({space.decode(point, task, 1).spec for point in points}), "error": 0.0}
    generator = np.random.default_rng(0)
    drawn = [[values[i] for i in generator.integers(len(values), size=draws)] for values in options.values()]
    hits = 0
    for values in zip(*drawn, strict=True):
        params = dict(zip(options, values, strict=True))
        encoded = space.encode(space.decode(first | params, task, 1))
        hits += all(encoded.get(name) == value for name, value in params.items())
    share = max(hits, 1) / draws
    return {"count": round(share * combinations), "error": math.sqrt((1 - share) / (share * draws))}


def _sample(space: SearchSpace, task: Task, count: int, seed: int) -> list[dict[str, Any]]:
    found = sampled(space, task, space.limits(task), count, seed)
    if len(found) < count:
        raise ConfigError(
            f"`sample` {count}: only {len(found)} architectures of {space.name!r} were found; ask for fewer"
        )
    costs = [space.cost(candidate.spec, task) for candidate in found]
    return [
        {"spec": candidate.spec.to_dict(), "params": cost.params, "macs": cost.macs}
        for candidate, cost in zip(found, costs, strict=True)
    ]


def space_lines(facts: Mapping[str, Any]) -> list[str]:
    """`space_facts` for people."""
    task = facts["task"]
    lines = [f"for images of {task['channels']}x{task['height']}x{task['width']} in {task['classes']} classes"]
    for space in facts["spaces"]:
        limits = ", ".join(f"{name} <= {METRICS[name].figure(upper)}" for name, upper in space["limits"].items())
        lines += [
            "",
            f"{space['space']} (version {space['version']}): {_size(space)}, {limits}",
        ]
        width = max(map(len, space["hyperparameters"]))
        lines += [
            f"  {name:<{width}}  {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}"
            for name, values in space["hyperparameters"].items()
        ]
        for drawn in space.get("sample", ()):
            spec = ", ".join(f"{key} {value}" for key, value in drawn["spec"].items())
            lines.append(f"  {titled(drawn)}: {spec}")
    return lines


def _size(space: Mapping[str, Any]) -> str:
    if space["architectures"] is None:
        return "continuous"
    count, error = space["architectures"]["count"], space["architectures"]["error"]
    known = f"about {count:.2g} (± {100 * error:.0f} %)" if error else f"{count:,}"
    return f"{space['combinations']:,} combinations, {known} distinct architectures"


def _shown(distribution: Any) -> list[Any]:
    return choices(distribution) if is_discrete(distribution) else [distribution.low, distribution.high]
