"""A checkpoint is whole or absent, holds everything, and nothing in it is executed."""

import json
from pathlib import Path

import pytest
import torch

from dcgan_dist import checkpoint
from dcgan_dist.checkpoint import CheckpointError
from dcgan_dist.config import Config, Model
from dcgan_dist.parallel import make_players
from dcgan_dist.step import update_both
from dcgan_dist.world import World
from shards import store
from shards.errors import StoreError

ALONE = World(rank=0, ranks=1, device=torch.device("cpu"), group=None)
PARTS = {"g": {"w": torch.arange(6.0).reshape(2, 3)}, "d": {"v": torch.ones(4)}}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for folder in (str(tmp_path), "memory://checkpoints"):
        checkpoint.write(folder, 7, PARTS, {"images_seen": 3})
        found = checkpoint.read_newest(folder)
        assert found is not None
        manifest, parts = found
        assert (manifest.step, manifest.facts["images_seen"]) == (7, 3)
        assert torch.equal(parts["g"]["w"], PARTS["g"]["w"])
        assert checkpoint.read(folder, 7, only=("d",))[1].keys() == {"d"}


def test_optimizers_come_back_bit_for_bit_in_the_memory_format_of_their_weights() -> None:
    config = Config(model=Model(net="tiny16"))
    g, d = make_players(config, ALONE)
    real, z = torch.rand(8, 3, 16, 16), torch.rand(8, 16)
    for _ in range(3):
        update_both(g, d, real=real, z=z, cast=torch.enable_grad)
    parts = checkpoint.snapshot(g, d, None)
    other_g, other_d = make_players(config, ALONE)
    checkpoint.restore(parts, other_g, other_d, None)
    for _ in range(2):
        update_both(g, d, real=real, z=z, cast=torch.enable_grad)
        update_both(other_g, other_d, real=real, z=z, cast=torch.enable_grad)
    for ours, theirs in ((g, other_g), (d, other_d)):
        for (name, one), other in zip(
            ours.bare.state_dict().items(), theirs.bare.state_dict().values(), strict=True
        ):
            assert torch.equal(one, other), name


def test_a_checkpoint_without_its_manifest_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.write(str(tmp_path), 1, PARTS, {})
    real_write = store.write_bytes

    def fail_on_manifest(url: str, data: bytes) -> None:
        if url.endswith(".json"):
            raise StoreError("disk full")
        real_write(url, data)

    monkeypatch.setattr(store, "write_bytes", fail_on_manifest)
    with pytest.raises(StoreError):
        checkpoint.write(str(tmp_path), 2, PARTS, {})
    assert checkpoint.steps(str(tmp_path)) == [1]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[:20], "not a checkpoint's manifest"),
        (lambda text: "[]", "not a checkpoint's manifest"),
        (
            lambda text: text.replace('"format": 1', '"format": 2'),
            "format 2, but this version reads format 1",
        ),
        (lambda text: text.replace("step-00000003.g", "../../etc/passwd.g"), "names a foreign file"),
        (lambda text: text.replace('"bytes"', '"bites"'), "not a checkpoint's manifest"),
    ],
)
def test_a_spoiled_manifest_is_one_line(tmp_path: Path, spoil, told: str) -> None:  # type: ignore[no-untyped-def]
    checkpoint.write(str(tmp_path), 3, PARTS, {})
    path = tmp_path / "step-00000003.json"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(CheckpointError, match=told) as error:
        checkpoint.read(str(tmp_path), 3)
    assert "\n" not in str(error.value)
    assert checkpoint.read_newest(str(tmp_path)) is None


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-1] + b"\0", lambda data: b""])
def test_a_spoiled_part_is_named(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    checkpoint.write(str(tmp_path), 3, PARTS, {})
    path = tmp_path / "step-00000003.g.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"step-00000003\.g\.safetensors: damaged"):
        checkpoint.read(str(tmp_path), 3)


def test_only_the_newest_are_kept_and_remains_of_a_kill_are_cleared(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.write(str(tmp_path), step, PARTS, {})
    (tmp_path / "step-00000002.json").unlink()  # as after a kill between parts and manifest
    checkpoint.prune(str(tmp_path), keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"step-0000000{step}.{end}" for step in (3, 4) for end in ("d.safetensors", "g.safetensors", "json")
    ]


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    checkpoint.write(str(tmp_path), 3, PARTS, {"config": {"a": 1}})
    fields = json.loads((tmp_path / "step-00000003.json").read_text())
    assert fields["format"] == 1
    assert set(fields["files"]) == {"step-00000003.g.safetensors", "step-00000003.d.safetensors"}
