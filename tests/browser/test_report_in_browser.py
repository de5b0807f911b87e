"""The report as a browser shows it: nothing fails, nothing is fetched, figures have marks, hover and theme work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_samples import Said, Studied
from visit import Visit

pytestmark = pytest.mark.slow

MARKS = """box => {
    const dots = box.querySelectorAll(".point, .js-line, .box, path.scatterpts, .bars path").length;
    const canvases = [...box.querySelectorAll("canvas")].filter(c => c.width > 0).length;
    return dots + canvases;
}"""


def draw_all(page: Any) -> list[Any]:
    boxes = page.locator(".plot")
    for index in range(boxes.count()):
        boxes.nth(index).scroll_into_view_if_needed()
        page.wait_for_function("i => document.querySelectorAll('.plot')[i].dataset.drawn", arg=index, timeout=20_000)
    return [boxes.nth(index) for index in range(boxes.count())]


@pytest.fixture
def page_file(studied: Studied, run: Callable[..., Said]) -> Path:
    said = run("report", "small", "--to", "small.html")
    assert said.code == 0, said.err
    return studied.folder / "small.html"


def test_every_figure_is_drawn_and_nothing_is_fetched(page_file: Path, browser: Any) -> None:
    visit = Visit(browser, page_file.as_uri(), viewport={"width": 1280, "height": 900})
    boxes = draw_all(visit.page)
    assert len(boxes) >= 8
    for box in boxes:
        assert box.evaluate(MARKS) > 0, box.get_attribute("id")
    assert visit.wrong == []


def test_hovering_the_front_shows_the_spec(page_file: Path, browser: Any) -> None:
    visit = Visit(browser, page_file.as_uri(), viewport={"width": 1280, "height": 900})
    box = visit.page.locator("#front-psnr-accuracy")
    box.scroll_into_view_if_needed()
    visit.page.wait_for_function("document.getElementById('front-psnr-accuracy').dataset.drawn")
    visit.page.wait_for_timeout(300)
    point = box.locator(".scatterlayer .trace path.point").last
    point.hover(force=True)
    hover = box.locator(".hoverlayer .hovertext")
    hover.first.wait_for(timeout=5000)
    text = hover.first.text_content()
    assert "trial" in text
    assert "levels" in text
    assert "fusion" in text


def test_the_theme_follows_the_system_and_switches(page_file: Path, browser: Any) -> None:
    visit = Visit(browser, page_file.as_uri(), color_scheme="dark", viewport={"width": 390, "height": 800})
    page = visit.page
    shade = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = page.evaluate(shade)
    page.locator("#front").scroll_into_view_if_needed()
    page.wait_for_function("document.getElementById('front').dataset.drawn")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate(shade) != dark
    ink = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()")
    assert page.evaluate("document.getElementById('front').layout.template.layout.font.color") == ink
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a phone scrolls sideways"
    assert visit.wrong == []


def test_a_trial_is_opened_by_its_link(page_file: Path, browser: Any) -> None:
    page = Visit(browser, page_file.as_uri()).page
    link = page.locator("tr.chosen a").first
    number = link.inner_text().split()[1]
    link.click()
    page.locator("dialog[open] h3").get_by_text(f"Trial {number}", exact=True).wait_for(timeout=30_000)
    assert "architecture" in page.locator("dialog pre").inner_text()


def test_figures_for_papers(studied: Studied, run: Callable[..., Said], browser: Any) -> None:
    pytest.importorskip("kaleido")
    said = run("report", "small", "--figures", "figures", "--format", "png")
    assert said.code == 0, said.err
    written = {path.name: path.read_bytes()[:4] for path in (studied.folder / "figures").iterdir()}
    assert {"front.png", "hypervolume-trials.png", "workers.png"} <= set(written)
    assert set(written.values()) == {b"\x89PNG"}
    assert said.err == ""
