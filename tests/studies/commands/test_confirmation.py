"""What surrounds a confirmation: who else may work on the study meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_samples import LATENCY, Driver, read

from nas.engine.confirm import ConfirmEnd
from nas.errors import StudyError
from studies.commands import confirm
from studies.settings import ConfirmRequest
from studies.store.deletion import delete_study
from studies.store.files import files_dir
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger

DONE = ConfirmEnd(reason="complete", total=0, done=0, new=0)


def test_a_study_that_is_being_confirmed_is_not_deleted_nor_confirmed_twice(
    url: str, new_study: Callable[..., SqlLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_study(latency=LATENCY)
    Driver(ledger).complete()
    entered = []

    def run(config: Any, space: Any, mine: SqlLedger, data: Any, files: Path, *rest: Any) -> ConfirmEnd:
        entered.append(files)
        with SqlLedger.open("first", url) as other:
            with pytest.raises(StudyError, match=r"'first' is being worked on by .*; stop that search or confirmation"):
                delete_study(other.storage, "first")
            with pytest.raises(StudyError, match=r"'first' is being confirmed by another process.*; wait for it"):
                confirm.confirm_study(read(other), ConfirmRequest())
        return DONE

    for name, value in (
        ("run_confirmation", run),
        ("study_members", lambda *_, **__: []),
        ("study_data", lambda *_: None),
        ("study_space", lambda *_: None),
    ):
        monkeypatch.setattr(confirm, name, value)
    folder = files_dir(url, "first")
    for _ in range(2):
        assert confirm.confirm_study(read(ledger), ConfirmRequest()) == (DONE, [])
        assert not (folder / "confirm").exists()
    assert entered == [folder, folder]
    delete_study(ledger.storage, "first")
    assert not has_study(ledger.storage, "first")
