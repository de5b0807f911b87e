"""The precision that a new study trains in."""

from __future__ import annotations

import dataclasses

from nas.data.splits import Dataset, Split
from nas.errors import is_out_of_memory
from nas.protocols import SearchSpace
from nas.types import Constraint, Task
from search_spaces import SPACES
from search_spaces.draws import sampled

TIMED_CANDIDATES, TIMED_IMAGES = 4, 16
"""What decides which precision is the faster: steps of so many random candidates on so many images."""


def study_precision(
    space: SearchSpace,
    data: Dataset,
    task: Task,
    limits: tuple[Constraint, ...],
    epochs: int,
    device: str,
    threads: int,
) -> tuple[str, str]:
    """The precision in which candidates of the space are trained faster, and what kept it from being found.

    It is timed on this machine, on the device that trials train on and with as many threads as a trial gets. It is fp32
    where nothing can be said: no GPU here for trials on GPUs, or a candidate of an own space cannot be trained, which
    does not stop a search, as its trial will say why.
    """
    import torch

    from nas.training.batches import DeviceData
    from nas.training.precision import faster_for

    if device == "cuda" and not torch.cuda.is_available():
        return "fp32", ""
    few = dataclasses.replace(data, train=_first(data.train), validation=_first(data.validation))
    images = DeviceData.of(few, task, torch.device(device))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            networks = [
                (space.build(candidate.spec, task), candidate.recipe)
                for candidate in sampled(space, task, limits, TIMED_CANDIDATES, seed=0, epochs=epochs)
            ]
        return faster_for(networks, task, images, steps=2), ""
    except Exception as error:  # whatever an own space raises, or too little memory
        if space.name in SPACES and not is_out_of_memory(error):
            raise
        return "fp32", f"precision: fp32, as candidates could not be timed ({type(error).__name__}: {error})"
    finally:
        torch.set_num_threads(before)


def _first(split: Split) -> Split:
    return Split(split.images[:TIMED_IMAGES], None if split.labels is None else split.labels[:TIMED_IMAGES])
