"""The white level of images: the value that stands for white, to which all other values are compared.

Counts of a camera with 12 bits, stored in 16, end at 4095. Read against 65535 they are nearly black, and a network that
answers black scores well on them. The level comes from the person, the study or the bundle, or the file itself; where
nobody states it, and the values end far below the largest that their type holds, the person is asked. The person may
answer with a number, or with `DATA`: the largest value of the images that decide (see `White.found`), which then is
that number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from nas.data.listing import counted
from nas.errors import DataError

if TYPE_CHECKING:
    from nas.data.image_file import ImageFile

DATA: Final = "data"
"""The word for the largest value of the images."""

WhiteLevel = float | Literal["data"]
"""A level as a person gives it: a number, or `DATA`."""

MOST_LEVEL = 2**32 - 1
"""The largest value of an integer that images have."""

FAR_BELOW = 4
"""Values that reach less than this part of their type's largest value are not taken for its whole range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class White:
    """Everything that is known of white before a file is read.

    Attributes:
        given: level that the person states, or that a study has fixed. It holds for every file that can have it.
        trained: level of the data that a network was trained on. It holds for files that state none.
        ask: whether data of an unknown level is refused. It is read by its type's whole range otherwise.
        of_data: whether `given` is yet to be found in the data (see `found`).
    """

    given: float | None = None
    trained: float | None = None
    ask: bool = True
    of_data: bool = False

    @classmethod
    def asked(cls, level: WhiteLevel | None, trained: float | None = None) -> White:
        """Returns what is known where a person asks for a level, or for none."""
        return cls(given=None if level == DATA else level, trained=trained, of_data=level == DATA)

    def fixed(self, level: float | None) -> White:
        """Returns what is known once data was read whose level is `level`: it is given, if it was to be found there."""
        return replace(self, given=level, of_data=False) if self.of_data else self

    def found(self, source: str, files: Iterable[ImageFile], tell: Callable[..., None]) -> White:
        """Returns what is known once the largest value was looked up, where it is asked for.

        Images of 8 bits count only where there are no others, as values of several types do not compare.

        Args:
            source: name of the source, for messages.
            files: the files that decide: those for training, where the source itself says which these are. They are
                read one after the other, and only when they are needed.
            tell: a logger's method, which is told the level.

        Raises:
            DataError: the largest value cannot be white.
        """
        if not self.of_data:
            return self
        values: dict[bool, list[float]] = {True: [], False: []}
        for file in files:
            values[file.full != 255].append(file.most)
        most = values[True] or values[False]
        level = max(most, default=0.0)
        if not 0 < level <= MOST_LEVEL:
            raise DataError(
                f"{source}: the largest value of its images is {_figure(level)}, which cannot be white; give "
                "`white_level` a number"
            )
        tell("%s: white is %s, the largest value of %s", source, _figure(level), counted(len(most), "file"))
        return self.fixed(level)

    def of(self, file: ImageFile) -> tuple[float, bool]:
        """Returns the white level of a file, and whether anybody states it.

        Images of 8 bits have 255 unless a level that fits them is given: what they say of themselves is their history.

        Raises:
            DataError: the file and the network state different levels, or the level cannot be meant for this file.
        """
        assert not self.of_data, "the level was not looked up"
        stated = file.stated
        wanted = self.given if self.given is not None and _can_have(file, self.given) else None
        if wanted is None and file.disagreeing:
            raise DataError(
                f"image {file.path}: its pages say that white is {' and '.join(map(_figure, file.disagreeing))}; give "
                "`white_level`, or split it"
            )
        if wanted is None and self.trained is not None and _can_have(file, self.trained):
            wanted = self.trained
            if stated not in (None, wanted):
                raise DataError(
                    f"image {file.path}: its file says that white is {_figure(stated)}, and the network was "
                    f"trained with {_figure(wanted)}; give `white_level`"
                )
        level = wanted or stated or file.full
        if file.is_float and wanted is not None and 0 < file.most <= 1 < level / 256:
            raise DataError(
                f"image {file.path}: its values are fractions up to {file.most:.3g}, and white would be "
                f"{_figure(level)}; leave it out, or give another `white_level`"
            )
        return level, level in (wanted, stated)


def _can_have(file: ImageFile, level: float) -> bool:
    return file.is_float or level <= file.full


def check_range(file: ImageFile, level: float, *, margin: float = 0.0) -> None:
    """Checks that the values of a file lie between black and white.

    Args:
        file: the file.
        level: its white level.
        margin: how far noise may lead beyond, in units of the white level.

    Raises:
        DataError: a value lies outside.
    """
    if file.least < -margin * level or file.most > (1 + margin) * level:
        raise DataError(
            f"image {file.path}: has values from {_figure(file.least)} to {_figure(file.most)}, and black is 0 "
            f"and white {_figure(level)}; give `white_level`, or bring the values between them"
        )


@dataclass(slots=True)
class Levels:
    """The white levels of all images of a source.

    Noisy images are judged apart from clean ones, which may reach white where the noisy ones are counts of 12 bits.

    Attributes:
        source: name of the source, for messages.
        white: what is known before.
    """

    source: str
    white: White
    _known: set[float] = field(default_factory=set)
    _unknown: dict[tuple[bool, float], float] = field(default_factory=dict)
    _files: int = 0

    def of(self, file: ImageFile) -> float:
        """Returns the white level of a file and remembers it. Raises DataError for values outside its range."""
        return self._seen(file, noisy=False)

    def of_noisy(self, file: ImageFile) -> float:
        """Does as `of` for a noisy image, whose values may lie outside by as much as from black to white."""
        return self._seen(file, noisy=True)

    def _seen(self, file: ImageFile, *, noisy: bool) -> float:
        level, stated = self.white.of(file)
        check_range(file, level, margin=1.0 if noisy else 0.0)
        self._files += 1
        if stated:
            self._known.add(level)
        elif file.full != 255:
            key = noisy, file.full
            self._unknown[key] = max(self._unknown.get(key, 0), file.most)
        return level

    def common(self) -> float | None:
        """Returns the level of all images of more than 8 bits, if it is stated; None where each has its type's.

        Raises:
            DataError: the values of all images of a type, on one side of pairs, end far below its largest value, and
                nobody states a level; or the level that is given suits no image.
        """
        given = self.white.given
        if given is not None and self._files and given not in self._known:
            raise DataError(f"{self.source}: no image can have `white_level` {_figure(given)}; leave it out")
        for (noisy, full), most in self._unknown.items():
            if self.white.ask and is_far_below(most, full):
                sides = "noisy " if noisy else "clean "
                images = f"{sides if (not noisy, full) in self._unknown else ''}images"
                raise DataError(f"{self.source}: the values of its {images} {question(most, full)}")
        if given is not None:
            return given
        return self._known.copy().pop() if len(self._known) == 1 and not self._unknown else None


def level_to_restore(file: ImageFile, white: White, *, margin: float) -> float:
    """Returns the white level of a noisy file, whose values may lie outside where a level is stated.

    Raises:
        DataError: the level is not known, or the values lie further outside than `margin` levels.
    """
    level, stated = white.of(file)
    check_range(file, level, margin=margin if stated else 0.0)
    if white.ask and not stated and file.full != 255 and is_far_below(file.most, file.full):
        raise DataError(f"image {file.path}: its values {question(file.most, file.full)}")
    return level


def is_far_below(most: float, full: float) -> bool:
    """Tells whether values up to `most` leave most of the range up to `full` empty. All-black images do not."""
    return 0 < most <= full / FAR_BELOW


def question(most: float, full: float) -> str:
    """Returns the end of the sentence that asks for a white level."""
    bits = max(12, int(most).bit_length())
    bits += bits % 2  # cameras have 12, 14 or 16
    return (
        f"end at {_figure(most)}, far below the {_figure(full)} of their type, and no file says which value is white; "
        f"give `white_level` ({2**bits - 1} for a camera of {bits} bits, {full:.10g} if they are that dark, {DATA} for "
        "their largest value)"
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.6g}"
