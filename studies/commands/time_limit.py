"""The largest networks of a new study whose search has a limit of time and no size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.data.splits import Dataset
from nas.protocols import SearchSpace
from nas.search.early_stopping import is_milestone
from nas.search.objectives import metric_of
from nas.settings import Resources
from nas.types import Candidate, Constraint, Task
from search_spaces.draws import sampled
from studies.commands.precision import excused, few_images
from studies.commands.terminal import duration

TRAININGS = 12
"""The number of trainings of the largest networks that a limit of time has room for."""

BATCH = 32
"""The images of a training step that the room is computed for. The networks of the papers have as many."""

TIMED_NETWORKS = 6
"""The number of networks, from small to large, whose training steps are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The seconds of a training step: ``fixed + per_mac * MACs of an image * images``, neither below 0."""

    fixed: float
    per_mac: float

    @classmethod
    def of(cls, work: Sequence[float], seconds: Sequence[float]) -> StepTime:
        """Fits the least squares to steps of so many MACs, all images together, that took so long."""
        from scipy.optimize import nnls

        unit = max(work)
        (fixed, slope), _ = nnls(np.column_stack([np.ones(len(work)), np.array(work) / unit]), np.array(seconds))
        return cls(fixed=float(fixed), per_mac=float(slope) / unit)

    def seconds(self, macs: float) -> float:
        """Returns the seconds of a step of `BATCH` images through a network of so many MACs."""
        return self.fixed + self.per_mac * BATCH * macs


def largest_macs(step: StepTime, steps: float, seconds: float, smallest: float) -> float:
    """Returns the MACs of the largest networks of which `TRAININGS` are trained in some seconds, one after the other.

    It is at least the MACs with which half of a step's time does not depend on the network: smaller networks than that
    are hardly faster. So fewer trainings fit when little time is given.

    Args:
        step: the time of a training step.
        steps: steps of a training.
        seconds: the time of all trainings.
        smallest: MACs of the smallest network; the result is never below it.
    """
    if not step.per_mac:
        return math.inf
    each = seconds / (TRAININGS * steps)
    return max(smallest, max(each - step.fixed, step.fixed) / (step.per_mac * BATCH))


def steps_of_a_training(images: int, judged: int, epochs: int) -> float:
    """Returns the steps of a training, with its probes and validations as the steps that would take as long.

    An image that is judged takes a third of the time of one that is trained on, because it has no backward pass.

    Args:
        images: images of the training split.
        judged: images of a validation, in all draws of the noise.
        epochs: epochs of the training.
    """
    from nas.training.batches import PROBE_IMAGES
    from nas.training.stability import PROBES

    steps = epochs * math.ceil(images / BATCH)
    validations = sum(is_milestone(epoch, epochs) for epoch in range(1, epochs + 1))
    forward = min(PROBES, steps) * min(PROBE_IMAGES, images) + validations * judged
    return steps + forward / (3 * BATCH)


def limits_in_time(
    space: SearchSpace,
    data: Dataset,
    task: Task,
    limits: tuple[Constraint, ...],
    epochs: int,
    device: str,
    precision: str,
    resources: Resources,
) -> tuple[tuple[Constraint, ...], list[str]]:
    """Lowers the limit of MACs to what the limit of time bears (see `largest_macs`).

    Steps are timed on this machine, as for `studies.commands.precision.study_precision`. Where they cannot be timed,
    the limits stay as they are.

    Returns:
        The limits, and the lines to tell about them.
    """
    import torch

    from nas.engine.session import expected_slots
    from nas.training.precision import step_seconds

    if resources.time_limit is None or (device == "cuda" and not torch.cuda.is_available()):
        return limits, []
    shown = f"time limit {duration(resources.time_limit)}"
    try:
        with few_images(data, task, device, max(1, int(resources.cpus_per_trial))) as images:
            work, took = [], []
            for candidate in _small_to_large(space, task, limits, epochs):
                network = space.build(candidate.spec, task)
                took.append(step_seconds(network, task, candidate.recipe, images, precision))
                work.append(float(space.cost(candidate.spec, task).macs * len(images)))
            smallest = min(work) / len(images)
    except Exception as error:  # an own space may raise anything, or memory is short
        return limits, [f"{shown}: networks of any size, as {excused(space, error)}"]
    step = StepTime.of(work, took)
    judged = len(data.validation.images) * data.validation.draws
    steps = steps_of_a_training(len(data.train.images), judged, epochs)
    seconds = resources.time_limit * expected_slots(resources)
    found = largest_macs(step, steps, seconds, smallest)
    if found >= next((limit.upper for limit in limits if limit.name == "macs"), math.inf):
        return limits, []
    # Two digits are enough, and are the same ones that are shown.
    macs = max(math.ceil(smallest), int(float(f"{found:.1e}")))
    trainings = max(1, round(seconds / (steps * step.seconds(macs))))
    line = (
        f"{shown}: networks of at most {metric_of('macs').short(macs)} MACs, so that about {trainings} of the largest "
        "fit; --max-macs sets another limit"
    )
    others = tuple(limit for limit in limits if limit.name != "macs")
    return (*others, Constraint(name="macs", upper=macs)), [line]


def _small_to_large(space: SearchSpace, task: Task, limits: tuple[Constraint, ...], epochs: int) -> list[Candidate]:
    """Returns `TIMED_NETWORKS` networks from small to large.

    They are reference networks, at their narrowest and as wide as the limits allow, because their steps are alike and
    their recipe is plain. A space without them gives random candidates.
    """
    narrow = (Constraint(name="macs", upper=1),)
    found = [*space.baselines(task, epochs, narrow).values(), *space.baselines(task, epochs, limits).values()]
    found = found or sampled(space, task, limits, 2 * TIMED_NETWORKS, seed=0, epochs=epochs)
    ordered = sorted(found, key=lambda candidate: space.cost(candidate.spec, task).macs)
    return [ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, TIMED_NETWORKS)]
