"""Text that others wrote: what is shown of it, and what only its escape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import in_short
from nas.words import visible

STAYS = [
    "cat",
    "café",
    "Zürich West",
    "می\u200cروم",
    "a\u00a0b",
    "ক\u200dষ",
    "👩\u200d🔬",
    "[red]cat[/red]",
    "$x^2$",
    "犬",
    "",
]


@pytest.mark.parametrize("text", STAYS)
def test_what_languages_need_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x07\x08\x7f\x9b2J", "\\x07\\x08\\x7f\\x9b2J"),
        ("gnp.\u202egpj", "gnp.\\u202egpj"),
        ("a\u2066b\u200f", "a\\u2066b\\u200f"),
        ("line\u2028break", "line\\u2028break"),
        ("bytes\udcff", "bytes\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@given(st.text())
def test_no_terminal_obeys_what_is_shown(text: str) -> None:
    shown = visible(text)
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_a_short_text_is_visible() -> None:
    assert in_short("a\x1b[2Jb\n c") == "a\\x1b[2Jb c"
