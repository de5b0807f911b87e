"""The cells: a data set, a noise and a limit of MACs each, and the networks of the papers that a cell compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.lib.runs import Setting
from nas.errors import ConfigError
from nas.protocols import SearchSpace
from nas.types import Candidate, Constraint, Recipe, Task
from search_spaces.unet.references import REFERENCES, reference_network
from search_spaces.unet.spec import RANGES
from studies.commands.confirm import with_recipe

NOISES = ("gaussian:25", "gaussian:50")
SHARES: Mapping[str, float] = {"sixth": 1 / 6, "half": 1 / 2, "whole": 1.0}
"""The limits of MACs, as shares of the largest."""

LARGEST_8, LARGEST_32 = 6_400_000, 42_000_000
"""The largest limits of MACs, for images of 8x8 and of about 32x32 pixels.

The one is the limit that the space has by itself. The other is about a half of that at 28x28: a search of 20 minutes on
two cores allows itself about as much, and its sixth is the least in which every reference fits.
"""

WIDTHS = range(RANGES["width"][0], RANGES["width"][1] + 1)
PAIR = ("single-task-denoise", "single-task-classify")

Kind = Literal["knee", "end", "reference", "pair"]
RecipeOf = Literal["own", "found"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One search and its rivals.

    Attributes:
        name: ``digits-gaussian-50-sixth``.
        share: the key of its limit in `SHARES`.
        macs: the limit.
        setting: data, noise and epochs.
        needs: the option without which there is no data; empty where there is.
    """

    name: str
    share: str
    macs: int
    setting: Setting
    needs: str = ""


def cells(root: Path | None, pneumonia: Path | None) -> list[Cell]:
    """Returns all cells, those that need the least time first.

    Args:
        root: the folder with the files of Fashion-MNIST and of the CIFAR-10 subset. Without it torchvision downloads
            both.
        pneumonia: the file of PneumoniaMNIST.
    """
    subset = f"folder:{root / 'cifar10-subset'}" if root is not None and (root / "cifar10-subset").is_dir() else None
    sources: Mapping[str, tuple[str, int | None, int]] = {
        "digits": ("digits", None, 27),
        "fashion": ("fashion-mnist", 6000, 9),
        "cifar": (subset or "cifar10", None if subset else 4068, 9),
        "pneumonia": (f"npz:{pneumonia}", None, 9),
    }
    found = []
    for share, part in SHARES.items():
        for name, (data, images, epochs) in sources.items():
            for noise in NOISES:
                found.append(
                    Cell(
                        name=f"{name}-{noise.replace(':', '-')}-{share}",
                        share=share,
                        macs=round(part * (LARGEST_8 if name == "digits" else LARGEST_32)),
                        setting=Setting(data=data, subset=images, noise=noise, epochs=epochs, root=root),
                        needs="--pneumonia" if name == "pneumonia" and pneumonia is None else "",
                    )
                )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A network, or a pair of networks, that is trained under every seed.

    Attributes:
        name: the name for people.
        kind: the knee of the search, another end of its front, a reference network, or the pair of two networks for one
            task each.
        recipe: whether it has a recipe of its own, or that of the knee.
        networks: the network, or the one that denoises and the one that classifies.
    """

    name: str
    kind: Kind
    recipe: RecipeOf
    networks: tuple[Candidate, ...]


def rivals(
    space: SearchSpace, task: Task, epochs: int, limits: Sequence[Constraint]
) -> tuple[list[Contender], list[str]]:
    """Returns the known networks, each as wide as the limits allow and with its own recipe.

    The pair of single-task networks keeps the limits in sum: the one that denoises has at most half of them, and the
    one that classifies has what is left.

    Returns:
        The networks, and the names of those that are over the limits at every width.
    """
    upper = {str(limit.name): int(limit.upper) for limit in limits}

    def widest(name: str, allowed: Mapping[str, int]) -> Candidate:
        given = {f"max_{each}": most for each, most in allowed.items()}
        return reference_network(name, task, epochs=epochs, widths=WIDTHS, **given)

    found, over = [], []
    for name in REFERENCES:
        try:
            networks: tuple[Candidate, ...] = (widest(name, upper),)
        except ConfigError:
            over.append(name)
        else:
            found.append(Contender(name=name, kind="reference", recipe="own", networks=networks))
    pair = " + ".join(PAIR)
    try:
        first = widest(PAIR[0], {name: most // 2 for name, most in upper.items()})
        used = space.cost(first.spec, task)
        left = {name: most - getattr(used, name) for name, most in upper.items()}
        networks = (first, widest(PAIR[1], left))
    except ConfigError:
        over.append(pair)
    else:
        found.append(Contender(name=pair, kind="pair", recipe="own", networks=networks))
    return found, over


def under_recipe(rival: Contender, recipe: Recipe, space: SearchSpace, task: Task) -> Contender:
    """Returns a known network under the recipe of the found one.

    A network that only classifies has nothing to balance, so its loss keeps its whole weight.
    """
    networks = []
    for network in rival.networks:
        alone = getattr(network.spec, "tasks", "joint") == "classify"
        its = replace(recipe, classification_weight=1.0) if alone else recipe
        networks.append(with_recipe(space, network, its, task))
    return replace(rival, recipe="found", networks=tuple(networks))
