"""A bundle's weights as the start of another training: what is carried over, and what is remembered of the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nas.bundles.bundle import Bundle
from nas.errors import BundleError
from nas.types import Task
from nas.words import visible


def carry_over(bundle: Bundle, network: nn.Module, task: Task, classes: Sequence[str]) -> list[str]:
    """Gives a network the weights of a bundle, and returns the names of the tensors that begin anew.

    Where the classes are the bundle's, with the same names in the same order, every tensor is carried over. Otherwise
    those begin anew whose shape depends on the number of classes, which are the last layer of a head, and those of a
    head that the bundle lacks. A head that the network lacks is left out.

    Args:
        bundle: the start.
        network: of the bundle's space and spec, built for `task`.
        task: the task of the new training.
        classes: its class names by index.

    Raises:
        BundleError: the images have other channels, or the network for them has other tensors than the bundle.
    """
    if task.channels != bundle.task.channels:
        raise BundleError(
            f"{bundle.path} restores images of {bundle.task.channels} channel(s), and those of `data` have "
            f"{task.channels}; give such images, or train a network for them"
        )
    fresh, held = network.state_dict(), bundle.network.state_dict()
    anew: set[str] = set()
    if tuple(classes) != bundle.classes:
        with torch.random.fork_rng(devices=[]):
            other = bundle.space.build(bundle.candidate.spec, replace(task, classes=task.classes + 1)).state_dict()
        anew = {
            name
            for name, tensor in fresh.items()
            if name not in held or name not in other or other[name].shape != tensor.shape
        }
    for name in fresh.keys() - anew:
        if name not in held or held[name].shape != fresh[name].shape:
            there = tuple(held[name].shape) if name in held else "missing"
            raise BundleError(
                f"{bundle.path}: tensor {name!r} is {there}, and the network for `data` has "
                f"{tuple(fresh[name].shape)}; give images as those of the bundle"
            )
    network.load_state_dict({name: tensor if name in anew else held[name] for name, tensor in fresh.items()})
    return [name for name in fresh if name in anew]


def origin(bundle: Bundle) -> dict[str, Any]:
    """Returns what a training keeps of the bundle that it began with, as JSON values.

    ``digest`` is the candidate's; ``weights`` is `Bundle.weights_digest`;
    ``data`` and ``noise`` are what it was trained on, and ``seen`` are the fingerprints of `Bundle.seen`.
    """
    data = bundle.facts.get("data")
    return {
        "digest": bundle.candidate.digest,
        "weights": bundle.weights_digest,
        "data": visible(data) if isinstance(data, str) else None,
        "noise": bundle.task.noise,
        "seen": list(bundle.seen),
    }
