"""A U-Net as data: every choice that makes the network, none of its weights. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nas.errors import SpecError
from nas.types import Task, canonical_json, digest_of, from_fields, without_defaults

Growth = Literal["constant", "doubling"]
Fusion = Literal["none", "concat", "add"]
Gate = Literal["none", "scalar", "channel"]
Resampling = Literal["none", "max", "average", "strided"]
Block = Literal["conv", "residual"]
Norm = Literal["none", "batch", "group"]
Attach = Literal["bottleneck", "decoder"]

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "growth": get_args(Growth),
    "fusion": get_args(Fusion),
    "gate": get_args(Gate),
    "resampling": get_args(Resampling),
    "block": get_args(Block),
    "norm": get_args(Norm),
    "kernel": (3, 5),
    "head_attach": get_args(Attach),
}
RANGES: Mapping[str, tuple[int, int]] = {
    "levels": (1, 5),
    "width": (4, 64),
    "head_hidden": (0, 2),
    "head_width": (8, 256),
}
HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpec:
    """One architecture. Canonical: choices that are switched off collapse to one value.

    So equal networks are equal values with one digest: a single level has no width to grow, nothing to
    resample and no skip to fuse or gate, and its bottleneck is the end of its decoder; what is not fused
    is not gated; a head without hidden layers has no hidden width.

    Fields at their default are left out of `to_dict`. A field that is added later gets a default that
    gives the networks from before it, so that no digest ever changes.

    Attributes:
        levels: encoder stages, 1..5.
        width: channels of the first level, 4..64.
        growth: channels of the other levels: the same (``constant``) or twice the level above (``doubling``).
        fusion: how a decoder stage takes in its skip.
        gate: what a skip is multiplied by before it is fused.
        resampling: how a level is halved from the one above; ``none`` keeps full resolution everywhere.
        block: what a stage computes.
        norm: normalisation inside blocks; ``group`` is one group, all channels and pixels of an image.
        kernel: side of the convolutions in pixels, 3 or 5.
        head_attach: features that the classification head reads.
        head_hidden: hidden layers of the head, 0..2.
        head_width: units of each hidden layer, 8..256.
        head_dropout: dropout probability in front of each linear layer of the head, in [0, 1).

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
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise SpecError(f"unet: {name} is {value!r}; choose one of {', '.join(map(str, choices))}")
        for name, (low, high) in RANGES.items():
            if type(value := getattr(self, name)) is not int or not low <= value <= high:
                raise SpecError(f"unet: {name} is {value!r}; give an integer from {low} to {high}")
        if type(self.head_dropout) not in (int, float) or not 0 <= self.head_dropout < 1:
            raise SpecError(f"unet: head_dropout is {self.head_dropout!r}; give a number from 0 to below 1")
        self._set(head_dropout=float(self.head_dropout))
        if self.levels == 1:
            self._set(growth="constant", resampling="none", fusion="none", head_attach="bottleneck")
        if self.fusion == "none":
            self._set(gate="none")
        if self.head_hidden == 0:
            self._set(head_width=HEAD_WIDTH)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, shallow first."""
        factor = 2 if self.growth == "doubling" else 1
        return tuple(self.width * factor**level for level in range(self.levels))

    @property
    def reduction(self) -> int:
        """Image side over the deepest level's side; images are padded to a multiple of it."""
        return 1 if self.resampling == "none" else 2 ** (self.levels - 1)

    def validate_for(self, task: Task) -> None:
        """Raises SpecError when the task's image leaves the deepest level under 2 pixels on a side."""
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
        """Raises SpecError for a missing or unknown field and for a value outside its rule."""
        return from_fields(cls, value, "unet")

    def to_json(self) -> str:
        """Canonical JSON: equal networks give equal text."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> UNetSpec:
        """Raises SpecError when the text is not a JSON object that describes a U-Net."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise SpecError(f"unet: not JSON ({error}); give an object as `UNetSpec.to_json` writes it") from None
        if not isinstance(value, dict):
            raise SpecError(f"unet: JSON is a {type(value).__name__}; give an object as `UNetSpec.to_json` writes it")
        return cls.from_dict(value)

    @property
    def digest(self) -> str:
        """Identity of the architecture, 16 hexadecimal digits."""
        return digest_of(self.to_json())


def deepest(task: Task) -> int:
    """Most levels that leave the deepest at 2 pixels or more of the task's image, at least 1."""
    fitting = min(task.height, task.width).bit_length() - 1
    return max(1, min(fitting, RANGES["levels"][1]))
