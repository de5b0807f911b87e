"""The choice from a study's front, as facts for ``--json`` and as a table with its reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.search.objectives import cautions
from studies.commands.terminal import describe, front_table, on_test, say, standing, stdout
from studies.reading.best import choose
from studies.reading.versions import latency_line, training_versions, versions_line

if TYPE_CHECKING:
    from nas.types import TrialResult
    from studies.reading.best import Choice
    from studies.reading.study import StudyReader
    from studies.settings import SizeLimits


def best_facts(study: StudyReader, pick: str, prefer: Mapping[str, float] | None, limits: SizeLimits) -> dict[str, Any]:
    """Returns the object of ``best --json``: the front, the chosen member, and the reason."""
    choice = choose(study, pick=pick, prefer=prefer, limits=limits)
    return {
        "study": study.config.study,
        "objectives": [o.name for o in study.config.objectives],
        "limits": limits.upper,
        "confirmed": bool(choice.confirmed),
        "training_versions": training_versions(study),
        "front": [member_facts(result, choice) for result in choice.front],
        "chosen": member_facts(choice.chosen, choice),
        "reason": choice.reason,
        "hypervolume": choice.hypervolume,
    }


def show_best(study: StudyReader, pick: str, prefer: Mapping[str, float] | None, limits: SizeLimits) -> None:
    """Prints the front, the kind of its figures, the choice and its reason."""
    choice = choose(study, pick=pick, prefer=prefer, limits=limits)
    stdout().print(front_table(choice, study.config.objectives))
    say(standing(choice, study.config.study))
    for told in (versions_line(training_versions(study)), latency_line(study.config, limits.upper)):
        if told:
            say(told)
    for caution in cautions(study.config.objective_names):
        say(caution)
    say(choice.reason)
    if choice.chosen.number in choice.confirmed:
        say(f"on the test split: {on_test(choice.confirmed[choice.chosen.number], study.config.objective_names)}")
    say(f"architecture: {describe(choice.chosen.spec)}")
    say(f"recipe: {describe(choice.chosen.recipe)}")


def member_facts(result: TrialResult, choice: Choice) -> dict[str, Any]:
    """Returns a member of the front as JSON values, with its intervals where it is confirmed."""
    confirmed = choice.confirmed.get(result.number)
    intervals = None
    if confirmed is not None:
        intervals = {name: dataclasses.asdict(value) for name, value in confirmed.values.items()}
    return {
        "trial": result.number,
        "digest": result.digest,
        "training_version": result.training_version,
        "values": dict(result.values),
        "confirmed": intervals,
        "spec": dict(result.spec),
        "recipe": dict(result.recipe),
    }
