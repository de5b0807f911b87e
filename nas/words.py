"""Text that others wrote, such as names of files and classes, made fit to be shown on a terminal."""

from __future__ import annotations

import unicodedata

_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, lone surrogates (bytes that are no UTF-8), and breaks of lines."""

_TURNING = {*map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
"""Characters that change the direction of the text behind them, so that it reads otherwise than it is."""

_TAGS = range(0xE0000, 0xE0080)


def visible(text: str) -> str:
    """Returns a text whose control characters are escapes, such as ``\\x1b``; a terminal obeys none of them.

    What languages need stays: no-break spaces, zero-width joiners and non-joiners.
    """
    if text.isprintable():
        return text
    return "".join(letter.encode("unicode_escape").decode() if _hidden(letter) else letter for letter in text)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _INVISIBLE or letter in _TURNING or ord(letter) in _TAGS
