"""Promises about pictures that decoders read wrongly, or refuse without reason: right pixels, or a reason."""

import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from shards import ShardsError
from shards.__main__ import main
from shards.dataset.adopt import reindex
from shards.errors import ImageError
from shards.pictures.codec import decode
from tests.shards.dataset.foreign import write
from tests.shards.pictures import odd_pictures as odd
from tests.shards.pictures.odd_pictures import blocks, chunk, saved

TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's numbers of the same turns


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "L", {"quality": 95}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("TIFF", "RGB", {}),
    ],
)
def test_any_format_is_turned_as_its_exif_says(form, mode, options, orientation):
    image = Image.fromarray(blocks()[:36])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    data = saved(image, form, exif=odd.exif(orientation), **options)
    stored = Image.fromarray(decode(saved(image, form, **options)))
    wanted = stored.transpose(Image.Transpose(TURNED[orientation])) if orientation > 1 else stored
    assert (decode(data) == np.asarray(wanted)).all()


def test_orientation_behind_the_pixels_or_in_xmp_alone_counts_too():
    rows = [bytes(row) for row in blocks().reshape(48, -1)]
    block = odd.exif(6).tobytes().removeprefix(b"Exif\0\0")
    behind = odd.png(rows, width=48, depth=8, kind=2, after=[chunk(b"eXIf", block)])
    wanted = np.rot90(blocks(), 3)
    assert (decode(behind) == wanted).all()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    found = decode(saved(Image.fromarray(blocks()), "JPEG", quality=95, xmp=xmp))
    assert np.abs(found.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize("name", ["exif.jpg", "exif.png", "exif.webp", "icc.jpg", "icc.png", "icc.webp"])
def test_what_would_have_to_be_turned_or_converted_is_not_adopted(tmp_path, name):
    form = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.split(".")[1]]
    more = {"exif": odd.exif(6)} if name.startswith("exif") else {"icc_profile": odd.wide_gamut()}
    data = saved(Image.fromarray(blocks()), form, **more)
    url = write(tmp_path / "set", [(f"a.{name.split('.')[1]}", data)])
    with pytest.raises(
        ShardsError, match=r"sample a.*(turns it|colour profile).*python -m shards build webdataset"
    ):
        reindex(url)


def test_harmless_exif_and_profiles_are_adopted(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    members = [
        (f"{number}.jpg", saved(Image.fromarray(blocks()), "JPEG", **more))
        for number, more in enumerate(
            [{"exif": odd.exif(1)}, {"icc_profile": srgb}, {"icc_profile": b"broken"}]
        )
    ]
    assert reindex(write(tmp_path / "set", members)).samples == 3


def test_a_dataset_that_an_older_index_adopted_is_told_by_verify(tmp_path, monkeypatch, capsys):
    url = write(tmp_path / "set", [("a.png", saved(Image.fromarray(blocks()), "PNG", exif=odd.exif(6)))])
    monkeypatch.setattr("shards.dataset.scan.check_stored", lambda data, sums: None)
    reindex(url)
    assert main(["verify", url, "--decode"]) == 1
    assert "sample a: its EXIF turns it" in capsys.readouterr().out


LEVELS = np.array([[0, 1, 5], [100, 128, 255]])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bits", "photometric", "top"), [(16, 1, 65535), (16, 0, 65535), (12, 1, 4095), (8, 1, 255), (8, 0, 255)]
)
def test_greys_of_any_depth_are_scaled_by_their_own_top(bits, photometric, top, order):
    levels = np.array([[0, top // 3, top], [top // 2, top // 5, 1]])[:, :, None]
    levels = np.concatenate([levels, levels[:, :1]], 1)
    data = odd.tiff(levels, bits=bits, photometric=photometric, order=order)
    wanted = np.round((levels if photometric else top - levels) * 255 / top)
    if (photometric == 0 and order == ">" and bits == 16) or (bits == 12 and order == ">"):
        with pytest.raises(ImageError, match="of a kind that is not read: unknown pixel mode"):
            decode(data)
    else:
        assert np.abs(decode(data) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("kind", "bits", "sample_format"),
    [(np.int8, 8, 2), (np.int16, 16, 2), (np.int32, 32, 2), (np.uint32, 32, 1), (np.float32, 32, 3)],
)
def test_numbers_without_an_agreed_range_are_refused(kind, bits, sample_format):
    data = odd.tiff(LEVELS[:, :, None].astype(kind), bits=bits, photometric=1, sample_format=sample_format)
    with pytest.raises(ImageError, match="no agreed range") as caught:
        decode(data)
    assert caught.value.reason == "unsupported pixels"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "photometric", "extra"), [(1, 1, None), (3, 2, None), (4, 2, [2])])
def test_planes_that_lie_apart_are_read_as_those_that_do_not(bits, channels, photometric, extra, order):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (9, 12, channels))
    together, apart = (
        odd.tiff(pixels, bits=bits, photometric=photometric, planes=planes, order=order, extra=extra)
        for planes in (1, 2)
    )
    assert (decode(apart) == decode(together)).all()


def test_a_colour_map_of_eight_bits_is_not_black():
    places = np.array([[0, 1], [2, 3]])[:, :, None]
    colours = np.array([(255, 0, 0), (0, 128, 0), (9, 9, 200), (255, 255, 255)])
    for factor in (1, 257):
        table = np.zeros((256, 3), int)
        table[:4] = colours * factor
        data = odd.tiff(places, bits=8, photometric=3, colour_map=table.T.ravel().tolist())
        assert (decode(data) == colours.reshape(2, 2, 3)).all()


@pytest.mark.parametrize(
    ("depth", "kind", "row", "clear", "wanted"),
    [
        (1, 0, bytes([0b01000000]), (1,), [0, 255]),
        (2, 0, bytes([0b00010000]), (0,), [255, 85]),
        (2, 0, bytes([0b01100000]), (1,), [255, 170]),
        (4, 0, bytes([0x18]), (8,), [17, 255]),
        (8, 0, bytes([7, 8]), (7,), [255, 8]),
        (16, 0, struct.pack(">2H", 300, 301 * 100), (300,), [255, 117]),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, 9000, 9000, 9000), (1000, 2000, 3000), [255, 35]),
        (8, 2, bytes([1, 2, 3, 9, 9, 9]), (1, 2, 3), [255, 9]),
    ],
)
def test_the_transparent_colour_of_any_png_is_white(depth, kind, row, clear, wanted):
    clear = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    found = decode(odd.png([row], width=2, depth=depth, kind=kind, before=[clear]))
    assert found[0, :, 0].tolist() == wanted


def test_grey_with_associated_alpha_is_on_white():
    pixels = np.array([[(0, 0), (100, 200), (255, 255)]])
    found = decode(odd.tiff(pixels, bits=8, photometric=1, extra=[1]))
    assert np.abs(found[0, :, 0].astype(int) - [255, 155, 255]).max() <= 1


def test_a_first_frame_that_is_smaller_than_its_canvas_lies_on_white():
    data = bytearray(saved(Image.new("P", (8, 8), 1), "GIF"))
    at = data.rindex(b",")
    data[6:10] = struct.pack("<HH", 20, 12)
    data[at + 1 : at + 5] = struct.pack("<HH", 3, 2)
    found = decode(bytes(data))
    assert found.shape == (12, 20, 3)
    inside = decode(saved(Image.new("P", (8, 8), 1), "GIF"))[0, 0]
    assert (found[2:10, 3:11] == inside).all()
    assert (np.delete(found, range(3, 11), 1) == 255).all()


def test_a_bit_that_turns_in_a_png_never_gives_other_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 40, 3), np.uint8)
    data = saved(Image.fromarray(image), "PNG")
    for place in rng.integers(8 * 8, 8 * len(data), 400).tolist():
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert (decode(bytes(damaged)) == image).all()
        except ImageError as error:
            assert error.reason in ("damaged", "truncated", "too large")  # noqa: PT017


def test_a_profile_that_is_not_srgb_is_converted():
    image = blocks()
    for form, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("JPEG", {"quality": 100}),
    ):
        data = saved(Image.fromarray(image), form, icc_profile=odd.wide_gamut(), **options)
        away = np.abs(decode(data)[6::12, 6::12] - odd.from_wide_gamut(image[6::12, 6::12]))
        assert away.mean() < 1.5, form
        plain = decode(saved(Image.fromarray(image), form, **options))
        assert np.abs(decode(data).astype(int) - plain).mean() > 5


def test_grey_and_ink_are_converted_too():
    grey = Image.fromarray(np.full((16, 16), 100, np.uint8))
    for form in ("PNG", "JPEG", "TIFF"):
        found = decode(saved(grey, form, icc_profile=odd.grey_gamma(1.0)))[8, 8]
        assert np.abs(found.astype(int) - 168).max() <= 2, form  # 100/255 of the light
    paper = Image.new("CMYK", (16, 16), (0, 0, 0, 255))
    for form in ("JPEG", "TIFF"):
        assert decode(saved(paper, form))[8, 8].max() < 10
        found = decode(saved(paper, form, icc_profile=odd.ink()))[8, 8]
        assert 90 < found.min() <= found.max() < 140, form


@pytest.mark.parametrize("profile", [b"", b"broken", odd.wide_gamut()[:200], odd.grey_gamma(1.0), odd.ink()])
def test_a_profile_that_is_damaged_or_of_other_pixels_changes_nothing(profile):
    for form in ("PNG", "JPEG", "WEBP"):
        data = saved(Image.fromarray(blocks()), form, icc_profile=profile)
        assert (decode(data) == decode(saved(Image.fromarray(blocks()), form))).all()


def test_srgb_in_other_words_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(Image.fromarray(blocks()), "PNG", icc_profile=srgb)
    assert (decode(data) == blocks()).all()


def test_a_png_with_a_large_text_is_kept():
    texts = [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * 2**20))),
        chunk(b"tEXt", b"Comment\0" + b"x" * 3 * 2**20),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(90 * 2**20))),
    ]
    rows = [bytes(row) for row in blocks().reshape(48, -1)]
    for place in ("before", "after"):
        data = odd.png(rows, width=48, depth=8, kind=2, **{place: texts})
        assert (decode(data) == blocks()).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_mark_is_kept_and_one_that_lacks_more_is_not(mode, progressive):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
    data = saved(image, "JPEG", quality=90, progressive=progressive)
    assert (decode(data[:-2]) == decode(data)).all()
    assert (decode(data[:-1]) == decode(data)).all()
    cuts = [len(data) - 40, len(data) // 2]
    if progressive:
        cuts.append(data.rindex(b"\xff\xc4"))  # a whole scan is missing
    for cut in cuts:
        with pytest.raises(ImageError):
            decode(data[:cut])
        if not progressive:
            with pytest.raises(ImageError) as caught:
                decode(data[:cut] + b"\xff\xd9")
            assert caught.value.reason == "truncated"


def test_a_small_jpeg_that_declares_a_huge_picture_is_refused():
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 8191, 8191)
    with pytest.raises(ImageError) as caught:
        decode(bytes(data))
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("adopt", [False, True])
def test_a_jpeg_of_many_scans_is_refused_before_it_costs_minutes(tmp_path, adopt):
    data = saved(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    header = data.rindex(b"\xff\xc4", 0, at)
    many = data[:header] + data[header:-2] * 4000 + data[-2:]
    began = time.monotonic()
    if adopt:
        with pytest.raises(ShardsError, match=r"a: the JPEG has \d+ scans, more than 100"):
            reindex(write(tmp_path / "set", [("a.jpg", many)]))
    else:
        with pytest.raises(ImageError, match=r"scans, more than 100"):
            decode(many)
    assert time.monotonic() - began < 20
    assert decode(data).shape == (4000, 4000, 3)


def jpeg_of_twelve_bits():
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of_twelve_bits(),
        odd.tiff(np.zeros((2, 2, 2), int), bits=16, photometric=1, extra=[2]),
        odd.tiff(np.zeros((2, 2, 5), int), bits=16, photometric=5, extra=[2]),
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 70, 0, 54, 40, 4, 4, 1, 2, 0, 16, 0, 0, 0, 0) + bytes(16),
        odd.png([bytes(3)], width=1, depth=8, kind=2).replace(chunk(b"IHDR", b"")[4:8], b"IHDR", 1)[:8]
        + chunk(b"CgBI", bytes(4))
        + chunk(b"IEND", b""),
    ],
    ids=["jpeg", "tiff", "tiff-ink", "bmp", "png"],
)
def test_a_sound_picture_of_a_kind_that_is_not_read_is_no_damaged_one(data):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == "unsupported", caught.value


def test_decoders_write_nothing_without_a_name(tmp_path):
    odd_tiff = bytearray(odd.tiff(np.zeros((8, 8, 3), int), bits=8, photometric=2, planes=2))
    at = struct.unpack_from("<L", odd_tiff, 4)[0] + 2 + 12 * 9
    odd_tiff[at : at + 2] = struct.pack("<H", 60000)  # a tag that libtiff does not know
    broken = bytearray(saved(Image.fromarray(blocks()), "TIFF", compression="tiff_lzw"))
    broken[20:60] = bytes(range(200, 240))
    exif = saved(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in (("a.tif", odd_tiff), ("b.tif", broken), ("c.jpg", exif)):
        (folder / name).write_bytes(data)
    words = [sys.executable, "-m", "shards", "build", "folder", folder, tmp_path / "out", "--size", "8"]
    said = subprocess.run(
        [*map(str, words), "--workers", "1", "--max-bad", "1"], capture_output=True, text=True, timeout=300
    )
    lines = said.stderr.splitlines()
    assert said.returncode == 0, said.stderr
    assert all(line.startswith(("left out", "  a.tif: ", "  b.tif: ", "  c.jpg: ")) for line in lines), (
        said.stderr
    )


def test_pictures_of_two_images_give_the_first():
    stream = io.BytesIO()
    Image.fromarray(blocks()).save(
        stream, "MPO", save_all=True, quality=95, append_images=[Image.new("RGB", (48, 48))]
    )
    assert np.abs(decode(stream.getvalue()).astype(int) - blocks()).mean() < 8
