"""A checkpoint is whole or absent, holds everything, and nothing in it is executed."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.checkpoints.snapshot import snapshot
from dcgan_dist.config.settings import Config, Model, Train
from dcgan_dist.gan.step import update_both
from dcgan_dist.ranks.world import World
from dcgan_dist.train import main
from dcgan_dist.training.players import make_players
from shards.errors import StoreError
from shards.storage import store
from tests.test_promises import words

ALONE = World.alone()
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
    config = Config(model=Model(net="tiny16"), train=Train(precision="float32"))
    g, d = make_players(config, ALONE)
    real, z = torch.rand(8, 3, 16, 16), torch.rand(8, 16)
    for _ in range(3):
        update_both(g, d, real=real, z=z, cast=torch.enable_grad)
    parts = snapshot(g, d, None).parts()
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
        (lambda text: text.replace('"format": 1', r'"format": "\n"'), "this version reads format 1"),
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
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints in .* is whole; move them away"):
        checkpoint.read_newest(str(tmp_path))


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


def test_every_mth_and_pinned_ones_are_kept_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    for step in (2, 3, 4, 5, 6, 7, 8):
        checkpoint.write(str(tmp_path), step, PARTS, {})
    (tmp_path / ".step-00000003.g.safetensors.77.0a1b2c3d.tmp").write_bytes(b"cut by a kill")
    checkpoint.prune(str(tmp_path), keep=2, keep_steps=4, pinned=[2], damaged=[7])
    assert checkpoint.steps(str(tmp_path)) == [2, 4, 6, 7, 8]
    assert not list(tmp_path.glob(".step*"))


def test_a_folder_of_damaged_checkpoints_is_named_file_by_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1, 7):
        checkpoint.write(str(tmp_path), step, PARTS, {})
    part = "step-{:08d}.g.safetensors".format
    (tmp_path / part(2)).unlink()
    (tmp_path / part(3)).write_bytes((tmp_path / part(3)).read_bytes()[:-7])
    flipped = bytearray((tmp_path / part(4)).read_bytes())
    flipped[-1] ^= 1
    (tmp_path / part(4)).write_bytes(flipped)
    newer = tmp_path / "step-00000005.json"
    newer.write_text(newer.read_text().replace('"format": 1', '"format": 9'))
    (tmp_path / "step-00000006.json").write_text('{"hello": "world"}')
    (tmp_path / "notes.txt").write_text("mine")
    found = checkpoint.read_newest(str(tmp_path))
    assert found is not None
    assert found[0].step == 1
    told = [record.getMessage() for record in caplog.records]
    for line, parts in zip(
        told,
        [
            ["step-00000006.json", "not a checkpoint's manifest"],
            ["step-00000005.json", "format 9, but this version reads format 1; use the version"],
            [part(4), "damaged"],
            [part(3), "damaged"],
            [part(2), "damaged", "not there"],
        ],
        strict=True,
    ):
        assert all(part in line for part in parts)
        assert "\n" not in line
    assert checkpoint.foreign(str(tmp_path)) == ["notes.txt"]


def test_storage_that_fails_is_not_taken_for_an_empty_or_a_damaged_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.write(str(tmp_path), 1, PARTS, {})

    def denied(url: str, **settings: object) -> bytes:
        raise StoreError("access denied")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_bytes", denied)
        with pytest.raises(StoreError, match="access denied"):
            checkpoint.read_newest(str(tmp_path))
    monkeypatch.setattr(store, "sizes", denied)
    with pytest.raises(StoreError, match="access denied"):
        checkpoint.read_newest(str(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda parts: parts.pop("d_optim"), "the checkpoint has no d_optim"),
        (lambda parts: parts["g_optim"].pop("0.exp_avg"), "g_optim lacks a mean or a step"),
        (lambda parts: parts["g_optim"].update({"99.step": torch.ones(())}), "g_optim.99.step belongs to no"),
        (lambda parts: parts["g_optim"].update({"0.exp_avg": torch.ones(2)}), "g_optim.0.exp_avg belongs to"),
        (lambda parts: parts["g_optim"].update({"0.\x1b[2J": torch.ones(2)}), "belongs to no weight"),
        (
            lambda parts: parts["g_optim"].update({"0.exp_avg": parts["g_optim"]["0.exp_avg"].half()}),
            "g_optim.0.exp_avg belongs to no",
        ),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(spoil, told: str) -> None:  # type: ignore[no-untyped-def]
    config = Config(model=Model(net="tiny16"), train=Train(precision="float32"))
    g, d = make_players(config, ALONE)
    update_both(g, d, real=torch.rand(8, 3, 16, 16), z=torch.rand(8, 16), cast=torch.enable_grad)
    parts = snapshot(g, d, None).parts()
    spoil(parts)
    with pytest.raises(CheckpointError, match=told):
        checkpoint.restore(parts, g, d, None)


def safetensors(dtype: str, bits: int) -> bytes:
    """A file of one tensor w of 8 numbers, of any type that the format has."""
    head = json.dumps({"w": {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(bits)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        *[("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F8_E8M0", 8), ("F8_E4M3", 8), ("F8_E5M2", 8)],
        *[("U16", 16), ("C64", 64), ("BOOL", 8), ("I64", 64), ("U64", 64), ("I8", 8), ("F128", 128)],
    ],
)
def test_numbers_of_another_type_are_refused_in_one_line(tmp_path: Path, dtype: str, bits: int) -> None:
    checkpoint.write(str(tmp_path), 3, PARTS, {})
    data = safetensors(dtype, bits)
    (tmp_path / "step-00000003.g.safetensors").write_bytes(data)
    manifest = tmp_path / "step-00000003.json"
    fields = json.loads(manifest.read_text())
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    fields["files"]["step-00000003.g.safetensors"] = facts
    manifest.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"step-00000003\.g\.safetensors: ") as error:
        checkpoint.read(str(tmp_path), 3)
    assert "\n" not in str(error.value)


def test_a_step_that_no_run_reaches_is_none_of_ours(
    rooms16: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(words(rooms16, run, "--train.steps=2")) == 0
    strange = run / "checkpoints" / f"step-{'9' * 20}.json"
    strange.write_bytes((run / "checkpoints" / "step-00000002.json").read_bytes())
    assert main(words(rooms16, run, "--train.steps=4", "--run.checkpoints_kept=1")) == 0
    assert f"{strange.name} is none of ours; left alone" in caplog.text
    assert strange.exists()


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    checkpoint.write(str(tmp_path), 3, PARTS, {"config": {"a": 1}})
    fields = json.loads((tmp_path / "step-00000003.json").read_text())
    assert fields["format"] == 1
    assert set(fields["files"]) == {"step-00000003.g.safetensors", "step-00000003.d.safetensors"}
