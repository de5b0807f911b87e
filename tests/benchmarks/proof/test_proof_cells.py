"""The cells, and the known networks at the limit of a cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.proof.cells import PAIR, cells, rivals, under_recipe
from nas.types import Constraint, Recipe, Task
from search_spaces import get_space
from search_spaces.unet.references import REFERENCES

SPACE = get_space("unet")
DIGITS = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
GRAY_28 = Task(channels=1, classes=10, height=28, width=28, noise="gaussian:25")


def limits(macs: int, params: int = 2_000_000) -> list[Constraint]:
    return [Constraint(name="params", upper=params), Constraint(name="macs", upper=macs)]


def test_cells_are_data_noise_and_limit(tmp_path: Path) -> None:
    found = cells(None, None)
    named = {cell.name: cell for cell in found}
    assert len(found) == len(named) == 4 * 2 * 3
    assert [named[f"digits-gaussian-50-{share}"].macs for share in ("sixth", "half", "whole")] == [
        1_066_667, 3_200_000, 6_400_000,
    ]  # fmt: skip
    assert [named[f"cifar-gaussian-25-{share}"].macs for share in ("sixth", "half", "whole")] == [
        7_000_000, 21_000_000, 42_000_000,
    ]  # fmt: skip
    fashion = named["fashion-gaussian-25-half"].setting
    assert (fashion.data, fashion.subset, fashion.noise, fashion.epochs) == ("fashion-mnist", 6000, "gaussian:25", 9)
    assert {cell.setting.data for cell in found if cell.name.startswith("cifar")} == {"cifar10"}
    assert [cell.name.split("-")[0] for cell in found if cell.needs] == ["pneumonia"] * 6
    (tmp_path / "cifar10-subset").mkdir()
    given = {cell.name: cell for cell in cells(tmp_path, tmp_path / "p.npz")}
    assert not any(cell.needs for cell in given.values())
    assert given["pneumonia-gaussian-25-whole"].setting.data == f"npz:{tmp_path / 'p.npz'}"
    cifar = given["cifar-gaussian-50-half"].setting
    assert (cifar.data, cifar.subset) == (f"folder:{tmp_path / 'cifar10-subset'}", None)


def test_every_known_network_is_as_wide_as_the_limits_allow() -> None:
    found, over = rivals(SPACE, DIGITS, 27, limits(1_066_667))
    assert not over
    assert [each.name for each in found] == [*REFERENCES, " + ".join(PAIR)]
    for each in found[:-1]:
        spec = each.networks[0].spec
        step = 2 if each.name == "sluice" else 1  # which splits its channels in two
        assert SPACE.cost(spec, DIGITS).macs <= 1_066_667
        assert SPACE.cost(replace(spec, width=spec.width + step), DIGITS).macs > 1_066_667, each.name  # type: ignore[type-var, attr-defined]
    # U-Net at 8x8 has 0.49 million MACs with 8 channels, so it has 11 here, which no search draws.
    assert found[0].networks[0].spec.width == 11  # type: ignore[attr-defined]


def test_the_pair_keeps_the_limits_in_sum() -> None:
    found = rivals(SPACE, GRAY_28, 9, limits(7_000_000, params=120_000))[0]
    first, second = found[-1].networks
    costs = [SPACE.cost(each.spec, GRAY_28) for each in (first, second)]
    assert [each.spec.tasks for each in (first, second)] == ["denoise", "classify"]  # type: ignore[attr-defined]
    assert costs[0].params <= 60_000
    assert sum(cost.params for cost in costs) <= 120_000
    assert sum(cost.macs for cost in costs) <= 7_000_000


def test_a_network_that_no_width_brings_within_the_limit_is_named() -> None:
    found, over = rivals(SPACE, GRAY_28, 9, limits(5_400_000))
    assert over == ["cross-stitch", "sluice", "nddr", "nddr-no-shortcut", " + ".join(PAIR)]
    assert len(found) + len(over) == len(REFERENCES) + 1


def test_known_networks_take_the_recipe_of_the_found_one() -> None:
    recipe = Recipe(epochs=27, batch_size=16, learning_rate=0.006, weight_decay=0.0, classification_weight=0.03)
    known = {each.name: each for each in rivals(SPACE, DIGITS, 27, limits(1_066_667))[0]}
    for name in ("unet", "cross-stitch"):
        other = under_recipe(known[name], recipe, SPACE, DIGITS)
        assert (other.recipe, other.name) == ("found", name)
        assert [each.spec for each in other.networks] == [each.spec for each in known[name].networks]
        assert other.networks[0].recipe == recipe
    pair = under_recipe(known[" + ".join(PAIR)], recipe, SPACE, DIGITS)
    weights = [each.recipe.classification_weight for each in pair.networks]
    assert weights == [pytest.approx(0.03), 1.0], "a classifier alone has nothing to balance"
