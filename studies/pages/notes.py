"""Notes of a study and its trials, and the front in 3-D, which Optuna Dashboard shows beside its own figures.

Existing notes stay as they are, because people write some of their own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from nas.search.objectives import limits_text
from studies.pages.fronts import front_3d
from studies.reading.history import costs_text, objectives_text, read_history
from studies.store.optuna_bridge import OPTUNA_TRIALS, STUDY_ATTRIBUTES
from studies.store.records import insert_missing

if TYPE_CHECKING:
    from studies.reading.history import History, Trial
    from studies.reading.study import StudyReader

FIGURE = "front"
"""The id of the figure on the study's page."""


def annotate(study: StudyReader) -> int:
    """Writes the missing notes of a study, and its front as it is now. Returns the number of trials that got a note.

    Raises:
        StorageError: the database cannot be written.
    """
    history = read_history(study)
    ended = [t for t in history.trials if t.outcome.ended]
    attributes, trials, study_id = STUDY_ATTRIBUTES.c, OPTUNA_TRIALS.c, study.study_id
    with study.storage.session() as session:
        known = set(session.scalars(select(attributes.key).where(attributes.study_id == study_id)))
        numbers = select(trials.number, trials.trial_id).where(trials.study_id == study_id)
        ids = {row.number: row.trial_id for row in session.execute(numbers)}
        new: dict[str, object] = {}
        if "dashboard:note_ver" not in known:
            new |= {"dashboard:note_ver": 1, "dashboard:note_str:0": study_note(study)}
        count = 0
        for trial in ended:
            prefix = f"dashboard:{ids.get(trial.number)}"
            if trial.number in ids and f"{prefix}:note_ver" not in known:
                new |= {f"{prefix}:note_ver": 1, f"{prefix}:note_str:0": trial_note(trial, history)}
                count += 1
        rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in new.items()]
        if rows:  # another dashboard may write them too
            dialect = session.connection().dialect.name
            session.execute(insert_missing(dialect, STUDY_ATTRIBUTES), rows)
    figure = front_3d(history)
    if figure is not None:
        figure.update_layout(paper_bgcolor=None, plot_bgcolor=None, margin={"t": 30})
        with study.storage.guard():
            study.storage.optuna.set_study_system_attr(study_id, f"dashboard:plot_data:{FIGURE}:0", figure.to_json())
    return count


def study_note(study: StudyReader) -> str:
    """Returns Markdown with the study's settings and the command that made it."""
    config = study.config
    return (
        f"## {config.study}\n\nMade with\n\n```\n{study.command}\n```\n\n"
        f"Space {config.space} (version {config.space_version}), data {config.data}, noise {config.task.noise}, "
        f"{config.epochs} epochs, seed {config.seed}. Limits: {limits_text(config.constraints)}.\n\n"
        "The picture among the artifacts of each complete trial shows noisy images (above), the same images restored, "
        "and the clean ones (below).\n"
    )


def trial_note(trial: Trial, history: History) -> str:
    """Returns Markdown with outcome, cost, architecture and recipe of a trial that ended."""
    values = trial.values or trial.last
    # A note does not say whether its trial is on the front, because the front changes and the note does not.
    lines = [f"**{trial.ending}**, {trial.epochs_done} epochs"]
    lines += filter(None, (objectives_text(history.config.objectives, values), costs_text(trial)))
    for name, fields in (("Architecture", trial.spec), ("Recipe", trial.recipe)):
        if fields:
            lines.append(
                f"**{name}**: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fields.items())
            )
    if trial.detail:
        lines.append(f"```\n{trial.detail.strip()[-1500:]}\n```")
    return "\n\n".join(lines) + "\n"
