"""Training from and into a real object store gives the bits of local files."""

from pathlib import Path

import pytest
import torch

import dcgan_dist
from dcgan_dist.checkpoints import checkpoint
from shards.dataset.copy import copy
from shards.storage import store
from tests.test_promises import losses, run, weights, words

pytestmark = pytest.mark.s3


@pytest.mark.slow
def test_two_epochs_from_the_object_store_give_the_same_bits(
    rooms16: str, s3_folder: str, tmp_path: Path
) -> None:
    copy(rooms16, store.join(s3_folder, "set"))
    steps = "--train.steps=74"  # 600 pictures are 37 steps of 16
    run(2, words(rooms16, tmp_path / "local", steps))
    run(2, words(store.join(s3_folder, "set"), tmp_path / "remote", steps))
    expected, found = weights(tmp_path / "local"), weights(tmp_path / "remote")
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert losses(tmp_path / "remote") == losses(tmp_path / "local")


def test_a_run_lives_in_the_object_store_and_resumes_on_other_ranks(
    rooms16: str, s3_folder: str, tmp_path: Path
) -> None:
    url = store.join(s3_folder, "run")
    precise = "--train.precision=float64"
    unbroken = words(rooms16, tmp_path / "unbroken", precise)
    run(1, unbroken)
    moved = [*(word for word in unbroken if not word.startswith("--run.dir")), f"--run.dir={url}"]
    run(2, [*moved, "--train.steps=7"])
    run(4, moved)
    expected = weights(tmp_path / "unbroken")
    found = checkpoint.read_newest(store.join(url, "checkpoints"))
    assert found is not None
    for part, tensors in found[1].items():
        for name, value in tensors.items():
            torch.testing.assert_close(value, expected[f"{part}.{name}"], rtol=1e-9, atol=1e-9)
    assert len(store.read_bytes(store.join(url, "metrics.jsonl")).splitlines()) == 20
    assert dcgan_dist.load(url).sample(2).shape == (2, 3, 16, 16)
