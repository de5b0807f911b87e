"""URLs of databases, and their form without passwords for messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from nas.errors import StorageError, in_short
from nas.parsing import read_path

DEFAULT_URL = "sqlite:///runs/studies.db"
_URL_WORD = re.compile(r"(?P<option>--[\w-]+=)?(?P<url>.*://.*)", re.DOTALL)


def parse_url(url: str | None) -> URL:
    """Reads a storage's URL. A bare path means SQLite, and PostgreSQL without a driver uses psycopg."""
    if url is None:
        url = DEFAULT_URL
    if "://" not in url and ":" in url.rpartition("@")[0]:  # a mistyped URL, which could pass for a path
        raise _unparsable()
    if url and "://" not in url and not re.match(r"\w[\w+]+:", url):  # one letter before the colon is a drive
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _unparsable() from None
    if parsed.host is not None and "@" in parsed.host:
        raise _unparsable()
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _unparsable() -> StorageError:
    """Returns the error for a URL that is not shown, because a password could be anywhere in it."""
    return StorageError(
        "storage URL cannot be parsed; write a file's path or postgresql://USER:PASSWORD@HOST/NAME, with %40 for an @ "
        "and %2F for a / in the password"
    )


def masked_text(text: str) -> str:
    """Returns a text without the passwords of URLs in it, however these are written."""
    return re.sub(r"(/{1,2}|:/?)[^\s:/@]*:(?!\*\*\*@)[^\s]*@", r"\1...@", text)


def storage_url(url: str | None) -> URL:
    """Reads the URL of a storage that is about to be used. An SQLite file that is there is a regular file."""
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    if path is not None:
        try:
            read_path(str(path))
        except ValueError as error:
            raise StorageError(f"storage {in_short(masked(parsed))}: {error}") from None
        if path.exists() and not path.is_file():
            raise StorageError(f"storage {masked(parsed)} is no file of a database; give the name of a file")
    return parsed


def masked(url: URL) -> str:
    """Returns the URL without passwords, wherever they stand in it."""
    query = {key: "..." if "pass" in key.lower() else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def masked_words(words: Sequence[str]) -> list[str]:
    """Returns a command line's words without the passwords in its URLs. A URL without passwords stays as it is."""
    return [_URL_WORD.sub(_masked_match, word, count=1) for word in words]


def masked_command(command: str) -> str:
    """Masks a command line in one string; see `masked_words`."""
    if "://" not in command:
        return command
    try:
        words = shlex.split(command)
    except ValueError:  # its quotes are open, so it is no command line
        words = command.split()
    return shlex.join(masked_words(words))


def _masked_match(word: re.Match[str]) -> str:
    option, url = word["option"] or "", word["url"]
    try:
        parsed = parse_url(url)
    except StorageError:
        return f"{option}..."  # a password could be anywhere in it
    shown = masked(parsed)
    return word[0] if shown == parsed.render_as_string(hide_password=False) else option + shown


def sqlite_path(url: URL) -> Path | None:
    """Returns the file behind an SQLite URL; None for another database and for one in memory."""
    in_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if in_file else None
