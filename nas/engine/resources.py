"""The resources of trials."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of trials in one run. They do not change the results of a trial.

    Attributes:
        cpus_per_trial: CPU cores of a trial.
        gpus_per_trial: GPUs of a trial, fractions too.
        concurrency: trials at a time; None for as many as the machine or cluster has room for.
        address: a Ray cluster to join; None starts a local Ray.
        time_limit: seconds after which the search stops; None for no limit.
        trial_timeout: seconds after which a trial counts as hanging and fails; None for no limit.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    concurrency: int | None = None
    address: str | None = None
    time_limit: float | None = None
    trial_timeout: float | None = None
