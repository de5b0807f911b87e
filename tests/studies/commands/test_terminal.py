"""The live display on a terminal of 80 columns, and plain lines elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from study_samples import make_config

from nas.engine.confirm import ConfirmProgress
from nas.engine.search import Progress
from nas.search.confirmation import Confirmed, Interval
from nas.types import Counts, Objective, TrialResult
from studies.commands.terminal import ConfirmDisplay, SearchDisplay, confirmation_table, size_table
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
