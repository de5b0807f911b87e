"""Noise: names are canonical, strengths are what the formulas say, and a seed is all the randomness."""

import hashlib
import io
import math

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import gaussian

from nas.data.noise import (
    Clean,
    Clip,
    Columns,
    Correlated,
    Depth,
    Gaussian,
    Jpeg,
    Noise,
    Poisson,
    PoissonGaussian,
    Rows,
    SaltPepper,
    Speckle,
    Strength,
    Sum,
    noises_in_short,
    parse_noise,
    parse_noises,
)
from nas.errors import ConfigError


def strengths(low: float, high: float) -> st.SearchStrategy[Strength]:
    """Single strengths and ranges within bounds."""
    values = st.floats(low, high)
    ranges = st.tuples(values, values).map(sorted).map(lambda ends: Strength(*ends))
    return values.map(lambda value: Strength(value, value)) | ranges


qualities = st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda ends: Strength(*map(float, sorted(ends))))
kinds = [
    st.builds(Gaussian, strengths(0.5, 255)),
    st.builds(Poisson, strengths(0.1, 1e6)),
    st.builds(PoissonGaussian, strengths(0.001, 255), strengths(0, 255)),
    st.builds(Speckle, strengths(0.01, 1)),
    st.builds(Correlated, strengths(0.5, 255), strengths(0.3, 4)),
    st.builds(Rows, strengths(0.5, 255)),
    st.builds(Columns, strengths(0.5, 255)),
    st.builds(SaltPepper, strengths(0.01, 0.99)),
]
random_noises = st.one_of(kinds)
after = st.one_of(random_noises, st.builds(Jpeg, qualities), st.just(Clip()), st.builds(Depth, st.integers(1, 16)))
sums = st.builds(lambda first, rest: Sum((first, *rest)), random_noises, st.lists(after, min_size=1, max_size=3))
random_last = st.builds(lambda *steps: Sum(steps), st.one_of(random_noises, st.builds(Jpeg, qualities)), random_noises)
noises = st.one_of(random_noises, sums, st.builds(Jpeg, qualities), st.just(Clean()))


FIXED = [
    "gaussian:50",
    "poisson:30",
    "poisson-gaussian:2,5",
    "speckle:0.2",
    "correlated:25,1.5",
    "rows:5",
    "columns:5",
    "saltpepper:0.1",
    "jpeg:40",
]
RANGES = [
    "gaussian:10-50",
    "poisson:10-50",
    "poisson-gaussian:0.5-2,0-4",
    "speckle:0.1-0.3",
    "correlated:5-25,1-2",
    "rows:1-5",
    "columns:1-5",
    "saltpepper:0.1-0.2",
    "jpeg:10-90",
]


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
        ("poisson:10.0-50", "poisson:10-50"),
        ("Poisson-Gaussian:0.50-2, 3.0", "poisson-gaussian:0.5-2,3"),
        ("poisson-gaussian:1,0-4", "poisson-gaussian:1,0-4"),
        ("speckle:.2", "speckle:0.2"),
        ("correlated:25,1.50", "correlated:25,1.5"),
        ("rows:5.0", "rows:5"),
        ("columns:1-5", "columns:1-5"),
        ("saltpepper:0.1-0.2", "saltpepper:0.1-0.2"),
        ("jpeg:40.0", "jpeg:40"),
        ("jpeg:10-90", "jpeg:10-90"),
        ("Blur:1.50", "blur:1.5"),
        ("contrast:.5-.80", "contrast:0.5-0.8"),
        ("brightness:2.0", "brightness:2"),
        (" Gaussian:25.0 + clip ", "gaussian:25+clip"),
        ("poisson-gaussian:2,5+rows:3+depth:08", "poisson-gaussian:2,5+rows:3+depth:8"),
    ],
)
def test_names_are_canonical(text: str, name: str) -> None:
    assert parse_noise(text).name == name


@given(noises)
def test_a_name_reads_back_as_its_noise(noise: Noise) -> None:
    assert parse_noise(noise.name) == noise


@pytest.mark.parametrize("text", ["", "bloom:3", "gauss:50", "gaussian50", ":50"])
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
        ("poisson:2-1", "peak must be"),
        ("gaussian:25,50", "sigma must be"),
        ("poisson:1000001", "peak must be"),
        ("poisson:" + "9" * 400, "peak must be"),
        ("saltpepper:0", "share of lost values must be .*for example saltpepper:0.1"),
        ("saltpepper:1", "share of lost values"),
        ("none:1", "takes no strength"),
        ("none:", "takes no strength"),
        ("poisson-gaussian:2", "give two strengths: the gain must be .*for example poisson-gaussian:2,5"),
        ("poisson-gaussian:0,5", "gain must be"),
        ("poisson-gaussian:2,256", "read noise from 0 to 255"),
        ("poisson-gaussian:2,5,1", "two strengths"),
        ("speckle:1.5", "spread is a part of the brightness.*for example speckle:0.2"),
        ("correlated:25", "two strengths.*for example correlated:25,1.5"),
        ("correlated:25,0", "radius from 0.3 to 16 pixels"),
        ("correlated:25,17", "radius from"),
        ("rows:0", "sigma must be.*for example rows:5"),
        ("columns:300", "sigma must be.*for example columns:5"),
        ("saltpepper:0.2-1", "share of lost values"),
        ("jpeg:0", "quality must be a whole number from 1 to 100.*for example jpeg:40"),
        ("jpeg:40.5", "whole number"),
        ("jpeg:101", "whole number"),
        ("blur:0.2", "radius must be from 0.3 to 16 pixels.*for example blur:1.5"),
        ("contrast:1", "above 0 and below 1.*for example contrast:0.5"),
        ("brightness:0", "above 0 and at most 16.*for example brightness:0.5"),
        ("gaussian:25+clip:1", "in 'clip:1': takes no strength"),
        ("gaussian:25+depth:8-10", "in 'depth:8-10': the depth must be a whole number of bits from 1 to 16"),
        ("gaussian:25+depth:17", "number of bits"),
        ("gaussian:25+jpeg:0", "in 'jpeg:0': the quality"),
        ("gaussian:25+rain:3", "in 'rain:3': unknown kind"),
        ("gaussian:25+", "in '': unknown kind"),
        ("gaussian:25+none", "none stands alone; leave it out"),
        ("none+clip", "none stands alone; leave it out"),
        ("clip", "acts on what a noise has changed.*for example gaussian:25[+]clip"),
        ("depth:8+gaussian:25", "name the noise before it, for example gaussian:25[+]depth:8"),
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


def test_names_joined_by_commas_are_read_one_by_one() -> None:
    found = parse_noises("gaussian:25,poisson-gaussian:0.5-2,3+clip, correlated:25,.5,jpeg:40,none")
    assert [noise.name for noise in found] == [
        "gaussian:25",
        "poisson-gaussian:0.5-2,3+clip",
        "correlated:25,0.5",
        "jpeg:40",
        "none",
    ]
    for text, wrong in (("gaussian:25,", "''"), ("gaussian:25,,none", "''"), ("gaussian:25,rain:3", "'rain:3'")):
        with pytest.raises(ConfigError, match=f"noise {wrong}"):
            parse_noises(text)


def test_the_line_of_help_names_every_noise() -> None:
    assert noises_in_short() == (
        "gaussian:S, poisson:PEAK, poisson-gaussian:GAIN,READ, speckle:S, correlated:S,RADIUS, rows:S, columns:S, "
        "saltpepper:P, jpeg:Q, blur:RADIUS, contrast:P, brightness:F, clip, depth:BITS, none, data; A-B for a number "
        "draws one for each image, and + joins several"
    )


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("gaussian:50", "508a6b0f1b79"),
        ("gaussian:10-50", "086e1499dd63"),
        ("saltpepper:0.1", "12d81b5dd9de"),
    ],
)
def test_noise_that_was_there_before_ranges_and_sums_is_as_it_was(name: str, digest: str) -> None:
    images = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).remainder(256) / 255
    quantised = (noisy(name, images, seed=3) * 1e4).round().to(torch.int32)
    assert hashlib.sha256(quantised.numpy().tobytes()).hexdigest()[:12] == digest


@settings(max_examples=40)
@given(st.one_of(random_noises, random_last))  # a JPEG that comes last may take all of a weak noise away
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


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("gain", "read"), [(0.5, 2), (8, 5), (2, 0)])
def test_a_sensor_has_variance_gain_times_brightness_plus_read_noise(gain: float, read: float, level: float) -> None:
    result = noisy(f"poisson-gaussian:{gain},{read}", torch.full((1, 1, 400, 400), level)) * 255
    assert result.mean().item() == pytest.approx(255 * level, rel=0.02)
    assert result.var().item() == pytest.approx(gain * 255 * level + read**2, rel=0.03)


def test_poisson_is_a_sensor_without_read_noise() -> None:
    images = torch.rand(1, 1, 64, 64, generator=generator())
    assert torch.allclose(noisy("poisson:51", images), noisy("poisson-gaussian:5,0", images), atol=1e-6)


def test_no_photons_come_from_below_black() -> None:
    dark = torch.full((1, 1, 8, 8), -0.1)
    assert torch.equal(noisy("poisson:30", dark), torch.zeros(1, 1, 8, 8))
    assert torch.equal(noisy("poisson-gaussian:2,0", dark), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("level", [0.2, 1.0])
def test_speckle_grows_with_brightness(level: float) -> None:
    result = noisy("speckle:0.3", torch.full((1, 1, 300, 300), level))
    assert result.mean().item() == pytest.approx(level, rel=0.01)
    assert result.std().item() == pytest.approx(0.3 * level, rel=0.02)


def correlation(noise: torch.Tensor, rows: int, columns: int) -> float:
    """The mean product of values that are so many rows and columns apart, over the variance."""
    height, width = noise.shape[-2:]
    first, second = noise[..., : height - rows, : width - columns], noise[..., rows:, columns:]
    return float((first * second).mean() / noise.square().mean())


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_neighbours_of_correlated_noise_are_alike_by_its_radius(radius: float) -> None:
    noise = noisy(f"correlated:30,{radius}", torch.full((16, 1, 200, 200), 0.5)) * 255 - 127.5
    assert noise.std().item() == pytest.approx(30, rel=0.02)
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, 3), (4, 0)):
        wanted = math.exp(-(rows**2 + columns**2) / (4 * radius**2))
        assert correlation(noise, rows, columns) == pytest.approx(wanted, abs=0.02), (rows, columns)
    assert noise[..., 0, :].std().item() == pytest.approx(30, rel=0.1), "the border is like the middle"


def test_each_image_has_a_radius_of_its_own() -> None:
    noise = noisy("correlated:30,0.7-3", torch.zeros(40, 1, 128, 128))
    alike = torch.tensor([correlation(each[None], 0, 2) for each in noise])
    assert alike.min() < 0.35
    assert alike.max() > 0.8
    sigma = noise.std(dim=(1, 2, 3)) * 255
    assert sigma.mean().item() == pytest.approx(30, rel=0.02)


@pytest.mark.parametrize(("name", "along", "across"), [("rows:8", 3, 2), ("columns:8", 2, 3)])
def test_rows_and_columns_are_shifted_as_a_whole(name: str, along: int, across: int) -> None:
    noise = (noisy(name, torch.full((4, 2, 300, 300), 0.5)) - 0.5) * 255
    assert noise.std(dim=along).max() < 1e-3
    lines = noise.mean(dim=along)
    assert lines.std().item() == pytest.approx(8, rel=0.05)
    assert abs(np.corrcoef(lines[0, 0], lines[0, 1])[0, 1]) < 0.25, "each channel has lines of its own"


@pytest.mark.parametrize(("name", "low", "high"), [("poisson:10-40", 10, 40), ("saltpepper:0.1-0.4", 0.1, 0.4)])
def test_ranges_draw_a_strength_for_each_image(name: str, low: float, high: float) -> None:
    result = noisy(name, torch.ones(200, 1, 64, 64))
    found = 1 / result.var(dim=(1, 2, 3)) if name.startswith("poisson") else 2 * (result == 0).float().mean((1, 2, 3))
    assert low * 0.9 < found.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < found.max() < high * 1.1
    assert found.mean().item() == pytest.approx((low + high) / 2, rel=0.1)


def through_pillow(image: torch.Tensor, quality: int) -> torch.Tensor:
    """An image (C, H, W) that Pillow has written as a JPEG and opened again."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(PIL.Image.open(file))).view(*image.shape[1:], -1).permute(2, 0, 1) / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels: int) -> None:
    images = torch.rand(3, channels, 20, 28, generator=generator()) * 1.2 - 0.1
    result = noisy("jpeg:35", images)
    assert torch.equal(result, torch.stack([through_pillow(image, 35) for image in images]))


def test_jpeg_of_other_channels_is_of_gray_images() -> None:
    images = torch.rand(2, 4, 16, 16, generator=generator())
    result = noisy("jpeg:35", images)
    assert torch.equal(result[:, 2:3], noisy("jpeg:35", images[:, 2:3]))


def test_jpeg_draws_whole_qualities() -> None:
    images = torch.rand(1, 1, 16, 16, generator=generator()).repeat(30, 1, 1, 1)
    wanted = [through_pillow(images[0], quality) for quality in (20, 21, 22)]
    found = {
        next(i for i, each in enumerate(wanted) if torch.equal(each, made)) for made in noisy("jpeg:20-22", images)
    }
    assert found == {0, 1, 2}


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.5])
def test_blur_is_that_of_scikit_image(radius: float) -> None:
    images = torch.rand(2, 3, 9, 13, generator=generator())
    wanted = [gaussian(each.numpy(), radius, mode="nearest", channel_axis=0, truncate=4) for each in images]
    assert noisy(f"blur:{radius}", images).numpy() == pytest.approx(np.stack(wanted), abs=2e-4)
    flat = torch.full((1, 1, 5, 5), 0.3)
    assert torch.allclose(noisy(f"blur:{radius}", flat), flat), "what is even stays as it is, also at the border"


def test_contrast_keeps_the_mean_and_a_share_of_the_difference_to_it() -> None:
    images = torch.rand(3, 2, 16, 16, generator=generator())
    result = noisy("contrast:0.25", images)
    assert torch.allclose(result.mean((2, 3)), images.mean((2, 3)))
    assert torch.allclose(result.std((2, 3)), 0.25 * images.std((2, 3)))


def test_brightness_multiplies_and_clips() -> None:
    images = torch.tensor([0.0, 0.2, 0.6]).view(1, 1, 1, 3)
    assert noisy("brightness:2", images).flatten().tolist() == pytest.approx([0, 0.4, 1])
    assert noisy("brightness:0.5", images).flatten().tolist() == pytest.approx([0, 0.1, 0.3])
    factors = noisy("brightness:0.5-1.5", torch.full((50, 1, 1, 1), 0.5)).flatten() / 0.5
    assert 0.5 <= factors.min() < 0.7
    assert 1.3 < factors.max() <= 1.5


def test_clip_and_depth_do_what_a_camera_does() -> None:
    images = torch.rand(2, 1, 64, 64, generator=generator())
    plain = noisy("gaussian:50", images)
    assert torch.equal(noisy("gaussian:50+clip", images), plain.clamp(0, 1))
    assert torch.equal(noisy("gaussian:50+depth:2", images), (plain.clamp(0, 1) * 3).round() / 3)
    assert torch.equal(noisy("gaussian:50+depth:8", images), (plain.clamp(0, 1) * 255).round() / 255)


def test_a_sum_is_applied_in_its_order() -> None:
    images = torch.full((1, 1, 64, 64), 0.5)
    source = generator()
    first = parse_noise("saltpepper:0.5").add(images, source)
    wanted = parse_noise("gaussian:10").add(first, source)
    assert torch.equal(noisy("saltpepper:0.5+gaussian:10", images), wanted)
    assert set(noisy("gaussian:10+saltpepper:0.999", images).unique().tolist()) >= {0, 1}


@pytest.mark.parametrize(
    ("name", "clips"),
    [("gaussian:5", False), ("gaussian:5+clip", True), ("rows:5+depth:8", True), ("jpeg:5", True), ("none", False)],
)
def test_a_noise_says_whether_it_clips(name: str, clips: bool) -> None:
    assert parse_noise(name).clips is clips
    assert (noisy(name, torch.zeros(1, 1, 32, 32)).min() < 0) == (not clips and name != "none")


def test_none_is_the_image_itself() -> None:
    images = torch.rand(2, 1, 4, 4, generator=generator())
    assert torch.equal(noisy("none", images), images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [*FIXED, *RANGES, "poisson-gaussian:2,5+rows:3+depth:8", "none"])
def test_noise_stays_on_the_device_of_the_images(name: str) -> None:
    images = torch.rand(2, 3, 8, 8, device="cuda")
    first, second = (parse_noise(name).add(images, torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert first.device == images.device
    assert torch.equal(first, second)
