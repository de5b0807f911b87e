"""Image files come back as they were, with other pixels, and damaged ones are refused in a line."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from nas.bundles.pictures import read_picture, write_picture
from nas.data.image_file import ImageFile
from nas.data.images import shown_images
from nas.data.reader import read_file
from nas.data.tiff_directories import Budget, Form, read_directory, with_directories
from nas.data.white import White
from nas.errors import DataError

RANDOM = np.random.default_rng(0)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EIGHT = np.uint8
SIXTEEN = np.uint16


def pixels(channels: int, dtype: Any = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, (19, 23, channels), dtype, endpoint=True)


def exif(orientation: int = 6) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010F] = "Maker"
    return made.tobytes()


def negative(file: Path, to: Path, **known: Any) -> tuple[ImageFile, ImageFile]:
    """A file with every value turned round, written under another name; both as they are read."""
    before, level = read_picture(file, White(**known))
    write_picture(to, before, [page.with_floats(1 - page.floats(level), level) for page in before.pages])
    return before, read_picture(to, White(**known))[0]


# --- values ---
@pytest.mark.parametrize("form", ["png", "tif"])
@pytest.mark.parametrize("dtype", [EIGHT, SIXTEEN])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_files_keep_every_bit(tmp_path: Path, form: str, dtype: Any, channels: int) -> None:
    values, file = pixels(channels, dtype), tmp_path / f"a.{form}"
    squeezed = values[..., 0] if channels == 1 else values
    if form == "png":
        file.write_bytes(imagecodecs.png_encode(squeezed))
    else:
        extra = [] if channels % 2 else ["unassalpha"]
        gray = "rgb" if channels > 2 else "minisblack"
        planar = "contig" if channels > 1 else None
        tifffile.imwrite(file, squeezed, photometric=gray, extrasamples=extra, planarconfig=planar, metadata=None)
    before, level = read_picture(file, White())
    write_picture(
        tmp_path / f"b.{form}", before, [page.with_floats(page.floats(level), level) for page in before.pages]
    )
    written = (tmp_path / f"b.{form}").read_bytes()
    again = imagecodecs.png_decode(written) if form == "png" else tifffile.imread(io.BytesIO(written))
    np.testing.assert_array_equal(again, squeezed)
    assert again.dtype == dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{form}", f"b.{form}"]


@pytest.mark.parametrize("dtype", ["u2", "u4", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_tiff_keeps_its_type_and_byte_order(tmp_path: Path, dtype: str, byteorder: Any) -> None:
    kind = np.dtype(dtype)
    level = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
    values = (RANDOM.random((9, 11)) * level).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", byteorder=byteorder)
    before, after = negative(tmp_path / "a.tif", tmp_path / "b.tif")
    assert after.pages[0].pixels.dtype == kind
    assert before.kept["byteorder"] == after.kept["byteorder"] == byteorder
    wanted = level - values.astype(np.float64)
    np.testing.assert_allclose(
        after.pages[0].pixels[..., 0], wanted, rtol=2e-3 if kind == "f2" else 1e-6, atol=1e-6 * level
    )


def test_restored_values_are_clipped_to_black_and_white(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(1, SIXTEEN)[..., 0] // 16, photometric="minisblack")
    file, level = read_picture(tmp_path / "a.tif", White(given=4095))
    page = file.pages[0]
    assert (page.with_floats(page.floats(level) + 2, level).pixels == 4095).all()
    assert (page.with_floats(page.floats(level) - 2, level).pixels == 0).all()


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.bmp", lambda file, image: image.save(file)),
        ("a.ppm", lambda file, image: image.save(file)),
        ("a.webp", lambda file, image: image.save(file, lossless=True)),
    ],
)
def test_other_formats_are_restored_without_loss(tmp_path: Path, name: str, save: Any) -> None:
    values = pixels(3)
    save(tmp_path / name, Image.fromarray(values))
    before, after = negative(tmp_path / name, tmp_path / f"to-{name}")
    np.testing.assert_array_equal(before.pages[0].pixels, values)
    np.testing.assert_array_equal(after.pages[0].pixels, 255 - values)
    assert after.format == before.format


def test_a_pgm_of_12_bits_keeps_its_white(tmp_path: Path) -> None:
    values = pixels(1, SIXTEEN)[..., 0] // 16
    (tmp_path / "a.pgm").write_bytes(b"P5 23 19 4095\n" + values.astype(">u2").tobytes())
    _, after = negative(tmp_path / "a.pgm", tmp_path / "b.pgm")
    assert after.stated == 4095
    np.testing.assert_array_equal(after.pages[0].pixels[..., 0], 4095 - values)


# --- what is kept ---
def test_a_png_keeps_all_of_its_chunks(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "scope")
    info.add_itxt("Exposure", "20 ms, größer", zip=True)
    info.add(b"gAMA", struct.pack(">I", 100000))
    info.add(b"sBIT", b"\5\6\5")
    info.add(b"tIME", struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5), after_idat=True)
    Image.fromarray(pixels(3)).save(tmp_path / "a.png", pnginfo=info, dpi=(300, 150), icc_profile=PROFILE, exif=exif())
    before, after = negative(tmp_path / "a.png", tmp_path / "b.png")
    assert after.kept["chunks"] == before.kept["chunks"]
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert image.info["gamma"] == 1
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)
        assert image.info["icc_profile"] == PROFILE
        assert image.text == {"Software": "scope", "Exposure": "20 ms, größer"}
        assert image.getexif()[0x0112] == 6


def test_a_palette_png_becomes_colour_without_chunks_of_its_palette(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1)[..., 0]).convert("P")
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "scope")
    info.add(b"bKGD", b"\0")
    image.save(tmp_path / "a.png", transparency=0, pnginfo=info)
    _, after = negative(tmp_path / "a.png", tmp_path / "b.png")
    assert after.pages[0].pixels.shape == (19, 23, 3)
    assert after.pages[0].alpha is not None
    names = [name for name, _ in after.kept["chunks"]]
    assert b"tEXt" in names
    assert not {b"PLTE", b"tRNS", b"bKGD"} & set(names)


def test_a_jpeg_keeps_what_surrounds_its_pixels(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    Image.fromarray(pixels(3)).save(file, exif=exif(8), dpi=(72, 72), icc_profile=PROFILE, comment=b"field 7")
    before, after = negative(file, tmp_path / "again.jpg")
    assert after.kept == before.kept
    assert after.kept == {"exif": exif(8), "dpi": (72, 72), "icc_profile": PROFILE, "comment": b"field 7"}
    assert after.pages[0].pixels.shape == (19, 23, 3), "stored as it was, not turned"


GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), False),
    (33922, "d", 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), False),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), False),
    (34737, "s", 0, "WGS 84|", False),
]


@pytest.mark.parametrize("dtype", [EIGHT, SIXTEEN])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiff_keeps_its_tags(tmp_path: Path, dtype: Any, byteorder: Any, bigtiff: bool) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", pixels(3, dtype), photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, tile=(16, 16),
        resolution=((1000, 3), (10, 1)), resolutionunit="CENTIMETER", description="a field", software="scope",
        datetime="2026:01:02 03:04:05", iccprofile=PROFILE, metadata=None, compression="lzw", predictor=True,
        extratags=[*GEO, (274, "H", 1, 6, False), (51123, "s", 0, '{"Exposure": 20}', False)],
    )  # fmt: skip
    negative(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert after.geotiff_metadata == before.geotiff_metadata
        assert (after.byteorder, after.is_bigtiff) == (byteorder, bigtiff)
        for code in (270, 274, 282, 283, 296, 305, 306, 33550, 33922, 34675, 34735, 34737, 51123):
            assert after.pages[0].tags[code].value == before.pages[0].tags[code].value, code


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiff_keeps_exif_and_place_and_says_what_it_loses(tmp_path: Path, byteorder: Any, bigtiff: bool) -> None:
    e = byteorder
    taken = b"2026:01:02 03:04:05\0"
    version, note = (36864, 7, 4, b"0300"), (37500, 7, 6, b"at 512")
    inner = (1, 2, 4, b"R98\0")
    exposure = (33434, 5, 1, struct.pack(f"{e}II", 1, 250))
    directories: dict[int, Any] = {
        34665: (exposure, version, (36867, 2, 20, taken), note, (40965, 13 if not bigtiff else 18, 1, (inner,))),
        34853: ((1, 2, 2, b"N\0"), (2, 5, 3, struct.pack(f"{e}6I", 52, 1, 31, 1, 7, 2))),
    }
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=byteorder, bigtiff=bigtiff) as writer:
        for _ in range(2):
            writer.write(pixels(1)[..., 0], photometric="minisblack", metadata=None, subifds=1)
            writer.write(pixels(1)[::2, ::2, 0], photometric="minisblack", metadata=None, subfiletype=1)
    made = with_directories(buffer.getvalue(), [directories, {34665: (version,), 34853: ()}], Form(e, bigtiff))
    (tmp_path / "a.tif").write_bytes(made)
    before, after = negative(tmp_path / "a.tif", tmp_path / "b.tif")
    assert before.lost == ("the maker's note of its EXIF", "the smaller copies of its images (pyramid or thumbnail)")
    assert after.lost == ()
    assert after.kept == before.kept
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        first, second = (page.tags for page in file.pages)
        exif = first[34665].value
        assert (exif["ExposureTime"], exif["DateTimeOriginal"]) == ((1, 250), "2026:01:02 03:04:05")
        assert "MakerNote" not in exif
        assert first[34853].value["GPSLatitude"] == (52, 1, 31, 1, 7, 2)
        assert list(second[34665].value) == ["ExifVersion"]


INNER = (40965, 4, 1, ((1, 2, 4, b"R98\0"),))


@pytest.mark.parametrize(
    "directories",
    [
        {34665: [(40965, 4, 1, (INNER,))]},
        {34665: [INNER, INNER]},
        {34853: [INNER]},
        {34665: [(50000 + number, 7, 2**20, bytes(2**20)) for number in range(17)]},
    ],
    ids=["nested", "twice", "below GPS", "too large"],
)
def test_directories_that_could_grow_without_limit_are_damaged(tmp_path: Path, directories: dict[int, Any]) -> None:
    values, buffer = pixels(1)[..., 0], io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="minisblack", metadata=None)
    (tmp_path / "a.tif").write_bytes(with_directories(buffer.getvalue(), [directories], Form("<", False)))
    read = read_file(tmp_path / "a.tif")
    name = "EXIF" if 34665 in directories else "GPS"
    assert read.lost == (f"its damaged {name} directory",)
    assert read.kept["directories"] == [{}]
    np.testing.assert_array_equal(read.pages[0].pixels[..., 0], values)


@pytest.mark.parametrize("step", [0, 1])
def test_tags_that_name_the_same_bytes_hold_no_more_than_the_file(tmp_path: Path, step: int) -> None:
    buffer = io.BytesIO()
    extra = [(60000 + number, "B", 1000, bytes([7]) * 1000, False) for number in range(8)]
    tifffile.imwrite(buffer, pixels(1)[..., 0], photometric="minisblack", metadata=None, extratags=extra)
    made = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(made)) as file:
        tags = [tag for tag in file.pages[0].tags if tag.code >= 60000]
        for number, tag in enumerate(tags):
            struct.pack_into("<II", made, tag.offset + 4, 6000, tags[0].valueoffset + step * number)
    (tmp_path / "a.tif").write_bytes(made)
    read = read_file(tmp_path / "a.tif")
    kept = [content for code, _, _, content in read.pages[0].tags if code >= 60000]
    assert [len(content) for content in kept] == [6000] * (1 if step else 8)
    assert len({id(content) for content in kept}) == 1
    assert read.lost == (("tags whose contents overlap",) if step else ())


class Counted(io.BytesIO):
    """A file that counts its directories as they are read."""

    directories = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.directories += size == 2
        return super().read(size)


def test_nothing_below_an_interoperability_directory_is_followed() -> None:
    below = b"".join(
        struct.pack("<H", 2) + struct.pack("<HHII", 40965, 4, 1, 30 * (level + 1)) * 2 + bytes(4) for level in range(3)
    )
    file = Counted(below + struct.pack("<H", 0) + bytes(4))
    with pytest.raises(ValueError, match="at a place where none may be"):
        read_directory(file, 0, Form("<", False), Budget(), inner=True)
    assert file.directories == 2, "EXIF and the first below it"


def test_the_pages_of_a_tiff_share_one_budget_for_directories() -> None:
    named = [struct.pack("<HHII", 50000 + number, 7, 100, 200) for number in range(3)]
    file = io.BytesIO((struct.pack("<H", 3) + b"".join(named) + bytes(4)).ljust(300, b"\7"))
    budget = Budget(tags=9, size=800)
    for left in ((6, 500), (3, 200)):
        tags, _ = read_directory(file, 0, Form("<", False), budget, inner=True)
        assert tags[2] == (50002, 7, 100, b"\7" * 100)
        assert (budget.tags, budget.size) == left
    with pytest.raises(ValueError, match="tag 50002 of 100 bytes"):
        read_directory(file, 0, Form("<", False), budget, inner=True)
    with pytest.raises(ValueError, match="too many tags"):
        read_directory(file, 0, Form("<", False), Budget(tags=0), inner=True)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("channels", "photometric", "extra"),
    [(3, "rgb", []), (4, "rgb", ["unassalpha"]), (2, "minisblack", None), (3, "minisblack", None), (7, "rgb", None)],
)
def test_channels_of_a_tiff_keep_their_meaning_and_place(
    tmp_path: Path, planar: bool, channels: int, photometric: str, extra: list[str] | None
) -> None:
    values = pixels(channels, SIXTEEN)
    if extra:
        values[..., 3] = 65535
    bands = ["unspecified"] * (channels - (3 if photometric == "rgb" else 1))
    layout = {"planarconfig": "separate" if planar else "contig", "extrasamples": bands if extra is None else extra}
    stored = values.transpose(2, 0, 1) if planar else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **layout)
    negative(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        wanted = 65535 - values
        if extra:
            wanted[..., 3] = 65535
        np.testing.assert_array_equal(after.asarray(), wanted.transpose(2, 0, 1) if planar else wanted)
        assert after.shaped_metadata == before.shaped_metadata
        for name in ("photometric", "planarconfig", "extrasamples", "shape", "dtype"):
            assert getattr(after.pages[0], name) == getattr(before.pages[0], name), name


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 5), (5, 9, 11), (1, 9, 11)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_keeps_its_axes_type_and_order(tmp_path: Path, dtype: str, shape: tuple[int, ...], order: Any) -> None:
    kind = np.dtype(dtype)
    full = 1 if kind.kind == "f" else np.iinfo(kind).max
    values = np.asarray(RANDOM.integers(0, 256, shape) / 255 * full, dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    negative(tmp_path / "a.npy", tmp_path / "b.npy")
    found = np.load(tmp_path / "b.npy", allow_pickle=False)
    np.testing.assert_allclose(found, full - values, atol=1e-6)
    assert (found.dtype.str, found.shape) == (values.dtype.str, shape)
    assert found.flags.f_contiguous == values.flags.f_contiguous


def test_exif_that_another_program_wrote_is_kept(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x8769] = {0x9003: "2026:01:02 03:04:05", 0x829A: 0.004, 0xA434: "a lens with a long name"}
    tags[0x8825] = {1: "N", 2: (52.0, 31.0, 3.5)}
    Image.fromarray(pixels(3)).save(tmp_path / "a.tif", tiffinfo=tags)
    before, _ = negative(tmp_path / "a.tif", tmp_path / "b.tif")
    assert before.lost == ()
    with Image.open(tmp_path / "a.tif") as one, Image.open(tmp_path / "b.tif") as other:
        for directory in (0x8769, 0x8825):
            assert other.getexif().get_ifd(directory) == one.getexif().get_ifd(directory) != {}


STACK = np.stack([RANDOM.integers(0, 65535, (9, 11), np.uint16) for _ in range(6)])


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.3, "unit": "um"}, "truncate": True},
        {"imagej": True, "metadata": {"axes": "TYX", "finterval": 2.5, "Labels": list("abcdef")}},
        {"truncate": True, "metadata": {"axes": "TYX", "exposure": 20}},
        {"metadata": {"axes": "CYX"}},
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.065, "PhysicalSizeXUnit": "µm"}},
    ],
)
def test_a_stack_keeps_its_pages_and_axes(tmp_path: Path, options: dict[str, Any]) -> None:
    resolution = (1 / 0.065, 1 / 0.065)
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", resolution=resolution, **options)
    negative(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        np.testing.assert_array_equal(after.asarray(), 65535 - STACK)
        assert after.series[0].axes == before.series[0].axes
        assert after.series[0].shape == before.series[0].shape
        assert after.imagej_metadata == before.imagej_metadata
        assert after.ome_metadata == before.ome_metadata
        for told in (before.shaped_metadata, after.shaped_metadata):
            assert told is None or ("exposure" not in options.get("metadata", {})) or told[0]["exposure"] == 20
        assert after.pages[0].resolution == pytest.approx(before.pages[0].resolution)
        assert after.pages[0].resolutionunit == before.pages[0].resolutionunit


def test_each_page_of_a_tiff_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for resolution, unit, orientation in ((300, "INCH", 1), (200, "CENTIMETER", 6), (7, "NONE", 3)):
            told = [(274, "H", 1, orientation, True)]
            writer.write(
                pixels(1)[..., 0], photometric="minisblack", metadata=None, extratags=told,
                resolution=(resolution, resolution), resolutionunit=unit,
            )  # fmt: skip
    before, after = negative(tmp_path / "a.tif", tmp_path / "b.tif")
    for pages in (before.pages, after.pages):
        assert [page.orientation for page in pages] == [1, 6, 3]
        assert [page.resolution for page in pages] == [
            ((300, 1), (300, 1), 2),
            ((200, 1), (200, 1), 3),
            ((7, 1), (7, 1), 1),
        ]
    assert [image.size for image in shown_images(before, 255)] == [(23, 19), (19, 23), (23, 19)]


def test_printing_colours_of_a_later_page_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pixels(3), photometric="rgb", metadata=None)
        writer.write(pixels(4), photometric="separated", metadata=None)
    with pytest.raises(DataError, match="has the mode CMYK"):
        read_picture(tmp_path / "a.tif", White())


def test_a_bmp_keeps_its_alpha(tmp_path: Path) -> None:
    values = pixels(4)
    header = struct.pack("<IiiHHIIiiII", 124, 23, 19, 1, 32, 3, values.size, 3780, 3780, 0, 0)  # as GIMP writes it
    masks = struct.pack("<4I4s64x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    begin = struct.pack("<2sIHHI", b"BM", 138 + values.size, 0, 0, 138)
    (tmp_path / "a.bmp").write_bytes(begin + header + masks + values[::-1, :, [2, 1, 0, 3]].tobytes())
    before, after = negative(tmp_path / "a.bmp", tmp_path / "b.bmp")
    np.testing.assert_array_equal(before.pages[0].pixels, values[..., :3])
    opaque = values[..., 3:] > 0
    np.testing.assert_array_equal(after.pages[0].pixels, np.where(opaque, 255 - values[..., :3], values[..., :3]))
    np.testing.assert_array_equal(after.pages[0].alpha, values[..., 3])
    assert after.kept["dpi"] == pytest.approx(before.kept["dpi"])


def test_images_behind_the_first_one_of_a_jpeg_are_told_as_lost(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(pixels(3)) for _ in range(3))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=others)
    before, after = negative(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert before.lost == ("the 2 images behind its first one",)
    assert after.lost == ()


def test_pages_of_several_sizes_are_all_restored(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number in range(3):
            page = pixels(1)[: 9 + number, : 12 - number, 0]
            writer.write(page, photometric="minisblack", metadata=None, description=f"page {number}")
    before, after = negative(tmp_path / "a.tif", tmp_path / "b.tif")
    for one, other in zip(before.pages, after.pages, strict=True):
        np.testing.assert_array_equal(one.pixels, 255 - other.pixels)
        assert [tag for tag in one.tags if tag[0] == 270] == [tag for tag in other.tags if tag[0] == 270]


# --- white ---
@pytest.mark.parametrize(
    ("most", "known", "level"),
    [
        (60000, {}, 65535),
        (4095, {"given": 4095}, 4095),
        (4095, {"trained": 4095}, 4095),
        (4095, {"given": 65535}, 65535),
        (4095, {"given": 65535, "trained": 4095}, 65535),
        (600, {"given": 600}, 600),
        (700, {"given": 600}, 600),  # noise leads beyond white
        (0, {}, 65535),  # a frame without light
    ],
)
def test_the_white_level_of_16_bits(tmp_path: Path, most: int, known: dict[str, float], level: float) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.linspace(0, most, 99).reshape(9, 11).astype(np.uint16), photometric="minisblack"
    )
    assert read_picture(tmp_path / "a.tif", White(**known))[1] == level


@pytest.mark.parametrize(
    ("values", "tags", "known", "told"),
    [
        (
            np.uint16([[0, 4095]]),
            [],
            {},
            r"its values end at 4,095, far below the 65,535 of their type, .*`white_level`",
        ),
        (np.uint32([[0, 65535]]), [], {}, "its values end at 65,535, far below the 4,294,967,295 of their type"),
        (np.float32([[0, 0.01]]), [], {}, "its values end at 0.01.*, far below the 1 of their type"),
        (np.uint16([[0, 5000]]), [], {"given": 1000}, "values from 0 to 5,000, and black is 0 and white 1,000"),
        (np.float32([[0, 1.5]]), [], {}, "values from 0 to 1.5, and black is 0 and white 1"),
        (np.int16([[-1, 30000]]), [], {}, "values from -1 to 30,000"),
        (np.uint16([[0, 1000]]), [1023], {"trained": 4095}, "says that white is 1,023, and the network .* 4,095"),
        (np.float32([[0, 1]]), [], {"trained": 4095}, "its values are fractions up to 1, and white would be 4,095"),
    ],
)
def test_a_white_level_that_nobody_knows_is_asked_for(
    tmp_path: Path, values: np.ndarray, tags: list[int], known: dict[str, float], told: str
) -> None:
    file = tmp_path / "a.tif"
    extra = [(281, "H", 1, level, False) for level in tags]
    tifffile.imwrite(file, np.repeat(values, 2, 0), photometric="minisblack", extratags=extra)
    with pytest.raises(DataError, match=told) as found:
        read_picture(file, White(**known))
    assert "\n" not in str(found.value)


def test_eight_bits_have_255_whatever_a_network_was_trained_on(tmp_path: Path) -> None:
    Image.fromarray(pixels(1)[..., 0] // 8).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", White(trained=4095))[1] == 255
    assert read_picture(tmp_path / "a.png", White(given=31))[1] == 31


# --- refusals ---
def test_what_could_not_be_written_again_is_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels(3)).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(pixels(3)).save(tmp_path / "old.gif")
    frames = [Image.fromarray(pixels(3)) for _ in range(2)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (
        ("print.jpg", "has the mode CMYK"),
        ("old.gif", "is GIF"),
        ("moving.png", "holds 2 images"),
        ("text.png", "cannot be read"),
        ("none.png", "No such file"),
    ):
        with pytest.raises(DataError, match=reason) as found:
            read_picture(tmp_path / name, White())
        assert "\n" not in str(found.value)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bomb.png: is too large, at most 178956970 pixels are read; cut it$"):
        read_picture(tmp_path / "bomb.png", White())


def test_the_limit_of_pixels_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for side, fits in ((10, True), (11, False)):
        Image.new("L", (10, side)).save(tmp_path / "a.png")
        if fits:
            assert read_picture(tmp_path / "a.png", White())[0].pages[0].pixels.shape == (10, 10, 1)
        else:
            with pytest.raises(DataError, match=r"is too large, at most 100 pixels are read; cut it$"):
                read_picture(tmp_path / "a.png", White())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_deep_png_is_kept(tmp_path: Path, channels: int) -> None:
    """A tRNS chunk, for pixels that are exactly of its colour: low bytes count too."""
    values = pixels(channels, SIXTEEN)
    values[3, 4] = values[0, 0]
    values[5, 6] = values[0, 0] ^ 1
    content = imagecodecs.png_encode(values[..., 0] if channels == 1 else values)
    colour = values[0, 0].astype(">u2").tobytes()
    chunk = len(colour).to_bytes(4, "big") + b"tRNS" + colour + zlib.crc32(b"tRNS" + colour).to_bytes(4, "big")
    (tmp_path / "b.png").write_bytes(content[:33] + chunk + content[33:])
    before, after = negative(tmp_path / "b.png", tmp_path / "c.png")
    np.testing.assert_array_equal(before.pages[0].pixels, values)
    alpha = np.where((values == values[0, 0]).all(axis=2), 0, 65535)
    np.testing.assert_array_equal(before.pages[0].alpha, alpha)
    np.testing.assert_array_equal(after.pages[0].alpha, alpha)
    assert alpha[3, 4] == 0 != alpha[5, 6]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_in_a_line_or_read(tmp_path: Path, seed: int) -> None:
    """200 files, truncated or with other bytes somewhere: DataError or a picture, nothing else."""
    draw = random.Random(seed)
    originals = []
    Image.fromarray(pixels(3)).save(tmp_path / "a.png", exif=exif())
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(pixels(3, SIXTEEN)))
    tifffile.imwrite(tmp_path / "c.tif", pixels(3, SIXTEEN), photometric="rgb")
    Image.fromarray(pixels(3)).save(tmp_path / "d.jpg", exif=exif())
    Image.fromarray(pixels(1)[..., 0]).save(tmp_path / "e.pgm")
    Image.fromarray(pixels(3)).save(tmp_path / "f.webp")
    for file in sorted(tmp_path.iterdir()):
        originals.append(file.read_bytes())
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
            picture, _ = read_picture(file, White(ask=False))
            write_picture(tmp_path / "written", picture, picture.pages)
        except DataError:
            refused += 1
    assert refused > 10


def test_a_description_stays_json(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", truncate=True, metadata={"axes": "ZYX"})
    negative(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert json.loads(after.pages[0].description) == {"shape": [6, 9, 11], "axes": "ZYX"}
        assert len(after.pages) == 6
