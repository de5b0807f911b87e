"""The SHA-256 sums of a bundle's files, as ``sha256sum -c SHA256SUMS`` reads them, and their check.

They tell of files that were damaged, rewritten by another program, or exchanged for those of another bundle. They are
no signature: whoever changes a file on purpose can change the sums too.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from nas.bundles.files import ARCHITECTURE, CARD, MAX_FILE, PARITY, SUMS, WEIGHTS
from nas.bundles.formats import is_program
from nas.errors import BundleError
from nas.files import read_small
from nas.words import visible

MAX_SUMS = 2**20
"""The limit in bytes of the file of sums."""

LINE = re.compile(r"([0-9a-f]{64})  ([^/\s][^/\r\n]*)")


def write_sums(folder: Path) -> None:
    """Writes the sum of every file of a folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sum_of(file)}  {file.name}\n" for file in files), "utf-8")


def check_sums(folder: Path) -> None:
    """Checks every file of a bundle that programs read, against the sums that were written with it.

    A person may edit the card, take programs out and put files of other names beside them.

    Raises:
        BundleError: the sums are not readable, or a file is not the one that was exported.
    """
    sums = _read(folder / SUMS)
    for file in sorted(folder.iterdir()):
        if file.name == CARD or not file.is_file():
            continue
        name = visible(file.name)
        if file.name not in sums:
            if file.name in (ARCHITECTURE, WEIGHTS, PARITY) or is_program(file.name):
                raise BundleError(f"{folder / name}: has no sum in {SUMS}, so it came later; export the bundle again")
        elif file.stat().st_size > MAX_FILE or sum_of(file) != sums[file.name]:
            raise BundleError(
                f"{folder / name}: is not the file that was exported, by its sum in {SUMS}; put that one back, or "
                "export the bundle again"
            )


def card_is_edited(folder: Path) -> bool:
    """Whether the card of a bundle is another one than its export wrote."""
    file = folder / CARD
    return file.is_file() and (folder / SUMS).is_file() and _read(folder / SUMS).get(CARD) != sum_of(file)


def _read(file: Path) -> dict[str, str]:
    """Returns sums by name. Raises BundleError for a file that `write_sums` would not have written like this."""
    try:
        text = read_small(file, MAX_SUMS)
    except ValueError as error:
        raise BundleError(f"{file}: not readable ({error}); export the bundle again") from None
    found = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    sums = {match[2]: match[1] for match in found if match is not None}
    if not text.endswith("\n") or list(sums) != sorted(sums) or len(sums) != len(found):
        raise BundleError(f"{file}: is no list of SHA-256 sums as an export writes it; export the bundle again")
    return sums


def sum_of(file: Path) -> str:
    """Returns the SHA-256 sum of a file, as 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
