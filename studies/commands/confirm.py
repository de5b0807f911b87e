"""The work of ``skipnas confirm``: from a study to a running confirmation, and its results as facts and lines."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.engine.confirm import ConfirmEnd, ConfirmProgress, run_confirmation
from nas.errors import StudyError
from nas.search.confirmation import Confirmed, Member, pick_members, summarize
from nas.training.checkpoint import confirm_dir
from nas.types import Candidate, Recipe, Task
from studies.commands.latency import check_study
from studies.reading.best import choose
from studies.reading.data import study_data
from studies.reading.space import study_space
from studies.settings import NO_LIMITS, ConfirmRequest, SizeLimits
from studies.store.files import claim_files
from studies.store.ledger import SqlLedger

if TYPE_CHECKING:
    from nas.protocols import SearchSpace
    from studies.reading.study import StudyReader


def confirm_study(
    study: StudyReader,
    request: ConfirmRequest,
    observe: Callable[[ConfirmProgress], None] = lambda progress: None,
    limits: SizeLimits = NO_LIMITS,
) -> tuple[ConfirmEnd, list[Confirmed]]:
    """Trains the front's knee and best contributors again under several seeds, or continues to do so.

    Args:
        study: the study.
        request: how many members and runs, and what the runs get.
        observe: called with the progress.
        limits: limits of size; the front is then that of the trials within them.

    Returns:
        The end of the confirmation, and the results of each member in the order in which they were chosen, then of all
        members that were confirmed before.

    Raises:
        StudyError: the study has no complete trial, its data has changed, its space has no reference networks, it is
            being confirmed already, or its latency would be measured otherwise.
    """
    check_study(study.config, request.latency_command)
    space = study_space(study, request.own_space)
    members = study_members(study, space, top=request.top, baselines=request.baselines, limits=limits)
    end = confirm_members(study, space, members, request, observe)
    known = {found.digest: found for found in summarize(study.progress.confirmations())}
    of_members = [
        dataclasses.replace(found, number=member.number, reference=member.reference)
        for member in members
        if (found := known.pop(member.candidate.digest, None)) is not None
    ]
    return end, [*of_members, *known.values()]


def confirm_members(
    study: StudyReader,
    space: SearchSpace,
    members: Sequence[Member],
    request: ConfirmRequest,
    observe: Callable[[ConfirmProgress], None] = lambda progress: None,
) -> ConfirmEnd:
    """Trains candidates under several seeds as those of a study, or continues to do so; the study keeps their runs.

    Raises:
        StudyError: the data has changed, or the study is being confirmed already.
    """
    config = study.config
    data = study_data(study, request.data_root)
    files = claim_files(study.storage, config.study)
    ledger = SqlLedger.open(config.study, study.storage)
    with _alone(confirm_dir(files), config.study), ledger.drive():
        return run_confirmation(config, space, ledger, data, files, members, request.seeds, request, observe)


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


def study_members(
    study: StudyReader, space: SearchSpace, *, top: int, baselines: bool, limits: SizeLimits = NO_LIMITS
) -> list[Member]:
    """Returns the candidates that a confirmation trains: members of the front, and the space's reference networks.

    Each reference network is among them twice, with its own recipe and with that of the knee, so that a difference
    from the knee is either the network's or the recipe's. The front is that of the search's values, whatever was
    confirmed before.
    """
    config = study.config
    front = choose(study, limits=limits, confirmed=False).front
    members: dict[str, Member] = {}
    picked = pick_members(front, config.objectives, top)
    for result in picked:
        candidate = Candidate(spec=space.spec(result.spec), recipe=Recipe.from_dict(result.recipe))
        members[candidate.digest] = Member(candidate=candidate, number=result.number)
    if baselines:
        references = space.baselines(config.task, config.epochs, config.constraints)
        if not references:
            raise StudyError(f"space {space.name} has no reference networks; leave out `baselines`")
        knee = picked[0]
        recipe = Recipe.from_dict(knee.recipe)
        named = [*references.items()]
        for name, candidate in references.items():
            named.append((f"{name}, recipe of trial {knee.number}", with_recipe(space, candidate, recipe, config.task)))
        for name, candidate in named:
            digest = candidate.digest
            same = members.get(digest, Member(candidate=candidate))
            members[digest] = dataclasses.replace(same, reference=same.reference or name)
    return list(members.values())


def with_recipe(space: SearchSpace, candidate: Candidate, recipe: Recipe, task: Task) -> Candidate:
    """Returns a network under another recipe, without what the network cannot use of it."""
    # Encoding and decoding switches that off.
    return space.decode(space.encode(dataclasses.replace(candidate, recipe=recipe)), task, recipe.epochs)
