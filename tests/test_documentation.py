"""The documentation against the program: every option is there, every command line is valid, the cheap ones work.

``python tests/test_documentation.py`` writes docs/commands.md anew.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import app_cli  # noqa: E402

REFERENCE = ROOT / "docs" / "commands.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CHEAP = ("best", "report", "studies list", "studies show", "studies to-csv", "studies replay")


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    group = typer.main.get_command(app_cli.app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def reference() -> str:
    """docs/commands.md as it should be."""
    parts = [
        "# Commands\n",
        "`skipnas COMMAND --help` says the same. Written by `python tests/test_documentation.py`.",
    ]
    for path, command in commands():
        text = " ".join(command.help.split("Example:")[0].split())
        example = command.help.split("Example:")[1].strip()
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["skipnas", *path, *(p.metavar or p.name.upper() for p in arguments)])
        parts += [f"\n## {' '.join(path)}\n", f"{text}\n", f"    {usage} [OPTIONS]\n", f"```sh\n{example}\n```\n"]
        parts += ["| option | what |", "|---|---|"]
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                names = "/".join([*option.opts, *option.secondary_opts])
                value = "" if option.is_flag else f" {option.metavar}"
                help_text = " ".join(option.help.split()).replace("|", "\\|")
                if "Default:" not in help_text and option.default not in (None, False):
                    help_text += f" Default: {option.default}."
                parts.append(f"| `{names}{value}` | {help_text} |")
    return "\n".join(parts) + "\n"


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command line of skipnas in a block of shell."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                at = next((i for i, word in enumerate(words) if re.search(r"(^|/)skipnas$", word)), None)
                if at is not None:
                    yield page.name, words[at + 1 :]


LINES = [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in command_lines()]


def test_every_command_and_option_is_documented() -> None:
    assert REFERENCE.read_text() == reference(), "run: python tests/test_documentation.py"


def test_the_readme_names_every_command() -> None:
    table = (ROOT / "README.md").read_text()
    for path, _ in commands():
        assert re.search(rf"`[^`|]*\b{re.escape(path[-1])}\b", table), " ".join(path)


@pytest.mark.parametrize("words", LINES)
def test_command_lines_are_valid(words: list[str]) -> None:
    found = dict(commands())
    path = tuple(words[:2]) if tuple(words[:2]) in found else tuple(words[:1])
    assert path in found, f"no command {' '.join(words[:2])}"
    found[path].make_context(path[-1], list(words[len(path) :]))  # raises for what it does not know


def test_the_cheap_command_lines_work(studied: Any, run: Callable[..., Any]) -> None:
    """In the order of the pages, on a small study in place of theirs."""
    ran = 0
    done = set()
    for page, words in command_lines():
        said = " ".join(words)
        if page in ("commands.md", "noisy.md") or said in done or not said.startswith(CHEAP):
            continue
        if any(word.startswith(("folder:", "images:")) for word in words):
            continue  # the tutorial's, which has a test with images
        done.add(said)
        small = [
            {"digits-gaussian-50": "small", "parts": "small", "chains": "small", "tour": "small"}.get(w, w)
            for w in words
        ]
        result = run(*small)
        assert result.code == 0, f"{page}: {said}\n{result.err}"
        ran += 1
    assert ran >= 4


def test_pictures_are_small_and_links_lead_somewhere() -> None:
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000, picture.name
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.slow
def test_the_tutorial_works_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """On 120 small images, with a search cut short: its options are its own, its budget the test's."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, low in (("bolts", 0), ("nuts", 120)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(60):
            values = draw.integers(low, low + 100, (4, 4)).repeat(4, 0).repeat(4, 1).astype("uint8")
            Image.fromarray(values).save(tmp_path / "images" / name / f"{index:04}.png")
    monkeypatch.chdir(tmp_path)
    lines = [words for page, words in command_lines() if page == "tutorial.md"]
    assert [words[0] for words in lines] == ["search", "best", "report", "export", "evaluate"]
    for words in lines:
        cut = ["--trials", "2", "--epochs", "1", "--max-macs", "2000000"] if words[0] == "search" else []
        result = run(*words, *cut)
        assert result.code == 0, f"{' '.join(words)}\n{result.err}"
    assert (tmp_path / "parts.html").stat().st_size > 1_000_000
    assert (tmp_path / "parts-bundle" / "model.onnx").exists()


@pytest.mark.slow
def test_the_page_on_noisy_images_works_to_the_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """On 12 small images of each kind, with searches cut short."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(12):
        clean = draw.integers(40, 200, (6, 6)).repeat(16, 0).repeat(16, 1)
        for path in (f"scans/{number:04}.png", f"bursts/scene {number}/0.png", f"bursts/scene {number}/1.png"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            noisy = clean + draw.normal(0, 20, clean.shape)
            Image.fromarray(noisy.round().clip(0, 255).astype("uint8")).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    lines = [words for page, words in command_lines() if page == "noisy.md"]
    expected = ["noise", "search", "search", "best", "report", "export", "evaluate", "denoise"]
    assert [words[0] for words in lines] == expected
    for words in lines:
        cut = ["--trials", "2", "--epochs", "1", "--max-macs", "2000000"] if words[0] == "search" else []
        result = run(*words, *cut)
        assert result.code == 0, f"{' '.join(words)}\n{result.err}"
        if words[0] == "search":
            told = "(blind spot)" if "scans" in words else "(Noise2Noise)"
            assert told in caplog.text
            caplog.clear()
    assert "removed by trial" in (tmp_path / "bursts.html").read_text()
    assert "self-supervised" in (tmp_path / "bursts-bundle" / "README.md").read_text()
    assert len(list((tmp_path / "restored").iterdir())) == 12


if __name__ == "__main__":
    REFERENCE.write_text(reference())
