"""Wrong calls made by rule over every option and argument of every command.

A new option is in this table by its placeholder in the help, and a new command fails until its right call is here. Each
call is answered by one line that names the value or
the option, with exit code 2, before any data is read, and leaves everything as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from command_samples import Said, Studied
from test_documentation import commands
from test_wrong_calls import tree

Run = Callable[..., Said]

CALLS = {
    "search": ["--study", "new", "--trials", "1", "--epochs", "1", "--subset", "100"],
    "studies list": [],
    "studies show": ["small"],
    "studies delete": ["small", "--yes"],
    "studies to-csv": ["small", "new.csv"],
    "studies replay": ["small"],
    "best": ["small"],
    "confirm": ["small"],
    "export": ["small", "--to", "new"],
    "train": ["unet", "--to", "new", "--subset", "60", "--epochs", "1"],
    "evaluate": ["bundle"],
    "denoise": ["bundle", "one.png", "--to", "new"],
    "noise": ["folder"],
    "report": ["small"],
    "show": ["bundle"],
    "dashboard": ["--port", "1"],
    "spaces": ["unet"],
    "doctor": [],
}
"""A right call of every command, but for the bundles, which are not opened before all values are read."""

LONG = "x" * 5000
NUMBERS = ["", "²", "9" * 30, "inf", "nan", "many", "-1"]
PATHS = ["", "x" * 300, "loop", "a/" * 2100]
TEXTS = ["", "\udcff", LONG]
WRONG = {
    "N": [*NUMBERS, "1.5"],
    "X": NUMBERS,
    "LEVEL": NUMBERS,
    "MS": NUMBERS,
    "HxW": ["", "32", "32x", "0x8", "8x0", "-8x8", "8x8x8", "65537x8", "²x8", "8 x 8", LONG],
    "REGEX": [*TEXTS, "(", "[", "*"],
    "TIME": [*NUMBERS, "1d", "1e9h", "9" * 30 + "h"],
    "DIR": [*PATHS, "pipe", "file"],
    "DIR|FILE": [*PATHS, "pipe", "file"],
    "FILE": [*PATHS, "full"],
    "BUNDLE": [*PATHS, "pipe", "file", "full"],
    "IMAGE...": ["", "x" * 300, "loop"],
    "URL": ["", "\udcff", "x" * 300, "loop", "pipe", "full", "postgresql://h:²/x", "sqlite:///" + LONG],
    "STUDY": [*TEXTS, "../up"],
    "A[,B,...]": [*TEXTS, "gaussian:²", "gaussian:nan", "gaussian:25,"],
    "NAME=WEIGHT,...": [*TEXTS, "psnr=nan", "psnr=1,psnr=2", "psnr=0,accuracy=0,stability=0", "psnr=²", "=1"],
    "SPEC.json|REFERENCE|NAME[:PICK]": [*TEXTS, "pipe.json", "endless.json", "loop.json", "x" * 300, "file/a.json"],
}
"""Wrong values by the placeholder of the option in the help; `TEXTS` for any other one."""

ALSO = {
    "--data": ["folder:", "folder:" + LONG, "images:loop", "folder:pipe", "digits:x", "folder:a\0b"],
    "--noise": ["gaussian:²", "gaussian:inf", "gaussian:1e2", "poisson:nan", "none:1", "jpeg:2.5", "rows:5+none"],
    "--address": ["head", "head:²", "a b:1", ":1", "1.2.3:4", "ray://", "host:99999"],
    "--host": ["a b", "999.1.1.1", "http://x"],
    "--pick": ["²", "9" * 30, "-1", "1.5"],
    "--license": ["a\nb", "\x1b[31m"],
    "--format": ["gif", "SVG"],
    "--objectives": ["psnr,", "psnr,psnr", ",", "foo", "psnr,foo"],
    "--split": ["train"],
    "--reference": ["magic"],
}
"""Wrong values of single options."""


def wrong_values() -> Iterator[tuple[str, str, list[str]]]:
    """Command, option (empty for an argument) with its place, and the wrong values."""
    for path, found in commands():
        name = " ".join(path)
        place = 0
        for parameter in found.params:
            if parameter.name == "help" or getattr(parameter, "is_flag", False):
                continue
            if parameter.param_type_name == "argument":
                yield name, str(place), WRONG.get(parameter.metavar, TEXTS)
                place += 1
            else:
                option = parameter.opts[0]
                # A storage that cannot be used is what doctor is asked about.
                values = TEXTS[:2] if (name, option) == ("doctor", "--storage") else WRONG.get(parameter.metavar, TEXTS)
                yield name, option, [*values, *ALSO.get(option, ())]


CASES = [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in wrong_values()]


@pytest.fixture(scope="module")
def folder(_searched: Studied, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search, and everything that is no file."""
    folder = tmp_path_factory.mktemp("values") / "work"
    shutil.copytree(_searched.folder, folder)
    (folder / "file").write_text("no folder")
    (folder / "full").mkdir()
    (folder / "full" / "file").write_text("something")
    for name in ("loop", "loop.json"):
        (folder / name).symlink_to(name)
    for name in ("pipe", "pipe.json"):
        os.mkfifo(folder / name)
    (folder / "endless.json").symlink_to("/dev/zero")
    return folder


def other_shapes() -> Iterator[tuple[str, str, list[str]]]:
    """Command, what is wrong, and the words of a call that has another shape than the command."""
    for path, found in commands():
        name = " ".join(path)
        arguments = [each for each in found.params if each.param_type_name == "argument"]
        options = [each for each in found.params if each.param_type_name == "option" and each.name != "help"]
        right = CALLS[name]
        yield name, "unknown option", [*right, "--nothing"]
        if any(each.required for each in arguments):
            yield name, "no argument", right[len(arguments) :]
        if all(each.nargs == 1 for each in arguments):
            yield (
                name,
                "an argument too many",
                [*right[: len(arguments)], "more", "still more", *right[len(arguments) :]],
            )
        for option in options:
            for spelling in (*option.opts, *option.secondary_opts):
                if option.is_flag:
                    yield name, f"{spelling} with a value", [*right, f"{spelling}=x"]
                else:
                    yield name, f"{spelling} without a value", [*right, spelling]


def test_there_are_many() -> None:
    assert sum(len(values) for _, _, values in wrong_values()) > 400
    assert len(list(other_shapes())) > 150


def test_every_command_has_its_right_call() -> None:
    assert sorted(CALLS) == sorted(" ".join(path) for path, _ in commands())


def test_every_option_is_called_wrongly() -> None:
    """Flags take no value, so they are wrong with one."""
    called = {(command, option) for command, option, values in wrong_values() if values}
    called |= {(command, word.partition("=")[0]) for command, _, words in other_shapes() for word in words[-1:]}
    for path, found in commands():
        for parameter in found.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert (" ".join(path), parameter.opts[0]) in called


def check(run: Run, folder: Path, before: set[tuple[str, int]], words: list[str], value: str) -> None:
    """Runs a wrong call: one line on stderr, exit code 2, and nothing changed."""
    said = run(*words)
    told = (value[:40], said)
    assert said.code == 2, told
    assert said.err.startswith("error: "), told
    assert len(said.err.splitlines()) == 1, told
    assert said.out == "", told
    assert tree(folder) == before, told


@pytest.mark.parametrize("command", CALLS)
def test_a_call_of_another_shape_is_one_line_and_exit_code_2(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(folder)
    before = tree(folder)
    for name, wrong, words in other_shapes():
        if name == command:
            check(run, folder, before, [*command.split(), *words], wrong)


def read_too_early(*arguments: object, **options: object) -> NoReturn:
    raise AssertionError("a wrong value was refused only after data was read")


@pytest.mark.parametrize(("command", "option", "values"), CASES)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: str, option: str, values: list[str]
) -> None:
    monkeypatch.chdir(folder)
    if option not in ("--data", "--data-root", "--white-level"):  # what is right depends on the files
        monkeypatch.setattr("nas.data.splits._read", read_too_early)
        monkeypatch.setattr("nas.data.splits.cut_photographs", read_too_early)
    before = tree(folder)
    for value in values:
        words = list(CALLS[command])
        if option.isdigit():
            words[int(option)] = value
        elif option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
        check(run, folder, before, [*command.split(), *words], value)
