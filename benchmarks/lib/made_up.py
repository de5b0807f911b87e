"""Made-up trials for benchmarks of the engine: candidates of the space ``unet`` with values that cost nothing.

No network has these values. They depend on the candidate as those of networks do, as far as a search is concerned:
every
choice has an effect of its own on each objective, some pairs of choices have another effect together, hyperparameters
that are switched off have none, and what helps one objective often hurts the next.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import tune

from nas.data.splits import Dataset
from nas.engine.job import Job
from nas.engine.report import Report
from nas.engine.trainable import WorkerSettings
from nas.outcome import Outcome
from nas.protocols import SearchSpace
from nas.search.objectives import DEFAULT, TrivialQuality, resolve_objectives
from nas.search.sampler import AUTO
from nas.settings import StudyConfig
from nas.types import EpochRow, Measurement, Objective, ProbeCurve, Task, digest_of
from search_spaces.unet.space import UNetSpace

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
OBJECTIVES: tuple[Objective, ...] = resolve_objectives(
    DEFAULT, TASK, TrivialQuality(psnr=14.15, counts=(1,) * 10), UNetSpace().limits(TASK)
)[0]
PROBES = 200
PAIRS = (("fusion", "gate"), ("width", "levels"), ("learning_rate", "optimizer"), ("sharing", "columns"))
"""Hyperparameters that have an effect together."""


def values(spec: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, float]:
    """Returns PSNR in dB, accuracy in percent and stability in 0..1 of a made-up candidate, always the same ones."""
    chosen = {**spec, **recipe}
    facts = [f"{name}={value}" for name, value in chosen.items()]
    facts += [f"{a}={chosen[a]},{b}={chosen[b]}" for a, b in PAIRS if a in chosen and b in chosen]
    effects = np.sum([_effects(fact) for fact in facts], axis=0)
    common, each = effects[0], effects[1:] - effects[1:].mean()  # one objective gains what the others lose
    scores = [1 / (1 + math.exp(-0.5 * float(common + 1.5 * own))) for own in each]
    return {"psnr": 14.0 + 8.0 * scores[0], "accuracy": 10.0 + 89.0 * scores[1], "stability": scores[2]}


@functools.cache
def _effects(fact: str) -> Any:
    """Returns the effects of one choice, or of two together: on all objectives at once, and on each."""
    return np.random.default_rng(int(digest_of(fact), 16)).normal(size=4)


def measurement(spec: Mapping[str, Any], recipe: Mapping[str, Any], seconds: float = 0.0, **more: float) -> Measurement:
    """Returns what a worker would report of a made-up candidate, as large as a real report, and `more` values."""
    found = values(spec, recipe)
    curve = tuple(np.linspace(1.0, 1.0 - 0.5 * found["stability"], PROBES).tolist())
    return Measurement(
        values={**found, "params": 10_000.0, "macs": 1e6, "latency": 1.0, **more},
        probe=ProbeCurve(steps=tuple(range(PROBES)), denoise=curve, classify=curve),
        gates=tuple({"mean": 1.0, "minimum": 0.5, "maximum": 1.5} for _ in range(3)),
        seconds=seconds,
        peak_memory=300.0,
        seed=0,
    )


def epoch_row(epoch: int, found: Mapping[str, float], seconds: float = 0.0) -> EpochRow:
    """Returns a validated epoch of a made-up candidate."""
    return EpochRow(
        epoch=epoch,
        denoise_loss=0.5,
        classify_loss=0.5,
        seconds=seconds,
        values={name: found[name] for name in DEFAULT},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSpace(UNetSpace):
    """The space ``unet`` for trials that train nothing.

    Attributes:
        work: seconds of CPU time that each trial takes.
        sleep: further seconds that it sleeps.
    """

    work: float = 0.0
    sleep: float = 0.0


def study_config(name: str, sampler: str, **changes: Any) -> StudyConfig:
    """Returns the configuration of a study of made-up trials of one epoch, as a new study has it, without a prior."""
    settings: dict[str, Any] = {
        "study": name,
        "space": "unet",
        "space_version": UNetSpace().version,
        "data": "digits",
        "fingerprint": "f" * 16,
        "task": TASK,
        "epochs": 1,
        "objectives": OBJECTIVES,
        "constraints": UNetSpace().limits(TASK),
        "sampler": AUTO if sampler == "auto" else sampler,
    }
    return StudyConfig(**settings | changes)


class MadeUpTrainable(tune.Trainable):
    """Keeps a core busy and reports made-up values, in the place of `nas.engine.trainable.CandidateTrainable`.

    The work is counted in CPU time, so that a trial takes longer when other processes use the core. Among the values
    are
    ``worker``, a process id, and ``began`` and ``ended``, in seconds since the epoch.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters supplies the rest
        self, config: dict[str, Any], *, data: Dataset, space: SearchSpace, settings: WorkerSettings
    ) -> None:
        assert isinstance(space, WorkingSpace)
        self._work, self._sleep = space.work, space.sleep

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        began = time.time()
        until = time.process_time() + self._work
        while time.process_time() < until:
            pass
        time.sleep(self._sleep)
        ended = time.time()
        seconds = ended - began
        where = {"worker": float(os.getpid()), "began": began, "ended": ended}
        job: Job = self.config["job"]
        found = measurement(job.spec, job.recipe.to_dict(), seconds, **where)
        report = Report(
            number=job.number,
            rows=(epoch_row(1, found.values, seconds),),
            outcome=Outcome.COMPLETE,
            measurement=found,
        )
        return {"report": report, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Loads nothing."""
