"""Values from text, for every option, argument and name that a person types.

There is one reader for each type of value. A reader raises ValueError with the words that say how to mend the text, so
that the caller can put the name of the option and the text itself in front of them.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import re
from pathlib import Path

MOST_DIGITS = 18
"""The digits of the largest whole number: more fit neither into a database's column nor into torch's integers."""

LONGEST_SIDE = 2**16
"""The largest side of an image in pixels."""

LONGEST_TEXT = 4096
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""The bytes that Linux and macOS allow for the name of a file, and for a path."""

LONGEST_TIME = 100_000 * 3600.0
"""Seconds; about eleven years. Python's timers overflow beyond some hundred years."""

ADDRESSES = "give host:port of a Ray head, ray://host:port of its client server, or auto"


def read_whole(text: str) -> int:
    """Reads a whole number of the digits 0 to 9. Other scripts' digits and superscripts are refused."""
    if re.fullmatch(rf"[+-]?[0-9]{{1,{MOST_DIGITS}}}", text) is None:
        raise ValueError(f"give a whole number of at most {MOST_DIGITS} digits")
    return int(text)


def read_number(text: str) -> float:
    """Reads a number such as ``0.5`` or ``1e-3``, but not NaN or infinity, or one that is rounded to it."""
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is None or not math.isfinite(
        value := float(text)
    ):
        raise ValueError("give a finite number, such as 0.5 or 1e-3")
    return value


def read_seconds(text: str) -> float:
    """Reads a time: ``90``, ``90s``, ``30m`` or ``2h``."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if match is None:
        raise ValueError("give a time as a number and s, m or h, such as 30m")
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds > LONGEST_TIME:
        raise ValueError(f"give at most {LONGEST_TIME / 3600:.0f}h, or leave it out for no limit")
    return seconds


def read_size(text: str) -> tuple[int, int]:
    """Reads the height and width of an image: ``480x640``."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None or not all(1 <= int(side) <= LONGEST_SIDE for side in match.groups()):
        raise ValueError(f"give HEIGHTxWIDTH in pixels, such as 480x640, each 1 to {LONGEST_SIDE}")
    return int(match[1]), int(match[2])


def read_text(text: str) -> str:
    """Reads any text that a database and a file can hold."""
    if not text.strip():
        raise ValueError("give some text, or leave it out")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"give at most {LONGEST_TEXT} characters")
    if "\0" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)):
        raise ValueError("give text in UTF-8, without null characters")
    return text


def read_path(text: str) -> Path:
    """Reads the path of a file or folder, which need not exist."""
    if not text or "\0" in text:
        raise ValueError("give the name of a file or folder")
    try:
        sizes = [len(name.encode("utf-8", "surrogateescape")) for name in (text, *text.split("/"))]
    except UnicodeEncodeError:
        raise ValueError("give the name of a file or folder") from None
    if sizes[0] > LONGEST_PATH or max(sizes[1:]) > LONGEST_NAME:
        raise ValueError(f"give a path of at most {LONGEST_PATH} bytes, with names of at most {LONGEST_NAME}")
    try:
        Path(text).stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link that leads round in a circle; give another path") from None
    return Path(text)


def read_names(text: str) -> tuple[str, ...]:
    """Reads names with commas between them."""
    return tuple(name.strip() for name in read_text(text).split(","))


def read_weights(text: str) -> dict[str, float]:
    """Reads numbers by name: ``psnr=2,accuracy=1``. At least one is above zero, none below, and no name comes twice."""
    found: dict[str, float] = {}
    for part in read_text(text).split(","):
        name, _, weight = (word.strip() for word in part.partition("="))
        try:
            value = read_number(weight)
        except ValueError:
            raise ValueError(f"{part.strip()!r} is not NAME=WEIGHT, such as psnr=2") from None
        if not name or name in found:
            raise ValueError(f"{part.strip()!r} has {'a name that came before' if name else 'no name'}; name each once")
        if value < 0:
            raise ValueError(f"{part.strip()!r} is below zero; give weights of at least 0")
        found[name] = value
    if not any(found.values()):
        raise ValueError("all weights are zero; give at least one above zero")
    return found


def is_host(text: str) -> bool:
    """Whether a text can be a machine's name or its IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # What looks like an address of numbers, and is none, is no name either.
        name = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
        labels = text.removesuffix(".").split(".")
        return len(text) <= 253 and all(map(name.fullmatch, labels)) and not labels[-1].isdigit()
    return True


def read_host(text: str) -> str:
    """Reads the name or address of this machine that a server listens at."""
    if not is_host(text):
        raise ValueError("give a machine's name or address, such as 127.0.0.1")
    return text


def read_address(text: str) -> str:
    """Reads ``host:port`` of a Ray cluster's head, ``ray://host:port`` of its client server, or ``auto``."""
    if text == "auto":
        return text
    host, _, port = text.removeprefix("ray://").rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    sound = is_host(bare) and (":" not in bare or bare != host)  # an IPv6 address has brackets
    if not sound or re.fullmatch(r"[0-9]{1,5}", port) is None or not 1 <= int(port) <= 65535:
        raise ValueError(ADDRESSES)
    return text
