"""Writers of pictures that programs rarely write: every number in them is given."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def blocks(seed=0, side=48):
    """Even blocks of random colours, (side, side, 3): lossy encodings keep their middles."""
    small = np.random.default_rng(seed).integers(0, 256, (side // 12, side // 12, 3), np.uint8)
    return np.kron(small, np.ones((12, 12, 1), np.uint8))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows, *, width, depth, kind, before=(), after=()):
    """Packed rows as PNG of colour type `kind`, with more chunks before and after the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *before, pixels, *after, chunk(b"IEND", b"")])


def tiff(pixels, *, bits, photometric, planes=1, order="<", sample_format=None, colour_map=None, extra=None):
    """An uncompressed TIFF of one strip, or one a plane, of (h, w, channels) whole numbers."""
    height, width, channels = pixels.shape
    parts = [pixels] if planes == 1 else [pixels[:, :, [channel]] for channel in range(channels)]
    strips = [_packed(part, bits, order) for part in parts]
    tags = [
        (256, "L", [width]),
        (257, "L", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "L", [8 + sum(map(len, strips[:place])) for place in range(len(strips))]),
        (277, "H", [channels]),
        (278, "L", [height]),
        (279, "L", [len(strip) for strip in strips]),
        (284, "H", [planes]),
    ]
    tags += [(320, "H", colour_map)] if colour_map else []
    tags += [(338, "H", extra)] if extra else []
    tags += [(339, "H", [sample_format] * channels)] if sample_format else []
    body = b"".join(strips)
    start = 8 + len(body)
    entries, tail = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        entries += struct.pack(f"{order}HHL", tag, 3 if kind == "H" else 4, len(values))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}L", start + 2 + 12 * len(tags) + 4 + len(tail))
            tail += packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + tail


def _packed(pixels, bits, order):
    if bits == 12:
        rows = ["".join(f"{value:012b}" for value in row.ravel().tolist()) for row in pixels]
        return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    kind = pixels.dtype.kind if pixels.dtype.kind in "if" else "u"
    return pixels.astype(f"{order}{kind}{bits // 8}").tobytes()


def _s15(value):
    return struct.pack(">i", round(value * 65536))


def profile(space, tags):
    """An ICC profile of version 2 with these tags, for a display or, of CMYK, a printer."""
    kind, connection = (b"prtr", b"Lab ") if space == b"CMYK" else (b"mntr", b"XYZ ")
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    tags = {b"wtpt": b"XYZ " + bytes(4) + _s15(0.9642) + _s15(1) + _s15(0.8249), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = bytes(4) + b"test" + bytes([2, 0x20, 0, 0]) + kind + space.ljust(4) + connection
    header = header.ljust(36, b"\0") + b"acsp" + bytes(28) + _s15(0.9642) + _s15(1) + _s15(0.8249)
    whole = header.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def _gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
"""Red, green and blue of Adobe RGB (1998) as XYZ under D50."""


def wide_gamut():
    """A profile with the colours of Adobe RGB (1998)."""
    colours = zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE, strict=True)
    tags = {name: b"XYZ " + bytes(4) + b"".join(map(_s15, colour)) for name, colour in colours}
    return profile(b"RGB", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(563 / 256)))


def grey_gamma(gamma):
    return profile(b"GRAY", {b"kTRC": _gamma(gamma)})


def ink():
    """CMYK whose black is half as dark as it says, and whose colours are greys."""
    grid = b""
    for node in range(16):
        cyan, magenta, yellow, black = (node >> place & 1 for place in (3, 2, 1, 0))
        light = 255 * (1 - 0.2 * (cyan + magenta + yellow)) * (0.5 if black else 1)
        grid += bytes([round(light), 128, 128])
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(_s15(float(row == column)) for row in range(3) for column in range(3))
    return profile(b"CMYK", {b"A2B0": table + 4 * ramp + grid + 3 * ramp})


def from_wide_gamut(pixels):
    """sRGB of Adobe RGB pixels, by the published formulas."""
    xyz = (pixels / 255.0) ** (563 / 256) @ np.array(ADOBE)
    to_linear = np.linalg.inv(
        [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
    )
    linear = np.clip(xyz @ to_linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block
