"""Image files come back as they were, and damaged ones are refused in a line."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from nas.bundles import pictures
from nas.bundles.pictures import Picture, read_picture, write_picture
from nas.errors import DataError

RANDOM = np.random.default_rng(0)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(channels: int, dtype: type[np.generic] = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, (19, 23, channels), dtype, endpoint=True)


def exif(orientation: int = 6) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010F] = "Maker"
    return made.tobytes()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_lossless_files_keep_every_bit(tmp_path: Path, format_: str, dtype: type, channels: int, alpha: bool) -> None:
    file = tmp_path / f"picture.{format_.lower()}"
    first = Picture(
        pixels=pixels(channels, dtype),
        alpha=pixels(1, dtype)[..., 0] if alpha else None,
        format=format_,
        profile=PROFILE,
        dpi=(300.0, 150.0),
        exif=exif() if format_ == "PNG" else None,
    )
    write_picture(file, first)
    if (format_, dtype, channels, alpha) == ("TIFF", np.uint16, 1, True):  # which Pillow does not know
        with pytest.raises(DataError, match="cannot be read"):
            read_picture(file)
        return
    second = read_picture(file)
    np.testing.assert_array_equal(second.pixels, first.pixels)
    assert second.pixels.dtype == dtype
    if alpha:
        np.testing.assert_array_equal(second.alpha, first.alpha)
    else:
        assert second.alpha is None
    assert (second.format, second.profile) == (format_, PROFILE)
    assert second.dpi == pytest.approx((300, 150), abs=0.1)
    assert second.exif == first.exif
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_jpeg_keeps_what_surrounds_its_pixels(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    Image.fromarray(pixels(3)).save(file, exif=exif(8), dpi=(72, 72), icc_profile=PROFILE)
    picture = read_picture(file)
    write_picture(tmp_path / "again.jpg", picture)
    again = read_picture(tmp_path / "again.jpg")
    assert (again.exif, again.profile, again.dpi, again.format) == (picture.exif, PROFILE, (72, 72), "JPEG")
    assert again.pixels.shape == (19, 23, 3), "stored as it was, not turned"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_as_it_is_to_be_seen(tmp_path: Path, orientation: int) -> None:
    """Pillow turns those of 8 bits; those of 16, read otherwise, have to come out the same."""
    plain = pixels(3)
    tag = [(0x0112, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "plain.tif", plain, photometric="rgb", extratags=tag)
    tifffile.imwrite(tmp_path / "deep.tif", plain.astype(np.uint16) * 257, photometric="rgb", extratags=tag)
    seen = read_picture(tmp_path / "plain.tif").pixels
    assert seen.shape == ((19, 23, 3) if orientation < 5 else (23, 19, 3))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.tif").pixels, seen.astype(np.uint16) * 257)


def test_floats_and_back() -> None:
    for dtype in (np.uint8, np.uint16):
        picture = Picture(pixels=pixels(3, dtype), alpha=None, format="PNG")
        floats = picture.floats()
        assert floats.shape == (3, 19, 23)
        assert floats.max() <= 1
        np.testing.assert_array_equal(picture.with_floats(floats).pixels, picture.pixels)
        assert picture.with_floats(floats + 2).pixels.min() == picture.white


def test_planar_tiff_and_palettes_are_read(tmp_path: Path) -> None:
    deep = pixels(3, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, deep)
    image = Image.fromarray(pixels(1)[..., 0]).convert("P")
    image.save(tmp_path / "b.png", transparency=0)
    found = read_picture(tmp_path / "b.png")
    assert found.pixels.shape == (19, 23, 3)
    assert found.alpha is not None


def test_what_could_not_be_written_again_is_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels(3)).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(pixels(3)).save(tmp_path / "old.bmp")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "float.tif")
    pages = [Image.fromarray(pixels(3)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (
        ("print.jpg", "has the mode CMYK"),
        ("old.bmp", "is BMP"),
        ("float.tif", "has the mode F"),
        ("pages.tif", "holds 2 images"),
        ("text.png", "cannot be read"),
        ("none.png", "No such file"),
    ):
        with pytest.raises(DataError, match=reason) as found:
            read_picture(tmp_path / name)
        assert "\n" not in str(found.value)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bomb.png: is too large, at most 178956970 pixels are read; cut it$"):
        read_picture(tmp_path / "bomb.png")


def test_the_limit_of_pixels_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for side, fits in ((10, True), (11, False)):
        Image.new("L", (10, side)).save(tmp_path / "a.png")
        if fits:
            assert read_picture(tmp_path / "a.png").pixels.shape == (10, 10, 1)
        else:
            with pytest.raises(DataError, match=r"is too large, at most 100 pixels are read; cut it$"):
                read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_deep_png_is_kept(tmp_path: Path, channels: int) -> None:
    """A tRNS chunk, for pixels that are exactly of its colour: low bytes count too."""
    values = pixels(channels, np.uint16)
    values[3, 4] = values[0, 0]
    values[5, 6] = values[0, 0] ^ 1
    write_picture(tmp_path / "a.png", Picture(pixels=values, alpha=None, format="PNG"))
    content = (tmp_path / "a.png").read_bytes()
    colour = values[0, 0].astype(">u2").tobytes()
    chunk = len(colour).to_bytes(4, "big") + b"tRNS" + colour + zlib.crc32(b"tRNS" + colour).to_bytes(4, "big")
    (tmp_path / "b.png").write_bytes(content.replace(content[33:37], chunk + content[33:37], 1))
    found = read_picture(tmp_path / "b.png")
    np.testing.assert_array_equal(found.pixels, values)
    assert found.alpha is not None
    assert found.alpha.dtype == np.uint16
    np.testing.assert_array_equal(found.alpha, np.where((values == values[0, 0]).all(axis=2), 0, 65535))
    assert found.alpha[3, 4] == 0 != found.alpha[5, 6]
    write_picture(tmp_path / "c.png", found)
    np.testing.assert_array_equal(read_picture(tmp_path / "c.png").alpha, found.alpha)


def test_a_bug_of_ours_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_picture", lambda *_: 1 / 0)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ZeroDivisionError):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_in_a_line_or_read(tmp_path: Path, seed: int) -> None:
    """200 files, truncated or with other bytes somewhere: DataError or a picture, nothing else."""
    draw = random.Random(seed)
    originals = []
    for name, made in (
        ("a.png", Picture(pixels=pixels(3), alpha=None, format="PNG", exif=exif())),
        ("b.png", Picture(pixels=pixels(3, np.uint16), alpha=None, format="PNG", profile=PROFILE)),
        ("c.tif", Picture(pixels=pixels(3, np.uint16), alpha=None, format="TIFF")),
        ("d.tif", Picture(pixels=pixels(1), alpha=None, format="TIFF", dpi=(10, 10))),
        ("e.jpg", Picture(pixels=pixels(3), alpha=None, format="JPEG", exif=exif())),
    ):
        write_picture(tmp_path / name, made)
        originals.append((tmp_path / name).read_bytes())
    refused = 0
    for number in range(50):
        content = bytearray(draw.choice(originals))
        if draw.random() < 0.3:
            content = content[: draw.randrange(len(content))]
        for _ in range(draw.randrange(1, 8)):
            if content:
                content[draw.randrange(min(len(content), draw.choice((64, 400, 10**6))))] = draw.randrange(256)
        file = tmp_path / f"damaged-{number}"
        file.write_bytes(content)
        try:
            write_picture(tmp_path / "written", read_picture(file))
        except DataError:
            refused += 1
    assert refused > 10


def test_memory_that_runs_out_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pictures, "_picture", scarce)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="does not fit into memory; cut it"):
        read_picture(tmp_path / "a.png")
