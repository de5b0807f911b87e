"""The live display on a terminal of 80 columns, and plain lines elsewhere."""

from __future__ import annotations

import io
import math
import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from study_samples import make_config

from nas.engine.confirm import ConfirmProgress
from nas.engine.search import Progress, SearchEnd
from nas.search.confirmation import Confirmed, Interval
from nas.types import Counts, Objective, TrialResult
from studies.commands.terminal import (
    PLAIN_SECONDS,
    ConfirmDisplay,
    SearchDisplay,
    confirmation_table,
    size_table,
    summary,
)
from studies.reading.best import Choice
from studies.reading.sizes import AtSize, Sized

COUNTS = Counts(complete=600, pruned=399, failed=12, running=16)


def progress() -> Progress:
    return Progress(
        trials=1000,
        counts=COUNTS,
        done_before=0,
        running={990 + i: (i, 27) for i in range(16)},
        best={"psnr": 31.41592, "latency": 0.123456},
        hypervolume=1234567.0,
        messages=["trial 7 ended: exception; why: skipnas studies show first --trial 7"],
    )


@pytest.mark.parametrize("width", [80, 200])
def test_the_live_display_fits_and_keeps_its_height(width: int) -> None:
    display = SearchDisplay(make_config("a-study-with-a-rather-long-name-" + 30 * "x"))
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    display._console = console
    display._progress = progress()
    drawn = console.render_lines(display._render(), pad=False)
    lines = ["".join(segment.text for segment in line) for line in drawn]
    assert all(len(line.rstrip()) <= width for line in lines)
    bar = next(line for line in lines if "999/1000 trained" in line)
    assert "12 failed" in bar, "one line, not wrapped"
    assert len(lines) <= 20, "it fits a terminal of 24 lines"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    display = SearchDisplay(make_config())
    display._console = Console(file=file, force_terminal=True, width=80, _environ={"NO_COLOR": "1", "TERM": "xterm"})
    display._progress = progress()
    display._console.print(display._render())
    assert "\x1b[3" not in file.getvalue(), "no colours"


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    shown.counts = Counts(complete=1000)
    with SearchDisplay(make_config()) as display:
        display.observe(shown)
        display.observe(shown)
    said = capsys.readouterr().err
    assert said.count("1000/1000 trained") == 1
    assert said.count("trial 7 ended") == 1, "a message is said once"
    assert "\x1b" not in said


def test_a_search_without_a_size_is_shown_by_its_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = progress()
    shown.trials, shown.started, shown.deadline = None, 1000.0, 1600.0
    monkeypatch.setattr("nas.engine.search.time", SimpleNamespace(monotonic=lambda: 1400.0))
    assert shown.share() == pytest.approx(2 / 3)
    display = SearchDisplay(make_config())
    display._last = -PLAIN_SECONDS
    display.observe(shown)
    said = capsys.readouterr().err
    assert "\n999 trained, 16 running" in said
    assert said.endswith("time left 3:20\n")
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    drawn = console.render_lines(display._drawn(shown), pad=False)
    assert any("999 trained" in "".join(segment.text for segment in line) for line in drawn)


def test_the_time_that_is_left_is_at_most_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = progress()
    shown.running, shown.started = {}, 1000.0
    monkeypatch.setattr("nas.engine.search.time", SimpleNamespace(monotonic=lambda: 1999.0))
    assert shown.seconds_left() == pytest.approx(1), "999 trials took 999 seconds"
    shown.deadline = 1999.5
    assert shown.seconds_left() == pytest.approx(0.5)
    shown.done_before = 999
    assert shown.seconds_left() == pytest.approx(0.5), "no trial has ended yet"
    shown.deadline = math.inf
    assert shown.seconds_left() is None


def test_the_closing_lines_of_a_search_without_a_size() -> None:
    config = make_config("first")

    def lines(running: int) -> list[str]:
        counts = Counts(complete=9, pruned=1, running=running)
        end = SearchEnd(reason="time_limit", counts=counts, new=7, seconds=61.0)
        return summary(end, config, None, again=["skipnas", "search"])

    assert lines(running=2) == [
        "7 trials in 1:01; the study has 10: 9 complete, 1 pruned; 0 failed",
        "stopped by the time limit; trials under way are kept. Go on with: skipnas search",
    ]
    assert lines(running=0)[1] == "stopped by the time limit. Go on with: skipnas search"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchDisplay(make_config(), quiet=True) as display:
        display.observe(progress())
    assert capsys.readouterr().err == ""


def test_a_confirmation_fits_80_columns() -> None:
    def member(name: str, number: int | None, failed: int = 0) -> Confirmed:
        value = Interval(mean=85.4, sd=9, low=45.12, high=125.68, n=3)
        names = () if failed > 1 else ("psnr", "accuracy", "stability", "test_psnr", "test_accuracy")
        return Confirmed(
            digest=name,
            number=number,
            reference=name,
            spec={},
            recipe={},
            runs=3,
            failed=failed,
            values=dict.fromkeys(names, value),
        )

    objectives = [
        Objective(name=name, direction="maximize", unit=unit, reference=0.0)
        for name, unit in (("psnr", "dB"), ("accuracy", "%"), ("stability", ""))
    ]
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    found = [member("multi-resnet-none-added", None), member("knee", 7), member("sluice", None, failed=2)]
    knee = TrialResult(number=7, digest="knee", spec={}, recipe={}, values={})
    choice = Choice(front=(knee,), chosen=knee, reason="", hypervolume=0.0, confirmed={7: found[1]})
    lines = [
        "".join(segment.text for segment in line).strip()
        for line in console.render_lines(confirmation_table(found, choice, objectives), pad=False)
    ]
    name, test = next(lines[i : i + 2] for i, line in enumerate(lines) if line.startswith("multi"))
    two = ["85.40 ± 40.28", "85.40 ± 40.28"]
    assert re.split(r"\s{2,}", name) == ["multi-resnet-none-added", *two, "85.400 ± 40.280", "3"]
    assert re.split(r"\s{2,}", test) == ["test", *two]
    assert any(line.startswith("trial 7 <- knee") for line in lines)
    assert "2 of 3 runs failed" in lines
    display = ConfirmDisplay()
    display._progress = ConfirmProgress(
        total=10000, done=9999, done_before=9998, running=dict.fromkeys(range(128), 0.5)
    )
    display._progress.started -= 36000
    assert len(console.render_lines(display._render(), pad=False)) == 1


def test_the_best_at_each_size_fits_80_columns() -> None:
    def best(number: int, reference: str = "") -> dict[str, Sized]:
        trial = Sized(number=number, reference=reference, macs=2e6, values={"psnr": 20.84, "accuracy": 97.451})
        return {"psnr": trial, "accuracy": trial}

    rows = [
        AtSize(macs=3_200_000, found=best(7), references={}),
        AtSize(macs=6_400_000, found=best(1234), references=best(3, "multi-resnet-none-added")),
    ]
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    drawn = console.render_lines(size_table(rows), pad=False)
    lines = ["".join(segment.text for segment in line).strip() for line in drawn]
    shown = [re.split(r"\s{2,}", line) for line in lines if "20.84" in line]
    assert re.split(r"\s{2,}", lines[1]) == ["macs <=", "best of", "psnr (dB)", "accuracy (%)"]
    assert shown == [
        ["3.2M", "search", "20.84 trial 7", "97.45 trial 7"],
        ["6.4M", "search", "20.84 trial 1234", "97.45 trial 1234"],
        ["papers", "20.84 multi-resnet-none-added", "97.45 multi-resnet-none-added"],
    ]
    assert all(len(line) <= 80 for line in lines)
