"""Fusions, gates and blocks by their formulas, and against a few lines of plain numpy."""

import itertools
import math

import numpy as np
import pytest
import pywt
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.unet.blocks import (
    BLOCKS,
    EXTRA,
    ChannelNorm,
    DepthwiseConv,
    HaarDown,
    ImageNorm,
    NafBlock,
    ResidualBlock,
    concatenated,
    pixel_mean,
)
from search_spaces.unet.fusion import (
    FUSIONS,
    GATES,
    Add,
    AttentionGate,
    ChannelGate,
    Concat,
    Fusion,
    Gate,
    Nddr,
    ScalarGate,
    SelectiveKernel,
    SqueezeExcitation,
)
from search_spaces.unet.spec import CHOICES

STATE, SKIP = torch.randn(2, 2, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def weights(layer: nn.Conv2d) -> np.ndarray:
    return layer.weight.detach().double().numpy()[:, :, 0, 0]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_every_choice_has_its_part() -> None:
    assert tuple(FUSIONS) == CHOICES["fusion"]
    assert tuple(GATES) == CHOICES["gate"]
    assert tuple(BLOCKS) == CHOICES["block"]


@pytest.mark.parametrize("width", [8, 16, 24])
def test_image_norm_is_group_norm_in_bfloat16_too(width: int) -> None:
    norm = ImageNorm(width)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    features = torch.randn(4, width, 6, 5, generator=generator).to(memory_format=torch.channels_last)
    found, wanted = features.bfloat16().requires_grad_(), features.bfloat16().float().requires_grad_()
    ours, torchs = norm(found), F.group_norm(wanted, 1, norm.weight, norm.bias)
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours.float(), torchs, atol=0.02, rtol=0.01)
    given = torch.randn(torchs.shape, generator=generator)
    grads = torch.autograd.grad(ours, [found, norm.weight, norm.bias], given.bfloat16())
    wanted_grads = torch.autograd.grad(torchs, [wanted, norm.weight, norm.bias], given.bfloat16().float())
    for ours_grad, torchs_grad in zip(grads, wanted_grads, strict=True):
        assert torch.allclose(ours_grad.float(), torchs_grad, atol=0.2, rtol=0.02)


def test_concatenation_and_its_gradients() -> None:
    parts = [p.to(memory_format=torch.channels_last).requires_grad_() for p in (STATE, SKIP, SKIP[:, :3])]
    joined = concatenated(*parts)
    assert torch.equal(joined, torch.cat(parts, dim=1))
    given = torch.randn(joined.shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(joined, parts, given)
    for gradient, wanted in zip(gradients, given.split([8, 8, 3], dim=1), strict=True):
        assert torch.equal(gradient, wanted)
        assert gradient.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(concatenated(*parts), joined)
    assert concatenated(STATE) is STATE


def test_the_mean_over_pixels_and_its_gradient() -> None:
    features = STATE.to(memory_format=torch.channels_last).requires_grad_()
    mean = pixel_mean(features)
    assert torch.equal(mean, features.mean(dim=(2, 3), keepdim=True))
    given = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(mean, features, given)
    (wanted,) = torch.autograd.grad(features.mean(dim=(2, 3), keepdim=True), features, given)
    assert torch.equal(gradient, wanted)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(pixel_mean(features), mean)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 6, 9, 7), (2, 6, 2, 2), (1, 6, 1, 1)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_gradients_of_a_depthwise_convolution_of_any_width(
    kernel: int, shape: tuple[int, ...], precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(6, kernel)
    features = torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()
    given = torch.randn(shape).to(precision)
    found, inputs = [], (features, layer.weight, layer.bias)
    for compute in (layer, lambda images: nn.Conv2d.forward(layer, images)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            result = compute(features)
        found.append((result, *torch.autograd.grad(result, inputs, given)))
    tolerance = 1e-5 if precision == torch.float32 else 0.01  # two roundings of bfloat16 lie 0.008 apart
    for ours, torchs in zip(*found, strict=True):
        assert ours.dtype == torchs.dtype
        assert torch.allclose(ours, torchs, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert torch.allclose(layer(features), found[0][0].float(), rtol=tolerance, atol=tolerance)


def test_constant_gates() -> None:
    scalar, channel = ScalarGate(8), ChannelGate(8)
    assert scalar.b.item() == pytest.approx(0.5413, abs=1e-4)
    with torch.no_grad():
        scalar.b.fill_(-0.3)
        channel.g.copy_(torch.arange(8) - 3.0)
    assert torch.allclose(scalar(SKIP, STATE), math.log1p(math.exp(-0.3)) * SKIP)
    assert torch.equal(channel(SKIP, STATE), torch.stack([(c - 3) * SKIP[:, c] for c in range(8)], dim=1))
    assert torch.equal(Gate(8)(SKIP, STATE), SKIP)


def test_squeeze_excitation() -> None:
    gate = SqueezeExcitation(8)
    skip = SKIP.double().numpy()
    hidden = np.maximum(skip.mean(axis=(2, 3)) @ weights(gate.w1).T, 0)
    wanted = skip * sigmoid(hidden @ weights(gate.w2).T)[:, :, None, None]
    assert gate.w1.out_channels == 4
    assert np.allclose(gate(SKIP, STATE).detach().numpy(), wanted, atol=1e-5)


def test_attention_gate() -> None:
    gate = AttentionGate(8).eval()
    norm = gate.w[1]
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    skip, state = (x.double().numpy().transpose(0, 2, 3, 1) for x in (SKIP, STATE))
    inner = np.maximum(skip @ weights(gate.theta).T + state @ weights(gate.phi).T + gate.phi.bias.detach().numpy(), 0)
    attention = sigmoid(inner @ weights(gate.psi).T + gate.psi.bias.detach().numpy())
    mixed = (attention * skip) @ weights(gate.w[0]).T
    wanted = (mixed - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
    assert gate.theta.out_channels == 4  # C / 2
    assert attention.shape == (2, 4, 4, 1)
    assert np.allclose(gate(SKIP, STATE).detach().numpy(), wanted.transpose(0, 3, 1, 2), atol=1e-5)


def test_selective_kernel() -> None:
    fusion = SelectiveKernel(8)
    state, skip = STATE.double().numpy(), SKIP.double().numpy()
    hidden = np.maximum((state + skip).mean(axis=(2, 3)) @ weights(fusion.w1).T, 0)
    scores = np.exp((hidden @ weights(fusion.w2).T).reshape(2, 2, 8))
    shares = (scores / scores.sum(axis=1, keepdims=True))[..., None, None]
    assert fusion.w1.out_channels == 4  # max(C / 8, 4)
    assert np.allclose(fusion(STATE, SKIP).detach().numpy(), shares[:, 0] * state + shares[:, 1] * skip, atol=1e-5)


def test_fusions_without_weights() -> None:
    assert torch.equal(Fusion(8)(STATE, SKIP), STATE)
    assert torch.equal(Add(8)(STATE, SKIP), STATE + SKIP)
    assert torch.equal(Concat(8)(STATE, SKIP), torch.cat((STATE, SKIP), dim=1))


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("skips", [1, 3])
def test_a_fusion_has_the_channels_that_it_says(name: str, skips: int) -> None:
    fused = FUSIONS[name](8)
    if skips == 1 or name in ("concat", "dense"):
        assert fused(STATE, SKIP.repeat(1, skips, 1, 1)).shape[1] == fused.channels(8, skips)


def test_add_scalar_channel_and_concat_with_1x1_nest() -> None:
    """Each computes exactly what the one before does when it is initialised to match."""
    add, scalar, channel, reduce = Add(8), ScalarGate(8), ChannelGate(8), Nddr(8)
    with torch.no_grad():
        scalar.b.fill_(0.7)
        channel.g.copy_(scalar.value().expand(8))
    gated = add(STATE, scalar(SKIP, STATE))
    assert torch.equal(add(STATE, channel(SKIP, STATE)), gated)
    with torch.no_grad():
        channel.g.copy_(torch.linspace(-1, 2, 8))
        reduce.reduce.weight[:, 8:, 0, 0] = torch.diag(channel.g)
    by_channel = add(STATE, channel(SKIP, STATE))
    assert torch.allclose(reduce(STATE, SKIP), by_channel, rtol=0, atol=1e-6)
    # The least gate and the least 1x1 are the addition itself.
    with torch.no_grad():
        channel.g.fill_(1)
    assert torch.equal(add(STATE, channel(SKIP, STATE)), add(STATE, SKIP))
    assert torch.equal(Nddr(8)(STATE, SKIP), add(STATE, SKIP))


def test_the_haar_step_is_average_pooling() -> None:
    """PyWavelets' low-pass band, halved."""
    features = torch.rand(2, 3, 8, 6)
    low, _ = pywt.dwt2(features.numpy(), "haar")
    assert np.allclose(HaarDown(3, 3)(features), low / 2, atol=1e-6)
    assert torch.equal(HaarDown(3, 3)(features), nn.AvgPool2d(2)(features))
    assert torch.equal(HaarDown(3, 6)(features), nn.AvgPool2d(2)(features).repeat(1, 2, 1, 1))
    program = torch.export.export(HaarDown(3, 6), (features,))
    assert "repeat" not in str(program.graph)  # litert-torch computes it wrongly


def test_a_residual_block_without_norm_starts_as_the_identity() -> None:
    features = torch.randn(2, 6, 5, 5)
    assert torch.equal(ResidualBlock(6, 6, 3, "none")(features), features)


@pytest.mark.parametrize("norm", CHOICES["norm"])
@pytest.mark.parametrize("block", CHOICES["block"])
def test_the_blocks_that_extra_blocks_adds_start_as_the_identity(block: str, norm: str) -> None:
    features = torch.randn(2, 6, 5, 5)
    assert torch.equal(EXTRA[block](6, 6, 3, norm)(features), features)


def test_a_naf_block_starts_as_the_identity_and_follows_its_equations() -> None:
    block, features = NafBlock(6, 6, 3, "none"), torch.randn(2, 6, 5, 5)
    assert torch.equal(block(features), features)
    nn.init.normal_(block.beta)
    nn.init.normal_(block.gamma)
    first, second = block.depthwise(block.conv1(block.norm1(features))).chunk(2, dim=1)
    gated = first * second
    attended = gated * block.attention(F.adaptive_avg_pool2d(gated, 1))
    middle = features + block.beta * block.conv3(attended)
    first, second = block.conv4(block.norm2(middle)).chunk(2, dim=1)
    assert torch.allclose(block(features), middle + block.gamma * block.conv5(first * second), atol=1e-6)


def test_channel_norm_takes_each_pixel_by_itself() -> None:
    features = torch.randn(2, 6, 5, 5)
    normed = ChannelNorm(6)(features)
    for n, y, x in itertools.product(range(2), range(5), range(5)):
        pixel = features[n, :, y, x]
        wanted = (pixel - pixel.mean()) / torch.sqrt(pixel.var(correction=0) + 1e-5)
        assert torch.allclose(normed[n, :, y, x], wanted, atol=1e-5)


def test_a_block_of_each_kind_says_what_it_adds() -> None:
    features = torch.randn(2, 6, 5, 5)
    for name in ("residual", "naf"):
        block = BLOCKS[name](6, 6, 3, "none")
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
        assert torch.allclose(block(features), features + block.residual(features), atol=1e-5)
