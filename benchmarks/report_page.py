"""The report of a large study: its bytes, and the seconds to write it and to open it in headless Chromium.

    python -m benchmarks.report_page NAME --storage URL [--trials 3000]

The trials of a stored study are repeated, with their values moved a little, until there are enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from nas.search.pareto import non_dominated
from studies.pages.report import render
from studies.pages.samples import Samples
from studies.reading.history import History, read_history
from studies.reading.study import StudyReader

LIMIT_MB, LIMIT_SECONDS = 15.0, 3.0


def grown(history: History, trials: int, seed: int = 0) -> History:
    """Makes a history of `trials` trials from those of `history` in turn, with values and places moved at random.

    Raises:
        ValueError: there is no complete trial to grow from.
    """
    if history.choice is None:
        raise ValueError("the study has no complete trial")
    draw = random.Random(seed)
    names = [o.name for o in history.config.objectives]
    made = []
    for number in range(trials):
        trial = history.trials[number % len(history.trials)]
        values = {k: v * draw.uniform(0.9, 1.0) for k, v in trial.values.items()}
        made.append(dataclasses.replace(trial, number=number, order=number + 1, on_front=False, values=values))
    done = [t for t in made if t.values]
    points = np.array([[t.values[name] for name in names] for t in done])
    front = non_dominated(points, [o.direction == "maximize" for o in history.config.objectives])
    for trial, on_front in zip(done, front, strict=True):
        if on_front:
            made[trial.number] = dataclasses.replace(trial, on_front=True)
    knee = next(t for t in made if t.on_front)
    chosen = dataclasses.replace(history.choice.chosen, number=knee.number)
    return dataclasses.replace(
        history,
        trials=tuple(made),
        choice=dataclasses.replace(history.choice, chosen=chosen),
        probes={knee.number: next(iter(history.probes.values()))},
    )


OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


def seconds_to_open(page: Path) -> tuple[float, float]:
    """Times the page in Chromium.

    Returns:
        the seconds until the page is there and answers, and, scrolled to at once, until the front in 3-D is drawn.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        tab = browser.new_page()
        started = time.perf_counter()
        tab.goto(page.as_uri())
        tab.evaluate("data.trials[0].hover")
        opened = time.perf_counter() - started
        tab.locator("#front").scroll_into_view_if_needed()
        tab.wait_for_function("document.getElementById('front').dataset.drawn", timeout=60_000)
        drawn = time.perf_counter() - started
        browser.close()
    return opened, drawn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--storage")
    parser.add_argument("--trials", type=int, default=3000)
    given = parser.parse_args()
    with StudyReader.open(given.name, given.storage) as study, tempfile.TemporaryDirectory() as folder:
        history = grown(read_history(study), given.trials)
        started = time.perf_counter()
        page = Path(folder) / "report.html"
        page.write_text(render(study, history, Samples()))
        written = time.perf_counter() - started
        size = page.stat().st_size / 1e6
        opened, drawn = seconds_to_open(page)
    print(f"{given.trials} trials: {size:.1f} MB (limit {LIMIT_MB:.0f}), written in {written:.1f} s, ", end="")
    print(f"opened in {opened:.1f} s (aim {LIMIT_SECONDS:.0f}), front drawn after {drawn:.1f} s")


if __name__ == "__main__":
    main()
