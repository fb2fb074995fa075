"""Mutated pictures, decoded with little memory: `python -m tests.shards.fuzz_pictures N SEED`.

Prints how many of each format were read and refused, and why; fails at anything that is not documented.
"""

import json
import random
import resource
import sys
import time
from collections import Counter

import numpy as np
from PIL import Image

from shards.errors import ImageError
from shards.pictures.codec import check_stored, declared_size, decode, decode_into
from tests.shards.pictures import odd_pictures as odd
from tests.shards.pictures.odd_pictures import blocks, saved

MORE_BYTES = 2**29
MAX_PIXELS = 2**20
SLOWEST_SECONDS = 60


def seeds():
    """Format and bytes of pictures of many kinds."""
    image, other = Image.fromarray(blocks()), Image.fromarray(blocks(1))
    deep = np.arange(12 * 48).reshape(12, 48, 1) * 7
    profiled = {"icc_profile": odd.wide_gamut(), "exif": odd.exif(6)}
    two = {"save_all": True, "append_images": [other]}
    found = [
        ("PNG", saved(image, "PNG", **profiled)),
        ("PNG", saved(image.quantize(16), "PNG", transparency=3)),
        ("PNG", saved(Image.fromarray(deep[:, :, 0].astype(np.uint16)), "PNG")),
        ("PNG", saved(image.convert("RGBA"), "PNG", **two)),
        ("JPEG", saved(image, "JPEG", quality=90)),
        ("JPEG", saved(image, "JPEG", progressive=True, **profiled)),
        ("JPEG", saved(image.convert("CMYK"), "JPEG", icc_profile=odd.ink())),
        ("JPEG", saved(image.convert("L"), "JPEG", icc_profile=odd.grey_gamma(1.8))),
        ("JPEG", saved(image, "MPO", **two)),
        ("WEBP", saved(image, "WEBP", quality=80, **profiled)),
        ("WEBP", saved(image.convert("RGBA"), "WEBP", lossless=True)),
        ("WEBP", saved(image, "WEBP", **two)),
        ("GIF", saved(image, "GIF", **two)),
        ("GIF", saved(image.quantize(8), "GIF", transparency=2, interlace=1)),
        ("BMP", saved(image, "BMP")),
        ("BMP", saved(image.quantize(16), "BMP")),
        ("BMP", saved(image.convert("1"), "BMP")),
        ("TIFF", odd.tiff(deep, bits=16, photometric=0)),
        ("TIFF", odd.tiff(deep % 4096, bits=12, photometric=1)),
        ("TIFF", odd.tiff(blocks(), bits=8, photometric=2, planes=2, order=">")),
    ]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found.append(("TIFF", saved(image, "TIFF", compression=compression, **profiled)))
    found.append(("TIFF", saved(image.convert("1"), "TIFF", compression="group4")))
    found.append(("TIFF", saved(image.quantize(16), "TIFF")))
    return found


def flipped(dice, data):
    """Up to four bits turned, half of the time among the first 200 bytes."""
    changed = bytearray(data)
    last = min(len(data), 200) if dice.random() < 0.5 else len(data)
    for _ in range(dice.randint(1, 4)):
        changed[dice.randrange(last)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def mangled(dice, data):
    """Bytes replaced, removed, put in, cut off or doubled."""
    changed = bytearray(data)
    at = dice.randrange(min(len(data), 200) if dice.random() < 0.5 else len(data))
    length = dice.choice([1, 2, 4, 4, 30])
    kind = dice.randrange(5)
    if kind == 0:
        changed[at : at + length] = dice.randbytes(length)
    elif kind == 1:
        changed[at : at + length] = dice.choice([b"\0", b"\xff", b"\x7f"]) * length
    elif kind == 2:
        del changed[at : at + length]
    elif kind == 3:
        changed[at:at] = changed[at : at + length]
    else:
        del changed[at:]
    return bytes(changed)


def stored(data):
    check_stored(data, sums=len(data) % 2 == 0)


def into_buffer(data):
    decode_into(data, np.empty((48, 48, 3), np.uint8))


def outcome(look, data, **options):
    """What `look` gives, or the error, which is one line."""
    try:
        return look(data, **options)
    except ImageError as error:
        if "\n" in str(error):
            raise AssertionError(str(error)) from error
        return error


def try_one(form, data, sound, wanted):
    """What became of one picture; `wanted` are its pixels where nothing but they may be read."""
    for look in (stored, declared_size, into_buffer):
        outcome(look, data)
    found = outcome(decode, data, max_pixels=MAX_PIXELS)
    if isinstance(found, ImageError):
        return found.reason
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert found.shape[0] * found.shape[1] <= MAX_PIXELS
    if form == "PNG" and sound:
        assert found.shape == wanted.shape
        assert (found == wanted).all(), "a PNG with other pixels"
    return "read"


def main():
    count, seed = map(int, sys.argv[1:])
    started = seeds()
    pixels = [decode(data) for _, data in started]
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_BYTES, now + MORE_BYTES))
    counts, slowest = Counter(), 0.0
    for number in range(count):
        dice = random.Random(seed * 10**9 + number)
        place = number % len(started)
        form, data = started[place]
        bits = dice.random() < 0.5
        changed = (flipped if bits else mangled)(dice, data)
        began = time.monotonic()
        try:
            reason = try_one(form, changed, bits, pixels[place])
        except BaseException:
            print(f"seed {seed}, number {number}: {form}, {len(data)} bytes", file=sys.stderr)
            raise
        slowest = max(slowest, time.monotonic() - began)
        counts[f"{form}: {reason}"] += 1
    assert slowest < SLOWEST_SECONDS
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
