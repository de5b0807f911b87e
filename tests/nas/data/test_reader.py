"""Every value that numpy wrote comes back from an image file, or one line says why not."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import plain
from nas.data.image_file import ImageFile, turned
from nas.data.reader import read_file, shapes_of
from nas.errors import DataError

TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
REFUSED_TYPES = ("u8", "i8", "c8")
COMPRESSIONS = (None, "zlib", "lzw", "zstd", "packbits", "lzma")
CHANNELS = {"gray": 1, "gray and alpha": 2, "rgb": 3, "rgb and alpha": 4}


def drawn(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values over the whole range of a type; floats in [0, 1]."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind in "fc":
        return generator.random(shape).astype(kind)
    information = np.iinfo(kind)
    return generator.integers(information.min, information.max, shape, kind, endpoint=True)


def stored(file: ImageFile) -> np.ndarray:
    """The samples of all pages, (N, H, W, C and alpha)."""
    return np.stack(
        [
            page.pixels if page.alpha is None else np.concatenate((page.pixels, page.alpha[..., None]), axis=2)
            for page in file.pages
        ]
    )


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(TYPES + REFUSED_TYPES),
    channels=st.sampled_from(list(CHANNELS)),
    byteorder=st.sampled_from("<>"),
    compression=st.sampled_from(COMPRESSIONS),
    predictor=st.booleans(),
    planar=st.booleans(),
    tiled=st.booleans(),
    bigtiff=st.booleans(),
    inverted=st.booleans(),
    premultiplied=st.booleans(),
    pages=st.integers(1, 3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rows=st.none() | st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_every_value_of_a_tiff_comes_back(tmp_path_factory: pytest.TempPathFactory, **case: Any) -> None:
    count = CHANNELS[case["channels"]]
    planar = case["planar"] and count > 1
    values = drawn(case["seed"], (case["pages"], *case["size"], count), case["dtype"])
    inverted = case["inverted"] and count == 1
    predictor = (
        case["predictor"] and case["compression"] not in (None, "packbits") and case["dtype"] not in REFUSED_TYPES
    )
    file = tmp_path_factory.mktemp("tiff") / "image.tif"
    with tifffile.TiffWriter(file, byteorder=case["byteorder"], bigtiff=case["bigtiff"]) as writer:
        for page in values:
            writer.write(
                page[..., 0] if count == 1 else page.transpose(2, 0, 1) if planar else page,
                photometric="rgb" if count > 2 else "miniswhite" if inverted else "minisblack",
                planarconfig=None if count == 1 else "separate" if planar else "contig",
                extrasamples=[] if count % 2 else ["assocalpha" if case["premultiplied"] else "unassalpha"],
                compression=case["compression"],
                predictor=predictor or None,
                tile=(16, 32) if case["tiled"] else None,
                rowsperstrip=None if case["tiled"] else case["rows"],
                metadata=None,
            )
    if case["dtype"] in REFUSED_TYPES:
        with pytest.raises(
            DataError, match=r"image .*image.tif: has (integers of 64 bits|samples of 64 bits)"
        ) as found:
            read_file(file)
        assert "\n" not in str(found.value)
        return
    found_file = read_file(file)
    np.testing.assert_array_equal(stored(found_file), values)
    assert found_file.pages[0].pixels.dtype == np.dtype(case["dtype"])
    assert all(page.inverted == inverted for page in found_file.pages)
    assert all(page.premultiplied == (count % 2 == 0 and case["premultiplied"]) for page in found_file.pages)
    assert shapes_of(file) == [case["size"]] * case["pages"]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(("u1", "u2")),
    channels=st.sampled_from(list(CHANNELS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from(("png", "pnm", "text")),
    seed=st.integers(0, 2**32),
)
def test_every_value_of_a_png_or_pgm_comes_back(tmp_path_factory: pytest.TempPathFactory, **case: Any) -> None:
    count = CHANNELS[case["channels"]]
    if case["kind"] != "png" and count % 2 == 0:
        count -= 1
    values = drawn(case["seed"], (*case["size"], count), case["dtype"])
    file = tmp_path_factory.mktemp("plain") / "image"
    height, width = case["size"]
    head = f"\n# a comment\n{width} {height}\n{np.iinfo(values.dtype).max}\n"
    if case["kind"] == "png":
        file.write_bytes(imagecodecs.png_encode(values if count > 1 else values[..., 0]))
    elif case["kind"] == "text":
        file.write_text({1: "P2", 3: "P3"}[count] + head + " ".join(map(str, values.ravel())) + "\n")
    else:
        file.write_bytes(
            ({1: "P5", 3: "P6"}[count] + head).encode() + values.astype(values.dtype.newbyteorder(">")).tobytes()
        )
    np.testing.assert_array_equal(stored(read_file(file))[0], values)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("inverted", [False, True])
def test_few_bits_are_brought_to_eight(tmp_path: Path, bits: int, inverted: bool) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2**bits
    photometric = "miniswhite" if inverted else "minisblack"
    tifffile.imwrite(
        tmp_path / "few.tif", values.astype(bool) if bits == 1 else values, photometric=photometric,
        bitspersample=bits, metadata=None,
    )  # fmt: skip
    shown = read_file(tmp_path / "few.tif").pages[0].shown(255)[..., 0]
    full = values * (255 // (2**bits - 1))
    np.testing.assert_array_equal(shown, 255 - full if inverted else full)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_state_their_white(tmp_path: Path, bits: int) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    tifffile.imwrite(tmp_path / "packed.tif", values, photometric="minisblack", bitspersample=bits, metadata=None)
    file = read_file(tmp_path / "packed.tif")
    np.testing.assert_array_equal(file.pages[0].pixels[..., 0], values)
    assert file.stated == file.full == 2**bits - 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"extrasamples": ["unspecified", "unassalpha", "unspecified"], "photometric": "minisblack"},
            "has alpha among 4 samples",
        ),
        ({"photometric": "cielab"}, "has the photometric interpretation CIELAB"),
        ({"photometric": "miniswhite"}, "has more samples beside a palette or inverted"),
        ({"photometric": "separated"}, "has CMYK colours of more than 8 bits"),
    ],
)
def test_channels_that_could_be_misread_are_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    options = {"planarconfig": "contig"} | options
    values = drawn(0, (9, 9, 3 if options["photometric"] == "cielab" else 4), "u2")
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **options)
    with pytest.raises(DataError, match=told):
        read_file(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("channels", "photometric"), [(2, "minisblack"), (3, "minisblack"), (4, "rgb"), (16, "rgb")])
def test_every_channel_of_a_tiff_comes_back(tmp_path: Path, channels: int, photometric: str, planar: bool) -> None:
    values, file = drawn(0, (2, 19, 23, channels), "u2"), tmp_path / "a.tif"
    bands = channels - (3 if photometric == "rgb" else 1)
    layout = {"planarconfig": "separate" if planar else "contig", "extrasamples": ["unspecified"] * bands}
    tifffile.imwrite(file, np.moveaxis(values, 3, 1) if planar else values, photometric=photometric, **layout)
    found = read_file(file)
    np.testing.assert_array_equal(stored(found), values)
    assert [(page.bands, page.planar, page.alpha) for page in found.pages] == [(bands, planar, None)] * 2
    assert shapes_of(file) == [(19, 23)] * 2


def test_more_than_16_channels_and_samples_of_unknown_meaning_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", drawn(0, (9, 9, 17), "u1"), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"a.tif: has 17 samples a pixel; at most 16 channels are read, split it$"):
        read_file(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", drawn(0, (9, 9, 4), "u1"), photometric="rgb", extrasamples=["unspecified"])
    content = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content.replace(struct.pack("<H", 338), struct.pack("<H", 65000), 1))
    with pytest.raises(DataError, match=r"does not say whether its last sample is alpha or a channel"):
        read_file(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 7), "HW"),
        ((9, 11, 1), "HWC"),
        ((1, 9, 11), "CHW"),
        ((8, 8, 3), "HWC"),
        ((3, 8, 8), "CHW"),
        ((40, 30, 16), "HWC"),
        ((16, 40, 30), "CHW"),
    ],
)
def test_every_value_of_an_array_comes_back(tmp_path: Path, shape: tuple[int, ...], axes: str, dtype: str) -> None:
    values = drawn(0, shape, dtype.lstrip("<>")).astype(dtype)
    np.save(tmp_path / "a.npy", values if dtype != "<u2" else np.asfortranarray(values))
    file = read_file(tmp_path / "a.npy")
    (page,) = file.pages
    assert file.kept == {"axes": axes, "fortran": dtype == "<u2"}
    wanted = values[..., None] if axes == "HW" else np.moveaxis(values, 0, 2) if axes == "CHW" else values
    np.testing.assert_array_equal(page.pixels, wanted)
    assert page.pixels.dtype == np.dtype(dtype)
    assert shapes_of(tmp_path / "a.npy") == [wanted.shape[:2]]
    assert file.full == {"u1": 255, "u2": 65535}.get(dtype[-2:], 1)


class Trap:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


NO_IMAGES: dict[str, tuple[Any, str]] = {
    "both ways": (np.zeros((16, 64, 16)), "is an array of 16x64x16, which may be HxWxC or CxHxW; save it as a TIFF"),
    "no channels": (np.zeros((64, 64, 17)), "is an array of 64x64x17; HxW, HxWxC and CxHxW are read, with 1 to 16"),
    "small": (np.zeros((7, 9, 3)), "is an array of 7x9x3; HxW"),
    "stack": (np.zeros((2, 9, 9, 3)), "is an array of 2x9x9x3; HxW"),
    "empty": (np.zeros((0, 9)), "is an array of 0x9; HxW"),
    "number": (np.float64(1), "is an array of one number; HxW"),
    "type": (np.zeros((9, 9), "i4"), "holds values of type int32; uint8, uint16 and floats are read, convert it"),
    "truth": (np.zeros((9, 9), bool), "holds values of type bool; uint8"),
    "complex": (np.zeros((9, 9), "c8"), "holds values of type complex64; uint8"),
    "objects": (np.array([[Trap()] * 9] * 9), "holds values of type object; uint8"),
    "nan": (np.full((9, 9), np.nan), "has values that are no finite numbers"),
}


@pytest.mark.parametrize("case", NO_IMAGES)
def test_an_array_that_is_no_image_is_refused_and_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    values, told = NO_IMAGES[case]
    np.save("a.npy", values, allow_pickle=True)
    with pytest.raises(DataError) as error:
        read_file(Path("a.npy"))
    assert str(error.value).startswith(f"image a.npy: {told}")
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("kept", [5, 40, 130, 500])
def test_an_array_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 40)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:kept])
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "a.npy")


def test_colours_of_a_palette(tmp_path: Path) -> None:
    indices = drawn(0, (9, 9), "u1")
    for name, palette, dtype in (
        ("eight", np.arange(256) * 257, np.uint8),
        ("shifted", np.arange(256) << 8, np.uint8),
        ("old", np.arange(256), np.uint8),
        ("deep", np.arange(256) * 200, np.uint16),
    ):
        colormap = np.stack([palette, palette[::-1], 0 * palette]).astype(np.uint16)
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, indices, photometric="palette", colormap=colormap, metadata=None)
        pixels = read_file(file).pages[0].pixels
        wanted = colormap.T[indices] if name in ("deep", "old") else colormap.T[indices] >> 8
        np.testing.assert_array_equal(pixels, wanted)
        assert pixels.dtype == dtype


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("tiled", [False, True])
def test_jpeg_in_a_tiff_is_decoded_as_pillow_does(tmp_path: Path, photometric: str, tiled: bool) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    values = np.stack([smooth, 255 - smooth, smooth // 2], 2) if photometric == "rgb" else smooth
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric=photometric, compression="jpeg", tile=(16, 16) if tiled else None
    )
    with Image.open(tmp_path / "a.tif") as image:
        wanted = np.atleast_3d(np.asarray(image.convert("RGB" if photometric == "rgb" else "L")))
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif").pages[0].pixels, wanted)


@pytest.mark.parametrize(
    ("tag", "level"),
    [((281, "H", 1, 4095, False), 4095), ((341, "H", 1, 1023, False), 1023), ((281, "H", 1, 65535, False), None)],
)
def test_a_tiff_states_its_white_level(tmp_path: Path, tag: tuple[Any, ...], level: float | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", drawn(0, (9, 9), "u2"), photometric="minisblack", extratags=[tag])
    assert read_file(tmp_path / "a.tif").stated == level
    tifffile.imwrite(tmp_path / "b.tif", drawn(0, (9, 9), "u1"), photometric="minisblack", extratags=[tag])
    assert read_file(tmp_path / "b.tif").stated is None, "8 bits have 255 levels above black, whatever they once had"


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk, behind its header."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    ("values", "level"),
    [
        (np.arange(4096).reshape(64, 64), 4095),  # stored as they come
        (np.arange(4096).reshape(64, 64) << 4, 65535),  # scaled, as the specification asks
        (np.arange(64).reshape(8, 8) << 4, 65535),  # scaled, of a dark image
    ],
)
def test_significant_bits_of_a_png_state_its_white_level(tmp_path: Path, values: np.ndarray, level: float) -> None:
    png = imagecodecs.png_encode(values.astype(np.uint16))
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"sBIT", b"\x0c"))
    assert read_file(tmp_path / "a.png").stated == level
    (tmp_path / "b.png").write_bytes(png)
    assert read_file(tmp_path / "b.png").stated is None


def test_a_pgm_states_its_white_level(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 4095\n\x0f\xff\x00\x01")
    file = read_file(tmp_path / "a.pgm")
    assert (file.stated, file.pages[0].pixels.ravel().tolist()) == (4095, [4095, 1])


STACK = np.stack([np.full((9, 11), 1000 * i, np.uint16) for i in range(5)])


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}, "truncate": True},
        {"truncate": True},
        {"metadata": {"axes": "CYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"metadata": None, "compression": "lzw"},
    ],
)
def test_every_page_of_a_stack_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack", **options)
    file = read_file(tmp_path / "stack.tif")
    np.testing.assert_array_equal(stored(file)[..., 0], STACK)
    assert shapes_of(tmp_path / "stack.tif") == [(9, 11)] * 5


def test_smaller_copies_of_an_image_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(STACK[1], photometric="minisblack", metadata=None)
        writer.write(STACK[1][::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    assert [page.pixels.shape for page in read_file(tmp_path / "pyramid.tif").pages] == [(9, 11, 1)]
    with tifffile.TiffWriter(tmp_path / "masked.tif") as writer:
        writer.write(STACK[1], photometric="minisblack", metadata=None)
        writer.write(STACK[1] > 0, photometric="mask", subfiletype=4, metadata=None)
    with pytest.raises(DataError, match="has a page that is a mask for another one"):
        read_file(tmp_path / "masked.tif")


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("cut", lambda content: content[:-300], "it is damaged"),
        ("chain", lambda content: content.replace(b"images=5", b"images=9"), "says that it has 9 images, and has 5"),
    ],
)
def test_a_stack_that_lost_pages_is_refused(tmp_path: Path, name: str, damage: Any, told: str) -> None:
    file = tmp_path / f"{name}.tif"
    tifffile.imwrite(file, STACK, imagej=True, photometric="minisblack", metadata={"axes": "ZYX"})
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=told):
        read_file(file)


def test_a_list_of_pages_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, STACK, photometric="minisblack", metadata=None, compression="zlib")
    with tifffile.TiffFile(file) as opened:
        last = opened.pages[-1].offset
    file.write_bytes(file.read_bytes()[: last + 1])
    with pytest.raises(DataError, match="its list of pages is cut off"):
        read_file(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = np.full((9, 9), 0.5, np.float32)
    values[4, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    with pytest.raises(DataError, match="no finite numbers"):
        read_file(tmp_path / "a.tif")


def test_pixels_without_data_are_refused(tmp_path: Path) -> None:
    values = drawn(0, (9, 9), "u2")
    values[3, 3] = 65535
    tag = (42113, "s", 0, "65535", False)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=[tag])
    with pytest.raises(DataError, match=r"marks pixels without data by 65535 \(GDAL_NODATA\)"):
        read_file(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_and_pixels_stay_as_they_are_stored(tmp_path: Path, orientation: int) -> None:
    values = drawn(0, (19, 23, 3), "u1")
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)], metadata=None
    )
    file = read_file(tmp_path / "a.tif")
    np.testing.assert_array_equal(file.pages[0].pixels, values)
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(turned(file.pages[0].pixels, file.pages[0].orientation), np.asarray(image))
    made = Image.Exif()
    made[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "b.png", exif=made)
    assert read_file(tmp_path / "b.png").pages[0].orientation == orientation


# --- what a network sees ---
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_transparent_pixels_are_black_and_stay_as_they_are(tmp_path: Path, dtype: str) -> None:
    white = np.iinfo(dtype).max
    colours = drawn(1, (2, 3, 3), dtype)
    alpha = np.array([[0, white, white // 3], [white, 0, white]], dtype)
    file = tmp_path / "a.png"
    file.write_bytes(imagecodecs.png_encode(np.dstack([colours, alpha])))
    page = read_file(file).pages[0]
    opacity = (alpha / white)[..., None]
    shown = page.shown(white) if dtype == "u1" else page.shown(white) * white
    np.testing.assert_allclose(shown, colours * opacity, atol=0.5 if dtype == "u1" else 0.05)
    floats = page.floats(white)
    np.testing.assert_allclose(floats * white, np.where(opacity > 0, colours, 0), atol=0.05)
    back = page.with_floats(1 - floats, white)
    np.testing.assert_array_equal(back.pixels, np.where(opacity > 0, white - colours, colours))


def test_premultiplied_colours_are_divided_and_multiplied(tmp_path: Path) -> None:
    colours = np.full((8, 8, 3), 200, np.uint8)
    alpha = np.tile(np.array([0, 51, 102, 255], np.uint8), (8, 2))
    stored_colours = np.rint(colours * (alpha / 255)[..., None]).astype(np.uint8)
    values = np.dstack([stored_colours, alpha])
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    page = read_file(tmp_path / "a.tif").pages[0]
    floats = page.floats(255)
    np.testing.assert_allclose(floats[alpha > 0], 200 / 255, atol=0.01)
    assert (floats[alpha == 0] == 0).all()
    np.testing.assert_array_equal(page.with_floats(floats, 255).pixels, stored_colours)
    np.testing.assert_array_equal(page.shown(255), stored_colours)


def test_inverted_values_are_turned_round_and_back(tmp_path: Path) -> None:
    values = drawn(0, (9, 9), "u2")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    page = read_file(tmp_path / "a.tif").pages[0]
    np.testing.assert_allclose(page.floats(65535)[..., 0], 1 - values / 65535, atol=1e-6)
    np.testing.assert_array_equal(page.with_floats(page.floats(65535), 65535).pixels[..., 0], values)


# --- damage ---
def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "bomb.tif", drawn(0, (9, 9), "u1"), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "bomb.tif").read_bytes())
    for code in (256, 257):
        at = content.index(struct.pack("<HH", code, 4)) + 8
        content[at : at + 4] = struct.pack("<I", 60000)
    (tmp_path / "bomb.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"bomb.tif: is too large, at most 178956970 pixels are read; cut it$"):
        read_file(tmp_path / "bomb.tif")


def test_a_bug_of_ours_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_page", lambda *_: 1 / 0)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ZeroDivisionError):
        read_file(tmp_path / "a.png")


def test_memory_that_runs_out_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(plain, "_page", scarce)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="does not fit into memory; cut it"):
        read_file(tmp_path / "a.png")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_tiffs_are_refused_in_a_line_or_read(tmp_path: Path, seed: int) -> None:
    """200 files, truncated or with other bytes somewhere: DataError or an image, nothing else."""
    draw = random.Random(seed)
    originals = []
    for number, options in enumerate(
        (
            {"photometric": "rgb", "compression": "lzw", "predictor": True},
            {"photometric": "rgb", "tile": (16, 16), "byteorder": ">"},
            {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 5, "description": "x", "software": "y"},
            {"photometric": "minisblack", "bigtiff": True, "planarconfig": "separate"},
            {"photometric": "minisblack", "imagej": True},
        )
    ):
        values = drawn(number, (19, 23, 3), "u2")
        tifffile.imwrite(tmp_path / "a.tif", values if options["photometric"] == "rgb" else values[..., 0], **options)
        originals.append((tmp_path / "a.tif").read_bytes())
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
            read_file(file)
        except DataError:
            refused += 1
    assert refused > 10
