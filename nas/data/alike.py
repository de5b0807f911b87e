"""Images that belong together: equal ones, ones that are equal but for their size, and ones that their names join.

Nothing that belongs together may lie in two splits, because a network would then be judged on images that it was
trained on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.data.images import may_become
from nas.data.listing import counted
from nas.data.raw import PARTS, TEST, TRAIN, VALIDATION
from nas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from nas.data.raw import Images

    Groups = NDArray[np.int64]

log = logging.getLogger(__name__)

GRID = 16
"""The side of the small picture by which images of different sizes are compared first."""

NEIGHBOURS = 8
"""The number of small pictures, nearest to one, that are compared with it."""

NEAR = 0.25
"""The largest distance of two small pictures that are looked at closer, in standard deviations of their values."""

SAME = 0.1
"""The largest distance of two images that are equal but for their size, in standard deviations of their values.

The distance is the root of the mean square. A thumbnail in JPEG differs by about 0.06, the next frame of a film by
more than 0.2.
"""

ROUNDING = 0.5
"""The distance, in levels of 255, that rounding alone makes."""


@dataclass(frozen=True, slots=True)
class _Seen:
    digest: bytes
    size: tuple[int, int]
    small: NDArray[np.float32]
    channels: int


class Appearances:
    """How each image of a source looks, gathered while the images are decoded one by one."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    def add(self, image: Image) -> None:
        """Remembers an image of `nas.data.images` at its full size."""
        import numpy as np
        import PIL.Image

        values = np.asarray(image)
        if values.ndim == 3 and (values == values[..., :1]).all():  # gray, whatever its mode says
            values = values[..., 0]
        digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
        gray = image if image.getbands() == ("F",) else image.convert("L")
        small = np.asarray(gray.resize((GRID, GRID), PIL.Image.Resampling.BOX), np.float32)
        scale = 255 if image.mode == "F" else 1
        self._seen.append(_Seen(digest.digest(), image.size, small * scale, len(image.getbands())))

    def channels(self, chosen: Sequence[int], names: Sequence[str], source: str) -> int:
        """Returns the number of channels of the chosen images, which is 3 for gray ones among those in colour.

        Args:
            chosen: the images, by their places in the order of `add`.
            names: the name of every image by its place, for a message.
            source: the source, for a message.

        Raises:
            DataError: they have several numbers of channels.
        """
        counts = [self._seen[place].channels for place in chosen]
        wanted = max(counts)
        if not all(may_become(count, wanted) for count in counts):
            wanted = Counter(counts).most_common(1)[0][0]
        for place, count in zip(chosen, counts, strict=True):
            if not may_become(count, wanted):
                raise DataError(
                    f"{source}: {names[place]} has {counted(count, 'channel')}, and others have {wanted}; keep images "
                    "of one number of channels (gray ones may stand among those in colour)"
                )
        return wanted

    def equal(self, chosen: Sequence[int], opened: Callable[[int], Image]) -> tuple[Groups, int]:
        """Finds images that are equal, or equal but for their size.

        Args:
            chosen: the images that are looked at, by their places in the order of `add`.
            opened: opens an image again, by its place.

        Returns:
            For each chosen image the first one (by its index in `chosen`) that is equal to it, which is itself where
            there is none; and how many of those that have an earlier one are equal but for their size.
        """
        import numpy as np

        first: dict[bytes, int] = {}
        groups = np.array([first.setdefault(self._seen[p].digest, i) for i, p in enumerate(chosen)], np.int64)
        exact = len(first)
        distinct = sorted(first.values())
        for a, b in self._near([chosen[index] for index in distinct]):
            one, other = distinct[a], distinct[b]
            if groups[one] != groups[other] and _same_picture(opened(chosen[one]), opened(chosen[other])):
                groups = joined(groups, [(one, other)])
        return groups, exact - len(np.unique(groups))

    def _near(self, chosen: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yields pairs (indices in `chosen`) of different sizes, one shape, and nearly the same small picture."""
        import numpy as np
        from scipy.spatial import cKDTree

        if len({self._seen[index].size for index in chosen}) < 2:
            return
        small = np.stack([self._seen[index].small.ravel() for index in chosen])
        deviations = small.std(axis=1)
        coarse = small.reshape(-1, 4, GRID // 4, 4, GRID // 4).mean(axis=(2, 4)).reshape(len(chosen), -1)
        _, nearest = cKDTree(coarse).query(coarse, k=min(NEIGHBOURS + 1, len(chosen)))
        for a, b in sorted({(min(a, int(b)), max(a, int(b))) for a, row in enumerate(nearest) for b in row}):
            one, other = self._seen[chosen[a]], self._seen[chosen[b]]
            if one.size == other.size or not _one_shape(one.size, other.size):
                continue
            distance = float(np.sqrt(np.mean((small[a] - small[b]) ** 2)))
            if distance <= 2 * ROUNDING + NEAR * min(deviations[a], deviations[b]):
                yield a, b


def _one_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tells whether one size is the other one shrunk, with both sides rounded to pixels."""
    (width, height), (large_width, large_height) = sorted((one, other))
    scale = (width + height) / (large_width + large_height)
    return abs(width - scale * large_width) <= 1 and abs(height - scale * large_height) <= 1


def _same_picture(one: Image, other: Image) -> bool:
    """Tells whether the larger image, shrunk in one of the usual ways, is the smaller one."""
    import numpy as np
    import PIL.Image

    small, large = sorted((one, other), key=lambda image: image.size)
    if len(one.getbands()) != len(other.getbands()) and {len(one.getbands()), len(other.getbands())} != {1, 3}:
        return False
    wanted = _levels(small)
    ways = PIL.Image.Resampling
    for way in (ways.BOX, ways.BILINEAR, ways.BICUBIC, ways.LANCZOS, ways.NEAREST):
        shrunk = _levels(large.resize(small.size, way))
        distance = float(np.sqrt(np.mean((shrunk - wanted) ** 2)))
        if distance <= ROUNDING + SAME * float(wanted.std()):
            return True
    return False


def _levels(image: Image) -> NDArray[np.float32]:
    """Returns the values (H, W, C) on the scale of 0 to 255, with 3 channels of a gray image."""
    import numpy as np

    values = np.asarray(image, np.float32) * (255 if image.mode == "F" else 1)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


class NothingToGroupError(DataError):
    """An expression for groups finds nothing in any path: it was made for files of other names."""


def by_name(paths: Sequence[str], expression: str, source: str) -> Groups:
    """Groups files by what a regular expression finds in their paths.

    Args:
        paths: paths of the files below the folder, or below their split folder, with ``/`` between the parts.
        expression: searched in each path. Its groups in brackets make the key, or the whole match if it has none.
        source: the source, for messages.

    Returns:
        For each file the place of the first one with the same key.

    Raises:
        NothingToGroupError: the expression matches no path.
        DataError: it matches some and not all.
    """
    import numpy as np

    pattern = re.compile(expression)
    matches = [pattern.search(path) for path in paths]
    if missed := [path for path, match in zip(paths, matches, strict=True) if match is None]:
        more = f" and {len(missed) - 1:,} more" if len(missed) > 1 else ""
        raise (NothingToGroupError if len(missed) == len(paths) else DataError)(
            f"{source}: `group_by` {expression!r} finds nothing in {missed[0]}{more}; give an expression that matches "
            "the path of every image"
        )
    first: dict[tuple[str | None, ...], int] = {}
    keys = [match.groups() or (match[0],) for match in matches if match is not None]
    return np.array([first.setdefault(key, index) for index, key in enumerate(keys)], np.int64)


def joined(groups: Groups, pairs: Sequence[tuple[int, int]]) -> Groups:
    """Joins the groups of pairs of images; each group is named by its first image."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(groups)
    rows = np.concatenate([np.arange(count), np.array([a for a, _ in pairs], np.int64)])
    columns = np.concatenate([groups, np.array([b for _, b in pairs], np.int64)])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    named: Groups = first[component].astype(np.int64)
    return named


def together_in_training(
    name: str, images: Images, part: Sequence[int], tracks: Sequence[str] = ()
) -> tuple[Groups, bool]:
    """Groups training images that may not be divided where a set lacks a split: equal ones, and those of one track.

    The splits that a set has itself stay as they are published. A line tells how many images are equal.

    Args:
        name: name of the set, for the line.
        images: images of one size (N, C, H, W).
        part: the set's own split of each image.
        tracks: what each image was taken from; "" for one that stands alone. By default all of them do.

    Returns:
        The groups, and whether any has more than one image.
    """
    import numpy as np

    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    training = [index for index, code in enumerate(part) if code == TRAIN]
    known = {digests[index] for index in training}
    for code in sorted({*part} - {TRAIN}):
        judged = [digest for digest, own in zip(digests, part, strict=True) if own == code]
        if both := sum(digest in known for digest in judged):
            told = "%s: %d of %d %s images are equal to a training image; published splits are kept"
            log.info(told, name, both, len(judged), PARTS[code])
    groups = np.arange(len(images))
    if {VALIDATION, TEST} <= {*part}:
        return groups, False
    if copies := len(training) - len(known):
        told = "%s: %d of %d training images are equal to another one; equal images stay in one split"
        log.info(told, name, copies, len(training))
    keys: list[list[tuple[object, int]]] = [
        [(digests[index], index) for index in training],
        [((tracks[index] if tracks else "") or index, index) for index in training],
    ]
    for key in keys:
        first: dict[object, int] = {}
        groups = joined(groups, [(index, first.setdefault(value, index)) for value, index in key])
    names, compact = np.unique(groups, return_inverse=True)
    return compact, len(names) < len(images)
