"""A study of a user's own space, whose code may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_samples import Driver, read

from nas.errors import StudyError
from nas.settings import RunOptions
from nas.types import Objective
from studies.commands import search
from studies.reading import space as reading
from studies.reading.space import CODE, study_space
from studies.settings import SearchRequest
from studies.store.ledger import SqlLedger

PSNR = Objective(name="psnr", direction="maximize", unit="dB", reference=10.0)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of the space ``mine:SPACE``, which nobody has to import here."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(reading, "stored_space", lambda name, said=None: SimpleNamespace(name=name))
    monkeypatch.setattr(search, "stored_space", lambda name, said=None: None)
    module = tmp_path / "mine.py"
    module.write_text("SIZE = 3\n")
    return module


def resume(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a search does with a study that exists, up to its data."""
    monkeypatch.setattr(search, "study_data", lambda *_: None)
    search._resume(SearchRequest(study="first"), RunOptions(), read(ledger), None)


def test_a_study_is_not_used_with_other_code(
    own: Path, new_study: Callable[..., SqlLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_study(space="mine:SPACE", objectives=(PSNR,))
    resume(ledger, monkeypatch)  # a study of an older version gets its fingerprint
    before = read(ledger).provenance[CODE]
    assert len(before) == 16
    own.write_text("SIZE = 4\n")
    resume(ledger, monkeypatch)  # nothing is trained yet: a mistake was mended
    after = read(ledger).provenance[CODE]
    assert after != before
    Driver(ledger).complete()
    own.write_text("# With a word about it.\nSIZE = 4\n")
    resume(ledger, monkeypatch)
    assert study_space(read(ledger)).name == "mine:SPACE"
    own.write_text("SIZE = 5\n")
    said = rf"the code of space 'mine:SPACE' has changed since study 'first' was trained .*was {after}\); restore it"
    for use in (lambda: resume(ledger, monkeypatch), lambda: study_space(read(ledger))):
        with pytest.raises(StudyError, match=said):
            use()
    own.write_text("SIZE = 4\n")
    resume(ledger, monkeypatch)


def test_the_project_s_own_spaces_have_versions_instead(new_study: Callable[..., SqlLedger]) -> None:
    ledger = new_study()
    assert reading.space_code("unet") is None
    assert study_space(read(ledger)).name == "unet"
