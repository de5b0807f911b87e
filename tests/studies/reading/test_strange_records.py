"""Records of a stranger's database: values of every other type in every column, by rule over all tables."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from command_samples import Said, Studied

from nas.errors import StorageError
from studies.reading.study import StudyReader
from studies.store.records import Base

Run = Callable[..., Said]

STRANGE: list[Any] = ["<b>[bold]x", b"\xff\xfe\x00", float("inf"), 2**62, '{"a": "b"}', '{"psnr": 1e400}', "{", "null"]
COMMANDS = [("best", "small", "--json"), ("studies", "show", "small", "--json"), ("studies", "list", "--json")]
TABLES = ["skipnas_studies", "skipnas_trials", "skipnas_epochs", "skipnas_meta"]


def changed(column: str, value: Any, table: str = "skipnas_trials", file: str = "runs/studies.db") -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f'UPDATE {table} SET "{column}" = ?', (value,))


def only_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("table", TABLES)
def test_a_value_of_another_type_is_one_line_or_right(studied: Studied, run: Run, table: str) -> None:
    columns = [column.name for column in Base.metadata.tables[table].columns if not column.primary_key]
    commands = itertools.cycle(COMMANDS)
    for number, (column, value) in enumerate(itertools.product(columns, STRANGE)):
        file = f"{number}.db"
        shutil.copy("runs/studies.db", file)
        try:
            changed(column, value, table, file)
        except sqlite3.IntegrityError:  # the column takes no such value
            continue
        words = next(commands)
        said = run(*words, "--storage", file)
        assert said.code in (0, 2), (column, value, words, said)
        if said.code == 2:
            assert (said.err.count("\n"), said.err[:7], said.out) == (1, "error: ", ""), (column, value, words)
        else:
            only_json(said.out)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("values", '{"psnr": "20"}', "where numbers by name belongs"),
        ("values", '{"psnr": NaN}', "where numbers by name belongs"),
        ("values", '{"psnr": 1e400}', "where numbers by name belongs"),
        ("values", f'{{"psnr": 1{400 * "0"}}}', "where numbers by name belongs"),
        ("values", '{"psnr": true}', "where numbers by name belongs"),
        ("values", '{"psnr": [20]}', "where numbers by name belongs"),
        ("values", "[20]", "where numbers by name belongs"),
        ("values", '{"psnr": ', "where numbers by name belongs"),
        ("gates", '[{"mean": "x"}]', "where a list of numbers by name belongs"),
        ("spec", '"unet"', "where a JSON object belongs"),
        ("params", "many", "where a whole number belongs"),
        ("params", 1.5, "where a whole number belongs"),
        ("seconds", "long", "where a number belongs"),
        ("started", 1e300, "where a time belongs"),
        ("reason", "exploded", "where the end of a trial belongs"),
        ("detail", b"\xff", "where a text belongs"),
    ],
)
def test_the_line_says_what_belongs_there(studied: Studied, column: str, value: Any, says: str) -> None:
    changed(column, value)
    with StudyReader.open("small", "runs/studies.db") as study, pytest.raises(StorageError, match=says):
        study.trials()


def test_a_trial_that_lacks_its_values_is_one_line(studied: Studied, run: Run) -> None:
    changed("values", None)
    for words in (("best", "small"), ("export", "small", "--to", "bundle"), ("train", "small", "--to", "long")):
        said = run(*words)
        assert (said.code, said.err.count("\n")) == (2, 1), said
        assert "a complete trial has no value of psnr: another program wrote its record" in said.err
    assert not (studied.folder / "bundle").exists()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("trial_params", "param_value", "many"),
        ("trial_params", "distribution_json", "{"),
        ("trial_params", "distribution_json", '{"name": "os.system", "attributes": {}}'),
        ("trial_user_attributes", "value_json", "{"),
        ("trials", "state", "EXPLODED"),
    ],
)
def test_trials_that_optuna_cannot_read_are_one_line(
    studied: Studied, run: Run, table: str, column: str, value: Any
) -> None:
    changed(column, value, table)
    said = run("studies", "to-csv", "small", "small.csv")
    assert (said.code, said.err.count("\n"), said.err[:7]) == (2, 1, "error: "), said
    assert "another program wrote" in said.err
    assert not (studied.folder / "small.csv").exists()
