"""Noise that was made is found again: gain and read noise, correlation, rows, lost pixels and JPEG."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nas.data.jpeg_traces import jpeg_quality
from nas.data.measured_noise import MeasuredNoise, Picture, measure_noise
from nas.data.noise import parse_noise
from nas.data.sensor import Sensor, fit_sensor
from nas.data.spectrum import Blocks, common_spectrum, correlated_spectrum, fit_colour, flattest
from nas.errors import DataError

Image = NDArray[np.float32]


@cache
def scenes(number: int = 4, side: int = 192) -> tuple[Image, ...]:
    """Soft blobs, flat areas and sharp squares of all brightnesses, whole numbers from 12 to 220."""
    random, made = np.random.default_rng(0), []
    for _ in range(number):
        image = gaussian_filter(random.normal(0, 1, (side, side)), 24)
        image = 20 + 150 * (image - image.min()) / np.ptp(image)
        for _ in range(8):
            top, left = random.integers(0, side - 24, 2)
            image[top : top + 20, left : left + 24] += random.uniform(-40, 50)
        made.append(np.rint(image.clip(12, 220)).astype(np.float32))
    return tuple(made)


def added(noise: str, images: tuple[Image, ...], seed: int = 0) -> list[Image]:
    """Images with noise, (1, H, W) on the 0..255 scale."""
    generator = torch.Generator().manual_seed(seed)
    kind = parse_noise(noise)
    return [kind.add(torch.from_numpy(each)[None, None] / 255, generator)[0].numpy() * 255 for each in images]


def found(noise: str, *, pairs: bool = False, bits: int | None = 8) -> MeasuredNoise:
    noisy = added(f"{noise}+depth:8", scenes())
    return measure_noise(
        [Picture(one, clean[None] if pairs else None) for one, clean in zip(noisy, scenes(), strict=True)], bits
    )


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("gain", "read"), [(0.5, 4), (1, 6), (2, 8)])
def test_a_sensors_gain_and_read_noise_are_found(gain: float, read: float, pairs: bool) -> None:
    measured = found(f"poisson-gaussian:{gain},{read}", pairs=pairs)
    assert measured.sensor.gain == pytest.approx(gain, rel=0.1)
    assert measured.sensor.read == pytest.approx(read, rel=0.1)
    assert (measured.correlated, measured.rows, measured.columns, measured.saltpepper) == (0, 0, 0, 0)
    assert measured.jpeg is None
    assert measured.words.startswith("poisson-gaussian:")
    assert measured.words.endswith("+depth:8")
    assert measured.sigma(100) == pytest.approx(np.sqrt(gain * 100 + read**2), rel=0.05)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("sigma", [4, 20, 45])
def test_noise_of_one_strength_is_gaussian(sigma: float, pairs: bool) -> None:
    measured = found(f"gaussian:{sigma}", pairs=pairs)
    assert measured.sensor.gain == 0
    assert measured.sensor.read == pytest.approx(sigma, rel=0.05)
    assert measured.words == f"gaussian:{float(f'{measured.sensor.read:.3g}'):g}+depth:8"


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("radius", [0.7, 1.5])
def test_correlated_noise_is_found_with_its_radius(radius: float, pairs: bool) -> None:
    measured = found(f"correlated:20,{radius}", pairs=pairs)
    assert measured.radius == pytest.approx(radius, abs=0.3)
    assert measured.correlated == pytest.approx(20, rel=0.2)
    assert (measured.sensor.gain, measured.sensor.read) == (0, 0)
    assert measured.words.startswith("correlated:")


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_and_columns_are_told_apart(pairs: bool) -> None:
    rows, columns = (found(f"gaussian:8+{kind}:4", pairs=pairs) for kind in ("rows", "columns"))
    assert rows.rows == pytest.approx(4, rel=0.25)
    assert columns.columns == pytest.approx(4, rel=0.25)
    assert (rows.columns, columns.rows) == (0, 0)
    assert rows.sensor.read == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("pairs", [False, True])
def test_lost_pixels_are_counted_and_do_not_count_as_noise(pairs: bool) -> None:
    measured = found("gaussian:8+saltpepper:0.03", pairs=pairs)
    assert measured.saltpepper == pytest.approx(0.03, rel=0.1)
    assert measured.sensor.read == pytest.approx(8, rel=0.05)


def test_the_quality_of_jpeg_is_found() -> None:
    assert found("jpeg:60").words == "jpeg:60"
    assert found("jpeg:60", pairs=True).words == "jpeg:60"
    both = found("gaussian:12+jpeg:85")
    assert both.jpeg == (85, 85)
    assert both.words.endswith("+jpeg:85")
    assert both.remarks[0].startswith("JPEG has changed the noise")


@pytest.mark.parametrize(("sigma", "quality"), [(8, 60), (12, 85), (25, 75)])
def test_the_noise_before_jpeg_is_found_from_pairs(sigma: float, quality: int) -> None:
    """JPEG takes the high frequencies, by which the noise of flat areas would be a fraction of what was there."""
    measured = found(f"gaussian:{sigma}+jpeg:{quality}", pairs=True)
    assert measured.sensor.read == pytest.approx(sigma, rel=0.06)
    assert measured.words == f"gaussian:{measured.sensor.read:.3g}+jpeg:{quality}"
    assert len(measured.remarks) == 1


def test_what_pairs_differ_by_is_told_where_the_words_do_not_make_it() -> None:
    """No name of noise says a shading over the images. A cosine of 20 levels has 14.1 in the root mean square."""
    shade = 20 * np.cos(np.linspace(0, 2 * np.pi, 192, dtype=np.float32))
    noisy = [image + shade for image in added("gaussian:3", scenes())]
    pictures = [Picture(one, clean[None]) for one, clean in zip(noisy, scenes(), strict=True)]
    measured = measure_noise(pictures, None)
    assert measured.strength == pytest.approx(np.hypot(14.1, 3), rel=0.02)
    assert [line for line in measured.remarks if "Train on the pairs themselves" in line]
    for noise in ("gaussian:10", "poisson-gaussian:1,4", "saltpepper:0.05", "correlated:12,1.5"):
        assert not [line for line in found(noise, pairs=True).remarks if "Train on the pairs" in line]


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_traces_of_jpeg_are_those_of_its_table(quality: int) -> None:
    image = added("gaussian:6", scenes(1))
    compressed = parse_noise(f"jpeg:{quality}").add(torch.from_numpy(image[0])[None] / 255, torch.Generator())
    assert jpeg_quality(compressed[0, 0].numpy() * 255) == quality
    assert jpeg_quality(image[0][0].round()) is None
    assert jpeg_quality(np.zeros((64, 64), np.float32)) is None
    assert jpeg_quality(np.full((512, 512), 90, np.float32)) is None


def test_images_without_noise_have_none() -> None:
    assert measure_noise([Picture(each[None]) for each in scenes()], 8).words == "none"


def test_structure_is_no_correlated_noise() -> None:
    """Images of smooth textures of several strengths, without noise: alone, one of them looks correlated."""
    random = np.random.default_rng(0)
    textures = [
        np.rint(128 + gaussian_filter(random.normal(0, 2.5 * strength, (1, 160, 160)), (0, 0.8, 0.8)))
        for strength in (4, 8, 16, 32)
    ]
    pictures = [Picture(each.clip(0, 255).astype(np.float32)) for each in textures]
    several = measure_noise(pictures, 8)
    assert several.correlated == 0
    assert "images do not agree" in several.remarks[0]
    one = measure_noise(pictures[2:3], 8)
    assert one.correlated > 0
    assert "Structure may have been taken for correlated noise" in one.remarks[0]


def test_images_that_agree_are_believed_without_a_remark() -> None:
    assert found("correlated:20,1").remarks == ()
    assert found("gaussian:10").remarks == ()
    assert found("poisson-gaussian:1,6", pairs=True).remarks == ()


@pytest.mark.parametrize("pairs", [False, True])
def test_images_of_two_strengths_are_told(pairs: bool) -> None:
    images = scenes()
    noisy = added("gaussian:5+depth:8", images[:2]) + added("gaussian:40+depth:8", images[2:])
    measured = measure_noise(
        [Picture(one, c[None] if pairs else None) for one, c in zip(noisy, images, strict=True)], 8
    )
    (remark,) = [each for each in measured.remarks if each.startswith("The noise of one image is")]
    assert float(remark.split()[6]) == pytest.approx(8, rel=0.15)


def test_a_bad_fit_is_told() -> None:
    assert any(each.startswith("The fit is off by") for each in found("speckle:0.3", pairs=True).remarks)


def test_floats_have_no_depth_and_small_images_no_spectrum() -> None:
    clean = np.full((64, 1, 16, 16), 100, np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 10, clean.shape).astype(np.float32)
    measured = measure_noise([Picture(each) for each in noisy], None)
    assert measured.words == f"gaussian:{measured.sensor.read:.3g}"
    assert measured.sensor.read == pytest.approx(10, rel=0.05)
    assert "No image has sides of 32 pixels" in measured.remarks[0]
    with pytest.raises(DataError, match="sides of at least 8 pixels"):
        measure_noise([Picture(np.zeros((1, 7, 100), np.float32))], 8)


def test_black_and_white_pixels_are_no_noise() -> None:
    pixels = 255 * np.random.default_rng(0).integers(0, 2, (1, 64, 64)).astype(np.float32)
    with pytest.raises(DataError, match="mostly black and white pixels"):
        measure_noise([Picture(pixels)], 8)


@pytest.mark.parametrize("value", [0, 90, 255])
def test_images_of_one_value_have_no_noise(value: float) -> None:
    assert measure_noise([Picture(np.full((3, 40, 40), value, np.float32))], 8).words == "none"


def test_channels_are_measured_alike() -> None:
    noisy = [np.concatenate(added("gaussian:9+depth:8", (scene,) * 3, seed=3)) for scene in scenes(2)]
    assert measure_noise([Picture(each) for each in noisy], 8).sensor.read == pytest.approx(9, rel=0.05)


def test_the_facts_are_plain_values() -> None:
    facts = found("gaussian:10").to_dict()
    assert facts["noise"] == found("gaussian:10").words
    assert facts["images"] == 4
    assert all(level["fit"] == pytest.approx(10, rel=0.05) for level in facts["levels"])


# --- the parts ---
@pytest.mark.parametrize("sensor", [Sensor(8, 5), Sensor(1, 20), Sensor(0, 40)])
@pytest.mark.parametrize("brightness", [10.0, 120.0, 240.0])
def test_moments_after_clipping_are_those_of_many_pixels(sensor: Sensor, brightness: float) -> None:
    random = np.random.default_rng(0)
    electrons = random.poisson(brightness / sensor.gain, 400_000) * sensor.gain if sensor.gain else brightness
    pixels = (electrons + random.normal(0, sensor.read, 400_000)).clip(0, 255)
    mean, variance = sensor.clipped(np.array([brightness]))
    assert mean[0] == pytest.approx(pixels.mean(), rel=0.01)
    assert variance[0] == pytest.approx(pixels.var(), rel=0.02)


def test_a_fit_returns_the_sensor_of_its_variances() -> None:
    true, brightness = Sensor(1.5, 7), np.linspace(5, 250, 30)
    mean, variance = true.clipped(brightness)
    fitted = fit_sensor(mean, variance + 1 / 12, np.full(30, 100.0), 1 / 12)
    assert fitted.gain == pytest.approx(1.5, rel=0.01)
    assert fitted.read == pytest.approx(7, rel=0.01)
    assert fit_sensor(mean, np.full(30, 81.0), np.full(30, 100.0), 0.0).gain == 0


@pytest.mark.parametrize("radius", [0.5, 1.2])
def test_the_spectrum_of_correlated_noise_is_computed(radius: float) -> None:
    flat = np.full((600, 600), 128, np.float32)
    noisy = added(f"correlated:20,{radius}", (flat,))[0][0]
    blocks = Blocks.of([(noisy, flat)], 16, 100_000)
    spectrum, peakedness = common_spectrum(flattest(blocks, (1, 4), 5, 0.01, 10))
    wanted = 400 * correlated_spectrum(radius, 16)
    strong = wanted > 0.01 * wanted.max()
    assert np.median(spectrum[strong] / wanted[strong]) == pytest.approx(1, abs=0.05)
    assert np.median(peakedness) == pytest.approx(1, abs=0.1)
    colour = fit_colour(spectrum, 3)
    assert colour.radius == pytest.approx(radius, abs=0.1)
    assert colour.correlated == pytest.approx(400, rel=0.1)


def test_white_noise_has_a_flat_spectrum() -> None:
    flat = np.full((400, 400), 128, np.float32)
    blocks = Blocks.of([(added("gaussian:20", (flat,))[0][0], None)], 8, 100_000)
    area = max(flattest(blocks, (3, 8), 9, 0.01, 60, all_below=True), key=lambda each: each.independent)
    total = np.add.outer(np.arange(8), np.arange(8))
    assert area.spectrum[total >= 9].mean() == pytest.approx(400, rel=0.05)
