"""A confirmation with its display, and its end as facts for ``--json`` and as text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas.engine.confirm import ConfirmEnd
from nas.search.confirmation import Confirmed, confirmation_seed
from nas.settings import StudyConfig
from studies.commands.confirm import confirm_study
from studies.commands.terminal import ConfirmDisplay, confirmation_table, say, stdout
from studies.reading.best import Choice, choose
from studies.reading.study import StudyReader
from studies.reading.versions import training_versions, versions_line
from studies.settings import ConfirmRequest, SizeLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A confirmation that has ended.

    Attributes:
        config: configuration of the study.
        seeds: number of runs that each member should have.
        members: results of each member, and of all members that were confirmed before.
        end: the end of the confirmation.
        choice: the knee, by confirmed means where there are any.
    """

    config: StudyConfig
    seeds: int
    members: list[Confirmed]
    end: ConfirmEnd
    choice: Choice

    @property
    def reason(self) -> str:
        """The reason for the knee."""
        return self.choice.reason if self.choice.confirmed else "no member has two complete runs yet"

    def facts(self) -> dict[str, Any]:
        """Returns the object of ``confirm --json``: the end, each member's means and intervals, and the knee."""
        return {
            "study": self.config.study,
            "state": self.end.reason,
            "runs": self.end.done,
            "of": self.end.total,
            "new": self.end.new,
            "seconds": self.end.seconds,
            "seeds": [confirmation_seed(self.config.seed, repeat) for repeat in range(self.seeds)],
            "members": [
                {
                    "trial": one.number,
                    "reference": one.reference,
                    "digest": one.digest,
                    "runs": one.runs,
                    "failed": one.failed,
                    "values": {name: dataclasses.asdict(value) for name, value in one.values.items()},
                }
                for one in self.members
            ],
            "front": [result.number for result in self.choice.confirmed_front],
            "knee": self.choice.chosen.number if self.choice.confirmed else None,
            "reason": self.reason,
        }

    def show(self) -> None:
        """Prints every member's figures and the knee."""
        stdout().print(confirmation_table(self.members, self.choice, self.config.objectives))
        say(self.reason)


def confirm(
    study: StudyReader, request: ConfirmRequest, quiet: bool, tell: Callable[[str], None], limits: SizeLimits
) -> Confirmation:
    """Confirms a study and shows the progress on stderr. `tell` receives lines that a person should read first."""
    if (told := versions_line(training_versions(study))) and not quiet:
        tell(told)
    with ConfirmDisplay(quiet=quiet) as display:
        end, members = confirm_study(study, request, display.observe, limits)
    choice = choose(study, limits=limits)
    return Confirmation(config=study.config, seeds=request.seeds, members=members, end=end, choice=choice)
