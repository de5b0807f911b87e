"""Tiles give what the whole image gives, where a network's reach allows it; elsewhere the difference is known."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from nas.bundles.inference import Tiling, restore, self_ensemble, tiled
from nas.types import Task
from search_spaces.unet.blocks import BLOCKS, NORMS
from search_spaces.unet.fusion import FUSIONS, GATES
from search_spaces.unet.network import build
from search_spaces.unet.spec import UNetSpec

TASK = Task(channels=1, classes=3, height=64, width=64, noise="gaussian:25")
PLAIN = {
    "levels": 3,
    "width": 8,
    "growth": "doubling",
    "fusion": "concat",
    "gate": "none",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
}
LOCAL = {
    "plain": {},
    "strided": {"resampling": "strided", "gate": "channel", "fusion": "add"},
    "haar": {"encoder": "haar", "block": "residual", "norm": "none", "extra_blocks": 2},
    "addunet": {"update": "subtractive", "resampling": "none", "growth": "constant", "fusion": "add", "gate": "scalar"},
    "growing kernels": {"kernel_schedule": "growing", "prediction": "noise", "resampling": "average"},
    "nested": {"fusion": "dense"},
    "attention": {"gate": "attention"},
    "columns": {"columns": 2, "sharing": "cross_stitch", "head_attach": "decoder"},
}
GLOBAL = {
    "group norm": {"norm": "group"},
    "naf": {"block": "naf"},
    "squeeze-excitation": {"gate": "squeeze_excitation"},
    "selective kernel": {"fusion": "selective_kernel"},
}


def network(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    made = build(UNetSpec(**{**PLAIN, **changes}), TASK)
    for parameter in made.parameters():  # layers that start at zero should take part
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return made.eval()


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", LOCAL.values(), ids=LOCAL)
def test_tiles_of_a_local_network_equal_the_whole(changes: dict[str, object]) -> None:
    made = network(**changes)
    noisy = image(203, 117)
    tiled = restore(made, noisy, Tiling.of(made, 1, side=48))
    with torch.inference_mode():
        whole, _ = made(noisy)
    assert tiled.tiles == 5 * 3
    torch.testing.assert_close(tiled.image, whole, rtol=0, atol=1e-5)
    assert tiled.seam < 1e-5


def test_a_network_that_looks_at_one_pixel_needs_no_overlap() -> None:
    class Pointwise(nn.Module):
        reach = 0

        def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
            return 0.5 * noisy, noisy.mean((2, 3))

    noisy = image(70, 53)
    tiled = restore(Pointwise(), noisy, Tiling.of(Pointwise(), 1, side=32))
    assert tiled.tiles == 3 * 2
    torch.testing.assert_close(tiled.image, 0.5 * noisy, rtol=0, atol=0)
    torch.testing.assert_close(tiled.logits, noisy.mean((2, 3)))
    assert tiled.seam == 0


@pytest.mark.parametrize("changes", LOCAL.values(), ids=LOCAL)
def test_a_pixel_beyond_the_reach_changes_nothing(changes: dict[str, object]) -> None:
    made = network(**changes)
    reach = made.reach
    assert isinstance(reach, int)
    noisy = image(16, 2 * reach + 64)
    other = noisy.clone()
    other[..., -1] += 1
    with torch.inference_mode():
        changed = (made(noisy)[0] - made(other)[0]).abs().amax((0, 1, 2)) > 1e-6
    assert changed.any()
    assert not changed[: -1 - reach].any()


PARTS = [
    *({"gate": gate, "fusion": fusion} for gate, fusion in itertools.product(GATES, FUSIONS)),
    *({"block": block, "norm": norm, "extra_blocks": 1} for block, norm in itertools.product(BLOCKS, NORMS)),
]


@pytest.mark.parametrize("changes", PARTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_every_part_says_whether_it_sees_the_whole_image(changes: dict[str, object]) -> None:
    made = network(**changes)
    noisy = image(16, 2 * network().reach + 64)
    other = noisy.clone()
    other[..., -1] += 1000
    with torch.inference_mode():
        changed = (made(noisy)[0] - made(other)[0]).abs().amax((0, 1, 2)) > 1e-6
    if made.reach is None:
        assert changed[:16].any(), "its `pools` is True, and a far pixel changes nothing"
    else:
        assert not changed[: -1 - made.reach].any(), "a far pixel changes it: its `pools` has to be True"


@pytest.mark.parametrize("changes", GLOBAL.values(), ids=GLOBAL)
def test_a_network_that_sees_the_whole_image_says_so_and_its_seams_are_measured(changes: dict[str, object]) -> None:
    made = network(**changes)
    assert made.reach is None
    noisy = image(160, 144) * torch.linspace(0.2, 3, 144)  # no two tiles have the same statistics
    tiled = restore(made, noisy, Tiling.of(made, 1, side=64))
    with torch.inference_mode():
        whole, _ = made(noisy)
    difference = float((tiled.image - whole).abs().max())
    assert difference > 1e-6
    assert tiled.seam > 1e-6


def test_blended_weights_sum_to_one() -> None:
    class Half(nn.Module):
        reach = None

        def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
            return noisy / 2, torch.ones(len(noisy), 2)

    noisy = image(301, 77)
    tiled = restore(Half(), noisy, Tiling(side=32, whole=0, overlap=16, blend=True))
    assert tiled.tiles == 10 * 3
    torch.testing.assert_close(tiled.image, noisy / 2)
    torch.testing.assert_close(tiled.logits, torch.ones(1, 2))


def test_an_image_that_fits_is_not_cut() -> None:
    made = network()
    tiling = Tiling.of(made, 1)
    tiled = restore(made, image(100, 90), tiling)
    assert (tiled.tiles, tiled.seam) == (1, 0.0)


def test_images_that_do_not_fit_together_go_one_by_one() -> None:
    made = network(norm="group")
    noisy = torch.rand(3, 1, 40, 30, generator=torch.Generator().manual_seed(0))
    passes: list[tuple[int, ...]] = []

    def predict(images: Tensor) -> tuple[Tensor, Tensor]:
        passes.append(tuple(images.shape))
        answer: tuple[Tensor, Tensor] = made(images)
        return answer

    together, apart, cut = (
        restore(predict, noisy, Tiling(side=32, whole=whole, overlap=16, blend=True)) for whole in (3600, 3599, 1199)
    )
    assert passes[:4] == [(3, 1, 40, 30), *[(1, 1, 40, 30)] * 3]
    assert {shape[0] for shape in passes[4:]} == {1}
    torch.testing.assert_close(together.image, apart.image, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.logits, apart.logits, rtol=0, atol=1e-6)
    assert (together.tiles, apart.tiles, cut.tiles) == (1, 1, 2)
    each = [restore(made, one, Tiling(side=32, whole=1199, overlap=16, blend=True)) for one in noisy.split(1)]
    assert torch.equal(cut.image, torch.cat([found.image for found in each]))
    assert torch.equal(cut.logits, torch.cat([found.logits for found in each]))
    assert cut.seam == max(found.seam for found in each)


def test_a_program_is_cut_as_the_network_that_it_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in ("WHOLE_MEMORY", "TILE_MEMORY"):
        monkeypatch.setattr(f"nas.bundles.inference.{budget}", 64 * 64 * 8 * 4 * 4)
    network = nn.Conv2d(1, 4, 3, padding=1)
    shapes = []

    def run(noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.append(tuple(noisy.shape))
        return noisy * 2, torch.zeros(len(noisy), 0)

    class Network(nn.Module):
        reach = 1

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.inner(noisy)[:, :1], torch.zeros(len(noisy), 0)

    noisy = torch.rand(1, 1, 200, 90)
    restored, _ = tiled(Network().eval(), 1, run)(noisy)
    torch.testing.assert_close(restored, noisy * 2)
    assert len(shapes) > 1
    assert max(height * width for _, _, height, width in shapes) < 200 * 90


def test_a_self_ensemble_is_the_mean_over_the_eight_symmetries_of_a_square() -> None:
    net, noisy = network(), torch.cat([image(48, 64), image(48, 64).flip(3)])
    with torch.inference_mode():
        restored, logits = self_ensemble(net)(noisy)
        turned = [
            torch.rot90(net(torch.rot90(mirrored, turns, (2, 3)))[0], -turns, (2, 3))
            for mirrored in (noisy, noisy.flip(3))
            for turns in range(4)
        ]
        turned = [each if place < 4 else each.flip(3) for place, each in enumerate(turned)]
        torch.testing.assert_close(restored, torch.stack(turned).mean(0))
        torch.testing.assert_close(logits, net(noisy)[1], rtol=0, atol=0)
        assert not torch.allclose(restored, net(noisy)[0], atol=1e-3)
        # What is restored no longer depends on the direction of the image.
        sideways = self_ensemble(net)(torch.rot90(noisy, 1, (2, 3)))[0]
    torch.testing.assert_close(torch.rot90(sideways, -1, (2, 3)), restored)


@pytest.mark.parametrize("changes", LOCAL.values(), ids=LOCAL)
@pytest.mark.parametrize("size", [(96, 160), (99, 133)])
def test_a_self_ensemble_in_tiles_is_that_of_the_whole_image(changes: dict[str, object], size: tuple[int, int]) -> None:
    net, noisy = network(**changes), image(*size)
    whole = restore(net, noisy, Tiling.of(net, 1), ensemble=True)
    cut = restore(net, noisy, Tiling.of(net, 1, side=64), ensemble=True)
    with torch.inference_mode():
        torch.testing.assert_close(whole.image, self_ensemble(net)(noisy)[0])
    assert (whole.tiles, whole.seam) == (1, 0.0)
    assert cut.tiles == 6
    assert cut.seam < 1e-4
    torch.testing.assert_close(cut.image, whole.image, rtol=1e-3, atol=1e-4)
