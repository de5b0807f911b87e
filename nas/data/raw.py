"""Images and labels as a reader returns them, before they are split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8] | NDArray[np.float32]
    Labels = NDArray[np.int64]

T = TypeVar("T")
PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)

PART_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
"""The names of folders that are splits, in small letters."""

MISSING = frozenset({"nan", "na", "n/a", "<na>", "null"})
"""What programs write in the place of a value that is missing, in small letters."""


@dataclass(frozen=True, slots=True)
class Shots:
    """Noisy images of the same scenes as clean ones: one or more shots of each.

    Where no clean images are known, the mean of a scene's shots is in the place of its clean image, and each scene has
    two shots or more.

    Attributes:
        images: (M, C, H, W), of the clean images' size. uint8 in 0..255, or float32 where 0 is black and 1 white; noise
            may lead beyond.
        starts: (N + 1,) the place of each clean image's first shot, and M at the end.
    """

    images: Images
    starts: NDArray[np.int64]

    def of(self, rows: Sequence[int] | NDArray[np.intp]) -> Shots:
        """Returns the shots of some of the clean images, in their order."""
        import numpy as np

        places = [np.arange(self.starts[row], self.starts[row + 1]) for row in rows]
        starts = np.cumsum([0, *map(len, places)])
        return Shots(self.images[np.concatenate(places).astype(np.intp)], starts.astype(np.int64))

    @property
    def most(self) -> int:
        """The largest number of shots of one image."""
        return int((self.starts[1:] - self.starts[:-1]).max())

    def fixed(self, draw: int, draws: int) -> NDArray[np.int64]:
        """Returns the place of the shot under which each image is judged in one of several draws (N,).

        The draws are spread evenly over the shots of each image, which repeat where there are fewer.
        """
        counts = self.starts[1:] - self.starts[:-1]
        places: NDArray[np.int64] = self.starts[:-1] + draw * counts // draws
        return places


@dataclass(frozen=True, slots=True)
class RawData:
    """Everything that a source contains, before missing splits are cut from its training images.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].
        labels: (N,) class indices; None without classes.
        classes: class names; empty without classes.
        part: (N,) the source's own split of each image: TRAIN, VALIDATION or TEST.
        groups: (N,) the group of each image. Images of one group stay in one split; they have equal parts.
        joined: whether some groups hold images that were found to be equal, or that belong together by their
            names or as pages of one file.
            Such groups decide about the splits, and are a part of the fingerprint.
        white_level: value that is white in all images of more than 8 bits; None where each has its type's.
        shots: noisy images beside the clean `images`; None where noise is added to these.
        clean: False where no clean images are known: `images` are then noisy themselves, or the means of their `shots`.
    """

    images: Images
    labels: Labels | None
    classes: tuple[str, ...]
    part: NDArray[np.int64]
    groups: NDArray[np.int64]
    joined: bool = False
    white_level: float | None = None
    shots: Shots | None = None
    clean: bool = True

    @property
    def has_splits(self) -> bool:
        """Whether the source itself says which images are not for training."""
        return bool((self.part != TRAIN).any())


def raw_data(
    images: Images,
    labels: Sequence[int] | Labels | None,
    classes: Sequence[str],
    *,
    part: Sequence[int] | None = None,
    groups: Sequence[int] | NDArray[np.int64] | None = None,
    joined: bool = False,
    white_level: float | None = None,
    shots: Shots | None = None,
    clean: bool = True,
) -> RawData:
    """Makes a reader's return value. By default every image is for training and is a group of its own."""
    import numpy as np

    return RawData(
        images=images,
        labels=None if labels is None else np.asarray(labels, np.int64),
        classes=tuple(classes),
        part=np.full(len(images), TRAIN) if part is None else np.asarray(part, np.int64),
        groups=np.arange(len(images)) if groups is None else np.asarray(groups, np.int64),
        joined=joined,
        white_level=white_level,
        shots=shots,
        clean=clean,
    )


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Returns at most `count` of the items, spread evenly."""
    import numpy as np

    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]
