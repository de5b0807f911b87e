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
    """

    images: Images
    labels: Labels | None
    classes: tuple[str, ...]
    part: NDArray[np.int64]
    groups: NDArray[np.int64]
    joined: bool = False
    white_level: float | None = None

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
    )


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Returns at most `count` of the items, spread evenly."""
    import numpy as np

    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]
