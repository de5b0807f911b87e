"""Optuna Dashboard as a browser shows it: the study, its named objectives, a trial's picture and note."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command_samples import ROOT, Said, Studied

pytestmark = pytest.mark.slow


@pytest.fixture
def address(studied: Studied) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "app_cli.py"), "dashboard", "--port", "8200", "--next-free"],
        cwd=studied.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    line = server.stderr.readline()
    yield line.split()[3].rstrip("/")
    server.terminate()
    assert server.wait(20) == 0
    server.stderr.close()


def test_study_objectives_and_picture(address: str, browser: Any, studied: Studied, run: Callable[..., Said]) -> None:
    number = json.loads(run("best", "small", "--json").out)["front"][0]["trial"]
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.goto(f"{address}/dashboard/")
    page.get_by_text("small", exact=False).first.wait_for(timeout=20_000)
    page.goto(f"{address}/dashboard/studies/1/trials?numbers={number}")
    for name in ("psnr", "accuracy", "stability"):
        page.get_by_text(name, exact=False).first.wait_for(timeout=20_000)
    picture = page.locator("img[src*='/artifacts/']").first
    picture.wait_for(timeout=20_000)
    page.wait_for_function("[...document.images].some(i => i.src.includes('/artifacts/') && i.naturalWidth > 100)")
    page.get_by_text("parameters,", exact=False).first.wait_for(timeout=40_000)
    with urllib.request.urlopen(f"{address}/api/studies/1", timeout=20) as answer:
        study = json.load(answer)
    assert study["objective_names"] == ["psnr", "accuracy", "stability"]
    assert "skipnas" in study["note"]["body"]
    assert [o["id"] for o in study["plotly_graph_objects"]] == ["front"]
