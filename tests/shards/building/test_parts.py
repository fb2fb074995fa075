"""Parts built apart and merged are, byte for byte, one build; a merge believes only what is whole."""

from pathlib import Path

import pytest

from shards.__main__ import main
from shards.building.build import build, plan_cut
from shards.building.cut import Failure
from shards.building.parts import build_part, merge, part_name, part_shards
from shards.errors import ShardsError
from shards.pictures.codec import encode
from shards.sources.drawn.rooms import Rooms
from shards.sources.own.folder import Folder

ROOMS = Rooms(100, size=16)
CUT = plan_cut(size=16, shard_images=9)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_every_shard_is_in_one_part() -> None:
    for parts in (1, 2, 7, 30):
        for shards in (0, 1, 12, 100):
            cut = [shard for part in range(1, parts + 1) for shard in part_shards(part, parts, shards)]
            assert cut == list(range(shards))


@pytest.mark.parametrize("parts", [1, 3, 20])
def test_merged_parts_are_the_bytes_of_one_build(tmp_path: Path, parts: int) -> None:
    build(ROOMS, str(tmp_path / "one"), size=16, shard_images=9, workers=1)
    out = str(tmp_path / "many")
    for part in range(parts, 0, -1):
        build_part(ROOMS, out, CUT, part=part, parts=parts, workers=1)
    merge(ROOMS, out, CUT, parts=parts)
    assert files(tmp_path / "many") == files(tmp_path / "one")


def test_pictures_that_fail_are_told_as_by_one_build(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "abcd":
        (pictures / f"{name}.png").write_bytes(encode(ROOMS.item(ord(name)).image, "png"))
    (pictures / "b.png").write_bytes(b"no picture")
    source, cut = Folder(str(pictures)), plan_cut(size=16, shard_images=1)
    build(source, str(tmp_path / "one"), size=16, shard_images=1, workers=1)
    told: list[Failure] = []
    for part in (1, 2):
        build_part(source, str(tmp_path / "many"), cut, part=part, parts=2, workers=1)
    merge(source, str(tmp_path / "many"), cut, parts=2, on_failures=told.extend)
    assert [failure.name for failure in told] == ["b.png"]
    assert files(tmp_path / "many") == files(tmp_path / "one")


def test_a_part_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    build_part(ROOMS, str(tmp_path), CUT, part=1, parts=2, workers=1)
    shard = tmp_path / "shard-000000.tar"
    before = shard.stat().st_mtime_ns
    build_part(ROOMS, str(tmp_path), CUT, part=1, parts=2, workers=1)
    assert shard.stat().st_mtime_ns == before
    shard.write_bytes(shard.read_bytes()[:-512])
    build_part(ROOMS, str(tmp_path), CUT, part=1, parts=2, workers=1)
    assert shard.stat().st_mtime_ns != before
    build_part(ROOMS, str(tmp_path), CUT, part=2, parts=2, workers=1)
    merge(ROOMS, str(tmp_path), CUT, parts=2)
    assert build_part(ROOMS, str(tmp_path), CUT, part=2, parts=2, workers=1) == 6
    assert not list(tmp_path.glob("part-*"))


def test_a_merge_names_the_parts_that_are_not_built(tmp_path: Path) -> None:
    build_part(ROOMS, str(tmp_path), CUT, part=2, parts=3, workers=1)
    with pytest.raises(ShardsError, match=r"of 3 parts 2 are not built \(1, 3\); run .* --part 1/3"):
        merge(ROOMS, str(tmp_path), CUT, parts=3)
    assert not (tmp_path / "index.json").exists()


def test_a_merge_believes_no_part_of_another_build_and_no_shard_of_another_length(tmp_path: Path) -> None:
    for part in (1, 2):
        build_part(ROOMS, str(tmp_path), CUT, part=part, parts=2, workers=1)
    with pytest.raises(ShardsError, match=r"000001-of-000002.json is of another build; remove it"):
        merge(Rooms(100, size=16, seed=1), str(tmp_path), CUT, parts=2)
    shard = tmp_path / "shard-000003.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:-512])
    with pytest.raises(
        ShardsError, match=r"shard-000003.tar has \d+ bytes, its part wrote \d+; run --part 1/2"
    ):
        merge(ROOMS, str(tmp_path), CUT, parts=2)
    shard.write_bytes(data)
    record = tmp_path / part_name(1, 2)
    text = record.read_text()
    record.write_text(text.replace('"blocks":"', '"blocks":"00', 1))
    with pytest.raises(ShardsError, match="does not hold the 1 blocks of its shard"):
        merge(ROOMS, str(tmp_path), CUT, parts=2)
    record.write_text(text[:-9])
    with pytest.raises(ShardsError, match="is not JSON"):
        merge(ROOMS, str(tmp_path), CUT, parts=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--part", "3"], "3 is not a part; give it as 3/8"),
        (["--part", "4/3"], "part=4 is outside [1, 3]"),
        (["--part", "0/3"], "part=0 is outside [1, 3]"),
        (["--merge", "0"], "parts=0 is outside [1, 1000000]"),
        (["--part", "1/3", "--merge", "3"], "not allowed with argument"),
        (["--part", "1/3", "--overwrite"], "--overwrite is not for parts"),
    ],
)
def test_wrong_parts_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    try:
        code = main(["build", "rooms", str(tmp_path / "out"), "--images", "10", "--size", "16", *words])
    except SystemExit as end:
        code = end.code
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1)
    assert told in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_command_line_builds_parts_and_merges_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "rooms", str(tmp_path), "--images", "10", "--size", "16", "--workers", "1"]
    assert main([*words, "--part", "1/2"]) == main([*words, "--part", "2/2"]) == 0
    assert main([*words, "--merge", "2"]) == 0
    assert "built: 10 images, 1 shards" in capsys.readouterr().out
