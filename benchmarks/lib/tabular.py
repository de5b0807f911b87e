"""A trained answer to every candidate of the space ``table``, with which search methods are compared in seconds.

The file `FILE`, which `benchmarks.table` makes, has the values of 648 architectures under two seeds after every epoch.
::

    table = Table.read()
    table.values(candidate, seed=0, epoch=27)    # (PSNR in dB, accuracy in percent, stability in 0..1)

`TABLE.md` beside the file is its card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalChoiceType, CategoricalDistribution, IntDistribution

from nas.types import Candidate, Task
from search_spaces import get_space

FILE = Path(__file__).parents[1] / "table.npz"
SPACE = get_space("table")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
EPOCHS = 27
OBJECTIVES = ("psnr", "accuracy", "stability")
UNITS = np.array([100.0, 100.0, 10_000.0])
"""Values are stored as whole numbers of 0.01 dB, 0.01 percent and 0.0001; -1 stands for a value after divergence."""


def candidates() -> list[Candidate]:
    """Returns every candidate of the space, each once, in an order that never changes."""
    distributions = SPACE.distributions(TASK)
    choices = [choices_of(distribution) for distribution in distributions.values()]
    drawn = (SPACE.decode(dict(zip(distributions, point, strict=True)), TASK, EPOCHS) for point in product(*choices))
    return list({candidate.digest: candidate for candidate in drawn}.values())


def choices_of(distribution: BaseDistribution) -> Sequence[CategoricalChoiceType]:
    """Returns every value of a distribution of this space."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return range(distribution.low, distribution.high + 1)


@dataclass(frozen=True, eq=False)
class Table:
    """The values that trainings of all candidates of the space gave.

    Attributes:
        digests: (n,) digests of the candidates.
        stored: (n, seeds, epochs, objectives) whole numbers, see `UNITS`.
        seconds: (n, seeds) seconds of a whole training on one core.
        params, macs: (n,) parameters and MACs.
    """

    digests: NDArray[np.str_]
    stored: NDArray[np.int16]
    seconds: NDArray[np.float32]
    params: NDArray[np.int64]
    macs: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path = FILE) -> Table:
        """Reads the table from its file, without unpickling anything."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})

    def write(self, path: Path = FILE) -> None:
        """Writes the table to its file."""
        np.savez_compressed(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @cached_property
    def all_values(self) -> NDArray[np.float64]:
        """PSNR, accuracy and stability, (n, seeds, epochs, objectives); NaN from where a run diverged."""
        return np.where(self.stored < 0, np.nan, self.stored / UNITS)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(digest): row for row, digest in enumerate(self.digests)}

    def row(self, candidate: Candidate) -> int:
        """Returns the row of a candidate. Raises KeyError for one that is not of the space."""
        return self._rows[candidate.digest]

    def values(self, candidate: Candidate, *, seed: int, epoch: int = EPOCHS) -> tuple[float, ...] | None:
        """Returns PSNR, accuracy and stability after an epoch, from 1; None once the run has diverged."""
        found = self.all_values[self.row(candidate), seed, epoch - 1]
        return None if np.isnan(found).any() else tuple(found.tolist())
