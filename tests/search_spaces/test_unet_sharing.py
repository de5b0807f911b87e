"""What lies between two columns: initial mixtures, formulas, penalty, and how the columns run."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from unet_strategies import BASE

from nas.types import Task
from search_spaces.unet.network import Columns
from search_spaces.unet.sharing import (
    SHARINGS,
    ChannelCrossStitch,
    CrossStitch,
    LayerMix,
    Nddr,
    Shortcut,
    Sluice,
    SplitSluice,
)
from search_spaces.unet.spec import CHOICES, UNetSpec

JOINT = Task(channels=3, classes=5, height=32, width=32, noise="gaussian:50")
ONE, OTHER = torch.randn(2, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def columns(**changes: Any) -> Columns:
    torch.manual_seed(0)
    return Columns(UNetSpec(**BASE | {"columns": 2, "head_attach": "decoder"} | changes), JOINT)


def test_every_choice_has_its_layer() -> None:
    assert tuple(SHARINGS) == CHOICES["sharing"]


@pytest.mark.parametrize("kind", [CrossStitch, ChannelCrossStitch, Sluice])
def test_cross_stitch_starts_at_its_mixture(kind: type[CrossStitch]) -> None:
    first, second = kind(4, 0.9)([ONE, OTHER])
    assert torch.equal(first, 0.9 * ONE + 0.1 * OTHER)
    assert torch.equal(second, 0.1 * ONE + 0.9 * OTHER)


@pytest.mark.parametrize("kind", [CrossStitch, Sluice])
def test_a_program_does_not_cut_channels_into_one_part(kind: type[CrossStitch]) -> None:
    with torch.no_grad():
        program = torch.export.export(kind(4, 0.9), ([ONE, OTHER],))
    assert {node.name.rstrip("_0123456789") for node in program.graph.nodes} & {"split", "chunk"} == set()


def test_cross_stitch_by_channel() -> None:
    layer = ChannelCrossStitch(4, 0.9)
    torch.nn.init.normal_(layer.a)
    first, second = layer([ONE, OTHER])
    for c in range(4):
        assert torch.allclose(first[:, c], layer.a[0, 0, c] * ONE[:, c] + layer.a[0, 1, c] * OTHER[:, c])
        assert torch.allclose(second[:, c], layer.a[1, 0, c] * ONE[:, c] + layer.a[1, 1, c] * OTHER[:, c])


def test_sluice_mixes_subspaces() -> None:
    layer = SplitSluice(4, 0.9)
    assert torch.equal(layer.a, torch.full((4, 4), 0.05).fill_diagonal_(0.95))
    torch.nn.init.normal_(layer.a)
    parts = torch.stack([ONE[:, :2], ONE[:, 2:], OTHER[:, :2], OTHER[:, 2:]])
    wanted = torch.einsum("ij,jnchw->inchw", layer.a, parts)
    for found, halves in zip(layer([ONE, OTHER]), (wanted[:2], wanted[2:]), strict=True):
        assert torch.allclose(found, torch.cat(list(halves), dim=1), atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_sluices_product_and_its_gradients_are_those_of_the_formula(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = SplitSluice(4, 0.9)
    torch.nn.init.normal_(layer.a)
    states = [
        state.to(precision).contiguous(memory_format=torch.channels_last).requires_grad_() for state in (ONE, OTHER)
    ]
    with torch.no_grad():
        by_sums = layer(states)
    p, q, r, s = (half for state in states for half in state.chunk(2, dim=1))
    rows = [torch.stack([each * part for each, part in zip(row, (p, q, r, s), strict=True)]).sum(0) for row in layer.a]
    formula = [torch.cat(rows[:2], dim=1), torch.cat(rows[2:], dim=1)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        product = layer(states)
    given = [torch.randn_like(each) for each in product]
    inputs = (*states, layer.a)
    found, wanted = (torch.autograd.grad(outputs, inputs, given) for outputs in (product, formula))
    tolerance = 1e-5 if precision == torch.float32 else 0.05
    for ours, other in zip((*product, *product, *found), (*formula, *by_sums, *wanted), strict=True):
        assert ours.dtype == other.dtype
        assert torch.allclose(ours, other, rtol=tolerance, atol=tolerance)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (*product, *found[:2]))


def test_sluices_penalty() -> None:
    """0.1 * ||G1' G2||_F^2, G_g with the weights of a subspace's units for columns; zero when orthogonal."""
    weights = [torch.randn(6, 4, 3, 3, dtype=torch.double) for _ in range(2)]
    wanted = 0.0
    for weight in weights:
        g = weight.reshape(6, -1).numpy().T
        wanted += 0.1 * ((g[:, :3].T @ g[:, 3:]) ** 2).sum()
    assert SplitSluice(6, 0.9).penalty(weights).item() == pytest.approx(wanted)
    orthogonal = torch.linalg.qr(torch.randn(36, 6, dtype=torch.double))[0].T.reshape(6, 4, 3, 3)
    assert SplitSluice(6, 0.9).penalty([orthogonal]).item() == pytest.approx(0)


def test_a_networks_penalty_is_that_of_every_stage_and_column() -> None:
    network = columns(sharing="sluice_2")
    stages = [column.writers() for column in network.columns()]
    assert [len(weights) for weights in stages] == [5, 5]  # 3 of the encoder, 2 of the decoder
    wanted = sum(
        0.1 * (w[: len(w) // 2].flatten(1) @ w[len(w) // 2 :].flatten(1).T).square().sum() for ws in stages for w in ws
    )
    assert torch.allclose(network.penalty(), wanted)
    assert columns(sharing="sluice").penalty() is None
    assert columns(sharing="nddr").penalty() is None


@pytest.mark.parametrize("own", [1.0, 0.9, 0.5, 0.1, 0.0])
def test_nddr_starts_at_its_mixture(own: float) -> None:
    layer = Nddr(4, own).eval()
    for task, (mine, theirs) in zip(layer.tasks, ((ONE, OTHER), (OTHER, ONE)), strict=True):
        assert task[0].bias is None
        assert torch.allclose(
            task[0](torch.cat((ONE, OTHER), dim=1)), own * mine + (1 - own) * theirs, rtol=0, atol=1e-6
        )
        assert task[1].momentum == 0.05
        assert torch.equal(task[1].weight, torch.ones(4))
        assert torch.equal(task[1].bias, torch.zeros(4))
    first, _ = layer([ONE, OTHER])
    mixture = own * ONE + (1 - own) * OTHER
    assert torch.allclose(first, F.relu(mixture / (1 + 1e-5) ** 0.5), atol=1e-6)


def test_the_shortcut_joins_every_stage_at_the_size_of_the_last() -> None:
    states = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4), torch.randn(2, 4, 8, 8)]
    shortcut = Shortcut([4, 8, 4])
    small = F.interpolate(states[1], size=(8, 8), mode="bilinear", align_corners=False)
    wanted = shortcut.reduce(torch.cat((states[0], small, states[2]), dim=1))
    assert shortcut.reduce.weight.shape == (4, 16, 1, 1)
    with torch.no_grad():
        assert torch.equal(shortcut(states), wanted)
    assert torch.allclose(shortcut(states), wanted, atol=1e-6)
    given = torch.randn(wanted.shape)
    inputs = list(shortcut.parameters())
    for found, gradient in zip(
        torch.autograd.grad(shortcut(states), inputs, given), torch.autograd.grad(wanted, inputs, given), strict=True
    ):
        assert torch.allclose(found, gradient, rtol=1e-5, atol=1e-4)


def test_the_layer_mix_starts_as_the_mean() -> None:
    states = [torch.randn(2, 4, 6, 6) for _ in range(3)]
    assert torch.allclose(LayerMix([4, 4, 4])(states), torch.stack(states).mean(dim=0), atol=1e-6)
    wide = torch.randn(2, 8, 6, 6)
    mixed = LayerMix([8, 4])([wide, states[0]])
    assert torch.allclose(mixed, (wide[:, :4] + wide[:, 4:]) / 4 + states[0] / 2, atol=1e-6)
    mixed = LayerMix([4, 8])([states[0], wide])
    assert torch.allclose(mixed, torch.cat((states[0], states[0]), dim=1) / 2 + wide / 2, atol=1e-6)


def test_columns_exchange_after_each_stage_that_both_have() -> None:
    """A network of two levels, written out."""
    network = columns(levels=2, sharing="channel_cross_stitch").eval()
    noisy = torch.rand(2, 3, 16, 16)
    one, other = network.columns()
    first, second, third = network.exchanges
    skips = first([column.encoders[0](column.stem(noisy)) for column in (one, other)])
    deep = second([column.encoders[1](column.downs[0](skip)) for column, skip in zip((one, other), skips, strict=True)])
    last = third(
        [
            column.decoders["0"](torch.cat((column.ups["0"](state), skip), dim=1))
            for column, state, skip in zip((one, other), deep, skips, strict=True)
        ]
    )
    denoised, logits = network(noisy)
    assert torch.equal(denoised, one.output(last[0]))
    assert torch.equal(logits, other.head([last[1]]))


def test_with_a_head_at_the_bottleneck_the_classifying_column_is_an_encoder() -> None:
    network = columns(sharing="nddr", head_attach="bottleneck")
    assert len(network.exchanges) == 3
    assert not network.classifying.decoders
    assert len(network.denoising.decoders) == 2


def test_without_its_shortcut_nddr_keeps_the_last_stage() -> None:
    assert not list(columns(sharing="nddr", nddr_shortcut=False).gathers.parameters())
    assert len(list(columns(sharing="nddr").gathers.parameters())) == 4


@pytest.mark.parametrize("sharing", CHOICES["sharing"])
def test_parameter_groups_hold_every_parameter_once(sharing: str) -> None:
    network = columns(sharing=sharing)
    groups = network.parameter_groups()
    assert sorted(map(id, network.parameters())) == sorted(id(p) for group in groups.values() for p in group)
    assert bool(groups["sharing"]) == (sharing != "none")
    assert {id(p) for p in groups["sharing"]} == {id(p) for p in network.exchanges.parameters()}
