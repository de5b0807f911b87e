"""What a search says before it has figures."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nas.settings import RunOptions
from studies.commands.search import prepare
from studies.commands.waiting import Waiting
from studies.settings import SearchRequest


def test_on_a_terminal_each_word_takes_the_place_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes a pipe for a terminal

    def shown(text: str) -> str:
        """What is on the terminal when the text is there, which rich draws within a tenth of a second."""
        seen = ""
        for _ in range(200):
            seen += capfd.readouterr().err
            if text in seen:
                return seen
            time.sleep(0.05)
        raise AssertionError(seen)

    with Waiting("loading ...") as waiting:
        shown("loading ...")
        waiting.say("reading [bold]a\x07b ...")
        assert "loading ..." not in shown("reading [bold]a\\x07b ...").partition("reading")[2]
    assert capfd.readouterr().err.endswith("\x1b[1A\x1b[2K"), "and the line is gone at the end"


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_is_said_in_a_pipe_and_when_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    if quiet:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with Waiting("loading ...", quiet=quiet) as waiting:
        waiting.say("reading ...")
    assert capfd.readouterr() == ("", "")


def test_a_new_study_says_what_takes_seconds(tmp_path: Path) -> None:
    said: list[str] = []
    request = SearchRequest(study="one", storage=f"sqlite:///{tmp_path}/one.db", data="digits", subset=60)
    prepare(request, RunOptions(trials=1), said.append).ledger.close()
    assert said == ["reading digits ...", "starting Ray ...", "timing training in fp32 and in bf16 ..."]
