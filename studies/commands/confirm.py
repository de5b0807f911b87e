"""The work of ``skipnas confirm``: from a study to a running confirmation, and its results as facts and lines."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.engine.confirm import ConfirmEnd, ConfirmProgress, run_confirmation
from nas.engine.resources import Resources
from nas.errors import ConfigError, StudyError
from nas.search.confirmation import SEEDS, TOP, Confirmed, Member, confirmation_seed, pick_members, summarize
from nas.training.checkpoint import confirm_dir
from nas.types import Candidate, Recipe
from search_spaces import get_space
from studies.commands.search import check_resources
from studies.reading.best import Choice
from studies.reading.data import study_data
from studies.store.files import claim_files

if TYPE_CHECKING:
    from nas.protocols import SearchSpace
    from studies.store.ledger import SqlLedger

MOST_SEEDS = 1000


def confirm_study(
    ledger: SqlLedger,
    resources: Resources,
    *,
    seeds: int = SEEDS,
    top: int = TOP,
    baselines: bool = False,
    data_root: Path | None = None,
    observe: Callable[[ConfirmProgress], None] = lambda progress: None,
) -> tuple[ConfirmEnd, list[Confirmed]]:
    """Trains the front's knee and best contributors again under several seeds, or continues to do so.

    Args:
        ledger: the study.
        resources: resources of the runs.
        seeds: number of runs that each member should have.
        top: number of members beside the knee, by hypervolume contribution.
        baselines: whether the space's reference networks are trained too.
        data_root: folder of the data, if it moved since the study was made.
        observe: called with the progress.

    Returns:
        The end of the confirmation, and the results of each member in the order in which they were chosen, then of all
        members that were confirmed before.

    Raises:
        ConfigError: an option is outside its rule.
        StudyError: the study has no complete trial, its data has changed, its space has no reference networks, or it is
            being confirmed already.
    """
    if not 2 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"--seeds is {seeds}; give 2 to {MOST_SEEDS}, as an interval needs two runs")
    if top < 0:
        raise ConfigError(f"--top is {top}; give at least 0, which confirms the knee alone")
    check_resources(resources)
    config = ledger.config
    space = get_space(config.space)
    members = study_members(ledger, space, top=top, baselines=baselines)
    data = study_data(ledger, data_root)
    files = claim_files(ledger.storage, config.study)
    with _alone(confirm_dir(files), config.study), ledger.drive():
        end = run_confirmation(config, space, ledger, data, files, members, seeds, resources, observe)
    known = {found.digest: found for found in summarize(ledger.confirmations())}
    of_members = [
        dataclasses.replace(found, number=member.number, reference=member.reference)
        for member in members
        if (found := known.pop(member.candidate.digest, None)) is not None
    ]
    return end, [*of_members, *known.values()]


@contextlib.contextmanager
def _alone(folder: Path, study: str) -> Iterator[None]:
    """Keeps a second confirmation out of the folder while the block runs. Raises StudyError when there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)  # a lock on the folder leaves no file behind
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                f"study {study!r} is being confirmed by another process, in {folder}; wait for it, or stop it (Ctrl-C)"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it contains runs that are under way
                folder.rmdir()
    finally:
        os.close(lock)


def study_members(ledger: SqlLedger, space: SearchSpace, *, top: int, baselines: bool) -> list[Member]:
    """Returns the candidates that a confirmation trains: members of the front, and the space's reference networks."""
    config = ledger.config
    results = ledger.results()
    if not results:
        raise StudyError(
            f"study {config.study!r} has no complete trial to confirm; continue it with: "
            f"skipnas search --study {config.study}"
        )
    members: dict[str, Member] = {}
    for result in pick_members(results, config.objectives, top):
        candidate = Candidate(spec=space.spec(result.spec), recipe=Recipe.from_dict(result.recipe))
        members[candidate.digest] = Member(candidate=candidate, number=result.number)
    if baselines:
        references = space.baselines(config.task, config.epochs, config.constraints)
        if not references:
            raise StudyError(f"space {space.name} has no reference networks; leave out --baselines")
        for name, candidate in references.items():
            digest = candidate.digest
            same = members.get(digest, Member(candidate=candidate))
            members[digest] = dataclasses.replace(same, reference=same.reference or name)
    return list(members.values())


def confirmation_facts(
    ledger: SqlLedger, seeds: int, found: Sequence[Confirmed], end: ConfirmEnd, choice: Choice
) -> dict[str, Any]:
    """Returns the object of ``confirm --json``: the end, each member's values as mean, sd, low, high and n, the
    knee."""
    return {
        "study": ledger.config.study,
        "state": end.reason,
        "runs": end.done,
        "of": end.total,
        "new": end.new,
        "seconds": end.seconds,
        "seeds": [confirmation_seed(ledger.config.seed, repeat) for repeat in range(seeds)],
        "members": [
            {
                "trial": one.number,
                "reference": one.reference,
                "digest": one.digest,
                "runs": one.runs,
                "failed": one.failed,
                "values": {name: dataclasses.asdict(value) for name, value in one.values.items()},
            }
            for one in found
        ],
        "front": [result.number for result in choice.confirmed_front],
        "knee": choice.chosen.number if choice.confirmed else None,
        "reason": choice.reason if choice.confirmed else "no member has two complete runs yet",
    }
