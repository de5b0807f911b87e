"""Notes for Optuna Dashboard: each once, those of people untouched; and the pictures that it asks for."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna_dashboard import get_note, save_note
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from study_samples import Driver, make_measurement, read

from nas.outcome import Outcome
from nas.training.checkpoint import save_strip
from studies.pages import dashboard
from studies.pages.dashboard import Pictures
from studies.pages.notes import annotate
from studies.reading.study import StudyReader
from studies.store.catalog import StudySummary
from studies.store.connection import Storage
from studies.store.files import files_dir
from studies.store.ledger import SqlLedger


def test_every_ended_trial_gets_a_note_once(ledger: SqlLedger, driver: Driver) -> None:
    driver.complete(psnr=21.5)
    failed = driver.start()
    ledger.fail(failed, Outcome.EXCEPTION, detail="Traceback\nValueError: no such thing")
    driver.start()  # goes on
    assert annotate(read(ledger)) == 2
    assert annotate(read(ledger)) == 0
    done, gone, running = (get_note(_with_study(ledger, number)) for number in range(3))
    assert "psnr 21.50 dB" in done
    assert "1,000,000 parameters" in done
    assert "depth 1000" in done
    assert "ValueError: no such thing" in gone
    assert running == ""
    assert ledger.command in get_note(ledger.optuna_study)


def test_what_people_wrote_stays(ledger: SqlLedger, driver: Driver) -> None:
    save_note(ledger.optuna_study, "mine")
    driver.complete()
    assert annotate(read(ledger)) == 1
    assert get_note(ledger.optuna_study) == "mine"


def test_studies_that_did_not_change_are_not_read_again_and_a_broken_one_keeps_none_from_its_notes(
    storage: Storage,
    new_study: Callable[..., SqlLedger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drivers = {name: Driver(new_study(name)) for name in ("a", "b", "c")}
    noticed: list[str] = []
    broken = {"b"}

    def watched(study: StudyReader) -> int:
        noticed.append(study.config.study)
        if study.config.study in broken:
            raise IntegrityError("INSERT", None, Exception("not unique"))
        return annotate(study)

    monkeypatch.setattr(dashboard, "annotate", watched)
    noted: dict[str, StudySummary] = {}

    def again() -> list[str]:
        noticed.clear()
        dashboard.write_notes(storage, noted)
        return noticed

    assert again() == ["a", "b", "c"]
    assert "notes of study b are not written" in caplog.text
    assert get_note(drivers["c"].ledger.optuna_study) != ""
    assert again() == ["b"]
    broken.clear()
    assert again() == ["b"]
    assert again() == []
    drivers["a"].reject(depth=1)
    assert again() == ["a"]
    drivers["c"].start()
    assert again() == ["c"]
    monkeypatch.setattr(dashboard, "list_studies", lambda _: 1 / 0)
    assert again() == []
    assert "notes are not written: division by zero" in caplog.text


def test_notes_that_another_dashboard_wrote_meanwhile_stay(ledger: SqlLedger, driver: Driver) -> None:
    driver.complete()
    annotate(read(ledger))
    before = get_note(ledger.optuna_study)
    looks = Session.scalars
    with patch.object(
        Session, "scalars", lambda session, *query: () if "attributes" in str(query[0]) else looks(session, *query)
    ):
        assert annotate(read(ledger)) == 1, "it saw none"
    assert get_note(ledger.optuna_study) == before


def test_a_picture_is_found_by_its_artifact(ledger: SqlLedger, driver: Driver, tmp_path: Path) -> None:
    number = driver.start()
    folder = files_dir(ledger.storage.url, "first")
    save_strip(b"picture", folder, number)
    ledger.complete(number, make_measurement(), strip=True)
    (key,) = [key for key in ledger.optuna_study.trials[number].system_attrs if key.startswith("artifacts:")]
    pictures = Pictures(ledger.storage)
    with pictures.open_reader(key.removeprefix("artifacts:")) as file:
        assert file.read() == b"picture"
    pictures.remove(key.removeprefix("artifacts:"))
    with pytest.raises(ArtifactNotFound):
        pictures.open_reader(key.removeprefix("artifacts:"))
    with pytest.raises(ArtifactNotFound):
        pictures.open_reader("../../etc/passwd")
    pictures.write("ab12-34-56", io.BytesIO(b"upload"))
    with pictures.open_reader("ab12-34-56") as file:
        assert file.read() == b"upload"


def _with_study(ledger: SqlLedger, number: int):  # type: ignore[no-untyped-def]
    import optuna

    trial_id = ledger.storage.optuna.get_trial_id_from_study_id_trial_number(ledger.optuna_study._study_id, number)
    return optuna.Trial(ledger.optuna_study, trial_id)
