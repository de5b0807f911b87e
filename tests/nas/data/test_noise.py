"""Noise: names are canonical, strengths are what the formulas say, and a seed is all the randomness."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data.noise import Clean, Gaussian, Noise, Poisson, SaltPepper, parse_noise
from nas.errors import ConfigError

decimals = st.decimals("0.001", "0.999", places=3).map(float)
noises = st.one_of(
    st.builds(lambda s: Gaussian(s, s), st.floats(0.5, 255)),
    st.builds(Gaussian, st.floats(0.5, 50), st.floats(51, 255)),
    st.builds(Poisson, st.floats(0.1, 1e6)),
    st.builds(SaltPepper, decimals),
    st.just(Clean()),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(name: str, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return parse_noise(name).add(images, generator(seed))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gaussian:50", "gaussian:50"),
        ("Gaussian:50.0", "gaussian:50"),
        (" gaussian:.5 ", "gaussian:0.5"),
        ("gaussian:255", "gaussian:255"),
        ("gaussian:10.0-50.50", "gaussian:10-50.5"),
        ("poisson:030", "poisson:30"),
        ("poisson:1000000", "poisson:1000000"),
        ("saltpepper:0.10", "saltpepper:0.1"),
        ("saltpepper:0.00001", "saltpepper:0.00001"),
        ("NONE", "none"),
    ],
)
def test_names_are_canonical(text: str, name: str) -> None:
    assert parse_noise(text).name == name


@given(noises)
def test_a_name_reads_back_as_its_noise(noise: Noise) -> None:
    assert parse_noise(noise.name) == noise


@pytest.mark.parametrize("text", ["", "blur:3", "gauss:50", "gaussian50", ":50"])
def test_an_unknown_kind_lists_the_kinds(text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind; give one of gaussian:50 .*saltpepper") as error:
        parse_noise(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("gaussian", "sigma must be above 0 and at most 255.*for example gaussian:50"),
        ("gaussian:", "sigma must be"),
        ("gaussian:0", "sigma must be"),
        ("gaussian:-5", "sigma must be"),
        ("gaussian:256", "sigma must be"),
        ("gaussian:nan", "sigma must be"),
        ("gaussian:5e1", "sigma must be"),
        ("gaussian:50-10", "A-B must have A < B"),
        ("gaussian:50-50", "A-B must have A < B"),
        ("gaussian:0-50", "sigma must be"),
        ("gaussian:10-256", "sigma must be"),
        ("gaussian:1-2-3", "sigma must be"),
        ("poisson:0", "peak must be .*for example poisson:30"),
        ("poisson:1-2", "peak must be"),
        ("poisson:1000001", "peak must be"),
        ("poisson:" + "9" * 400, "peak must be"),
        ("saltpepper:0", "share of lost values must be .*for example saltpepper:0.1"),
        ("saltpepper:1", "share of lost values"),
        ("none:1", "takes no strength"),
        ("none:", "takes no strength"),
    ],
)
def test_a_wrong_strength_names_rule_and_fix(text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as error:
        parse_noise(text)
    assert repr(text) in str(error.value)


@settings(max_examples=50)
@given(noises, st.integers(0, 2**32), st.sampled_from([(1, 1, 5, 7), (3, 3, 8, 8)]))
def test_the_seed_decides_and_nothing_else(noise: Noise, seed: int, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=generator(1))
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    first = noise.add(images, generator(seed))
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, noise.add(images.to(memory_format=torch.channels_last), generator(seed)))


@given(noises.filter(lambda noise: noise != Clean()))
def test_another_draw_is_other_noise(noise: Noise) -> None:
    images = torch.full((1, 1, 64, 64), 0.5)
    source = generator()
    first = noise.add(images, source)
    assert not torch.equal(first, images)
    assert not torch.equal(first, noise.add(images, source))


@pytest.mark.parametrize("sigma", [5, 50])
def test_gaussian_has_its_sigma_and_is_not_clipped(sigma: int) -> None:
    images = torch.full((4, 1, 200, 200), 0.5)
    noise = noisy(f"gaussian:{sigma}", images) - images
    assert noise.std().item() * 255 == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean().item()) * 255 < sigma * 4 / math.sqrt(noise.numel())
    assert noisy("gaussian:50", torch.zeros(1, 1, 64, 64)).min() < -0.3


def test_blind_gaussian_draws_one_sigma_per_image() -> None:
    sigma = noisy("gaussian:10-50", torch.zeros(200, 1, 64, 64)).std(dim=(1, 2, 3)) * 255
    assert 9.5 < sigma.min() < 14
    assert 46 < sigma.max() < 52.5
    assert sigma.mean().item() == pytest.approx(30, abs=3)
    halves = noisy("gaussian:10-50", torch.zeros(200, 1, 64, 64))
    assert torch.allclose(halves[..., :32].std(dim=(1, 2, 3)), halves[..., 32:].std(dim=(1, 2, 3)), rtol=0.15)


@pytest.mark.parametrize(("peak", "level"), [(30, 0.5), (4, 1.0), (100, 0.1)])
def test_poisson_has_variance_mean_over_peak(peak: int, level: float) -> None:
    images = torch.full((1, 1, 400, 400), level)
    result = noisy(f"poisson:{peak}", images)
    assert result.mean().item() == pytest.approx(level, rel=0.02)
    assert result.var().item() == pytest.approx(level / peak, rel=0.03)
    assert torch.equal(noisy("poisson:30", torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


def test_saltpepper_loses_its_share_in_equal_halves() -> None:
    images = torch.full((1, 3, 300, 300), 0.5)
    result = noisy("saltpepper:0.2", images)
    assert (result == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert (result == 1).float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert set(result.unique().tolist()) == {0, 0.5, 1}


def test_none_is_the_image_itself() -> None:
    images = torch.rand(2, 1, 4, 4, generator=generator())
    assert torch.equal(noisy("none", images), images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["gaussian:50", "gaussian:10-50", "poisson:30", "saltpepper:0.1", "none"])
def test_noise_stays_on_the_device_of_the_images(name: str) -> None:
    images = torch.rand(2, 3, 8, 8, device="cuda")
    first, second = (parse_noise(name).add(images, torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert first.device == images.device
    assert torch.equal(first, second)
