"""What is printed of names that others chose: visible, as text, and on any terminal."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from command_samples import ROOT, Said, Studied
from PIL import Image
from rich.console import Console

import app_cli
from nas.data.reader import read_file
from nas.data.splits import load
from nas.errors import DataError
from studies.commands.terminal import class_table, confusion_table

Run = Callable[..., Said]
EVIL = "a\x1b[31m\u202eb"
PERSIAN, SPACED = "می\u200cروم", "grand\u00a0duc"


def class_folders(folder: Path, *names: str) -> Path:
    for shade, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (16, 16), 100 * shade + 5 * index).save(folder / name / f"{index}.png")
    return folder


def test_brackets_in_class_names_are_no_markup() -> None:
    names = ["[red]cat[/red]", EVIL]
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(confusion_table(names, [[3, 1], [0, 2]]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]cat[/red]" in shown
    assert "a\\x1b[31m\\u202eb" in shown
    assert "\x1b" not in shown


def test_class_names_of_any_language_are_read(tmp_path: Path) -> None:
    assert load(f"folder:{class_folders(tmp_path, PERSIAN, SPACED)}").classes == tuple(sorted((PERSIAN, SPACED)))


def test_class_names_that_no_bundle_may_have_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'a\\x1b\[31m\\u202eb' has control characters in its name; rename"):
        load(f"folder:{class_folders(tmp_path, 'cat', EVIL)}")


@pytest.mark.slow
def test_a_training_on_such_classes_ends_with_a_bundle(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.bundles import open_bundle

    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "images", PERSIAN, SPACED)
    said = run("train", "unet", "--data", "folder:images", "--epochs", "1", "--precision", "fp32", "--to", "out")
    assert said.code == 0, said.err
    assert open_bundle(tmp_path / "out" / "bundle").classes == tuple(sorted((PERSIAN, SPACED)))


def test_names_of_files_are_visible_in_messages(studied: Studied, run: Run) -> None:
    said = run("studies", "to-csv", "small", f"nowhere/{EVIL}.csv")
    assert said.code == 2
    assert "nowhere/a\\x1b[31m\\u202eb.csv" in said.err
    said = run("studies", "to-csv", "small", f"{EVIL}\udcff\n.csv")
    assert said.code == 0, said.err
    assert said.out.endswith("written to a\\x1b[31m\\u202eb\\udcff\\n.csv\n")


def test_a_terminal_that_cannot_write_a_name_gets_its_escape(studied: Studied) -> None:
    command = [sys.executable, str(ROOT / "app_cli.py"), "studies", "to-csv", "small", "Łódź.csv"]
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"}
    said = subprocess.run(command, env=env, capture_output=True, encoding="latin-1", timeout=120)
    assert said.returncode == 0, said.stderr
    assert said.stdout == "4 trials written to \\u0141ód\\u017a.csv\n"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    make = {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}
    make[kind]()
    with pytest.raises(DataError, match=r"image\.png.*is no regular file.*repair or remove it"):
        read_file(path)


def test_json_has_null_for_what_is_no_number(capfd: pytest.CaptureFixture[str]) -> None:
    app_cli._print_json({"psnr": math.nan, "seen": [math.inf, (-math.inf, 1.5)], "of": {"all": True, "name": "x"}})
    found = {"psnr": None, "seen": [None, [None, 1.5]], "of": {"all": True, "name": "x"}}
    assert json.loads(capfd.readouterr().out) == found


def test_numbers_of_images_have_one_form_in_a_table() -> None:
    third = 1 / 3
    share = {"value": 0.5, "low": 0.25, "high": 0.75}
    figures = [{"images": count, "recall": share, "precision": None} for count in (27, 81 * third - 1e-14)]
    for table, columns in (
        (confusion_table(["a", "b"], [[27.0, third], [2 * third, 81 * third]]), ([], ["27.0", "0.7"], ["0.3", "27.0"])),
        (confusion_table(["a", "b"], [[27.0, 0], [1, 81 * third - 1e-14]]), ([], ["27", "1"], [".", "27"])),
        (class_table(["a", "b"], figures), ([], ["27", "27"], ["50.0 (25.0 to 75.0)"] * 2, ["-", "-"])),
    ):
        found = [list(column.cells) for column in table.columns]
        assert found[1:] == list(columns)[1:]
