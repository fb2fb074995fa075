"""What is packed is what the library packs, and other threads run meanwhile."""

import hashlib
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from dcgan_dist.checkpoints import checkpoint
from dcgan_dist.checkpoints.tensor_file import pieces_of

MIXED = {
    "b": torch.rand(3, 4),
    "a": torch.rand(5, dtype=torch.float64),
    "c.é": torch.tensor(3.0),
    "z": torch.rand(2, 3).bfloat16(),
    "y": torch.zeros(0, 3),
    "h": torch.rand(7).half(),
    'q"\\x\n\x1b': torch.rand(1),
    "10": torch.rand(2),
    "9": torch.rand(2),
    "Ω": torch.rand(3).half(),
}


@pytest.mark.parametrize("tensors", [MIXED, {}, {"w": torch.rand(64, 3, 5, 5)}])
def test_the_bytes_are_the_librarys(tensors: dict[str, torch.Tensor]) -> None:
    data = b"".join(pieces_of(tensors))
    assert data == save(tensors)
    found = load(data)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    "tensor", [torch.arange(3), torch.rand(3, 4).T, torch.empty(2, device="meta"), torch.tensor(True)]
)
def test_what_no_checkpoint_holds_is_refused_by_name(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"w\.1: not a contiguous tensor of real numbers on the CPU"):
        pieces_of({"w.1": tensor})


def longest_wait(work: Callable[[], object]) -> float:
    """The longest that this thread did not run while another did `work`, in CPU seconds of both."""
    thread = threading.Thread(target=work)
    longest, last = 0.0, time.process_time()
    thread.start()
    while thread.is_alive():
        now = time.process_time()
        longest, last = max(longest, now - last), now
    return longest


def test_no_other_thread_waits_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """The best of some tries, beside hashing, which holds no lock: what it waits is this machine's noise."""
    parts = {"g": {"a": torch.rand(1024, 512, 5, 5), "b": torch.rand(512, 256, 5, 5)}}  # 65 MB
    large, held = bytes(195 * 2**20), bytes(65 * 2**20)
    locked = min(longest_wait(lambda: bytearray(large)) for _ in range(2))
    noise, written = [], []
    for _ in range(5):
        noise.append(longest_wait(lambda: hashlib.sha256(held)))
        written.append(longest_wait(partial(checkpoint.write, str(tmp_path), 1, parts, {})))
    assert min(written) < min(noise) + 0.005 < locked
