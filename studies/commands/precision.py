"""The precision of a new study."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nas.data.splits import Dataset, Split
from nas.errors import is_out_of_memory
from nas.protocols import SearchSpace
from nas.types import Constraint, Task
from search_spaces import SPACES
from search_spaces.draws import sampled

if TYPE_CHECKING:
    from nas.training.batches import DeviceData

TIMED_CANDIDATES, TIMED_IMAGES = 4, 16
"""The numbers of random candidates, and of images, whose timed steps decide the faster precision."""


def study_precision(
    space: SearchSpace,
    data: Dataset,
    task: Task,
    limits: tuple[Constraint, ...],
    epochs: int,
    device: str,
    threads: int,
) -> tuple[str, str]:
    """Returns the precision that trains the space's candidates faster, and the problem that kept it from being found.

    Steps are timed on this machine, on the device that trials train on, with the threads of a trial. The result is fp32
    where nothing can be timed: trials train on GPUs and this machine has none, or a candidate of an own space cannot be
    trained. The latter does not stop a search, because the trial itself will say why.
    """
    import torch

    from nas.training.precision import faster_for

    if device == "cuda" and not torch.cuda.is_available():
        return "fp32", ""
    try:
        with few_images(data, task, device, threads) as images:
            networks = [
                # Surgery has two backward passes of the same kind as others have one.
                (space.build(candidate.spec, task), dataclasses.replace(candidate.recipe, balancing="fixed"))
                for candidate in sampled(space, task, limits, TIMED_CANDIDATES, seed=0, epochs=epochs)
            ]
            return faster_for(networks, task, images, steps=2), ""
    except Exception as error:  # an own space may raise anything, or memory is short
        return "fp32", f"precision: fp32, as {excused(space, error)}"


@contextlib.contextmanager
def few_images(data: Dataset, task: Task, device: str, threads: int) -> Iterator[DeviceData]:
    """Provides a few images on a device. While the block runs, torch has so many threads.

    Torch's global generator is the same afterwards as before.
    """
    import torch

    from nas.training.batches import DeviceData

    few = dataclasses.replace(data, train=_first(data.train), validation=_first(data.validation))
    images = DeviceData.of(few, task, torch.device(device))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield images
    finally:
        torch.set_num_threads(before)


def excused(space: SearchSpace, error: Exception) -> str:
    """Returns the words for candidates that cannot be timed. Raises the error where it is a bug of this project."""
    if space.name in SPACES and not is_out_of_memory(error):
        raise error
    return f"candidates could not be timed ({type(error).__name__}: {error})"


def _first(split: Split) -> Split:
    return split.chosen(range(min(TIMED_IMAGES, len(split.images))))
