"""What a bundle and each of its files say of themselves: inputs, outputs, how images are made ready, and figures.

The same facts are the metadata of the ONNX programs and of the weights, and what ``show BUNDLE`` prints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.data.noise import parse_noise
from nas.data.preparation import Preparation
from nas.protocols import Abilities, SearchSpace
from nas.search.objectives import METRICS, of_basis
from nas.types import Candidate, Task

PLAIN_FACTS = ("data", "study", "trial", "seed", "training_version")
"""The facts about a network's origin that are told as they are."""

INTERVAL = ("mean", "low", "high", "n")


def colours(channels: int) -> str:
    """Returns what the channels of an image are."""
    return {1: "gray", 3: "RGB"}.get(channels, f"{channels}-channel")


def description(
    *,
    space: SearchSpace,
    candidate: Candidate,
    task: Task,
    classes: Sequence[str],
    network: Any,
    facts: Mapping[str, Any],
    versions: Mapping[str, Any],
    white_level: float | None,
    preparation: Preparation | None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Describes a network as JSON values by name. `facts` may be a stranger's: what is no figure there is left out.

    Args:
        space, candidate, task, classes, network, facts, white_level, preparation, threshold: see
            `nas.bundles.bundle.Bundle`.
        versions: version of each package that wrote the bundle.

    Returns:
        Among others ``digest``, that of spec and recipe, which says nothing of the weights; ``noisy``, ``denoised`` and
        ``logits``, a sentence about each input and output of the programs; ``start``, a sentence about the bundle whose
        weights the training began with;
        ``measured`` (split -> figure -> value), ``searched`` (figure -> value: what the search alone measures, such as
        the latency), ``confirmed`` (figure -> mean, low, high, n; 95 % intervals over
        seeds), and ``white_level`` and ``threshold``, only where there is one.
    """
    kind, cost, abilities = colours(task.channels), space.cost(candidate.spec, task), Abilities.of(network)
    white = f"{white_level:.10g}" if white_level is not None else "the largest value of their type, such as 255"
    found = {
        "title": f"{space.name} {candidate.digest}: restores noisy {kind} images"
        + (f" and names one of {len(classes)} classes" if classes else ""),
        "digest": candidate.digest,
        "licence": str(facts.get("licence") or "not stated"),
        "noisy": f"noisy images (N, C, H, W), {kind}, pixels divided by {white}, so that 0 is black and 1 white"
        + ("" if parse_noise(task.noise).clips else "; noise beyond 0 and 1 is left as it is"),
        "denoised": "restored images of the same shape and scale, not clipped: clip them to 0 and 1",
        **({"logits": "(N, K): a softmax makes them probabilities, in the order of `classes`"} if classes else {}),
        "layout": "NCHW",
        "colours": kind,
        "range": "0 to 1",
        **({} if white_level is None else {"white_level": white_level}),
        "noise": task.noise,
        "trained_size": f"{task.height}x{task.width}",
        "padded_to": abilities.reduction,
        "reach": "the whole image" if abilities.reach is None else abilities.reach,
        "classes": list(classes),
        "threshold": threshold,
        "answer": None if threshold is None else f"{classes[1]} where its probability is at least `threshold`",
        "class_of": "an image turned as it is to be seen, cut at the centre and averaged to the trained size"
        if preparation is not None
        else None,
        "params": cost.params,
        "macs": cost.macs,
        **{name: facts.get(name) for name in PLAIN_FACTS if isinstance(facts.get(name), str | int)},
        "start": start_in_words(facts.get("start")),
        "measured": {str(split): _figures(values) for split, values in _entries(_measured(facts))},
        "searched": _searched(facts),
        "latency_of": of if isinstance(of := facts.get("latency_of"), str) else None,
        "confirmed": _confirmed(facts.get("confirmed")),
        "skipnas": str(versions.get("skipnas", "unknown")),
        "torch": str(versions.get("torch", "unknown")),
    }
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def start_in_words(start: Any) -> str | None:
    """Tells of the bundle that a training began with (see `nas.bundles.start.origin`); None where there was none."""
    told = dict(_entries(start))
    names = [told.get(name) for name in ("weights", "digest", "noise")]
    if not all(isinstance(name, str) for name in names):
        return None
    weights, digest, noise = names
    data = told.get("data")
    return (
        f"the weights {weights} of a bundle {digest}, trained on {data if isinstance(data, str) else 'unknown data'} "
        f"under {noise}"
    )


def metadata(described: Mapping[str, Any]) -> dict[str, str]:
    """Returns a description as the metadata of a file: text as it is, and everything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        for name, value in described.items()
    }


def _measured(facts: Mapping[str, Any]) -> Any:
    """Returns the figures of these weights by split; the search's figures where no others are known."""
    return facts.get("measured") or {str(facts.get("split", "unnamed")): facts.get("values")}


def _searched(facts: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures of the search that no split of images has; none where `_measured` tells them."""
    names = {metric.name for metric in of_basis("run", "program", "doubt")}
    found = _figures(facts.get("values")) if facts.get("measured") else {}
    return {name: value for name, value in found.items() if name in names}


def _confirmed(value: Any) -> dict[str, dict[str, float]]:
    """Returns the mean and the interval of each figure over the seeds of a confirmation."""
    values = dict(_entries(value)).get("values")
    found = {str(name): _numbers(interval) for name, interval in _entries(values)}
    return {
        name: {key: interval[key] for key in INTERVAL}
        for name, interval in found.items()
        if interval.keys() >= {*INTERVAL}
    }


def _figures(values: Any) -> dict[str, float]:
    return {
        name: float(f"{value:.8g}")  # further digits say nothing
        for name, value in _numbers(values).items()
        if name.removeprefix("noisy_") in METRICS
    }


def _numbers(values: Any) -> dict[str, float]:
    return {
        str(name): value
        for name, value in _entries(values)
        if type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**63
    }


def _entries(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []
