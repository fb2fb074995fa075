"""Whatever a tar of others holds: `index` and `build webdataset` say one line, or account for every picture
in it, and see the samples that webdataset's own reader sees.
"""

import io
import random
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from webdataset.tariterators import group_by_keys, tar_file_iterator

from shards import ShardsError
from shards.building.build import build, plan_cut
from shards.building.cut import cut_shard
from shards.dataset.adopt import reindex
from shards.dataset.passed_over import NO_SAMPLE, SECOND_PICTURE, Passed
from shards.printable import storable
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.webdataset import PICTURES, Webdataset
from tests.shards.dataset.foreign import pack, picture
from tests.shards.tars.test_one_reading import v7

PNG = [picture(number, size=8, encoding="png") for number in range(4)]
KINDS = [b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"g", b"L", b"K", b"V", b"\xff"]
FIELDS = {"name": (0, 100), "size": (124, 136), "link": (157, 257), "magic": (257, 265), "prefix": (345, 500)}
TEXTS = [
    *(b"a.png", b"../a.png", b"/a.png", b"d/.png", b"b.seg.png", b"B.PNG", b"x", b"", b"d/", b"\xe9.png"),
    *(b"__m__/a.png", b"._a.png", b".png", b"a\n.png", b"b.cls", b"00000000017\0"),
    *(b"\x80" + bytes(10) + b"\7", b"\xff" * 12, b"7" * 12, b"ustar  \0", b"ustar\00000", bytes(12)),
    *(b" " * 12, b"16 path=b.png\n"),
]


def tars() -> list[bytes]:
    """One of each writer."""
    members = [
        *(("a.png", PNG[0]), ("a.json", b'{"label": 1, "x": [1e9, NaN]}'), ("README", b"x"), ("a.cls", b"2")),
        *(("d/", b""), ("d/b.left.png", PNG[1]), ("d/b.right.png", PNG[2]), ("d/c.PNG", PNG[3])),
        *(("n" * 60 + "/" + "m" * 60 + ".png", PNG[0]), ("d/e.txt", b"x" * 600)),
    ]
    forms = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
    found = [pack(some, format=form) for form in forms for some in (members, members[:8], members[::2])]
    return [*found, v7(pack(members[:8], format=tarfile.USTAR_FORMAT)), sparse(), linked()]


def sparse() -> bytes:
    """A tar with a sparse file of PAX 1.0."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("GNUSparseFile.0/a.png")
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.png",
            "GNU.sparse.realsize": "9000",
        }
        data = b"1\n0\n%d\n" % len(PNG[0])
        info.size = 512 + len(PNG[0])
        tar.addfile(info, io.BytesIO(data.ljust(512, b"\0") + PNG[0]))
    return stream.getvalue()


def linked() -> bytes:
    """A tar with links."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind in (("a.png", b"0"), ("b.png", b"1"), ("c.png", b"2"), ("a.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "a.png", len(PNG[0]) if kind == b"0" else 0
            tar.addfile(info, io.BytesIO(PNG[0]))
    return stream.getvalue()


def mutated(draw: random.Random, data: bytearray) -> bytearray:
    """`data` with one thing changed: bits, bytes, blocks, fields of a header with its checksum made right."""
    at, length = draw.randrange(len(data) + 1), draw.choice((1, 3, 100, 512, 1024))
    block, other = (512 * draw.randrange(max(1, len(data) // 512)) for _ in range(2))
    what = draw.randrange(10)
    if what == 0:
        data[at : at + 1] = bytes(byte ^ 1 << draw.randrange(8) for byte in data[at : at + 1])
    elif what == 1:
        data[at : at + length] = draw.choice((draw.randbytes(length), bytes(length)))
    elif what == 2:
        del data[draw.choice((at, block)) :]
    elif what == 3:
        del data[block : block + 512 * draw.randrange(1, 4)]
    elif what == 4:
        data[block:block] = data[other : other + 512 * draw.randrange(1, 5)]
    elif what == 5:
        data += draw.choice((bytes(512), bytes(data), b"\n", bytes(10240)))
    else:
        _change_header(draw, data)
    return data


def _change_header(draw: random.Random, data: bytearray) -> None:
    blocks = range(0, len(data) - 511, 512)
    headers = [at for at in blocks if data[at + 148 : at + 154].isdigit()]
    if not headers:
        return
    at = draw.choice(headers)
    if draw.randrange(3) == 0:
        data[at + 156 : at + 157] = draw.choice(KINDS)
    else:
        gnu = data[at + 257 : at + 264] == b"ustar  "  # Python takes its times for the front of the name
        first, last = draw.choice(list(FIELDS.values())[: 4 if gnu else 5])
        text = draw.choice((*TEXTS, data[draw.choice(headers) :][first:last]))
        data[at + first : at + last] = text[: last - first].ljust(last - first, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def pictures(data: bytes) -> list[str]:
    """The files of `data` that are pictures by their names, links too, as Python's tarfile lists them."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        names = [each.name for each in tar if not each.isdir()]
    found = [name for name in names if name.rpartition(".")[2].lower() in PICTURES and "." in name]
    return [name for name in found if not name.rpartition("/")[2].startswith("._")]


def keys_of_webdataset(data: bytes) -> list[str]:
    """The keys of the samples with pictures as webdataset itself finds them."""
    files = ({**file, "__url__": ""} for file in tar_file_iterator(io.BytesIO(data)))
    samples = [sample for sample in group_by_keys(files) if any(_is_picture(name) for name in sample)]
    return [storable(sample["__key__"]) for sample in samples]


def _is_picture(extension: str) -> bool:
    return not extension.startswith("__") and extension.rpartition(".")[2] in PICTURES


def accounted(passed: Passed, used: int) -> int:
    return used + passed.counts.get(SECOND_PICTURE, 0) + passed.counts.get(NO_SAMPLE, 0)


def by_index(url: Path, data: bytes) -> str:
    """What comes of `index`: `adopted`, once all is accounted for, or the error."""
    for name in ("index.json", "blocks.npy"):
        (url / name).unlink(missing_ok=True)
    passed = Passed()
    try:
        index = reindex(str(url), on_passed_over=passed.join)
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    assert index.samples <= len(pictures(data)) <= accounted(passed, index.samples)
    assert index.samples == len(keys_of_webdataset(data))
    return "adopted"


def by_build(url: Path, data: bytes) -> str:
    """What comes of `build webdataset`: `built`, once all is accounted for, or the error."""
    try:
        source = Webdataset(str(url))
    except ShardsError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    made = cut_shard(source, plan_cut(size=8), shard=0)
    assert all("\n" not in failure.error for failure in made.failures)
    left = len(made.failures)
    assert len(pictures(data)) <= accounted(source.passed_over, made.samples + left)
    assert made.samples <= len(keys_of_webdataset(data)) <= made.samples + left
    return "built"


@pytest.mark.parametrize("inputs", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_any_tar_is_one_line_or_every_picture_is_accounted_for(tmp_path, inputs):
    build(Rooms(3, 8), str(tmp_path / "ours"), size=8, workers=1)
    seeds = [*tars(), (tmp_path / "ours" / "shard-000000.tar").read_bytes()]
    url = tmp_path / "set"
    url.mkdir()
    found: Counter[str] = Counter()
    for number in range(inputs):
        draw = random.Random(number)
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 4))):
            data = mutated(draw, data) or data
        tar = url / f"{number}.tar"  # another name for each, because open files are kept
        tar.write_bytes(data)
        for read in (by_index, by_build):
            try:
                found[read(url, bytes(data))[:8]] += 1
            except Exception as error:
                raise AssertionError(f"input {number}, {read.__name__}: {error!r}") from error
        tar.unlink()
    assert found["adopted"] > inputs / 20
    assert found["built"] > inputs / 10
