"""The page of a study whose database comes from a stranger: its texts are text, and its values have their types."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_samples import Studied

from nas.errors import ConfigError
from nas.types import Task, check_types
from studies.pages.report import write_report
from studies.reading.study import StudyReader

EVIL = "</script><img src=x onerror=alert(1)>"


def evil(value: Any) -> Any:
    """A JSON value with `EVIL` in the place of every text."""
    match value:
        case str():
            return EVIL
        case dict():
            return {name: evil(each) for name, each in value.items()}
        case list():
            return [evil(each) for each in value]
        case _:
            return value


def test_every_text_is_escaped(studied: Studied, tmp_path: Path) -> None:
    with closing(sqlite3.connect("runs/studies.db")) as database, database:
        (config,) = database.execute("SELECT config FROM skipnas_studies").fetchone()
        config = json.loads(config) | dict.fromkeys(("data", "fingerprint", "device", "space", "sampler"), EVIL)
        for objective in config["objectives"]:
            objective["unit"] = EVIL
        (provenance,) = database.execute("SELECT provenance FROM skipnas_studies").fetchone()
        changed = json.dumps(config), json.dumps(evil(json.loads(provenance))), EVIL
        database.execute("UPDATE skipnas_studies SET config = ?, provenance = ?, command = ?", changed)
        for number, recipe in database.execute("SELECT number, recipe FROM skipnas_trials").fetchall():
            row = json.dumps(evil(json.loads(recipe or "{}"))), EVIL, number
            database.execute("UPDATE skipnas_trials SET recipe = ?, detail = ? WHERE number = ?", row)
    page = tmp_path / "page.html"
    with StudyReader.open("small", "runs/studies.db") as study:
        write_report(study, page)
    text = page.read_text()
    assert "alert(1)" in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 3, "those of the page"


@pytest.mark.parametrize(
    ("name", "value"), [("threads", EVIL), ("epochs", 1.5), ("early_stopping", 1), ("study", 7), ("subset", "all")]
)
def test_a_configuration_of_other_types_is_refused_in_one_line(studied: Studied, name: str, value: Any) -> None:
    with closing(sqlite3.connect("runs/studies.db")) as database, database:
        (config,) = database.execute("SELECT config FROM skipnas_studies").fetchone()
        database.execute("UPDATE skipnas_studies SET config = ?", (json.dumps(json.loads(config) | {name: value}),))
    with pytest.raises(ConfigError, match=f"stored study configuration cannot be read .{name} is "):
        StudyReader.open("small", "runs/studies.db")


def test_types_of_fields() -> None:
    check_types(Task(channels=1, classes=0, height=8, width=8, noise="none"))
    for wrong in ({"channels": "1"}, {"classes": True}, {"noise": None}, {"width": 8.0}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} is "):
            check_types(Task(**{"channels": 1, "classes": 0, "height": 8, "width": 8, "noise": "none"} | wrong))
