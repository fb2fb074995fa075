"""Exact distributed training of deep convolutional GANs (Radford, Metz, Chintala 2015).

import dcgan_dist
g = dcgan_dist.load("runs/demo")
pictures = g.sample(16, seed=0)  # (16, 3, S, S) in [-1, 1]
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcgan_dist.sample import Sampler, load

__all__ = ["Sampler", "load"]

BORN = os.getpid(), os.getppid()
"""This process and its parent, before torch takes its time to be imported; see `world.follow_launcher`."""


def __getattr__(name: str) -> Any:
    # Importing `dcgan_dist.config` on a login node must not import torch.
    if name in __all__:
        from dcgan_dist import sample

        return getattr(sample, name)
    raise AttributeError(f"module 'dcgan_dist' has no attribute {name!r}")
