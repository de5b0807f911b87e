"""Images restored by a bundle, from files and folders to files of the same names."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.bundles.pictures import read_picture, write_picture
from nas.data.listing import EVIDENCE, SUFFIXES, Listing, counted, list_folder
from nas.data.reader import read_file
from nas.data.white import White, WhiteLevel
from nas.errors import BundleError, ConfigError, DataError, is_out_of_memory
from studies.bundles import open_bundle, white_asked

if TYPE_CHECKING:
    from torch import Tensor

    from nas.bundles.bundle import Bundle
    from nas.bundles.inference import Predict, Restored, Tiling
    from nas.data.image_file import ImageFile
    from nas.data.preparation import Preparation

log = logging.getLogger(__name__)
EXPLAINED = 8
"""The largest number of pages of a file whose evidence is drawn."""

EVIDENCE_SIDE = 256
"""The side in pixels that images are enlarged to in a picture of evidence, about, by a whole factor."""

NAMED = 3
TOLD_SEAM = 1e-3
"""The smallest difference between tiles that is reported, in units of the white level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """One restored file.

    Attributes:
        image: path of the noisy image.
        output: path of the restored image.
        height, width: of its first page, in pixels.
        pages: number of images in the file.
        tiles: number of tiles that a page was cut into; 1 for none.
        seam: largest difference of two tiles where they meet, in units of the white level.
        label: class that the network sees, in the pages prepared as the images of its training, by the bundle's
            threshold if it has one; None when it knows none.
        probability: probability of this class, by the network's softmax.
        evidence: path of the picture of the evidence for the class; None where it was not asked for.
        evidence_pages: number of pages that it shows, the first ones of the file.
        rule: why this is not the most probable class, in words; None where it is.
        lost: what the noisy file has that the restored one does not, in words.
    """

    image: str
    output: str
    height: int
    width: int
    pages: int
    tiles: int
    seam: float
    label: str | None
    probability: float | None
    evidence: str | None = None
    evidence_pages: int = 0
    rule: str | None = None
    lost: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        parts = [f"{self.image} -> {self.output}"]
        if self.label is not None:
            why = "" if self.rule is None else f", {self.rule}"
            parts.append(f"{self.label} ({100 * (self.probability or 0):.0f} %{why})")
        if self.evidence is not None:
            of = "" if self.evidence_pages == self.pages else f" of the first {self.evidence_pages} pages"
            parts.append(f"evidence{of} in {self.evidence}")
        if self.pages > 1:
            parts.append(f"{self.pages} pages")
        if self.tiles > 1:
            parts.append(f"{self.tiles} tiles")
            if self.seam > TOLD_SEAM:
                parts.append(
                    f"which differ by up to {255 * self.seam:.1f} of 255 where they meet, as this network looks at "
                    "the whole image; a larger --tile makes that less"
                )
        if self.lost:
            parts.append(f"without {' and '.join(self.lost)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file that could not be restored.

    Attributes:
        image: path of the noisy image.
        reason: the reason and what mends it, in words.
        target: the place of the restored image.
    """

    image: str
    reason: str
    target: str

    def line(self, others: Sequence[str] = ()) -> str:
        """Returns the reason with the name of the file, and of those of the `others` that have it too."""
        more = f" and {len(others) - NAMED:,} more" if others[NAMED:] else ""
        beside = f" (and {', '.join(others[:NAMED])}{more})" if others else ""
        return f"image {self.image}{beside}: {self.reason}"

    @property
    def kind(self) -> str:
        """The reason without the names and figures of this file, by which equal reasons are known."""
        named = self.reason.replace(self.target, "").replace(self.image, "")
        return re.sub(r"[0-9][0-9,.]*", "", named)


def refused_lines(refused: Sequence[Refused]) -> Iterator[str]:
    """Yields a line for each reason, in the order of the files, which tells how many have it."""
    kinds: dict[str, list[Refused]] = {}
    for each in refused:
        kinds.setdefault(each.kind, []).append(each)
    for of_kind in kinds.values():
        yield of_kind[0].line([each.image for each in of_kind[1:]])


def denoise(
    path: Path,
    images: Sequence[Path],
    to: Path,
    *,
    onnx: bool = False,
    tile: int | None = None,
    explain: bool = False,
    ensemble: bool = False,
    white_level: WhiteLevel | None = None,
    tell: Callable[[str], None] = log.info,
    done: Callable[[Denoised], None] = lambda result: None,
) -> tuple[list[Denoised], list[Refused]]:
    """Restores images into a folder, each under its own name. Images of a folder keep their place in it.

    No existing file is written over, neither an input image nor any other file.

    Args:
        path: the bundle.
        images: files, and folders with images at any depth. The folder of results may lie in one of them.
        to: folder for the results, made if need be.
        onnx: run model.onnx with ONNX Runtime instead of the weights with PyTorch.
        tile: side of tiles in pixels; by default images are cut only where memory requires it.
        explain: write a picture of the evidence for each image's class beside it (see `evidence_file`).
        ensemble: whether images are restored by `nas.bundles.inference.self_ensemble`.
        white_level: value of white, or the word for the largest value of all these images; by default the file's own,
            or the one of the network's training data.
        tell: called with a line about what is left out of a folder.
        done: called with each restored file as it ends.

    Returns:
        The restored files, and those that were refused while the others went on.

    Raises:
        BundleError, ConfigError, DataError: the call itself is wrong; nothing has been written then.
    """
    if to.exists() and not to.is_dir():
        raise ConfigError(f"`to` {to} is a file; give a folder")
    pairs = list(_targets(images, to, tell))
    bundle = open_bundle(path)
    if explain:
        _check_explained(bundle, onnx, ensemble)
    channels = bundle.task.channels
    from nas.bundles.formats import ONNX
    from nas.bundles.inference import Tiling
    from nas.bundles.onnx_model import open_onnx

    predict: Predict = open_onnx(bundle.path / ONNX, classes=len(bundle.classes)) if onnx else bundle.network

    tiling = Tiling.of(bundle.network, channels, side=tile)
    white = white_asked(bundle, white_level).found(
        "the images", _readable(source for source, _ in pairs), lambda text, *values: tell(text % values)
    )
    finished, refused = [], []
    for source, target in pairs:
        try:
            result = _denoise(bundle, predict, tiling, source, target, to, white, explain, ensemble)
        except DataError as error:
            reason = str(error).removeprefix(f"image {source}: ")
            refused.append(Refused(image=str(source), reason=reason, target=str(target)))
            continue
        finished.append(result)
        done(result)
    return finished, refused


def _targets(images: Sequence[Path], to: Path, tell: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """Yields each image with its place below `to`."""
    taken: dict[Path, Path] = {}
    for given in images:
        if given.is_dir():
            found = _files(given, to)
            if not found.images:
                raise DataError(f"{given}: holds no images; {', '.join(sorted(SUFFIXES))} are read")
            if left_out := found.left_out():
                tell(f"{given}: left out: {', '.join(left_out)}")
            pairs = [(file, to / file.relative_to(given)) for file in found.images]
        else:
            pairs = [(given, to / given.name)]
        for source, target in pairs:
            if target in taken:
                if os.path.realpath(taken[target]) == os.path.realpath(source):
                    raise ConfigError(f"{source} is given twice; give it once")
                raise ConfigError(
                    f"{taken[target]} and {source} would both become {target}; restore them into two folders, each "
                    "with a `to` of its own"
                )
            taken[target] = source
            yield source, target


def _readable(paths: Iterable[Path]) -> Iterator[ImageFile]:
    """Yields the files that can be read; the others are refused when their turn comes."""
    for path in paths:
        with suppress(DataError):
            yield read_file(path)


def _files(folder: Path, to: Path) -> Listing:
    try:
        return list_folder(folder, without=to if to.resolve() != folder.resolve() else None)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); give a folder that can be") from error


def _denoise(
    bundle: Bundle,
    predict: Predict,
    tiling: Tiling,
    source: Path,
    target: Path,
    to: Path,
    white: White,
    explain: bool,
    ensemble: bool,
) -> Denoised:
    evidence = evidence_file(target) if explain else None
    for place in filter(None, (target, evidence)):
        if place.exists() or place.is_symlink():
            raise DataError(f"image {source}: {place} exists; remove it, or choose another `to`")
    if not target.parent.resolve().is_relative_to(to.resolve()):
        raise DataError(f"image {source}: {target.parent} is a link that leads out of {to}; choose another `to`")
    file, level = read_picture(source, white)
    shown: list[Tensor] = []  # the images that the class is answered for, by page
    pages, logits, tiles, seam = [], [], 1, 0.0
    for page in file.pages:
        noisy = _as_trained(source, page.floats(level), bundle.task.channels)
        restored = _restored(predict, tiling, source, noisy, ensemble)
        _check_answers(source, (restored.image,))
        if explain:
            shown.append(noisy)
        values = restored.image.flatten(0, 1).numpy().transpose(1, 2, 0)
        if page.pixels.shape[2] == 1:
            values = values.mean(2, keepdims=True)
        pages.append(page.with_floats(values, level))
        logits.append(restored.logits.mean(0))
        tiles, seam = max(tiles, restored.tiles), max(seam, restored.seam)
        del noisy, restored, values  # a photograph's take hundreds of megabytes
    if evidence is not None and bundle.preparation is None and tiles > 1:
        raise DataError(
            f"image {source}: its class comes from {tiles} tiles, so where it lies is unknown; leave `explain` out"
        )
    if bundle.classes and bundle.preparation is not None:
        prepared = _prepared(file, level, bundle.preparation)
        logits, shown = list(_logits(predict, prepared)), list(prepared.split(1))
    _check_answers(source, logits)
    write_picture(target, file, pages)
    label, probability, rule = None, None, None
    if bundle.classes:
        from nas.training.metrics import answered

        mean = sum(logits[1:], logits[0]).div(len(logits))
        answer = int(answered(mean[None], bundle.threshold))
        label, probability = bundle.classes[answer], float(mean.softmax(0)[answer])
        if evidence is not None:
            _write_evidence(evidence, bundle, shown, answer, f"{label} ({100 * probability:.0f} %)")
        if bundle.threshold is not None and answer != int(mean.argmax()):
            rule = f"as {bundle.classes[1]} is answered from {100 * bundle.threshold:.3g} % on"
    return Denoised(
        image=str(source),
        output=str(target),
        height=pages[0].pixels.shape[0],
        width=pages[0].pixels.shape[1],
        pages=len(pages),
        tiles=tiles,
        seam=seam,
        label=label,
        probability=probability,
        evidence=None if evidence is None else str(evidence),
        evidence_pages=0 if evidence is None else min(EXPLAINED, len(pages)),
        rule=rule,
        lost=file.lost,
    )


def evidence_file(target: Path) -> Path:
    """Returns the place of the picture of evidence beside a restored image: ``scan.tif.evidence.png``."""
    return target.with_name(f"{target.name}{EVIDENCE}")


def _check_explained(bundle: Bundle, onnx: bool, ensemble: bool) -> None:
    """Checks that a bundle can say where it looks. Raises ConfigError."""
    from nas.training.evidence import has_evidence

    if onnx:
        raise ConfigError("`explain` needs the weights; leave `onnx` out")
    if ensemble:
        raise ConfigError("`explain` shows what the network restores at once; leave `self_ensemble` out")
    if not bundle.classes:
        raise ConfigError(f"`explain`: {bundle.path} knows no classes; leave it out")
    if not has_evidence(bundle.network):
        raise ConfigError(f"`explain`: the network of {bundle.path} does not learn classes; leave it out")


def _write_evidence(file: Path, bundle: Bundle, shown: Sequence[Tensor], answer: int, told: str) -> None:
    """Writes the restored images of the first pages, with the evidence for a class below each.

    The images (n, C, H, W) of a page are those that the network saw: the page in the size of training, or as it is,
    then each channel as an image of its own for a gray network. `told` is the class in words.
    """
    import torch

    from nas.files import write_whole
    from nas.training.evidence import coloured, evidence_for
    from nas.training.strips import captioned

    restored, evidence = [], []
    for images in shown[:EXPLAINED]:
        found = evidence_for(bundle.network, images, torch.full((len(images),), answer))
        restored.append(found.denoised.mean(0))
        evidence.append(coloured(restored[-1], found.maps.mean(0)))
    which = "" if len(shown) == 1 else f", pages 1 to {len(restored)} of {len(shown)}"
    rows = [(f"restored{which}", restored), (f"evidence for {told}: orange for it, blue against it", evidence)]
    picture = captioned(rows, EVIDENCE_SIDE)
    write_whole(file, lambda place: place.write_bytes(picture))


def _prepared(file: ImageFile, level: float, preparation: Preparation) -> Tensor:
    """Returns the pages of a file (N, C, H, W) as the images were from which the network learned classes."""
    import torch

    from nas.data.images import shown_images, stacked
    from nas.data.splits import to_float

    images = [preparation.apply(image) for image in shown_images(file, level)]
    return to_float(torch.from_numpy(stacked(images, preparation.channels)))


def _logits(predict: Predict, images: Tensor) -> Tensor:
    import torch

    with torch.inference_mode():
        return predict(images.contiguous(memory_format=torch.channels_last))[1]


def _restored(predict: Predict, tiling: Tiling, source: Path, noisy: Tensor, ensemble: bool) -> Restored:
    from nas.bundles.inference import restore

    try:
        return restore(predict, noisy, tiling, ensemble=ensemble)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(f"image {source}: not enough memory; give a smaller `tile`") from None


def _check_answers(source: Path, answers: Iterable[Tensor]) -> None:
    from nas.bundles.inference import check_numbers

    try:
        check_numbers(answers)
    except BundleError as error:
        raise DataError(f"image {source}: {error}") from None


def _as_trained(source: Path, floats: np.ndarray[Any, np.dtype[np.float32]], channels: int) -> Tensor:
    """Returns (N, C, H, W) of an image (H, W, C) for a network of C channels.

    A gray network takes each channel as a gray image, and a network for colour a gray image as a colour one.

    Raises:
        DataError: the image has another number of channels than the network.
    """
    import torch

    from nas.data.images import may_become

    planes = np.ascontiguousarray(floats.transpose(2, 0, 1))
    if channels == 1:
        return torch.from_numpy(planes[:, None])
    if not may_become(len(planes), channels):
        raise DataError(
            f"image {source}: has {counted(len(planes), 'channel')}, and the network takes {channels}; give such images"
        )
    return torch.from_numpy(planes[None] if len(planes) == channels else np.repeat(planes[None], channels, axis=1))
