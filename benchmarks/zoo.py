"""The bundles that skipnas ships: ``python -m benchmarks.zoo [NAME ...] --kodak DIR [--trials N] [--epochs N]``.

Each is found by a search within limits of size, trained for longer, and written to studies/shipped without programs,
which an export of it makes again. They learn from images that everybody may use. `DIR` has the 24 photographs of
Kodak's PCD0992, as lossless PNG of 768x512 pixels, which `digits` does without. A search and a training that were
stopped go on where they were; with more trials or more epochs they are longer.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from skimage.data import data_dir

from benchmarks.lib.commands import skipnas
from nas.bundles.files import ARCHITECTURE, CARD, WEIGHTS
from nas.bundles.sums import write_sums
from studies.bundles import export_again
from studies.zoo import SHIPPED

FOLDER = Path("runs/zoo")

INSTALLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Photographs that scikit-image installs, which are in the public domain."""

SOURCE = (
    "the 24 photographs of Kodak's PCD0992, which Kodak is understood to have released for unrestricted use, and "
    f"photographs that scikit-image installs, which are in the public domain: {', '.join(INSTALLED)}."
)
OPTIONS = ("--group-by", "(.+)-[0-9]", "--objectives", "psnr", "--early-stopping")

LICENCE = "CC0-1.0"
KODAK = 24
"""The number of photographs of PCD0992."""

LEARNING_RATE = 0.004
"""The peak rate of the trainings on photographs. That of the search, 0.01, diverged after 23 of 100 epochs."""

MAX_PARAMS = 60_000
"""The limit of parameters: 240 kB of weights."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A bundle that is shipped.

    Attributes:
        data: its data source.
        noise: its noise.
        source: what it learned from, and the licence of that, for the card.
        options: options of the search.
        mode: of photographs, which `write_photographs` writes to the folder of `data`: Pillow's `L` or `RGB`.
    """

    data: str
    noise: str
    source: str
    options: tuple[str, ...] = ()
    mode: str = ""


BUNDLES = {
    "gray": Shipped(f"images:{FOLDER}/photographs/gray", "gaussian:5-50", SOURCE, OPTIONS, mode="L"),
    # What is good for gray photographs is tried first.
    "color": Shipped(
        f"images:{FOLDER}/photographs/color", "gaussian:5-50", SOURCE, (*OPTIONS, "--warm-start", "gray"), mode="RGB"
    ),
    "digits": Shipped(
        data="digits",
        noise="gaussian:50",
        source="the handwritten digits that scikit-learn installs: E. Alpaydin and C. Kaynak, Optical Recognition of "
        "Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the bundles. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=(__doc__ or "").split(":")[0])
    parser.add_argument("names", nargs="*", choices=[*BUNDLES, []], metavar="NAME", help=f"of {', '.join(BUNDLES)}")
    parser.add_argument("--kodak", type=Path, metavar="DIR", help="the photographs of Kodak's PCD0992")
    parser.add_argument("--trials", type=int, default=20, help="size of each search (20)")
    parser.add_argument("--search-epochs", type=int, default=8, help="epochs of each candidate (8)")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each training (100)")
    options = parser.parse_args(arguments)
    names = options.names or list(BUNDLES)
    kodak = sorted(options.kodak.glob("*.png")) if options.kodak else []
    if len(kodak) != KODAK and any(BUNDLES[name].mode for name in names):
        parser.error(f"--kodak must be a folder with the {KODAK} photographs of Kodak's PCD0992 as .png")
    FOLDER.mkdir(parents=True, exist_ok=True)
    photographs = [*kodak, *(Path(data_dir, name) for name in INSTALLED)]
    try:
        for name in names:
            each = BUNDLES[name]
            if each.mode:
                write_photographs(Path(each.data.partition(":")[2]), photographs, each.mode)
            make(name, each, options.trials, options.search_epochs, options.epochs)
    except subprocess.CalledProcessError as error:  # the command has said why
        return error.returncode
    return 0


def make(name: str, each: Shipped, trials: int, search_epochs: int, epochs: int) -> None:
    """Searches, trains and ships one bundle, as far as this is not done yet."""
    task = ("--data", each.data, "--noise", each.noise, *each.options)
    storage = ("--storage", f"{FOLDER}/studies.db")
    size = ("--max-params", str(MAX_PARAMS), "--trials", str(trials), "--epochs", str(search_epochs))
    skipnas("search", "--study", name, *task, *size, *storage)
    trained = FOLDER / f"{name}-{trials}-{search_epochs}-{epochs}"
    rate = ("--learning-rate", str(LEARNING_RATE)) if each.mode else ()
    skipnas("train", name, "--epochs", str(epochs), *rate, "--to", str(trained), *storage)
    ship(trained / "bundle", SHIPPED / name, name, each.source)


def write_photographs(folder: Path, files: Sequence[Path], mode: str) -> None:
    """Writes the quarters of photographs, which are named so that those of one photograph stay together."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        with PIL.Image.open(file) as image:
            whole = image.convert(mode)
        right, down = whole.width // 2, whole.height // 2
        for number, (left, top) in enumerate(((0, 0), (right, 0), (0, down), (right, down))):
            whole.crop((left, top, left + right, top + down)).save(folder / f"{file.stem}-{number}.png")


def ship(bundle: Path, target: Path, name: str, source: str) -> None:
    """Writes what skipnas needs of a bundle, and a card that says what it learned from."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, name)
        export_again(bundle, whole, licence=LICENCE)
        title, _, rest = (whole / CARD).read_text("utf-8").partition("\n")
        about = (
            f"This is the bundle `{name}` that skipnas ships: `skipnas denoise {name} IMAGE --to DIR` uses it. It\n"
            f"learned from {source}\nIts weights are free for any use ({LICENCE}).\n\n"
            f"The programs that this card tells of are left out; `skipnas export {name} --to DIR` writes the bundle\n"
            "with them."
        )
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in (ARCHITECTURE, WEIGHTS):
            shutil.copy(whole / file, target)
        (target / CARD).write_text(f"{title}\n\n{about}\n{rest}", "utf-8")
        write_sums(target)


if __name__ == "__main__":
    sys.exit(main())
