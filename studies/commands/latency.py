"""Whether a search can measure latency, found out before it begins."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nas.errors import ConfigError, LatencyError, StudyError, in_short, is_out_of_memory
from nas.protocols import SearchSpace
from nas.search.objectives import METRICS
from nas.settings import MODEL, StudyConfig, checked_command
from nas.types import Constraint, LatencySetting, Spec, Task
from search_spaces import SPACES
from search_spaces.draws import sampled

log = logging.getLogger(__name__)

DRAWN = 8
"""The number of random candidates of which the smallest one and the largest one are measured."""


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


def try_latency(space: SearchSpace, task: Task, limits: Sequence[Constraint], setting: LatencySetting) -> float | None:
    """Measures a small random network once, so that a wrong command or provider is known at the start.

    Returns its ms; None where no network is within the limits.

    Raises:
        ConfigError: it cannot be measured.
    """
    for spec in _by_size(space, task, limits)[:1]:
        return _measured(space, spec, task, setting)
    return None


def largest_latency(
    space: SearchSpace,
    task: Task,
    limits: Sequence[Constraint],
    setting: LatencySetting,
    smallest: float | None,
) -> float | None:
    """Returns about how many ms the largest networks of a study take; None where no network is within its limits.

    It is the time of a large random network, times the MACs that the limits allow over its own. The hypervolume is
    measured from there: from a time far above that of all networks, latency would hardly count. A line says so where a
    command prints for it what it has printed for the network of `try_latency`.

    Args:
        space, task, limits, setting: of the study.
        smallest: the result of `try_latency`.

    Raises:
        ConfigError: it cannot be measured.
    """
    by_size = _by_size(space, task, limits)
    if not by_size:
        return None
    own = space.cost(by_size[-1], task).macs
    found = _measured(space, by_size[-1], task, setting)
    if setting.command is not None and found == smallest and len(by_size) > 1:
        log.warning(
            "the latency command prints %.6g ms for a small network and for one of %s; if it does not run the program "
            "that takes the place of %s, stop the search and mend it",
            found,
            METRICS["macs"].titled(own),
            MODEL,
        )
    most = next((limit.upper for limit in limits if limit.name == "macs"), 2 * own)
    return found * most / max(1, own)


def _by_size(space: SearchSpace, task: Task, limits: Sequence[Constraint]) -> list[Spec]:
    """Returns some random architectures within the limits, from small to large."""
    drawn = [each.spec for each in sampled(space, task, limits, DRAWN, seed=0)]
    return sorted(drawn, key=lambda spec: space.cost(spec, task).macs)


def _measured(space: SearchSpace, spec: Spec, task: Task, setting: LatencySetting) -> float:
    from nas.bundles.latency import metrics, program, timed

    try:
        model = program(partial(space.build, spec, task), task, setting)
        with tempfile.TemporaryDirectory(prefix="skipnas-latency-") as folder:
            return metrics(timed(model, setting, Path(folder, "model.onnx"), runs=1))["latency"]
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
