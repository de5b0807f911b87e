"""What networks and recipes ask of the training loop: balance, rates of groups, penalty, active tasks."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unet_strategies import BASE, DIGITS

from nas.data.splits import load
from nas.errors import SpecError
from nas.training.balancing import BALANCES, Balance, Surgery, Uncertainty
from nas.training.batches import DeviceData
from nas.training.loop import Training
from nas.training.stability import stability
from nas.types import Recipe
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import UNetSpec

SPACE = UNetSpace()
RECIPE = Recipe(epochs=2, batch_size=50, learning_rate=0.01, weight_decay=0.1, classification_weight=0.5)


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load("digits", subset=100), DIGITS, torch.device("cpu"))


def training(data: DeviceData, recipe: dict[str, Any] | None = None, **changes: Any) -> Training:
    torch.manual_seed(0)
    network = SPACE.build(UNetSpec(**BASE | {"levels": 2} | changes), DIGITS)
    return Training(network, DIGITS, dataclasses.replace(RECIPE, **recipe or {}), data, seed=0)


def gradients(name: str, first: Tensor, second: Tensor, penalty: Tensor | None = None) -> Tensor:
    """The gradient that a balance makes of two losses with these gradients, lambda 1."""
    recipe = dataclasses.replace(RECIPE, balancing=name, classification_weight=1.0)
    x = nn.Parameter(torch.zeros_like(first))
    extra = None if penalty is None else (x * penalty).sum()
    BALANCES[name](recipe).backward((x * first).sum(), (x * second).sum(), extra, [x])
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("name", ["fixed", "surgery"])
def test_without_conflict_gradients_are_summed(name: str) -> None:
    first, second, third = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 2.0]), torch.tensor([0.0, 0.25])
    assert torch.allclose(gradients(name, first, second), first + second)
    assert torch.allclose(gradients(name, first, second, third), first + second + third)


def test_surgery_takes_conflict_out() -> None:
    """Yu et al. 2020, algorithm 1: g_i - (g_i . g_j) / |g_j|^2 g_j."""
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    dot = first @ second
    wanted = first - dot / (second @ second) * second + second - dot / (first @ first) * first
    assert torch.allclose(gradients("surgery", first, second), wanted)


def test_uncertainty_weights_follow_their_formula() -> None:
    """Kendall et al. 2018: L_d / (2 s_d^2) + ln s_d + L_c / s_c^2 + ln s_c."""
    balance = Uncertainty(RECIPE)
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([0.4, -0.6]))
    s_d, s_c = torch.exp(torch.tensor([0.4, -0.6]) / 2)
    wanted = 3 / (2 * s_d**2) + s_d.log() + 2 / s_c**2 + s_c.log()
    assert torch.allclose(balance.total(torch.tensor(3.0), torch.tensor(2.0)), wanted)


def test_uncertainty_weights_are_learned_and_kept(data: DeviceData) -> None:
    run = training(data, {"balancing": "uncertainty", "epochs": 1})
    run.run_epoch()
    assert torch.all(run.balance.log_variances != 0)
    again = training(data, {"balancing": "uncertainty", "epochs": 1})
    again.load_state(run.state())
    assert torch.equal(again.balance.log_variances, run.balance.log_variances)


@pytest.mark.parametrize("balancing", BALANCES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_balance_and_optimiser_learns(balancing: str, optimizer: str, data: DeviceData) -> None:
    run = training(data, {"balancing": balancing, "optimizer": optimizer}, columns=2, sharing="sluice_2")
    before = run.run_epoch()
    after = run.run_epoch()
    assert after[0] < before[0]


def test_layers_between_columns_have_their_own_rate(data: DeviceData) -> None:
    run = training(data, {"sharing_rate": 100.0, "optimizer": "sgd"}, columns=2, sharing="nddr")
    run.run_epoch()
    base, sharing = run.optimizer.param_groups
    assert sharing["lr"] == pytest.approx(100 * base["lr"])
    assert {id(p) for p in sharing["params"]} == {id(p) for p in run.network.exchanges.parameters()}
    assert base["weight_decay"] == sharing["weight_decay"] == 0.1
    alone = training(data)
    assert [len(group["params"]) for group in alone.optimizer.param_groups] == [len(list(alone.network.parameters()))]


def test_the_penalty_is_part_of_the_step(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    def decay(weight: float) -> float:
        run = training(data, {"weight_decay": 0.0}, columns=2, sharing="sluice_2")
        monkeypatch.setattr("search_spaces.unet.sharing.SplitSluice.weight", weight)
        run.run_epoch()
        monkeypatch.setattr("search_spaces.unet.sharing.SplitSluice.weight", 0.1)
        return run.network.penalty().item()

    assert decay(10.0) < decay(0.0)


@pytest.mark.parametrize(("tasks", "head_attach"), [("denoise", "bottleneck"), ("classify", "decoder")])
def test_a_network_for_one_task_is_trained_and_judged_for_it_alone(
    tasks: str, head_attach: str, data: DeviceData
) -> None:
    run = training(data, {"balancing": "surgery"}, tasks=tasks, head_attach=head_attach)
    assert type(run.balance) is Balance
    for _ in range(2):
        run.run_epoch()
    for parameter in run.network.parameters():
        assert parameter.grad is not None
        assert torch.any(parameter.grad)
    curve = run.probe_curve()
    assert bool(curve.denoise) == (tasks == "denoise")
    assert bool(curve.classify) == (tasks == "classify")
    assert 0 <= stability(curve) <= 1


def test_surgery_is_the_published_one() -> None:
    from torchjd.aggregation import PCGrad

    assert isinstance(Surgery(RECIPE).aggregator, PCGrad)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "adam", "recipe: optimizer is 'adam'; choose one of adamw, sgd"),
        ("balancing", "none", "recipe: balancing is 'none'; choose one of fixed, uncertainty, surgery"),
        ("sharing_rate", -1.0, "recipe: sharing_rate is -1.0, must be at least 0"),
        ("epochs", "3", "recipe: epochs is '3', must be a whole number"),
    ],
)
def test_a_recipe_outside_its_rule_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        dataclasses.replace(RECIPE, **{field: value})
    assert str(refused.value) == message


def test_recipes_of_before_keep_their_digest() -> None:
    assert RECIPE.to_dict() == {
        "epochs": 2,
        "batch_size": 50,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "classification_weight": 0.5,
    }
    uncertain = dataclasses.replace(RECIPE, balancing="uncertainty")
    assert uncertain == dataclasses.replace(uncertain, classification_weight=0.1)
