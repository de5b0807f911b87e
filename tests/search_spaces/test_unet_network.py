"""Every valid spec builds a network that trains, whatever the image's size, and its cost is known without it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unet_strategies import BASE, DIGITS, small_specs, specs, tasks

from nas.errors import SpecError
from nas.types import Task
from search_spaces.unet.heads import Head
from search_spaces.unet.network import Columns, UNet, build
from search_spaces.unet.space import UNetSpace
from search_spaces.unet.spec import UNetSpec

SPACE = UNetSpace()
JOINT = Task(channels=3, classes=5, height=32, width=32, noise="gaussian:50")
DENOISING = Task(channels=1, classes=0, height=32, width=32, noise="gaussian:50")
ADDUNET: dict[str, Any] = {
    **BASE,
    "growth": "constant",
    "resampling": "none",
    "update": "subtractive",
    "fusion": "add",
    "gate": "scalar",
}


@settings(max_examples=120, deadline=None)
@given(small_specs())
def test_after_two_steps_every_parameter_has_a_gradient(spec: UNetSpec) -> None:
    torch.manual_seed(0)
    network = SPACE.build(spec, JOINT)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    clean, labels = torch.rand(8, 3, 17, 23), torch.arange(8) % 5
    noisy = clean + 0.2 * torch.randn_like(clean)
    for _ in range(3):
        denoised, logits = network(noisy)
        assert denoised.shape == clean.shape
        assert logits.shape == (8, 5)
        assert denoised.abs().max() < 100
        assert logits.abs().max() < 100
        loss = F.mse_loss(denoised, clean) / 0.04 + F.cross_entropy(logits, labels)
        if isinstance(network, Columns) and (penalty := network.penalty()) is not None:
            loss = loss + penalty
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimiser.step()
    dead = [name for name, parameter in network.named_parameters() if not torch.any(parameter.grad)]
    assert not dead


@settings(max_examples=100, deadline=None)
@given(specs(), tasks())
def test_cost_is_what_the_network_measures(spec: UNetSpec, task: Task) -> None:
    # On the meta device, so that wide networks are built and counted without memory or time.
    with torch.device("meta"):
        network = build(spec, task).eval()
        noisy = torch.empty(1, task.channels, task.height, task.width)
    # Layers may compute the same in fewer operations while they are trained.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(noisy)
    cost = SPACE.cost(spec, task)
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    assert 2 * cost.macs == counter.get_total_flops()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (16, 16), (17, 23)])
@pytest.mark.parametrize(
    "changes",
    [
        *({"resampling": resampling} for resampling in ("none", "max", "average", "strided")),
        {"fusion": "dense", "levels": 4},
        {"encoder": "haar", "columns": 2, "sharing": "nddr", "head_attach": "all"},
        {"update": "subtractive", "columns": 2, "sharing": "sluice", "head_attach": "decoder"},
    ],
    ids=str,
)
def test_images_of_any_size_keep_it(size: tuple[int, int], changes: dict[str, Any]) -> None:
    network = SPACE.build(UNetSpec(**BASE | {"levels": 5} | changes), JOINT).eval()
    denoised, logits = network(torch.rand(2, 3, *size))
    assert denoised.shape == (2, 3, *size)
    assert logits.shape == (2, 5)


def test_without_classes_the_logits_are_empty_and_cost_nothing() -> None:
    spec = UNetSpec(**BASE)
    denoised, logits = SPACE.build(spec, DENOISING)(torch.rand(2, 1, 32, 32))
    assert denoised.shape == (2, 1, 32, 32)
    assert logits.shape == (2, 0)


@pytest.mark.parametrize("head_attach", ["bottleneck", "decoder"])
def test_a_network_for_one_task_gives_a_constant_for_the_other(head_attach: str) -> None:
    noisy = torch.rand(2, 3, 17, 23)
    denoise, classify = (
        UNet(UNetSpec(**BASE | {"tasks": name, "head_attach": head_attach}), JOINT) for name in ("denoise", "classify")
    )
    assert (denoise.tasks, classify.tasks) == (("denoise",), ("classify",))
    assert torch.equal(denoise(noisy)[1], torch.zeros(2, 5))
    assert torch.equal(classify(noisy)[0], noisy)
    assert bool(classify.decoders) == (head_attach == "decoder")


def test_columns_that_share_nothing_are_two_networks() -> None:
    torch.manual_seed(0)
    spec = UNetSpec(**BASE | {"columns": 2, "head_attach": "decoder"})
    both = SPACE.build(spec, JOINT).eval()
    assert isinstance(both, Columns)
    noisy = torch.rand(2, 3, 16, 16)
    alone = both.denoising(noisy)[0], both.classifying(noisy)[1]
    for found, wanted in zip(both(noisy), alone, strict=True):
        assert torch.equal(found, wanted)
    assert SPACE.cost(spec, JOINT).params == sum(
        SPACE.cost(UNetSpec(**BASE | {"tasks": name, "head_attach": "decoder"}), JOINT).params
        for name in ("denoise", "classify")
    )


def test_predicted_noise_is_subtracted() -> None:
    networks = []
    for prediction in ("image", "noise"):
        torch.manual_seed(0)
        networks.append(UNet(UNetSpec(**BASE | {"prediction": prediction}), JOINT).eval())
    noisy = torch.rand(2, 3, 17, 23)
    image, denoised = (network(noisy)[0] for network in networks)
    assert torch.equal(denoised, noisy - image)


@pytest.mark.parametrize("block", ["conv", "residual", "naf"])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_addunet_with_an_idle_decoder_gives_its_stem_back(levels: int, block: str) -> None:
    """FACTS: Dec = identity, all gates 1 and u_0 the last encoder state give the stem output, whatever Enc is."""
    torch.manual_seed(levels)
    network = UNet(UNetSpec(**ADDUNET | {"levels": levels, "block": block, "norm": "batch"}), JOINT).eval()
    for parameter in network.parameters():  # a trained Enc: blocks that start as the identity no longer do
        if parameter.ndim != 0:
            nn.init.normal_(parameter, std=0.2)
    assert len(network.gates()) == levels
    for name in network.decoders:
        network.decoders[name] = nn.Identity()
    network.output = nn.Identity()
    noisy = torch.rand(2, 3, 17, 23)
    assert torch.allclose(network(noisy)[0], network.stem(noisy), atol=1e-5)


def test_addunets_parameters_do_not_grow_with_its_skips() -> None:
    def params(**changes: Any) -> int:
        return SPACE.cost(UNetSpec(**ADDUNET | changes), JOINT).params

    assert params() - params(fusion="none") == 3  # one scalar for each skip
    assert params(gate="none") == params(fusion="none")
    assert params(fusion="concat", gate="none") - params(fusion="none") == 3 * 9 * 4 * 4


def test_the_parameter_free_encoder_has_no_parameters() -> None:
    spec = UNetSpec(**BASE | {"encoder": "haar", "levels": 4})
    network = UNet(spec, JOINT)
    assert len(network.encoders) == 1  # the learned block at full resolution
    assert not list(network.downs.parameters())
    features = torch.rand(2, 4, 16, 16)
    pooled = F.avg_pool2d(features, 2)
    assert torch.equal(network.downs[0](features), torch.cat((pooled, pooled), dim=1))


def test_parameters_that_multi_resnet_gives_back_are_residual_blocks_of_its_decoder() -> None:
    none_added = UNetSpec(**BASE | {"encoder": "haar", "block": "residual"})
    networks = [UNet(UNetSpec(**none_added.to_dict() | {"extra_blocks": n}), JOINT) for n in (0, 3)]
    counts = [[sum(p.numel() for p in stage.parameters()) for stage in net.decoders.values()] for net in networks]
    for without, with_three, width in zip(*counts, (4, 8), strict=True):
        assert with_three - without == 3 * 2 * (9 * width**2 + width)


def test_the_nested_nodes_of_unet_plus_plus() -> None:
    """Node (i, j) joins its level's j earlier nodes with node (i + 1, j - 1): Zhou et al. 2018, eq. 1."""
    spec = UNetSpec(**BASE | {"levels": 4, "fusion": "dense"})
    assert [(n.level, n.skips) for n in spec.nodes] == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3)]
    torch.manual_seed(0)
    network = UNet(spec, JOINT).eval()
    noisy = torch.rand(2, 3, 16, 16)
    nodes = {(0, 0): network.encoders[0](network.stem(noisy))}
    for level in (1, 2, 3):
        nodes[level, 0] = network.encoders[level](network.downs[level - 1](nodes[level - 1, 0]))
    for column in (1, 2, 3):
        for level in range(4 - column):
            name = str(level) if level + column == 3 else f"{level}_{column}"
            below = network.ups[name](nodes[level + 1, column - 1])
            joined = torch.cat([below, *(nodes[level, earlier] for earlier in range(column))], dim=1)
            nodes[level, column] = network.decoders[name](joined)
    assert torch.equal(network(noisy)[0], network.output(nodes[0, 3]))


@pytest.mark.parametrize("update", ["plain", "residual", "subtractive"])
def test_the_head_reads_the_scales_that_it_is_attached_to(update: str) -> None:
    rows = [4, 8, 16, *([16] if update == "subtractive" else [])]
    for attach, inputs in {"bottleneck": rows[-1], "decoder": 4, "all": sum(rows)}.items():
        network = UNet(UNetSpec(**BASE | {"update": update, "head_attach": attach}), JOINT)
        assert network.head.layers[-1].in_features == inputs


def test_a_normalised_head_reads_standardised_means() -> None:
    """Of each feature: its mean over pixels, less the batch's mean, over the batch's standard deviation."""
    torch.manual_seed(0)
    features = 2 + torch.randn(6, 3, 2, 2)
    head = Head(3, 10, 0, 64, 0.0, "batch")
    pooled = features.mean((2, 3))
    standard = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head([features]), head.layers[-1](standard))
    plain = Head(3, 10, 0, 64, 0.0)
    torch.testing.assert_close(plain([features]), plain.layers[-1](pooled))
    names = {"layers.1.weight", "layers.1.bias"}
    assert {name for name, _ in head.named_parameters()} == {name for name, _ in plain.named_parameters()} == names


def test_a_batch_of_one_image_is_normalised_as_in_evaluation() -> None:
    head = Head(3, 10, 0, 64, 0.0, "batch")
    head([torch.randn(8, 3, 2, 2)])
    image = torch.randn(1, 3, 2, 2)
    alone = head([image])
    assert int(head.norm.num_batches_tracked) == 1
    torch.testing.assert_close(alone, head.eval()([image]))


def test_an_explicit_update_adds_the_residual_of_a_stage() -> None:
    torch.manual_seed(0)
    network = UNet(UNetSpec(**BASE | {"levels": 1, "update": "residual"}), JOINT).eval()
    noisy = torch.rand(2, 3, 8, 8)
    state = network.stem(noisy)
    assert torch.equal(network(noisy)[0], network.output(state + network.encoders[0](state)))


def test_a_network_too_deep_for_the_task_is_not_built() -> None:
    with pytest.raises(SpecError, match="leave under 2 pixels"):
        SPACE.build(UNetSpec(**BASE | {"levels": 4}), DIGITS)


def test_gates_start_at_one_and_come_shallow_first() -> None:
    scalar = UNet(UNetSpec(**BASE | {"gate": "scalar"}), DIGITS).gates()
    channel = UNet(UNetSpec(**BASE | {"gate": "channel"}), DIGITS).gates()
    assert [tuple(gate.shape) for gate in scalar] == [(), ()]
    assert [tuple(gate.shape) for gate in channel] == [(4,), (8,)]
    for gate in (*scalar, *channel):
        assert torch.allclose(gate, torch.ones_like(gate), atol=1e-6)
        assert not gate.requires_grad
    assert UNet(UNetSpec(**BASE), DIGITS).gates() == []
    columns = build(UNetSpec(**BASE | {"gate": "scalar", "columns": 2, "head_attach": "decoder"}), DIGITS)
    assert len(columns.gates()) == 4


@pytest.mark.parametrize(
    ("fusion", "uses_skip"),
    [("none", False), ("concat", True), ("add", True), ("nddr", True), ("selective_kernel", True)],
)
def test_past_a_silent_bottleneck_only_a_fused_skip_reaches_the_output(fusion: str, uses_skip: bool) -> None:
    torch.manual_seed(0)
    network = UNet(UNetSpec(**BASE | {"fusion": fusion, "levels": 2}), DIGITS).eval()
    network.downs[0] = nn.Sequential(network.downs[0], _Zero())
    noisy = torch.rand(1, 1, 8, 8)
    depends = not torch.equal(network(noisy)[0], network(1 - noisy)[0])
    assert depends == uses_skip


def test_weights_of_version_1_load_by_name() -> None:
    names = set(UNet(UNetSpec(**BASE | {"gate": "scalar", "levels": 2}), DIGITS).state_dict())
    blocks = ("encoders.0", "encoders.1", "decoders.0")
    convolutions = [*(f"{block}.{i}" for block in blocks for i in (0, 3)), "stem", "downs.0.1", "ups.0.0", "output"]
    head = ["head.layers.1"]
    assert names == {f"{layer}.{kind}" for layer in convolutions + head for kind in ("weight", "bias")} | {
        "skip_gates.0.b"
    }


def test_gates_read_softplus_of_what_is_learned() -> None:
    network = UNet(UNetSpec(**ADDUNET), DIGITS)
    with torch.no_grad():
        network.skip_gates["1"].b.fill_(-0.3)
    assert network.gates()[1].item() == pytest.approx(math.log1p(math.exp(-0.3)))


class _Zero(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(features)
