"""What ``studies show`` prints."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from study_samples import Driver, read

from studies.commands.show import study_facts, study_lines, trial_facts, trial_lines
from studies.store.ledger import SqlLedger


def test_a_study_is_read_once_for_its_lines(ledger: SqlLedger, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.draws.choices", str)  # of a continuous one there is no list
    driver.complete()
    study = read(ledger)
    facts = study_facts(study)
    queries: list[str] = []
    event.listen(ledger.storage.engine, "before_cursor_execute", lambda *given: queries.append(given[2]))
    assert "trials      1 trained: 1 complete, 0 pruned; 0 failed, 0 running, 0 waiting" in study_lines(study, facts)
    assert queries == []


def test_time_and_memory_of_a_trial_have_their_units(ledger: SqlLedger, driver: Driver) -> None:
    facts = trial_facts(read(ledger), driver.complete()) | {"seconds": 1234.56, "peak_memory": 2345.6}
    lines = trial_lines(facts)
    assert "seconds      1,234.6 s" in lines
    assert "peak memory  2,346 MiB" in lines
