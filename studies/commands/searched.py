"""A search with its display, and its end as facts for ``--json`` and as text for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.engine.ahead import Ahead
from nas.engine.search import SearchEnd
from nas.settings import RunOptions, StudyConfig
from studies.commands.best import member_facts
from studies.commands.search import prepare
from studies.commands.terminal import SearchDisplay, front_table, say, size_table, stdout, summary
from studies.commands.waiting import Waiting
from studies.reading.best import Choice, choose
from studies.reading.sizes import AtSize, Sized, best_at_sizes, sized_trials
from studies.settings import SearchRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search that has ended.

    Attributes:
        config: configuration of the study.
        end: the end of the search.
        trials: the size that the study should have; None for as many as fit into the time.
        choice: the knee by the search's own figures; None while no trial is complete.
        sizes: the best that is known at each size.
    """

    config: StudyConfig
    end: SearchEnd
    trials: int | None
    choice: Choice | None
    sizes: Sequence[AtSize] = ()

    def facts(self) -> dict[str, Any]:
        """Returns the object of ``search --json``."""
        end, choice = self.end, self.choice
        return {
            "study": self.config.study,
            "reason": end.reason,
            "trained": end.counts.trained,
            "complete": end.counts.complete,
            "pruned": end.counts.pruned,
            "failed": end.counts.failed,
            "new": end.new,
            "seconds": end.seconds,
            "busy": end.busy,
            "promise": end.promise,
            "hypervolume": 0.0 if choice is None else choice.hypervolume,
            "front": [] if choice is None else [member_facts(result, choice) for result in choice.front],
            "knee": None if choice is None else choice.chosen.number,
            "by_size": [
                {"macs": row.macs, "found": _best_facts(row.found), "references": _best_facts(row.references)}
                for row in self.sizes
            ],
        }

    def show(self) -> None:
        """Prints the best at each size, the front, its hypervolume and its knee, if there is one."""
        if self.choice is None:
            return
        if self.sizes:
            stdout().print(size_table(self.sizes))
        stdout().print(front_table(self.choice, self.config.objectives))
        say(f"hypervolume {self.choice.hypervolume:.4g}; {self.choice.reason}")

    def closing(self, program: Sequence[str], arguments: Sequence[str], storage: str | None) -> list[str]:
        """Returns lines about the end, and the commands to type next.

        Args:
            program: the words by which skipnas was called.
            arguments: the words after them.
            storage: the storage that the next commands have to name, without its password; None when they need not.
        """
        lines = summary(self.end, self.config, self.trials, again=[*program, *arguments])
        if self.choice is not None:
            me, name = shlex.join(program), self.config.study
            at = "" if storage is None else f" {shlex.join(['--storage', storage])}"
            own = f" {shlex.join(['--space', self.config.space])}" if ":" in self.config.space else ""
            lines += [
                f"next: {me} best {name}{at}",
                f"      {me} report {name}{at}{own} --to {name}.html",
                f"      {me} export {name}{at}{own} --to {name}-bundle",
            ]
        return lines


def _best_facts(best: Mapping[str, Sized]) -> dict[str, Any]:
    """Returns the best trial in each metric as JSON values."""
    return {
        name: {
            "trial": trial.number,
            "reference": trial.reference or None,
            "macs": trial.macs,
            "value": trial.values[name],
        }
        for name, trial in best.items()
    }


def search(
    request: SearchRequest, options: RunOptions, quiet: bool, tell: Callable[[str], None], waiting: Waiting
) -> Searched:
    """Runs a search and shows its progress on stderr.

    Args:
        tell: receives lines that a person should read first.
        waiting: says what is being done until the search begins.
    """
    with Ahead(options, options.size) as ray:
        prepared = prepare(request, options, waiting.say, ray.begin)
        waiting.stop()
        config = prepared.study.config
        for note in () if quiet else prepared.notes:
            tell(note)
        with SearchDisplay(config, quiet=quiet) as display:
            end = prepared.run(options, display.observe)
    choice = choose(prepared.study, confirmed=False) if prepared.study.progress.objective_values() else None
    sizes = best_at_sizes(sized_trials(prepared.study), config.objective_names)
    return Searched(config=config, end=end, trials=options.size, choice=choice, sizes=sizes)
