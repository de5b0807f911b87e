"""A U-Net as data: every choice that makes the network, but none of its weights. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from nas.errors import SpecError
from nas.types import (
    Task,
    from_fields,
    without_defaults,
)

Growth = Literal["constant", "doubling"]
Fusion = Literal["none", "concat", "add", "nddr", "selective_kernel", "dense"]
Gate = Literal["none", "scalar", "channel", "squeeze_excitation", "attention"]
Resampling = Literal["none", "max", "average", "strided", "haar"]
Block = Literal["conv", "residual", "naf"]
Norm = Literal["none", "batch", "group"]
Attach = Literal["bottleneck", "decoder", "all"]
HeadNorm = Literal["none", "batch"]
Encoder = Literal["learned", "haar"]
Update = Literal["plain", "residual", "subtractive"]
Schedule = Literal["constant", "shrinking", "growing"]
Prediction = Literal["image", "noise"]
Sharing = Literal["none", "cross_stitch", "channel_cross_stitch", "sluice", "sluice_2", "nddr"]
Tasks = Literal["joint", "denoise", "classify"]

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "growth": get_args(Growth),
    "fusion": get_args(Fusion),
    "gate": get_args(Gate),
    "resampling": get_args(Resampling),
    "block": get_args(Block),
    "norm": get_args(Norm),
    "kernel": (3, 5),
    "head_attach": get_args(Attach),
    "head_norm": get_args(HeadNorm),
    "encoder": get_args(Encoder),
    "update": get_args(Update),
    "kernel_schedule": get_args(Schedule),
    "prediction": get_args(Prediction),
    "columns": (1, 2),
    "sharing": get_args(Sharing),
    "nddr_alpha": (1.0, 0.9, 0.5, 0.1, 0.0),
    "nddr_shortcut": (True, False),
    "tasks": get_args(Tasks),
}
RANGES: Mapping[str, tuple[int, int]] = {
    "levels": (1, 5),
    "width": (4, 64),
    "extra_blocks": (0, 3),
    "head_hidden": (0, 2),
    "head_width": (8, 512),
}
HEAD_WIDTH = 64
LARGEST_KERNEL = 7


class Node(NamedTuple):
    """A decoder stage. It joins the latest state of the level below with the features of its own level.

    Attributes:
        name: unique in the network; the number of the level where that suffices.
        level: 0 is the shallowest.
        width: channels of the level.
        below: channels of the level below.
        kernel: side of its convolutions.
        resampling: the resampling that leads to the level below.
        skips: number of features of its own level that it joins: the encoder's, and with ``dense`` those of all earlier
            nodes.
    """

    name: str
    level: int
    width: int
    below: int
    kernel: int
    resampling: Resampling
    skips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpec:
    """One architecture in canonical form: choices that are switched off collapse to one value (see `_canonical`).

    Equal networks are therefore equal values with one digest. `to_dict` leaves out fields at their default. A new field
    gets the default that gives the older networks, so that no digest ever changes.

    Attributes:
        levels: encoder stages, 1..5.
        width: channels of the first level, 4..64.
        growth: channels of the other levels: the same (``constant``) or twice the level above (``doubling``).
        fusion: the way in which a decoder stage joins its skip; ``dense`` adds the nested nodes of U-Net++, all joined.
        gate: the factor of a skip before it is fused.
        resampling: the way in which a level is halved from the one above; ``none`` keeps full resolution everywhere.
            ``haar`` is another name of ``average``, which is the low-pass band of the Haar wavelet.
        block: the kind of each stage.
        norm: normalisation inside blocks; ``group`` is one group of all channels and pixels of an image.
        kernel: side of the smallest convolutions in pixels, 3 or 5.
        head_attach: features that the classification head reads: the bottleneck's, those at the decoder's end, or those
            of the bottleneck and every decoder level.
        head_hidden: hidden layers of the head, 0..2.
        head_width: units of each hidden layer, 8..512.
        head_norm: normalisation of the features that the head reads, after their mean over pixels; ``none`` is how
            networks were before the space's version 3.
        head_dropout: dropout probability in front of each linear layer of the head, in [0, 1).
        encoder: whether the levels below the first are learned, or halved by Haar without parameters.
        update: the state that an encoder stage makes of its input x: Enc(x), x + r or x - r, with r the stage's
            residual. ``subtractive`` (AddUNet) passes r on as the skip, on every level.
        kernel_schedule: kernels over depth: the same on each level, or 2 pixels smaller or larger on each; at most 7.
        extra_blocks: residual blocks after each decoder stage, 0..3, with which Multi-ResNet gives parameters back.
        prediction: whether the network's output is the image or the noise to subtract.
        columns: 1 for one trunk for both tasks, 2 for a column for each.
        sharing: the way in which the columns exchange features after each stage that both have.
        nddr_alpha: initial weight of a task's own features; the other's is 1 minus this.
        nddr_shortcut: whether all NDDR layers feed the last one.
        tasks: the tasks of the network. Without denoising it returns its input, without classification zeros.

    Raises:
        SpecError: a field is outside its rule.
    """

    levels: int
    width: int
    growth: Growth
    fusion: Fusion
    gate: Gate
    resampling: Resampling
    block: Block
    norm: Norm
    kernel: int
    head_attach: Attach = "bottleneck"
    head_hidden: int = 0
    head_width: int = HEAD_WIDTH
    head_norm: HeadNorm = "none"
    head_dropout: float = 0.0
    encoder: Encoder = "learned"
    update: Update = "plain"
    kernel_schedule: Schedule = "constant"
    extra_blocks: int = 0
    prediction: Prediction = "image"
    columns: int = 1
    sharing: Sharing = "none"
    nddr_alpha: float = 0.9
    nddr_shortcut: bool = True
    tasks: Tasks = "joint"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise SpecError(f"unet: {name} is {value!r}; choose one of {', '.join(map(str, choices))}")
            if (choice := choices[choices.index(value)]) is not value:  # 3.0 is 3: digests must be equal
                self._set(**{name: choice})
        for name, (low, high) in RANGES.items():
            if type(value := getattr(self, name)) is not int or not low <= value <= high:
                raise SpecError(f"unet: {name} is {value!r}; give an integer from {low} to {high}")
        if type(self.head_dropout) not in (int, float) or not 0 <= self.head_dropout < 1:
            raise SpecError(f"unet: head_dropout is {self.head_dropout!r}; give a number from 0 to below 1")
        self._set(head_dropout=float(self.head_dropout))
        self._canonical()
        if self.sharing == "sluice_2" and self.width % 2:
            raise SpecError(f"unet: width is {self.width}, which sluice_2 cannot split in two; give an even one")

    def _canonical(self) -> None:
        """Gives one value to choices that are switched off or that other choices imply. The trunk comes first, then the
        tasks."""
        if self.levels == 1:  # there is nothing to grow or to resample
            self._set(growth="constant", resampling="none", encoder="learned", kernel_schedule="constant")
        if self.encoder == "haar":  # it pools, and no stage has a state to update
            self._set(resampling="average", update="plain")
        if self.resampling == "haar":
            self._set(resampling="average")
        if self.block == "naf":  # it has layer normalisation of its own
            self._set(norm="none")
        if self.block != "conv" and self.update == "residual":  # the blocks add the residual themselves
            self._set(update="plain")

        if self.tasks == "denoise":
            self._set(head_attach="bottleneck", head_hidden=0, head_norm="none", head_dropout=0.0)
        if self.tasks == "classify":
            self._set(prediction="image")
        if self.head_hidden == 0:
            self._set(head_width=HEAD_WIDTH)

        if self.depth == 0:  # no decoder
            self._set(head_attach="bottleneck", fusion="none", extra_blocks=0)
        if self.fusion == "dense" and (self.depth == 1 or self.update == "subtractive"):
            self._set(fusion="concat")  # there are no nodes between; nested nodes refine states, not residuals
        if self.fusion in ("none", "selective_kernel"):  # there is no skip, or its channels are weighed already
            self._set(gate="none")
        if self.fusion == "nddr" and self.gate in ("scalar", "channel"):  # the 1x1 convolution contains it
            self._set(gate="none")

        if self.tasks != "joint":
            self._set(columns=1)
        if self.columns == 1:
            self._set(sharing="none")
        if self.sharing == "sluice" and len(self.exchanges) == 1:  # there are no layers to mix
            self._set(sharing="cross_stitch")
        if self.sharing != "nddr":
            self._set(nddr_alpha=0.9)
        if self.sharing != "nddr" or len(self.exchanges) == 1:  # no earlier layers feed the last one
            self._set(nddr_shortcut=True)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level, shallow first."""
        factor = 2 if self.growth == "doubling" else 1
        return tuple(self.width * factor**level for level in range(self.levels))

    @property
    def rows(self) -> tuple[int, ...]:
        """The channels of each skip, shallow first, and of the state that the decoder starts from."""
        return (*self.widths, self.widths[-1]) if self.update == "subtractive" else self.widths

    @property
    def learned(self) -> int:
        """The number of encoder levels that are stages; the other levels only pool."""
        return 1 if self.encoder == "haar" else self.levels

    @property
    def kernels(self) -> tuple[int, ...]:
        """The side of each level's convolutions, shallow first."""
        levels = range(self.levels)
        steps = {"constant": [0] * self.levels, "growing": levels, "shrinking": levels[::-1]}
        return tuple(min(self.kernel + 2 * step, LARGEST_KERNEL) for step in steps[self.kernel_schedule])

    @property
    def depth(self) -> int:
        """The number of decoder levels: all levels but the deepest, or all of them where residuals are the skips
        (AddUNet)."""
        if self.tasks == "classify" and self.head_attach == "bottleneck":
            return 0
        return self.levels if self.update == "subtractive" else self.levels - 1

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The decoder stages in order: the diagonal of a plain decoder, or U-Net++'s whole grid, column by column."""
        dense, rows, kernels = self.fusion == "dense", self.rows, self.kernels
        return tuple(
            Node(
                name=str(level) if level + column == self.depth else f"{level}_{column}",
                level=level,
                width=rows[level],
                below=rows[level + 1],
                kernel=kernels[level],
                resampling=self.resampling if level + 1 < self.levels else "none",
                skips=column if dense else 1,
            )
            for column in range(1, self.depth + 1)
            for level in range(self.depth - column + 1)
            if dense or level + column == self.depth
        )

    @property
    def exchanges(self) -> tuple[int, ...]:
        """The levels of the stages after which two columns exchange features, which are the stages that both columns
        have."""
        decoder = (node.level for node in self.nodes) if self.head_attach != "bottleneck" else ()
        return (*range(self.learned), *decoder)

    def column(self, tasks: Tasks) -> UNetSpec:
        """Returns the network of one task, as it stands in a column of its own."""
        return replace(self, tasks=tasks)

    @property
    def reduction(self) -> int:
        """The image's side over the deepest level's side; images are padded to a multiple of it."""
        return 1 if self.resampling == "none" else 2 ** (self.levels - 1)

    def validate_for(self, task: Task) -> None:
        """Raises SpecError when the image leaves the deepest level under 2 pixels on a side, or classes are missing."""
        if not task.classifies and (self.columns == 2 or self.tasks == "classify"):
            what = "two columns" if self.columns == 2 else "a network that only classifies"
            raise SpecError(f"unet: {what} for data without classes; use 1 column and tasks joint or denoise")
        side = min(task.height, task.width)
        if self.reduction > 1 and side < 2 * self.reduction:
            raise SpecError(
                f"unet: {self.levels} levels with {self.resampling} resampling leave under 2 pixels of a "
                f"{task.height}x{task.width} image; use at most {deepest(task)} levels or images of "
                f"{2 * self.reduction} pixels a side"
            )

    def to_dict(self) -> dict[str, Any]:
        return without_defaults(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> UNetSpec:
        """Reads a spec. Raises SpecError for a missing or unknown field and for a value outside its rule."""
        return from_fields(cls, value, "unet")


def deepest(task: Task) -> int:
    """Returns the largest number of levels, at least 1, that leaves the deepest one 2 pixels or more of the task's
    image."""
    fitting = min(task.height, task.width).bit_length() - 1
    return max(1, min(fitting, RANGES["levels"][1]))


# Hyperparameters have the names of the fields that they set, of UNetSpec and Recipe. Every one lies on a grid, so that
# candidates repeat exactly. A network for one task alone is a reference network and not a choice, because a search for
# both tasks would have no use for it.
WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64)
