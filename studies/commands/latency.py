"""Whether a search can measure latency, found out before it begins."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nas.errors import ConfigError, LatencyError, StudyError, in_short, is_out_of_memory
from nas.protocols import SearchSpace
from nas.settings import StudyConfig, checked_command
from nas.types import Constraint, LatencySetting, Task
from search_spaces import SPACES
from search_spaces.draws import sampled

DRAWN = 8
"""The number of random candidates of which the smallest one is measured."""


def check_study(config: StudyConfig, command: str | None) -> None:
    """Refuses to train for a study whose latency this run would measure otherwise.

    Raises:
        StudyError: the study's latency is that of eager PyTorch, or of a command that was not given for this run.
    """
    if "latency" in config.objective_names and config.latency is None:
        raise StudyError(
            f"study {config.study!r} has the latency of eager PyTorch as an objective, which is not measured any more; "
            f"begin another study, with its front by `warm_start` {config.study}"
        )
    checked_command(config, command)


def try_latency(space: SearchSpace, task: Task, limits: Sequence[Constraint], setting: LatencySetting) -> None:
    """Measures a small random network once, so that a wrong command or provider is known at the start.

    Raises:
        ConfigError: it cannot be measured.
    """
    from nas.bundles.latency import program, timed

    candidates = sampled(space, task, limits, DRAWN, seed=0)
    if not candidates:
        return
    smallest = min((each.spec for each in candidates), key=lambda spec: space.cost(spec, task).macs)
    try:
        model = program(partial(space.build, smallest, task), task, setting)
        with tempfile.TemporaryDirectory(prefix="skipnas-latency-") as folder:
            timed(model, setting, Path(folder, "model.onnx"), runs=1)
    except LatencyError as error:
        name = "latency_provider" if setting.command is None else "latency_command"
        raise ConfigError(f"`{name}`: {error}; mend it, or leave it out") from None
    except Exception as error:
        if space.name in SPACES and not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"latency cannot be measured: a network of {space.name} cannot be exported for {setting.images} "
            f"({in_short(error)}); mend the network, or leave the objective latency out"
        ) from None
