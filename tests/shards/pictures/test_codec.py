"""Promises about pictures: any mode becomes upright RGB on white, and no bomb is opened."""

import io
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from shards.errors import ImageError
from shards.pictures.codec import declared_size, decode, decode_into, encode, to_square


def picture(height=24, width=32):
    """Smooth colours, so that lossy encodings stay close."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], 2).astype(np.uint8)


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png_declaring(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_decodes_to_its_pixels(form):
    options = {"quality": 95} if form in ("JPEG", "WEBP") else {}
    found = decode(saved(Image.fromarray(picture()), form, **options))
    assert found.shape == (24, 32, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture()).mean() < 8


def test_transparent_parts_are_white():
    image = Image.new("RGBA", (6, 6), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 3, 6))
    found = decode(saved(image, "PNG"))
    assert found[0, 0].tolist() == [0, 0, 255]
    assert found[0, 5].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_on_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.putpixel((0, 0), 1)
    found = decode(saved(image, "PNG", transparency=b"\x00\xff"))
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_grey_of_any_mode_keeps_its_value(mode):
    grey = Image.new("I;16", (5, 5), 65535) if mode == "I;16" else Image.new("L", (5, 5), 255).convert(mode)
    assert decode(saved(grey, "PNG")).tolist() == np.full((5, 5, 3), 255).tolist()


def test_sixteen_bits_are_scaled_and_not_cut():
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    assert decode(saved(deep, "PNG"))[0, :, 0].tolist() == [0, 100, 255]


def test_a_cmyk_jpeg_becomes_rgb():
    found = decode(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95))
    assert found[8, 8, 0] < 60
    assert found[8, 8, 2] > 160


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(picture()), "JPEG", quality=95, exif=exif)
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]  # PIL's Transpose numbers
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    wanted = np.asarray(stored if turned is None else stored.transpose(Image.Transpose(turned)))
    assert np.abs(decode(data).astype(int) - wanted).max() <= 2


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_picture_is_refused(form, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), form)
    with pytest.raises(ImageError) as caught:
        decode(data[: int(len(data) * part)])
    assert caught.value.reason in ("truncated", "damaged", "not a picture")
    if form in ("JPEG", "PNG"):
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg></svg>", b"%!PS-Adobe", bytes(100)])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ImageError, match="not a picture we read") as caught:
        decode(data)
    assert caught.value.reason == "not a picture"


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_bomb_is_refused_before_it_takes_memory(side):
    tracemalloc.start()
    with pytest.raises(ImageError) as caught:
        decode(png_declaring(side, side))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "too large"
    assert peak_bytes < 2**20


def test_floating_point_pixels_are_refused():
    with pytest.raises(ImageError, match="no agreed range"):
        decode(saved(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize(("height", "width"), [(20, 20), (20, 33), (33, 20), (5, 9), (5, 5), (1, 500)])
def test_any_shape_becomes_the_central_square(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image[top : top + side, left : left + side] = 200
    found = to_square(image, 5)
    assert found.shape == (5, 5, 3)
    assert found.flags.c_contiguous
    assert (found == 200).all()


def test_shrinking_averages():
    image = np.zeros((8, 8, 3), np.uint8)
    image[::2] = 100
    assert (to_square(image, 2) == 50).all()


@pytest.mark.parametrize("encoding", ["npy", "png", "jpg", "webp"])
def test_what_is_encoded_decodes_into_a_buffer(encoding):
    image = picture(32, 32)
    data = encode(image, encoding)
    assert data == encode(image, encoding)
    assert declared_size(data) == (32, 32)
    out = np.zeros((32, 32, 3), np.uint8)
    decode_into(memoryview(data), out)
    lossless = encoding in ("npy", "png")
    assert np.abs(out.astype(int) - image).mean() <= (0 if lossless else 4)


@pytest.mark.parametrize("encoding", ["npy", "png", "jpg", "webp"])
def test_a_member_of_another_size_is_refused(encoding):
    data = encode(picture(32, 32), encoding)
    with pytest.raises(ImageError) as caught:
        decode_into(data, np.zeros((16, 16, 3), np.uint8))
    assert caught.value.reason == "wrong size"


@pytest.mark.parametrize("encoding", ["npy", "png", "jpg", "webp"])
def test_a_damaged_member_is_refused(encoding):
    data = encode(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8), encoding)
    with pytest.raises(ImageError):
        decode_into(data[: len(data) // 2], np.zeros((32, 32, 3), np.uint8))


def test_a_bomb_is_not_decoded_into_a_buffer():
    with pytest.raises(ImageError, match=r"60000 x 60000|exceeds limit"):
        decode_into(png_declaring(60_000, 60_000), np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("encoding", ["png", "jpg", "webp"])
def test_threads_decode_side_by_side(encoding):
    pictures = [encode(np.full((16, 16, 3), 8 * level, np.uint8), encoding) for level in range(30)]
    outs = [np.zeros((16, 16, 3), np.uint8) for _ in pictures]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode_into, pictures, outs))
    assert all(abs(int(out.mean()) - 8 * level) <= 2 for level, out in enumerate(outs))
