"""Kernels of a GPU that repeat themselves to the bit, and float32 that is float32.

To be asked for before anything is computed on a GPU and before the ranks meet: cuBLAS reads its variable when
it starts, and NCCL leaves out sums inside the switch (NVLS), whose order changes, only then. CPUs' kernels
repeat themselves as they are.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Determinism = Literal["error", "warn", "default"]
"""What a kernel that cannot repeat itself leads to, in the words of torch.set_deterministic_debug_mode."""


def prepare(determinism: Determinism, *, allow_tf32: bool) -> None:
    """For this process's GPU, if there is one."""
    if not torch.cuda.is_available():
        return
    # Two communicators (see `players.statistics_group`) could wait for each other if ranks ran their kernels
    # in different orders: this keeps the order in which the host asks, the same on all (NCCL 2.26).
    os.environ.setdefault("NCCL_LAUNCH_ORDER_IMPLICIT", "1")
    if determinism != "default":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(determinism != "default", warn_only=determinism == "warn")
    # Else every new tensor is one more kernel.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    with warnings.catch_warnings():
        # From torch 2.9 on there are new names, and a warning; but torch itself reads the old ones, which
        # raise where the new ones were set.
        warnings.simplefilter("ignore")
        torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32


@contextmanager
def lenient() -> Iterator[None]:
    """In the block, where nothing is trained, a kernel that cannot repeat itself is told of and taken."""
    strict = torch.are_deterministic_algorithms_enabled()
    if not strict or torch.is_deterministic_algorithms_warn_only_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)
