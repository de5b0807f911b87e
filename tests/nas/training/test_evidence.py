"""Where the evidence for a class lies: shares add up to the logit, and lie where a made network looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.training.evidence import AGAINST, FOR, STRONGEST, coloured, evidence_for, has_evidence
from nas.types import Task
from search_spaces import get_space
from search_spaces.unet.heads import Head

TASK = Task(channels=1, classes=3, height=8, width=8, noise="gaussian:50")
SPEC: dict[str, Any] = {
    "levels": 3,
    "width": 4,
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
}


def network_of(**changes: Any) -> nn.Module:
    space = get_space("unet")
    torch.manual_seed(0)
    network = space.build(space.spec(SPEC | changes), TASK)
    with torch.no_grad():
        network(torch.rand(32, 1, 8, 8))  # the norms have seen images
    return network.eval()


class Looking(nn.Module):
    """A network that pools the image itself: its logits are 3 and -2 times the mean brightness, and 0.5 more."""

    def __init__(self) -> None:
        super().__init__()
        self.evidence_head = Head(1, 2, hidden=0, width=8, dropout=0.0)
        with torch.no_grad():
            self.evidence_head.layers[-1].weight.copy_(torch.tensor([[3.0], [-2.0]]))
            self.evidence_head.layers[-1].bias.fill_(0.5)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        return noisy, self.evidence_head([noisy])


def test_evidence_lies_where_a_network_looks() -> None:
    images = torch.zeros(2, 1, 6, 4)
    images[:, :, :2, :2] = 0.6
    found = evidence_for(Looking(), images, torch.tensor([0, 1]))
    assert found.exact
    assert found.maps[0, :2, :2].flatten().tolist() == pytest.approx([3 * 0.6 / 24] * 4)
    assert found.maps[1, :2, :2].flatten().tolist() == pytest.approx([-2 * 0.6 / 24] * 4)
    assert int(found.maps.count_nonzero()) == 8, "there is none outside the corner"
    assert found.rest.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("attach", ["bottleneck", "decoder", "all"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_shares_and_bias_add_up_to_the_logit(attach: str, norm: str) -> None:
    network = network_of(head_attach=attach, head_norm=norm)
    images = torch.rand(3, 1, 8, 8)
    classes = torch.tensor([0, 2, 1])
    with torch.no_grad():
        logits = network(images)[1].gather(1, classes[:, None])[:, 0]
        head = network.evidence_head
        assert isinstance(head, Head)
        features = head.layers[-1].in_features
        bias = head.layers(head.norm(torch.zeros(1, features)))[0][classes]
    found = evidence_for(network, images, classes)
    assert found.exact
    assert found.rest.tolist() == pytest.approx(bias.tolist(), abs=1e-4), "nothing but the bias is left"
    assert (found.maps.sum((1, 2)) + found.rest).tolist() == pytest.approx(logits.tolist(), abs=1e-5)


def test_what_a_network_adds_around_an_image_is_in_the_rest() -> None:
    network = network_of(head_attach="all")
    images = torch.rand(2, 1, 9, 7)
    classes = torch.tensor([1, 0])
    found = evidence_for(network, images, classes)
    assert found.maps.shape == (2, 9, 7)
    assert found.exact
    with torch.no_grad():
        logits = network(images)[1].gather(1, classes[:, None])[:, 0]
    assert (found.maps.sum((1, 2)) + found.rest).tolist() == pytest.approx(logits.tolist(), abs=1e-5)


def test_a_value_of_a_deep_level_is_spread_over_its_block() -> None:
    maps = evidence_for(network_of(), torch.rand(1, 1, 8, 8), torch.tensor([0])).maps[0]
    blocks = maps.unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    assert bool((blocks == blocks[..., :1]).all())
    assert len(blocks[..., 0].unique()) == 4


def test_hidden_layers_are_said_to_be_no_sum() -> None:
    network = network_of(head_hidden=1, head_width=8)
    images, classes = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    found = evidence_for(network, images, classes)
    assert not found.exact
    # The map is the slope of the logit when all features grow alike.
    features: list[Tensor] = []
    head = network.evidence_head
    assert isinstance(head, Head)
    with torch.no_grad():
        with head.register_forward_pre_hook(lambda _, given: features.extend(given[0])):
            network(images)
        slope = (head([1.001 * each for each in features]) - head([0.999 * each for each in features])) / 0.002
    wanted = slope.gather(1, classes[:, None])[:, 0]
    assert found.maps.sum((1, 2)).tolist() == pytest.approx(wanted.tolist(), abs=2e-3)


def test_answers_of_inference_mode_are_taken_and_columns_have_a_head() -> None:
    network = network_of(columns=2, sharing="cross_stitch", head_attach="decoder")
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        denoised, logits = network(images)
        classes = logits.argmax(1)
    found = evidence_for(network, images, classes)
    assert found.exact
    assert torch.allclose(found.denoised, denoised, atol=1e-6)


def test_a_network_that_does_not_say_where_it_pools_is_refused() -> None:
    blind = network_of(tasks="denoise")
    assert not has_evidence(blind)
    with pytest.raises(ConfigError, match="network UNet has no evidence_head"):
        evidence_for(blind, torch.rand(1, 1, 8, 8), torch.tensor([0]))


def test_colours_say_for_and_against_by_strength() -> None:
    image = torch.full((1, 2, 2), 0.4)
    found = coloured(image, torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))
    assert found.shape == (3, 2, 2)
    orange, blue = (torch.tensor(colour) / 255 for colour in (FOR, AGAINST))
    assert torch.allclose(found[:, 0, 0], (1 - STRONGEST) * 0.4 + STRONGEST * orange)
    assert torch.allclose(found[:, 1, 0], (1 - STRONGEST / 2) * 0.4 + STRONGEST / 2 * blue)
    assert torch.allclose(found[:, :, 1], torch.full((3, 2), 0.4))
    assert torch.equal(coloured(image, torch.zeros(2, 2)), image.expand(3, -1, -1))
